"""How fast objects are de-identified, beside dicom-anonymizer on the same files: `python -m bench.deidentify`.

An archive is made of series, so that is what is timed: real slices with neighbours made of them, each file once, for
what was met before costs less. Slices of as many patients, of which nothing was met, are shown apart; so is the text
detector: with it every frame is looked at, and the other library looks at none.
"""

import argparse
import gc
import os
import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from dicomanonymizer.simpledicomanonymizer import anonymize_dicom_file, initialize_actions

from bench.interleaved import interleave, ratio
from bench.without_pixels import FUNCTION as WITHOUT_PIXELS
from bench.without_pixels import without_pixels
from imaging.cores import available_cores
from imaging.deidentify import payload
from imaging.deidentify.identity.text_cleaner import _folded_spellings
from imaging.deidentify.objects.fast_path import cache_for
from imaging.deidentify.options import DeidentifyOptions
from imaging.deidentify.pixels.text_candidates import Candidate, find_candidates
from imaging.deidentify.pixels.text_detector import read_candidate, reads_as_text
from imaging.dicom.limits import LIMITS
from imaging.file_io import write_file
from services.flow_requests import DeidentifyRequest
from services.settings import Settings
from tasks.deidentification import bring_up_to_date

ARCHIVE = Path(os.environ.get("RADLOOP_DATA", Path(__file__).parents[2] / "shared" / "data")) / "ct-contrast"
SECRET = "5e" * 32
OPTIONS = DeidentifyOptions(faces="keep")
"""Whatever is of the head counts too: it is the way that is measured, not the policy."""
SETUP = {"options": OPTIONS.model_dump_json(), "secret": SECRET}
TIMES_FASTER, OBJECTS_A_SECOND = 5.0, 150.0
WHOLE_FILES = 2400
"""Of the whole way: as many as keep both cores busy for so long that start and end weigh little."""


def raw_slices(folder: Path) -> list[Path]:
    """Return the files whose pixels are 512 x 512 and not compressed."""
    uncompressed = []
    for path in sorted(folder.glob("*.dcm")):
        head = pydicom.dcmread(path, stop_before_pixels=True)
        if not head.file_meta.TransferSyntaxUID.is_compressed and (head.Rows, head.Columns) == (512, 512):
            uncompressed.append(path)
    return uncompressed


def series(path: Path, neighbours: int, folder: Path) -> list[Path]:
    """Write neighbours of a slice, which differ from each other as those of a scanner do."""
    dataset, made = pydicom.dcmread(path), []
    pixels, uid = dataset.PixelData, str(dataset.SOPInstanceUID)
    for at in range(neighbours):
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"{uid[:56]}.{at + 1}"
        dataset.InstanceNumber, dataset.XRayTubeCurrent = at + 1, 200 + at
        dataset.SliceLocation = round(-310.125 + 2.5 * at, 3)
        dataset.ImagePositionPatient = [-175.5, -170.25, dataset.SliceLocation]
        dataset.AcquisitionTime = dataset.ContentTime = f"1015{at % 60:02}.{at:06}"
        dataset.PixelData = pixels[1024 * at :] + pixels[: 1024 * at]
        made.append(folder / f"{path.stem}-{at}")
        pydicom.dcmwrite(made[-1], dataset)
    return made


def strangers(path: Path, number: int, count: int, folder: Path) -> None:
    """Write a slice again as that of other patients, who share nothing but the scanner."""
    dataset = pydicom.dcmread(path)
    pixels, uid = dataset.PixelData, str(dataset.SOPInstanceUID)
    for at in range(count):
        day = f"{2001 + at % 20}{1 + at % 12:02}{1 + at % 28:02}"
        for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"):
            setattr(dataset, keyword, f"{uid[:40]}.{number + 1}.{len(keyword)}.{at + 1}")
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        dataset.PatientID, dataset.PatientName = f"{path.stem}-{at}", f"Name{at:04}^Given{path.stem[-4:]}"
        dataset.StudyDate = dataset.SeriesDate = dataset.ContentDate = day
        dataset.PixelData = pixels[1024 * at :] + pixels[: 1024 * at]
        pydicom.dcmwrite(folder / f"{path.stem}-{at}", dataset)


def ours(function: Callable[..., Any], files: Sequence[Path], out: Path, at: int) -> None:
    """De-identify and write one file, in this process."""
    answer, parts = function(SETUP, {"format": "dicom", "name": "", "metadata": []}, [files[at]])
    if parts:
        write_file(out / f"{at}.dcm", parts)
    elif not answer["fault"][0].startswith("burned-in"):
        raise SystemExit(f"file {at} was refused: {answer}")


def theirs(rules: Mapping[Any, Any], files: Sequence[Path], out: Path, at: int) -> None:
    """Do the same with dicom-anonymizer, by its own table of 2026c, which it need not make again for each file."""
    anonymize_dicom_file(str(files[at]), str(out / f"{at}.dcm"), base_rules_gen=lambda: rules)


