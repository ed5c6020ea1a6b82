"""Geometry of volumes: it agrees with SimpleITK and nibabel, on written and on real series."""

from collections.abc import Sequence
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
import SimpleITK
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from imaging.dicom.geometry import Attributes, to_ras
from imaging.dicom.stacking import stack_slices
from tests.slices import OBLIQUE, ORIENTATIONS, only, series


def write_series(folder: Path, slices: Sequence[Attributes]) -> None:
    """Write each slice as a CT file, with positions as their text says."""
    for number, attributes in enumerate(slices, 1):
        dataset = Dataset()
        dataset.SOPClassUID, dataset.SOPInstanceUID = CTImageStorage, f"1.2.3.{number}"
        dataset.StudyInstanceUID, dataset.Modality, dataset.PatientID = "1.2.1", "CT", "P"
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = (
            16,
            16,
            15,
            1,
        )
        for keyword, value in attributes.items():
            whole = keyword in ("Rows", "Columns", "InstanceNumber")
            numbers = (
                [int(v) if whole else f"{v:.10g}"[:16] for v in value] if isinstance(value, tuple) else value
            )
            setattr(dataset, keyword, numbers[0] if whole else numbers)
        dataset.PixelData = np.full((dataset.Rows, dataset.Columns), number, np.int16).tobytes()
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.save_as(folder / f"{number}.dcm", enforce_file_format=True)


def itk_volume(folder: Path) -> SimpleITK.Image:
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    return reader.Execute()


def itk_affine(image: SimpleITK.Image) -> NDArray[np.float64]:
    matrix = np.eye(4)
    matrix[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) @ np.diag(image.GetSpacing())
    matrix[:3, 3] = image.GetOrigin()
    return matrix


@pytest.mark.parametrize("cosines", ORIENTATIONS)
def test_simple_itk_reads_the_same_order_spacing_and_affine(
    tmp_path: Path, cosines: tuple[float, ...]
) -> None:
    slices = series(12, 0, 9, 3, 6, cosines=cosines)
    write_series(tmp_path, slices)
    image, stacked = itk_volume(tmp_path), only(stack_slices(slices))
    numbers = SimpleITK.GetArrayViewFromImage(image)[:, 0, 0]
    assert tuple(numbers - 1) == stacked.order
    np.testing.assert_allclose(stacked.affine, itk_affine(image), atol=1e-6)
    np.testing.assert_allclose(stacked.spacing_mm, image.GetSpacing()[::-1], atol=1e-6)


def test_a_nifti_that_simple_itk_writes_has_our_affine_in_its_frame(tmp_path: Path) -> None:
    slices = series(12, 0, 9, 3, 6, cosines=OBLIQUE)
    write_series(tmp_path, slices)
    SimpleITK.WriteImage(itk_volume(tmp_path), str(tmp_path / "volume.nii"))
    written = nibabel.load(tmp_path / "volume.nii").affine
    np.testing.assert_allclose(to_ras(only(stack_slices(slices)).affine), written, atol=1e-4)


def test_real_scans_agree_with_simple_itk() -> None:
    folder = Path(pydicom.__file__).parent / "data" / "test_files" / "dicomdirtests" / "98892001" / "CT5N"
    keywords = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing")
    reader = SimpleITK.ImageSeriesReader()
    names = reader.GetGDCMSeriesFileNames(str(folder))
    reader.SetFileNames(names)
    image = reader.Execute()
    headers = [pydicom.dcmread(name) for name in names]
    stacked = only(
        stack_slices([{word: tuple(map(float, header[word])) for word in keywords} for header in headers])
    )
    assert stacked.order == tuple(range(len(names)))
    np.testing.assert_allclose(stacked.affine, itk_affine(image), atol=1e-4)
