"""The table of content items is what public packages carry; what an option makes of its rows."""

import json
import sys
from pathlib import Path

import pytest

from imaging.deidentify.options import DeidentifyOptions
from imaging.deidentify.profile import structured_content
from imaging.deidentify.profile.structured_content import EDITION, concept, load_content
from imaging.errors import EnvironmentFault
from infra import structured_table

BASIC = DeidentifyOptions(dates="remove")


def act(code: str, value_type: str, scheme: str = "DCM", **chosen: object) -> str | None:
    options = DeidentifyOptions.model_validate({"dates": "remove"} | chosen)
    return load_content().action(concept(code, scheme), value_type, options)


def test_the_file_in_the_repository_is_what_the_packages_make() -> None:
    assert structured_table.FILE.read_text() == structured_table.written(structured_table.build())


def test_the_table_has_214_rows_of_its_edition_and_none_twice() -> None:
    table = load_content()
    keys = {(row.code, row.scheme, row.value_type) for row in table.rows}
    assert (table.edition, len(table.rows), len(keys)) == ("2026d", 214, 214)


def test_every_row_of_snomed_ct_has_its_retired_code() -> None:
    assert {row.scheme for row in load_content().rows if row.retired} == {"SCT"}
    assert all(row.retired for row in load_content().rows if row.scheme == "SCT")


def test_every_row_has_an_action_under_the_basic_profile_and_under_each_option() -> None:
    table, flags = (
        load_content(),
        [n for n, f in DeidentifyOptions.model_fields.items() if f.annotation is bool],
    )
    for options in [BASIC, DeidentifyOptions(), *(DeidentifyOptions(**{flag: True}) for flag in flags)]:
        assert all(table.action(concept(row.code, row.scheme), row.value_type, options) for row in table.rows)


def test_the_basic_profile_keeps_and_cleans_no_item_of_the_table() -> None:
    rows = load_content().rows
    assert {act(row.code, row.value_type, row.scheme) for row in rows} == {"X", "D"}


@pytest.mark.parametrize(
    ("code", "value_type", "option", "action"),
    [
        ("121106", "TEXT", {"descriptors": True}, "C"),  # Comment
        ("121033", "NUM", {"patient_characteristics": True}, "K"),  # Subject Age
        ("121016", "TEXT", {"device_identity": True}, "K"),  # Device Observer Serial Number
        ("121018", "UIDREF", {"uids": True}, "K"),  # Procedure Study Instance UID
        ("122146", "DATETIME", {"dates": "shift"}, "C"),  # Procedure DateTime
    ],
)
def test_an_option_replaces_the_basic_code_of_its_column(
    code: str, value_type: str, option: dict[str, object], action: str
) -> None:
    assert act(code, value_type) in {"X", "D"}
    assert act(code, value_type, **option) == action


def test_a_birth_date_goes_though_dates_are_shifted() -> None:
    assert act("121031", "DATE", dates="shift") == "X"


@pytest.mark.parametrize("scheme", ["SCT", "SRT", "SNM3", "99SDM"])
def test_a_retired_snomed_code_is_the_same_concept(scheme: str) -> None:
    code = "371524004" if scheme == "SCT" else "R-42B89"
    assert act(code, "TEXT", scheme) == "X"


@pytest.mark.parametrize("scheme", ["NCDR", "NCDR [2.0b]", "ncdr "])
def test_the_version_of_a_scheme_does_not_matter(scheme: str) -> None:
    assert act("76", "PNAME", scheme) == "D"


@pytest.mark.parametrize(
    ("code", "value_type", "action"),
    [
        ("121029", "TEXT", "D"),  # Subject Name
        ("121030", "NUM", "D"),  # Subject ID
        ("121031", "DATETIME", "X"),  # Subject Birth Date
        ("121022", "", "X"),  # Accession Number
    ],
)
def test_another_value_type_does_not_free_an_item(code: str, value_type: str, action: str) -> None:
    assert act(code, value_type) == action


def test_a_container_is_not_removed_for_what_a_reference_of_its_name_is() -> None:
    assert (act("113701", "COMPOSITE"), act("113701", "CONTAINER")) == ("X", None)


def test_what_is_kept_of_one_value_type_goes_as_another() -> None:
    chosen = {"patient_characteristics": True}
    assert (act("121033", "NUM", **chosen), act("121033", "TEXT", **chosen)) == ("K", "X")


def test_a_finding_in_a_code_is_kept_and_in_text_is_not() -> None:
    assert (act("121071", "CODE"), act("121071", "TEXT")) == (None, "D")


@pytest.mark.parametrize(
    ("code", "scheme", "known"),
    [
        ("112039", "DCM", True),
        ("999999", "DCM", False),
        ("11329-0", "LN", True),
        ("11329-1", "LN", False),
        ("112039", "99LOCAL", False),
        ("", "", False),
    ],
)
def test_only_what_dicom_or_the_table_defines_is_known(code: str, scheme: str, known: bool) -> None:
    assert load_content().knows(concept(code, scheme)) is known


@pytest.mark.parametrize(
    ("before", "after", "problem"),
    [
        ('"2026d",\n "source"', '"2023",\n "source"', "is edition 2023"),
        ('"PNAME", "D"', '"PNAME", "K"', "other content"),
        ('"content": {"dcm": [[', '"content": {"dcm": [[1,9],[', "other content"),
    ],
)
def test_a_table_that_was_changed_is_refused(
    before: str, after: str, problem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = structured_content.FILE.read_text()
    assert before in text
    (tmp_path / "structured_content.json").write_text(text.replace(before, after, 1))
    monkeypatch.setattr(structured_content, "FILE", tmp_path / "structured_content.json")
    with pytest.raises(EnvironmentFault, match=rf"structured_content\.json.*{problem}.*install radloop anew"):
        load_content.__wrapped__()


def test_a_changed_file_fails_the_check_and_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = tmp_path / "structured_content.json"
    changed.write_text(structured_table.FILE.read_text().replace('"X"', '"K"', 1))
    monkeypatch.setattr(structured_table, "FILE", changed)
    monkeypatch.setattr(sys, "argv", ["structured_table", "--check"])
    with pytest.raises(SystemExit, match="is not what the packages make"):
        structured_table.main()
    monkeypatch.setattr(sys, "argv", ["structured_table"])
    structured_table.main()
    assert json.loads(changed.read_bytes())["sha256"] == load_content().sha256


def test_the_script_and_the_reader_mean_the_same_edition() -> None:
    assert structured_table.EDITION == EDITION
