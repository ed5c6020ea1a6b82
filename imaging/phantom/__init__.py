"""Synthetic hospital archive: valid DICOM with known lesions, for the demonstration and the tests."""
