"""How fast objects are de-identified, beside dicom-anonymizer on the same files: `python -m bench.deidentify`.

The text detector is shown apart: with it every frame is looked at, and the other library looks at none.
"""

import argparse
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pydicom
from dicomanonymizer.simpledicomanonymizer import anonymize_dicom_file, initialize_actions

from bench.interleaved import interleave, ratio
from bench.without_pixels import FUNCTION as WITHOUT_PIXELS
from bench.without_pixels import without_pixels
from imaging.deidentify import parcel
from imaging.deidentify.options import DeidentifyOptions
from imaging.dicom.limits import LIMITS
from tasks.chunks import cores
from tasks.deidentify import bring_up_to_date
from tasks.deidentify_request import DeidentifyRequest
from tasks.settings import Settings

ARCHIVE = Path(os.environ.get("RADLOOP_DATA", Path(__file__).parents[2] / "shared" / "data")) / "ct-contrast"
SECRET = "5e" * 32
OPTIONS = DeidentifyOptions(faces="keep")
"""Whatever is of the head counts too: it is the way that is measured, not the policy."""
TIMES_FASTER, OBJECTS_A_SECOND = 5.0, 150.0


def raw_slices(folder: Path) -> list[Path]:
    """Return the files whose pixels are 512 x 512 and not compressed."""
    found = []
    for path in sorted(folder.glob("*.dcm")):
        head = pydicom.dcmread(path, stop_before_pixels=True)
        if not head.file_meta.TransferSyntaxUID.is_compressed and (head.Rows, head.Columns) == (512, 512):
            found.append(path)
    return found


def ours(function: Callable[..., Any], files: Sequence[Path], out: Path, at: int) -> None:
    """De-identify and write one file, in this process."""
    setup = {"options": OPTIONS.model_dump_json(), "secret": SECRET}
    answer, blobs = function(setup, {"format": "dicom", "name": "", "told": []}, [files[at]])
    if blobs:
        (out / f"{at}.dcm").write_bytes(blobs[0])
    else:
        raise SystemExit(f"file {at} was refused: {answer}")


def theirs(rules: Mapping[Any, Any], files: Sequence[Path], out: Path, at: int) -> None:
    """Do the same with dicom-anonymizer, by its own table of 2026c, which it need not make again for each file."""
    anonymize_dicom_file(str(files[at]), str(out / f"{at}.dcm"), base_rules_gen=lambda: rules)


def one_core(files: Sequence[Path], rounds: int) -> bool:
    """Time file by file in one process, each in turn."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        candidates = {
            "without the text detector": partial(ours, without_pixels, files, out),
            "with the text detector": partial(ours, parcel.deidentify_parcel, files, out),
            "dicom-anonymizer": partial(theirs, initialize_actions("dicomfields_2026c"), files, out),
        }
        took = interleave(candidates, len(files), rounds)
    met = True
    for name, times in took.items():
        rate, faster = 1e3 / statistics.median(times), ratio(took["dicom-anonymizer"], times)
        asked = name == "without the text detector"
        missed = asked and (rate < OBJECTS_A_SECOND or faster < TIMES_FASTER)
        met &= not missed
        note = f"at least {OBJECTS_A_SECOND:g}/s and {TIMES_FASTER:g} x" if asked else ""
        print(
            f"| {name} | {statistics.median(times):.2f} ms | {rate:.0f}/s | {faster:.2f} x | {note}"
            f"{'  MISSED' if missed else ''} |"
        )
    return met


def whole_way(files: Sequence[Path], function: str, name: str) -> None:
    """Time the whole of it: sandbox, drafts on the disk, ledger; on all cores, once the workers have begun."""
    marks: list[tuple[float, int]] = []

    def say(line: str) -> None:
        marks.append((time.perf_counter(), int(line.split("/", maxsplit=1)[0].split(maxsplit=1)[0])))

    with tempfile.TemporaryDirectory() as folder:
        source, settings = Path(folder) / "source", Settings(home=Path(folder) / "home")
        source.mkdir()
        for number, path in enumerate(files):
            shutil.copyfile(path, source / f"{number:04d}")
        request = DeidentifyRequest(source=str(source), destination=f"{folder}/out", options=OPTIONS)
        outcome = bring_up_to_date(request, settings, say, function)
    # The first line tells of the listing, the second of the first piece.
    (listed, _), (began, first), *_, (ended, last) = marks
    rate = (last - first) / (ended - began) / cores()
    print(
        f"| the whole way, {name}, {cores()} cores | {outcome.files_read} files, {outcome.objects} objects in "
        f"{ended - listed:.1f} s | {rate:.0f}/s and core after the first piece | refused: {dict(outcome.quarantined)} |"
    )


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--files", type=int, default=40)
    asked = parser.parse_args()
    slices = raw_slices(ARCHIVE)
    assert all(path.stat().st_size < LIMITS.file_bytes for path in slices)
    print(f"{min(asked.files, len(slices))} raw slices of 512 x 512, {asked.rounds} rounds in turn, one core")
    met = one_core(slices[: asked.files], asked.rounds)
    whole_way(slices, WITHOUT_PIXELS, "without the text detector")
    whole_way(slices, parcel.FUNCTION, "with the text detector")
    return 0 if met else 1


if __name__ == "__main__":
    raise SystemExit(main())
