"""The ten kinds of action of MIDI-B, checked on made-up objects with planted identifiers: 200,000 checks by default."""

import argparse
import re
import sys
import time
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime

import numpy as np
from pydicom.dataset import Dataset

from bench.midi_objects import DATES, NEVER_EMPTY, TEXTS, UIDS, Exam, exam, get
from bench.objects import RESEARCH
from imaging.deidentify.objects.file_writer import write_object
from imaging.deidentify.objects.scrub import scrub
from imaging.deidentify.options import DeidentifyOptions
from imaging.dicom.parse import parse
from imaging.pseudonyms import Pseudonyms

OPTIONS = DeidentifyOptions(descriptors=True, burned_in="blank")
KINDS = (
    *("tag retained", "text not null", "text retained", "text removed", "date shifted"),
    *("UID changed", "UID consistent", "patient id consistent", "pixels hidden", "pixels retained"),
)
HIPAA = frozenset({"text removed", "date shifted", "UID changed", "pixels hidden"})
"""Where a miss shows who it is (45 CFR 164.514 b 2)."""
ASKED = 0.9999
PIXELS_EVERY = 40
"""The text detector looks at one object of so many."""
HIDDEN = 0.98
"""The share of a text's pixels that must have changed: the rest may have had the same level before."""

Check = tuple[str, str, bool]


@dataclass
class Seen:
    """What earlier objects became, against which later ones are compared."""

    uids: dict[str, str] = field(default_factory=dict)
    patients: dict[str, str] = field(default_factory=dict)
    shifts: dict[str, int] = field(default_factory=dict)


def checks(one: Exam, made: Dataset, written: bytes, seen: Seen) -> Iterator[Check]:
    """Yield each check of one object: its kind, what it was about, and whether it passed."""
    for keyword in RESEARCH:
        yield "tag retained", keyword, made.get(keyword) == one.dataset.get(keyword)
    for keyword in NEVER_EMPTY:
        yield "text not null", keyword, made.get(keyword) not in (None, "")
    yield from _texts(one, made, written)
    yield from _dates(one, made, seen)
    for path in UIDS:
        before, after = get(one.dataset, path), get(made, path)
        yield "UID changed", path[-1], after not in (None, "", before)
        yield "UID consistent", path[-1], seen.uids.setdefault(str(before), str(after)) == after
    new = str(made.get("PatientID"))
    yield "patient id consistent", "PatientID", seen.patients.setdefault(one.patient, new) == new


def _texts(one: Exam, made: Dataset, written: bytes) -> Iterator[Check]:
    for path, planted in one.texts.items():
        text = get(made, path) or ""
        yield "text retained", path[-1], all(part in text for part in TEXTS[path])
        yield "text removed", f"{path[-1]}: {shape(planted)}", folded(planted) not in folded(text)
    for keyword, value in one.secrets.items():
        gone = str(made.get(keyword, "")) != value and all(coded not in written for coded in _coded(value))
        yield "text removed", keyword, gone
    yield "text removed", "private", not any(element.tag.is_private for element in made.iterall())


def _dates(one: Exam, made: Dataset, seen: Seen) -> Iterator[Check]:
    for path in DATES:
        days = _days(get(one.dataset, path), get(made, path))
        shift = seen.shifts.setdefault(one.patient, days or 0)
        yield "date shifted", path[-1], days is not None and days == shift and shift < 0


def _days(before: str | None, after: str | None) -> int | None:
    try:
        one, other = (datetime.strptime(str(text)[:8], "%Y%m%d") for text in (before, after))
    except ValueError:
        return None
    return (other - one).days if str(before)[8:] == str(after)[8:] else None


def _coded(value: str) -> tuple[bytes, ...]:
    return value.encode(), value.encode("latin-1", "ignore"), value.encode("utf-16-le")


def folded(text: str) -> str:
    """Return letters and digits without accents: what a reader recognises."""
    apart = unicodedata.normalize("NFKD", text.replace("ß", "ss")).casefold()
    return "".join(one for one in apart if one.isalnum())


def shape(planted: str) -> str:
    """Say how something planted looks without telling what it is."""
    return re.sub(r"[^\W\d_]+", "a", re.sub(r"\d", "9", planted))


def pixel_checks(one: Exam, made: Dataset) -> Iterator[Check]:
    """Yield whether text in the pixels is gone, and whether pixels without text are as they were."""
    before, after = (np.frombuffer(each.PixelData, np.uint16) for each in (one.dataset, made))
    if one.ink is None:
        yield "pixels retained", "PixelData", bool(np.array_equal(before, after))
    else:
        ink = one.ink.reshape(-1)
        yield "pixels hidden", "PixelData", float((before != after)[ink].mean()) >= HIDDEN


def run(
    wanted: int, on_progress: Callable[[int], object] = lambda done: None
) -> tuple[Counter[str], Counter[Check]]:
    """Check objects until there are so many checks; return how many of each kind there were, and what failed."""
    from imaging.deidentify.pixels.pixel_check import check_pixels

    of, failed = Counter[str](), Counter[Check]()
    seen, pseudonyms, number = Seen(), Pseudonyms(bytes(range(32))), 0
    while of.total() < wanted:
        looked = number % (PIXELS_EVERY // 2) == 0
        one = exam(number, burned_in=number % PIXELS_EVERY == 0)
        dataset = parse(one.data)
        if looked:
            dataset = check_pixels(dataset, one.data, OPTIONS)
        written = write_object(scrub(dataset, OPTIONS, pseudonyms))
        made = parse(written)
        results = [
            *checks(one, made, written, seen),
            *(pixel_checks(one, made) if one.ink is None or looked else ()),
        ]
        of.update(kind for kind, _, _ in results)
        failed.update(check for check in results if not check[2])
        number += 1
        on_progress(number)
    distinct = defaultdict(set)
    for patient, new in seen.patients.items():
        distinct[new].add(patient)
    for new, patients in distinct.items():
        of["patient id consistent"] += 1
        failed[("patient id consistent", "two patients became one", False)] += len(patients) > 1 or not new
    return of, +failed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checks", type=int, default=200_000)
    wanted = parser.parse_args().checks
    began = time.monotonic()
    of, failed = run(wanted)
    by_kind = Counter[str]()
    for (kind, _, _), count in failed.items():
        by_kind[kind] += count
    print("| kind | checks | missed |\n|---|---|---|")
    for kind in KINDS:
        print(f"| {kind}{' (HIPAA)' if kind in HIPAA else ''} | {of[kind]:,} | {by_kind[kind]:,} |")
    share = 1 - failed.total() / of.total()
    hipaa = sum(by_kind[kind] for kind in HIPAA)
    print(
        f"\n{share:.4%} of {of.total():,} checks hold, {hipaa} missed in HIPAA; {time.monotonic() - began:.0f} s"
    )
    for (kind, what, _), count in failed.most_common(20):
        print(f"missed {count} x {kind}: {what}")
    good = share >= ASKED and not hipaa and all(of[kind] for kind in KINDS)
    print("midi_b: as asked" if good else "midi_b: FAILED")
    return int(not good)


if __name__ == "__main__":
    sys.exit(main())
