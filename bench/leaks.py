"""Leaks: every row of PS3.15 table E.1-1 at depths 0, 1, 3 and 8 in four encodings, beside other libraries.

A sentinel stands in each; what is still in the output's bytes has leaked. The Basic Profile without options, each
tool with the newest table that it has.
"""

import contextlib
import io
import os
import secrets
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pydicom
from pydicom.dataset import Dataset

from bench.objects import RESEARCH, SYNTAXES, leaked, lost, planted
from imaging.deidentify.objects.fast_path import open_fast_path
from imaging.deidentify.objects.file_writer import write_object
from imaging.deidentify.objects.scrub import scrub
from imaging.deidentify.options import DeidentifyOptions
from imaging.deidentify.profile.profile import load_profile
from imaging.dicom.parse import parse
from imaging.pseudonyms import Pseudonyms

Tool = Callable[[bytes], bytes]
FAST_KEY = Pseudonyms(b"leaks" * 6)
BASIC = DeidentifyOptions(dates="remove")


def ours(data: bytes) -> bytes:
    return write_object(scrub(parse(data), BASIC, Pseudonyms(secrets.token_bytes(32))))


def ours_fast(data: bytes) -> bytes:
    """Do the same as in a night, where most elements of a file were met before."""
    for _ in range(2):
        fast_path = open_fast_path(data, BASIC, FAST_KEY)
        output = fast_path.output() if fast_path else None
    return b"".join(output[0]) if output else write_object(scrub(parse(data), BASIC, FAST_KEY))


def dicom_anonymizer(data: bytes) -> bytes:
    from dicomanonymizer.simpledicomanonymizer import anonymize_dataset, initialize_actions

    dataset = pydicom.dcmread(io.BytesIO(data))
    anonymize_dataset(dataset, base_rules_gen=lambda: initialize_actions("dicomfields_2026c"))
    return saved(dataset)


def dicognito(data: bytes) -> bytes:
    from dicognito.anonymizer import Anonymizer

    dataset = pydicom.dcmread(io.BytesIO(data))
    Anonymizer().anonymize(dataset)
    return saved(dataset)


def deid(data: bytes) -> bytes:
    return _deid(data, None)


def deid_with_every_row(data: bytes) -> bytes:
    rows = [row.tag for row in load_profile().rows if set(row.tag) <= set("0123456789ABCDEFabcdef")]
    lines = [f"REMOVE ({tag[:4]},{tag[4:]})" for tag in rows if tag not in MUST_STAY]
    return _deid(data, "\n".join(["FORMAT dicom", "%header", *lines]))


MUST_STAY = frozenset({"00080016", "00080018", "00020003"})
"""Without them deid's output would be no object."""


def _deid(data: bytes, recipe: str | None) -> bytes:
    from deid.config import DeidRecipe
    from deid.dicom import replace_identifiers

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "in.dcm"
        path.write_bytes(data)
        recipe_path = None
        if recipe:
            recipe_path = Path(folder) / "deid.dicom"
            recipe_path.write_text(recipe)
        (dataset,) = replace_identifiers(
            str(path),
            deid=DeidRecipe(str(recipe_path) if recipe_path else None),
            remove_private=True,
            save=False,
        )
        return saved(dataset)


def saved(dataset: Dataset) -> bytes:
    buffer = io.BytesIO()
    dataset.save_as(buffer)
    return buffer.getvalue()


TOOLS: dict[str, Tool] = {
    "radloop": ours,
    "radloop, the fast path": ours_fast,
    "dicom-anonymizer, 2026c": dicom_anonymizer,
    "dicognito": dicognito,
    "deid, its recipe": deid,
    "deid, a line for each row": deid_with_every_row,
}


def measure(tool: Tool, syntax: str) -> tuple[int, int, int]:
    """Return how many sentinels leaked, of how many, and how many attributes of research were lost."""
    one = planted(syntax)
    with (
        Path(os.devnull).open("w") as nowhere,
        contextlib.redirect_stdout(nowhere),
        contextlib.redirect_stderr(nowhere),
    ):
        output = tool(one.data)
    return len(leaked(output, one.sentinels)), len(one.sentinels), len(lost(one.data, output))


def main() -> int:
    print(f"| tool | {' | '.join(SYNTAXES)} | research attributes lost of {len(RESEARCH)} |")
    print(f"|---|{'---|' * (len(SYNTAXES) + 1)}")
    failed = False
    for name, tool in TOOLS.items():
        cells, worst = [], 0
        for syntax in SYNTAXES:
            try:
                leaks, of, missing = measure(tool, syntax)
            except Exception as error:
                cells.append(f"fails ({type(error).__name__})")
                failed |= name.startswith("radloop")
                continue
            cells.append(f"{leaks:,} of {of:,}")
            worst = max(worst, missing)
            failed |= name.startswith("radloop") and bool(leaks or missing)
        print(f"| {name} | {' | '.join(cells)} | {worst} |", flush=True)
    print("leaks: FAILED" if failed else "leaks: 0 of ours")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
