"""Time and memory of `radloop inspect` on 100,000 files of 200 series, written here from one CT slice of pydicom's."""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from pydicom import dcmread
from pydicom.data import get_testdata_file

SERIES_FILES = 500
PLACEHOLDER = "9" * 30


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=100_000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        size = write(Path(folder), arguments.files)
        started = time.perf_counter()
        command = [sys.executable, "-m", "cli.main", "inspect", folder, "--json"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(
        f"{arguments.files:,} files of {size / 1024:.0f} KiB in {seconds:.1f} s with start and end, "
        f"{arguments.files / seconds:,.0f} files/s, largest process {peak:.0f} MiB"
    )


def write(folder: Path, files: int) -> int:
    """Write a small CT again and again with other UIDs and positions, and return its size in bytes."""
    dataset = dcmread(str(get_testdata_file("CT_small.dcm", download=False)))
    dataset.SOPInstanceUID = dataset.SeriesInstanceUID = dataset.StudyInstanceUID = PLACEHOLDER
    dataset.PatientID, dataset.ImagePositionPatient = PLACEHOLDER, ["0", "0", 7777]
    template = folder / "template"
    dataset.save_as(template)
    before, *between = template.read_bytes().split(PLACEHOLDER.encode())
    template.unlink()
    for number in range(files):
        series = number // SERIES_FILES
        # In the order of their tags: the object, the patient, the study, the series.
        names = (f"1.1.{number:026}", f"P{series // 4:029}", f"1.2.{series // 2:026}", f"1.3.{series:026}")
        parts = [name.encode() + part for name, part in zip(names, between, strict=True)]
        data = b"".join([before, *parts]).replace(b"7777", f"{number % SERIES_FILES:04}".encode())
        place = folder / f"{series:04}"
        place.mkdir(exist_ok=True)
        (place / f"{number:07}").write_bytes(data)
    return len(data)


if __name__ == "__main__":
    main()
