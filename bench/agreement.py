"""Agreement with independent readers: gdcm, SimpleITK and dcmtk beside ours, on all files of packages and the archive.

Stored values, modality values, grey levels by the file's window, and attributes. A disagreement that EXPLAINED does
not explain fails, and so does an explanation that nothing needs any more.
"""

import argparse
import gzip
import os
import sys
import tempfile
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
from pydicom import dcmread
from pydicom.uid import JPEGBaseline8Bit, JPEGExtended12Bit

from bench.other_readers import NO_WINDOW, Pair, Pixels, Unreadable, pairs

ROUNDING = 3
"""Levels by which decoders of lossy JPEG differ: T.83 allows 1 in the cosine transform, and colours add to it."""
LEVELS = 1.0
RELATIVE = 1e-6
"""Single precision, which we compute in; ITK computes in double."""
LOSSY = (JPEGBaseline8Bit, JPEGExtended12Bit)


@dataclass(frozen=True, slots=True)
class Explained:
    """Reason of a difference, and a check of the values that proves it."""

    why: str
    proof: Callable[[Any, Any], bool]


def same_bytes(ours: Pixels, theirs: Pixels) -> bool:
    """Return whether each pixel has the bytes that ours has, in some order."""
    pair = [np.sort(one.view(np.uint8).reshape(*one.shape[:3], -1), axis=-1) for one in _whole(ours, theirs)]
    return bool((pair[0] == pair[1]).all())


def _whole(*arrays: Pixels) -> list[Pixels]:
    size = max(one.dtype.itemsize for one in arrays if one.dtype.kind == "u")
    return [np.ascontiguousarray(one.astype(f"<u{size}")) for one in arrays]


def upside_down(ours: Pixels, theirs: Pixels) -> bool:
    """Return whether values that we have large are small there, by one sum for the whole file."""
    return bool(np.ptp(ours + theirs) < 1e-2)


def upper_bytes(ours: Pixels, theirs: Pixels) -> bool:
    """Return whether colours are the upper bytes of ours, whose brightness it is."""
    return bool(np.abs(ours / 256 - theirs @ np.array([0.299, 0.587, 0.114])).max() < 0.01)


