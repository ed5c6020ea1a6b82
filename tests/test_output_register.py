"""What a ledger names is looked up and ticked off on the disk: nothing is forgotten, and nothing changed passes."""

import hashlib
from pathlib import Path

import pytest

from imaging.deidentify.folder.file_ledger import REMOVED, LedgerEntry, to_bytes, to_table
from imaging.deidentify.proof.output_register import CHANGED, GONE, OutputRegister
from imaging.deidentify.proof.verification_record import outputs_digest
from imaging.errors import EnvironmentFault


def entry(key: str, output: str = "", blake3: str = "", reason: str = "") -> LedgerEntry:
    return LedgerEntry(
        source_key=key, source_size=1, source_mtime_ns=1, output=output, blake3=blake3, reason=reason
    )


def register(folder: Path, *parts: list[LedgerEntry]) -> OutputRegister:
    for number, rows in enumerate(parts):
        (folder / f"{number:08d}.parquet").write_bytes(to_bytes(to_table(rows)))
    return OutputRegister(sorted(folder.glob("*.parquet")))


def test_an_output_is_looked_up_by_its_source_file(tmp_path: Path) -> None:
    made = register(tmp_path, [entry("a", "images/1.dcm", "01"), entry("b", reason="truncated")])
    assert [made.output_of(key) for key in "abc"] == ["images/1.dcm", "", ""]
    assert [made.has(name) for name in ("images/1.dcm", "images/2.dcm", "")] == [True, False, False]


def test_of_a_source_file_the_last_row_counts(tmp_path: Path) -> None:
    first = [entry("a", "old", "01"), entry("b", "gone", "02")]
    made = register(tmp_path, first, [entry("a", "new", "03"), entry("b", reason=REMOVED)])
    assert (made.output_of("a"), made.output_of("b"), made.has("old"), made.has("gone")) == (
        "new",
        "",
        False,
        False,
    )


def test_what_nobody_searched_or_what_is_other_is_not_proven(tmp_path: Path) -> None:
    made = register(tmp_path, [entry(key, key.upper(), f"0{number}") for number, key in enumerate("abcd")])
    made.record_searched([("A", "00"), ("B", "ff"), ("C", "02")])
    made.record_unsearched("C", "unreadable")
    assert list(made.unproven()) == [("B", CHANGED), ("C", "unreadable"), ("D", GONE)]
    assert made.searched() == 3


def test_an_output_with_two_digests_is_never_proven(tmp_path: Path) -> None:
    made = register(tmp_path, [entry("a", "one", "01"), entry("b", "one", "02")])
    made.record_searched([("one", "02")])
    assert list(made.unproven()) == [("one", CHANGED)]


def test_one_output_of_two_equal_sources_is_proven_once(tmp_path: Path) -> None:
    made = register(tmp_path, [entry("a", "one", "01"), entry("b", "one", "01")])
    made.record_searched([("one", "01")])
    assert (list(made.unproven()), made.searched()) == ([], 1)


def test_the_digest_of_all_is_that_of_their_sorted_digests(tmp_path: Path) -> None:
    made = register(tmp_path, [entry("a", "one", "0c"), entry("b", "two", "0a")])
    made.record_searched([("one", "0c"), ("two", "0a")])
    expected = hashlib.sha256(b"0a\n0b\n0c\n0d").hexdigest()
    assert outputs_digest(made.digests(["0d", "0b"])) == expected


def test_a_folder_without_a_ledger_has_no_outputs(tmp_path: Path) -> None:
    made = OutputRegister([])
    assert (made.searched(), list(made.unproven()), list(made.digests(["b", "a"]))) == (0, [], ["a", "b"])


def test_a_part_that_is_none_is_refused_without_its_content(tmp_path: Path) -> None:
    (tmp_path / "0.parquet").write_bytes(b"erika")
    with pytest.raises(EnvironmentFault, match=r"0\.parquet is damaged") as caught:
        OutputRegister([tmp_path / "0.parquet"])
    assert "erika" not in str(caught.value)
