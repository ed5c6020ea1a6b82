"""The table of the profile is what public packages carry, and two of them agree."""

import json
import sys
from pathlib import Path

import pytest

from imaging.deidentify.profile.profile import EDITION, PRIVATE, load_profile
from infra import profile_table


def test_the_basic_column_in_the_repository_is_that_of_dicom_anonymizer_in_each_of_655_rows() -> None:
    here = {row.tag: row.basic for row in load_profile().rows if row.tag != PRIVATE}
    assert here == profile_table.basic_codes()
    assert len(here) == 655


def test_two_packages_agree_on_every_row_that_both_have() -> None:
    basic, rows = profile_table.basic_codes(), profile_table.option_rows()
    common = basic.keys() & rows.keys()
    assert len(common) == 655
    assert {tag: basic[tag] for tag in common} == {tag: rows[tag][2] for tag in common}


def test_every_explained_row_is_in_one_of_the_packages_only() -> None:
    basic, rows = profile_table.basic_codes(), profile_table.option_rows()
    assert basic.keys() ^ rows.keys() == set(profile_table.EXPLAINED)


def test_the_file_in_the_repository_is_what_the_packages_make() -> None:
    assert profile_table.FILE.read_text() == profile_table.written(profile_table.build())


def test_a_changed_file_fails_the_check_and_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = tmp_path / "profile.json"
    changed.write_text(profile_table.FILE.read_text().replace('"X"', '"K"', 1))
    monkeypatch.setattr(profile_table, "FILE", changed)
    monkeypatch.setattr(sys, "argv", ["profile_table", "--check"])
    with pytest.raises(SystemExit, match="is not what the packages make"):
        profile_table.main()
    monkeypatch.setattr(sys, "argv", ["profile_table"])
    profile_table.main()
    assert json.loads(changed.read_bytes())["sha256"] == load_profile().sha256


def test_a_disagreement_is_reported_with_both_codes() -> None:
    rows = {
        "00100010": ("00100010", "Patient's Name", "X", {}),
        "00100020": ("00100020", "Patient ID", "Z", {}),
    }
    unexplained = profile_table.differences({"00100010": "Z", "00100020": "Z", "00100030": "X"}, rows)
    assert unexplained == {"00100010": "Z and X", "00100030": "X and None"}


def test_the_packages_and_the_reader_mean_the_same_edition_and_the_same_digest() -> None:
    table = json.loads(profile_table.FILE.read_bytes())
    assert (table["edition"], profile_table.EDITION) == (EDITION, EDITION)
    assert profile_table.digest(table["rows"]) == table["sha256"]