def as_unsigned(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> bool:
    """Return whether only paddings differ, by 65536."""
    paddings = set(ours) <= {"PixelPaddingValue", "PixelPaddingRangeLimit"}
    return paddings and all(theirs[name][0] - ours[name][0] == 2**16 for name in ours)


def swapped_pairs(ours: Pixels, theirs: Pixels) -> bool:
    """Return whether the two words of 16 bits of each value change places."""
    pairs = ours.astype("<u4").view("<u2").reshape(*ours.shape, 2)
    return bool((np.ascontiguousarray(pairs[..., ::-1]).view("<u4")[..., 0] == theirs).all())


SWAPPED_PAIRS = Explained(
    "big endian and 32 bits: the file holds each value most significant byte first, and is so the same as rtdose.dcm. "
    "The others turn the bytes of each word of 16 bits (OW, PS3.5 A.3), and get 4226809870 for 982000",
    swapped_pairs,
)
NO_NUMBER = (
    "NumberOfFrames is '1A', no integer string (PS3.5 6.2): we refuse to guess how many frames there are"
)
GROUP_1 = Explained(
    "elements of group 0001, which nobody may use (PS3.5 7.8), stand behind group 2: we refuse the file",
    lambda ours, theirs: ours.startswith("('unreadable'") and theirs == {},
)
EXPLAINED: Mapping[tuple[str, str], Explained] = {
    ("gdcm", "*/SC_rgb_rle_[13][62]bit*.dcm"): Explained(
        "gdcm mixes the bytes of the colours where a sample has more than one: red 65535, 0, 0 becomes 0, 65280, 255. "
        "The segments go from the most significant byte of the first sample on (PS3.5 G.2), as dcmtk reads them",
        same_bytes,
    ),
    ("SimpleITK", "*/SC_rgb_rle_[13][62]bit*.dcm"): Explained("ITK decodes with gdcm, see there", same_bytes),
    ("SimpleITK", "*/CR?/*"): Explained(
        "ITK turns MONOCHROME1 upside down in the values; PS3.3 C.7.6.3.1.2 speaks of how they are shown, and we turn "
        "them there",
        upside_down,
    ),
    ("SimpleITK", "*/liver*_1frame.dcm"): Explained(
        "ITK gives 255 for a bit that is set; its value is 1",
        lambda ours, theirs: bool((theirs == 255 * ours).all()),
    ),
    ("SimpleITK", "*/examples_palette.dcm"): Explained(
        "ITK cuts the 16 bits of a palette's entries down to 8 (PS3.3 C.7.6.3.1.6)", upper_bytes
    ),
    ("gdcm", "*/badVR.dcm"): Explained(NO_NUMBER, lambda ours, theirs: "NumberOfFrames" in str(ours)),
    ("SimpleITK", "*/badVR.dcm"): Explained(NO_NUMBER, lambda ours, theirs: "NumberOfFrames" in str(ours)),
    ("dcmdump", "*/badVR.dcm"): Explained(
        NO_NUMBER, lambda ours, theirs: (ours, theirs) == ({"NumberOfFrames": ()}, {"NumberOfFrames": "1A"})
    ),
    ("gdcm", "*/rtdose_expb*.dcm"): SWAPPED_PAIRS,
    ("SimpleITK", "*/rtdose_expb*.dcm"): SWAPPED_PAIRS,
    ("dcmtk", "*/rtdose_expb*.dcm"): SWAPPED_PAIRS,
    ("dcmdump", "*/meta_missing_tsyntax.dcm"): GROUP_1,
    ("dcmdump", "*/nested_priv_SQ.dcm"): GROUP_1,
    ("dcm2pnm", "ct-contrast/*"): Explained(
        "the rescale slope is no whole number: dcm2pnm cuts the modality values off to whole ones, then the levels; "
        "so reckoned, the files that were looked at are the same in each pixel",
        lambda ours, theirs: bool(np.abs(ours - theirs).max() < 2 * LEVELS),
    ),
    ("dcmdump", "ct-contrast/*"): Explained(
        "US where the pixels are signed: PixelPaddingValue is of the pixels' representation (PS3.3 C.7.5.1.1.2)",
        as_unsigned,
    ),
}
"""Reader and file to why they disagree."""


@dataclass(slots=True)
class Comparison:
    """Outcomes of a comparison: counts by reader and outcome, and what is wrong."""

    counts: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    unexplained: list[str] = field(default_factory=list)
    matched: Counter[tuple[str, str]] = field(default_factory=Counter)
    used: Counter[tuple[str, str]] = field(default_factory=Counter)

    @property
    def stale(self) -> list[str]:
        """Explanations of which some file was read, and none disagrees."""
        return [" ".join(key) for key in self.matched if not self.used[key]]


def examine(
    files: Iterable[tuple[str, Path]],
    readers: Mapping[str, Pair],
    explained: Mapping[tuple[str, str], Explained] = EXPLAINED,
) -> Comparison:
    """Compare readers with ours on files, each with its name."""
    comparison = Comparison()
    for name, path in files:
        for reader, pair in readers.items():
            keys = [key for key in explained if key[0] == reader and fnmatch(name, key[1])]
            comparison.matched.update(keys)
            ours, theirs = (_read(read, path) for read in pair)
            outcome = judge(ours, theirs, lossy=_is_lossy(path))
            if outcome == "differs":
                parts = (ours, theirs) if reader != "dcmdump" else _differing(ours, theirs)
                proven = [key for key in keys if explained[key].proof(*parts)]
                comparison.used.update(proven)
                outcome = "explained" if proven else "unexplained"
                if not proven:
                    comparison.unexplained.append(f"{reader} {name}: {_in_short(*parts)}")
            comparison.counts[reader][outcome] += 1
    return comparison


def _read(read: Callable[[Path], Any], path: Path) -> Any:
    try:
        return read(path)
    except Unreadable as error:
        return str(error)


def judge(ours: Any, theirs: Any, *, lossy: bool) -> str:
    """Return how two readings compare; a reading that failed is a text with its reason."""
    if isinstance(theirs, str):
        return "neither" if isinstance(ours, str) else "only ours"
    if isinstance(ours, str):
        return "neither" if ours == NO_WINDOW else "differs"
    if isinstance(ours, Mapping):
        return "equal" if ours == theirs else "differs"
    if ours.shape != theirs.shape:
        return "differs"
    apart = np.abs(ours.astype(np.float64) - theirs.astype(np.float64)).max()
    if apart <= RELATIVE * np.abs(theirs.astype(np.float64)).max():
        return "equal"
    levels = ours.ndim == 2  # a shown frame, not rounded
    return "within" if apart <= (LEVELS if levels else ROUNDING * lossy) else "differs"


def _differing(ours: Any, theirs: Any) -> tuple[Any, Any]:
    if isinstance(ours, str):
        return ours, theirs
    names = sorted(name for name in {*ours, *theirs} if ours.get(name) != theirs.get(name))
    return {name: ours.get(name) for name in names}, {name: theirs.get(name) for name in names}


def _in_short(ours: Any, theirs: Any) -> str:
    if isinstance(ours, np.ndarray) and isinstance(theirs, np.ndarray) and ours.shape == theirs.shape:
        return f"{np.abs(ours.astype(np.float64) - theirs.astype(np.float64)).max():g} apart"
    return " / ".join(str(one.shape if isinstance(one, np.ndarray) else one)[:200] for one in (ours, theirs))


def _is_lossy(path: Path) -> bool:
    return dcmread(path, force=True, specific_tags=[]).file_meta.get("TransferSyntaxUID") in LOSSY


def wheel_files(package: Any, folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield name and path of each DICOM object in a package; what is packed is unpacked into a folder."""
    root = Path(package.__file__).parent
    for path in sorted(path for path in root.rglob("*") if path.is_file() and path.suffix != ".py"):
        plain = path
        if path.suffix == ".gz":
            plain = folder / path.stem
            plain.write_bytes(gzip.decompress(path.read_bytes()))
        if plain.read_bytes()[128:132] == b"DICM" and "DICOMDIR" not in path.name:
            yield f"{root.name}/{path.relative_to(root).as_posix()}", plain


def archive_files() -> Iterator[tuple[str, Path]]:
    """Yield the slices of the real archive."""
    root = Path(os.environ.get("RADLOOP_DATA", Path(__file__).parent.parent.parent / "shared/data"))
    for path in sorted((root / "ct-contrast").glob("*.dcm")):
        yield f"ct-contrast/{path.name}", path


COLUMNS = ("equal", "within", "explained", "unexplained", "only ours", "neither")


def table(counts: Mapping[str, Counter[str]]) -> str:
    rows = [
        f"| {reader} | {count.total()} | " + " | ".join(str(count[name]) for name in COLUMNS) + " |"
        for reader, count in counts.items()
    ]
    return "\n".join(
        [f"| reader | files | {' | '.join(COLUMNS)} |", f"|{'---|' * (2 + len(COLUMNS))}", *rows]
    )


def main() -> int:
    argparse.ArgumentParser(description=__doc__).parse_args()
    # pydicom has something to say of each odd file that it ships.
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder, pairs() as readers:
        files = [file for package in (pydicom, nibabel) for file in wheel_files(package, Path(folder))]
        comparison = examine([*files, *archive_files()], readers)
    print(table(comparison.counts))
    for key, count in comparison.used.items():
        print(f"{' '.join(key)} ({count}): {EXPLAINED[key].why}")
    for one in comparison.unexplained:
        print(f"UNEXPLAINED {one}")
    for one in comparison.stale:
        print(f"NO LONGER NEEDED {one}")
    return 1 if comparison.unexplained or comparison.stale else 0


if __name__ == "__main__":
    sys.exit(main())
