"""Public images that installed packages carry, and made-up ones, in the place of sets that must be downloaded.

pydicom's wheel holds three real CT slices, scikit-learn's 1,797 written digits, and the phantom paints a hospital.
"""

import csv
from pathlib import Path

import numpy as np
import pydicom
from PIL import Image
from pydicom.data import get_testdata_file
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, generate_uid

from imaging.phantom.phantom_archive import DICOM, LABELS, PhantomDay, write_phantom
from imaging.phantom.schedule import PhantomSpec, studies

CT_OF_PYDICOM = ("CT_small.dcm", "693_J2KI.dcm", "J2K_pixelrep_mismatch.dcm")
DIGIT_PARTS = {"train": 600, "val": 100, "test": 100}
"""Rows of each part of the digits."""
HOSPITAL = PhantomSpec(patients=40, slices=1, size_px=64)
"""A hospital of 60 images."""
NATIVE = (ImplicitVRLittleEndian, ExplicitVRLittleEndian)


def ct_of_pydicom() -> list[Path]:
    """Return the real CT slices inside of pydicom's wheel."""
    return [Path(str(get_testdata_file(name, download=False))) for name in CT_OF_PYDICOM]


def write_slices(folder: Path) -> Path:
    """Write CT slices `NN.dcm` of a phantom, not compressed and with pixels at their end, into a folder.

    As in many archives one instance is there twice, and the label table lies beside the images.
    """
    write_phantom(folder / "hospital", PhantomSpec(patients=32, slices=1, size_px=256))
    painted = [path for path in sorted((folder / "hospital" / DICOM).rglob("IM*")) if path.is_file()]
    painted = [path for path in painted if pydicom.dcmread(path).file_meta.TransferSyntaxUID in NATIVE]
    slices = [*painted, painted[0]]
    target = folder / "slices"
    target.mkdir()
    for number, path in enumerate(slices):
        (target / f"{number:02d}.dcm").write_bytes(path.read_bytes())
    with (target / "labels.csv").open("w", newline="") as file:
        uids = {str(pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID) for path in slices}
        csv.writer(file).writerows([("SOPInstanceUID", "label"), *((uid, "plain") for uid in sorted(uids))])
    return target


def write_hospital(folder: Path, spec: PhantomSpec = HOSPITAL) -> tuple[Path, Path, PhantomDay]:
    """Write a made-up hospital with files as they go wrong; return its images, its labels and what is in it.

    Beside the phantom's own faults, one image is there again under another SOPInstanceUID, with a label of its own.
    Patients with a lesion are 300 HU denser, so that a network of few steps can tell them.
    """
    day = write_phantom(folder, spec)
    images, labels = folder / DICOM, folder / LABELS
    with_lesion = {study.patient.patient_id for study in studies(spec, 1) if study.patient.lesion}
    paths = [path for path in sorted(images.rglob("IM*")) if path.is_file()]
    for path in paths:
        dataset = pydicom.dcmread(path)
        if dataset.PatientID in with_lesion:
            dataset.RescaleIntercept += 300
            dataset.save_as(path)
    dataset = pydicom.dcmread(paths[0])
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid(
        entropy_srcs=["again"]
    )
    dataset.save_as(images / "pixels-again")
    with labels.open("a", newline="") as file:
        csv.writer(file).writerow((dataset.SOPInstanceUID, "normal"))
    return images, labels, day


def write_digits(path: Path) -> Path:
    """Write scikit-learn's digits, 28 x 28 grey levels, as an NPZ file in MedMNIST's layout."""
    from sklearn.datasets import load_digits  # a second to load

    images, numbers = load_digits(return_X_y=True)
    levels = np.pad(np.kron(images.reshape(-1, 8, 8), np.ones((3, 3))) * 15, ((0, 0), (2, 2), (2, 2)))
    parts, start = {}, 0
    for part, rows in DIGIT_PARTS.items():
        parts[f"{part}_images"] = levels[start : start + rows].astype(np.uint8)
        parts[f"{part}_labels"] = numbers[start : start + rows, None].astype(np.uint8)
        start += rows
    np.savez(path, **parts)
    return path


def write_findings(folder: Path, patients: int = 48) -> tuple[Path, Path]:
    """Write two pictures of each of some patients and a table with a column for each of three marks on them.

    A picture may have several; one value in ten is missing, and one uncertain.
    """
    draw, images = np.random.default_rng(0), folder / "pictures"
    images.mkdir()
    marks = {"square": np.s_[4:14, 4:14], "bar": np.s_[20:25, 2:30], "dot": np.s_[5:12, 20:28]}
    lines = [("file", "PatientID", *marks)]
    for number in range(2 * patients):
        picture, values = draw.normal(80, 8, (32, 32)), []
        for place in marks.values():
            present = draw.random() < 0.4
            picture[place] += 90 * present
            values.append(draw.choice(["", "-1", f"{present:d}"], p=[0.1, 0.1, 0.8]))
        name = f"{number:03d}.png"
        Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(images / name)
        lines.append((name, f"P{number // 2}", *values))
    with (folder / "findings.csv").open("w", newline="") as file:
        csv.writer(file).writerows(lines)
    return images, folder / "findings.csv"
