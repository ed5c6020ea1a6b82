"""The synthetic hospital archive: valid DICOM with known lesions, for the demo and the tests."""

# from imaging.phantom.archive import PhantomDay, write_phantom
# from imaging.phantom.plan import PhantomSpec

__all__ = ["PhantomDay", "PhantomSpec", "write_phantom"]