def one_core(groups: Sequence[Sequence[Path]], what: str, *, looks: bool = False) -> bool:
    """Time file by file in one process, each in turn; tell whether what is asked for was reached."""
    function = payload.deidentify_payload if looks else without_pixels
    rules, took = initialize_actions("dicomfields_2026c"), dict[str, list[float]]()
    # What the row before has met shall be new again.
    cache_for.cache_clear()
    _folded_spellings.cache_clear()
    for number, files in enumerate(groups):
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder)
            turns = [
                ("ours", partial(ours, function, files, out)),
                ("theirs", partial(theirs, rules, files, out)),
            ]
            for name, times in interleave(dict(turns[:: 1 if number % 2 else -1]), len(files), 1).items():
                took.setdefault(name, []).extend(times)
    # The mean: a throughput counts the few files that take long, too.
    rate, faster = 1e3 / statistics.mean(took["ours"]), ratio(took["theirs"], took["ours"])
    missed = rate < OBJECTS_A_SECOND or faster < TIMES_FASTER
    print(
        f"| {what} | {statistics.median(took['ours']):.2f} ms, {rate:.0f}/s | dicom-anonymizer "
        f"{statistics.median(took['theirs']):.2f} ms | {faster:.2f} x | "
        f"at least {OBJECTS_A_SECOND:g}/s and {TIMES_FASTER:g} x{'  MISSED' if missed else ''} |"
    )
    return not missed


def load_networks() -> None:
    """Have the text detector's networks loaded, once for all files: a process of hours does it once, too."""
    nothing = np.zeros((512, 512), np.float32)
    list(read_candidate(nothing, next(find_candidates(nothing, thorough=True), Candidate(256, 256, None))))
    reads_as_text(np.zeros((20, 90), np.uint8))


def whole_way(source: Path, name: str, *, looks: bool = False) -> bool:
    """Time the whole of it on all cores, once all workers have begun; tell whether what is asked for was reached."""
    with tempfile.TemporaryDirectory() as folder:
        request = DeidentifyRequest(source=str(source), destination=f"{folder}/out", options=OPTIONS)
        function = payload.FUNCTION if looks else WITHOUT_PIXELS
        outcome = bring_up_to_date(request, Settings(home=Path(folder) / "home"), lambda line: None, function)
        paths = [path.stat() for path in Path(folder, "out").rglob("*.dcm")]
    # Each file says when a worker wrote it, and when it became visible. The first third is for starting up.
    written = sorted(one.st_mtime for one in paths)[len(paths) // 3 :]
    rate = (len(written) - 1) / (max(one.st_ctime for one in paths) - written[0]) / available_cores()
    verdict = "" if rate >= OBJECTS_A_SECOND else "  MISSED"
    print(
        f"| the whole way, {name}, {available_cores()} cores | {outcome.files_read} files, {outcome.objects} objects | "
        f"{rate:.0f}/s and core after the first third | refused: {dict(outcome.quarantined)} | "
        f"at least {OBJECTS_A_SECOND:g}/s{verdict} |"
    )
    return rate >= OBJECTS_A_SECOND


def whole_ways(slices: Sequence[Path], firsts: Sequence[Path]) -> list[bool]:
    """Time the whole way of slices of as many patients, and of series."""
    with tempfile.TemporaryDirectory() as folder:
        single, many = Path(folder, "single"), Path(folder, "series")
        single.mkdir(), many.mkdir()
        for number, path in enumerate(slices):
            strangers(path, number, WHOLE_FILES // len(slices) + 1, single)
        for path in firsts:
            series(path, WHOLE_FILES // len(firsts) + 1, many)
        return [
            whole_way(many, "series, without the text detector"),
            whole_way(many, "series, with the text detector", looks=True),
            whole_way(single, "single slices, without the text detector"),
            whole_way(single, "single slices, with the text detector", looks=True),
        ]


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--series", type=int, default=12)
    parser.add_argument("--neighbours", type=int, default=20)
    asked = parser.parse_args()
    slices = raw_slices(ARCHIVE)
    # As a worker of the sandbox does; it helps both, for both are timed in a process that imported much more.
    gc.collect()
    gc.freeze()
    load_networks()
    assert all(path.stat().st_size < LIMITS.file_bytes for path in slices)
    print(
        f"raw slices of 512 x 512, one core; {asked.series} series of {asked.neighbours}, then slices of patients"
    )
    with tempfile.TemporaryDirectory() as folder:
        # Slices far apart in the archive are of different patients, mostly.
        firsts = slices[:: max(len(slices) // asked.series, 1)][: asked.series]
        groups = [series(path, asked.neighbours, Path(folder)) for path in firsts]
        halves = [slices[::2], slices[1::2]]
        met = [
            one_core(groups, "series, without the text detector"),
            one_core(groups, "series, with the text detector", looks=True),
            one_core(halves, "single slices, without the text detector"),
            one_core(halves, "single slices, with the text detector", looks=True),
        ]
    return 0 if all([*met, *whole_ways(slices, firsts)]) else 1


if __name__ == "__main__":
    raise SystemExit(main())
