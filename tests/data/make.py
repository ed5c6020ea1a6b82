"""Maker of `0.1.0.tar.xz`: an archive, and the home that release 0.1.0 (commit 16ca9f6) has made of it.

    python tests/data/make.py CHECKOUT

CHECKOUT is a working tree of that commit. Its own command line runs, so that the bytes are those of that release; what
is packed is what a later release must read: store, registry, remembered night and a de-identified folder. Times and run
numbers differ from one making to the next, and the digest of the dataset does not.
"""

import csv
import io
import os
import shutil
import sqlite3
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

KEY = "2f" * 32
PATIENTS = 40
MTIME_S = 1_790_000_000
PLACE, CHECKOUT = "/place-of-the-home", "/checkout"
"""What stands for two folders wherever a file names them: MLflow keeps addresses of artifacts whole."""
PACKED = Path(__file__).parent / "0.1.0.tar.xz"
CONFIG = """
preprocess: {size_px: 32}
training: {network: small_cnn, epochs: 3, workers: 1, batch_size: 8}
gate: {floor: 0.5, draws: 200, min_patients: 2}
"""
LEFT_OUT = (
    "prefect*",
    "cache",
    "private",
    "tmp",
    "store/reports",
    "store/training",
    "mlartifacts/*/artifacts/report",
)
"""Servers' own files, and what is only looked at."""
WAIT = {"PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "300"}
DEIDENTIFIED = 6
"""Patients whose slices are de-identified too."""


def main(checkout: Path, target: Path) -> None:
    """Make the archive and the home in a folder of their own, and pack them."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "it"
        archive = write_archive(root / "archive")
        (root / "night.yaml").write_text(CONFIG)
        night = ("--source", archive, "--labels", root / "labels.csv", "--name", "growth")
        radloop(checkout, root, "run", *night, "--config", root / "night.yaml")
        few = [archive / f"IM{number:03d}" for number in range(DEIDENTIFIED)]
        (root / "few").mkdir()
        for path in few:
            shutil.copy2(path, root / "few")
        radloop(checkout, root, "deidentify", root / "few", root / "deidentified")
        for path in [path for name in LEFT_OUT for path in (root / "home").glob(name)]:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        without_places(root, {str(root): PLACE, str(checkout): CHECKOUT})
        pack(root, target)


def radloop(checkout: Path, root: Path, *command: object) -> None:
    """Run a command of the checkout."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("RADLOOP_", "PREFECT_"))
    }
    environment = (
        kept | WAIT | {"PYTHONPATH": str(checkout), "RADLOOP_HOME": str(root / "home"), "RADLOOP_KEY": KEY}
    )
    entry = [sys.executable, "-c", "from flows.cli import main; main()", *map(str, command)]
    subprocess.run(entry, cwd=checkout, env=environment, check=True)


def write_archive(folder: Path) -> Path:
    """Write a slice of each patient and one that is cut off, at a fixed time, and the label table."""
    folder.mkdir(parents=True)
    for number in range(PATIENTS):
        write_slice(folder / f"IM{number:03d}", number, patient=number)
    (folder / "cut").write_bytes((folder / "IM000").read_bytes()[:-100])
    write_labels(folder.parent / "labels.csv", PATIENTS)
    for path in folder.iterdir():
        os.utime(path, (MTIME_S, MTIME_S))
    return folder


def write_labels(path: Path, patients: int) -> None:
    """Write the label of each patient."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["PatientID", "label"])
        writer.writerows([f"P{number}", ("plain", "contrast")[number % 2]] for number in range(patients))


def write_slice(path: Path, number: int, patient: int) -> None:
    """Write a CT slice like no other; an odd patient's is brighter."""
    noise = np.random.default_rng(number).integers(-8, 8, (16, 16)) * 8
    stored = (noise + 100 * (patient % 2)).astype(np.int16)
    dataset = Dataset()
    dataset.SOPClassUID = CTImageStorage
    dataset.SOPInstanceUID = f"1.2.3.{number}"
    dataset.SeriesInstanceUID = f"1.2.2.{patient}"
    dataset.StudyInstanceUID = f"1.2.1.{patient}"
    dataset.PatientID = f"P{patient}"
    dataset.Modality = "CT"
    dataset.Rows, dataset.Columns = stored.shape
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit, dataset.PixelRepresentation = 15, 1
    dataset.PixelData = stored.tobytes()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.save_as(path, enforce_file_format=True)


def without_places(root: Path, names: Mapping[str, str]) -> None:
    """Put other names for folders of this machine, wherever a file or the registry has them."""
    database = sqlite3.connect(root / "home" / "mlflow.db")
    for (table,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
        for _, column, *_ in database.execute(f"PRAGMA table_info('{table}')").fetchall():
            for was, now in names.items():
                change = (
                    f'UPDATE "{table}" SET "{column}" = replace("{column}", ?, ?) WHERE instr("{column}", ?)'
                )
                database.execute(change, (was, now, was))
    database.commit()
    database.execute("VACUUM")
    database.close()
    for path in (path for path in root.rglob("*") if path.is_file() and path.suffix != ".db"):
        content = path.read_bytes()
        changed = content
        for was, now in names.items():
            changed = changed.replace(was.encode(), now.encode())
        if changed != content:
            path.write_bytes(changed)


def unpack(target: Path) -> Path:
    """Unpack the folder into a new one, with its own name wherever a file or the registry names it."""
    with tarfile.open(PACKED) as packed:
        # As an attribute: Python 3.11.2, which Debian 12 has, does not know the argument `filter`.
        packed.extraction_filter = getattr(tarfile, "data_filter", None)
        packed.extractall(target)
    without_places(target, {PLACE: str(target)})
    return target


def pack(root: Path, target: Path) -> None:
    """Pack the folder, in the order of names."""
    with tarfile.open(target, "w:xz", preset=9) as packed:
        for path in sorted(root.rglob("*")):
            entry = packed.gettarinfo(path, path.relative_to(root).as_posix())
            entry.uid = entry.gid = 0
            entry.uname = entry.gname = ""
            packed.addfile(entry, io.BytesIO(path.read_bytes()) if path.is_file() else None)


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), PACKED)
