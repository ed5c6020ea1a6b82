"""What a person may choose, and what the table of PS3.15 Annex E says about it."""

import json
from pathlib import Path

import pytest
from pydantic import ValidationError
from pydicom.datadict import dictionary_VR

from imaging.deidentify.options import DeidentifyOptions, method_codes
from imaging.deidentify.profile import profile
from imaging.deidentify.profile.profile import PRIVATE, load_profile
from imaging.errors import EnvironmentFault

BASIC = DeidentifyOptions(dates="remove")
FLAGS = [name for name, field in DeidentifyOptions.model_fields.items() if field.annotation is bool]
CHOICES = {
    "dates": "remove",
    "burned_in": "blank",
    "documents": "clean",
    "faces": "keep",
    "patient_variants": "join",
}
NOT_SHIFTED = {
    0x00100030: "birth date",
    0x00100032: "birth time",
    0x00160077: "GPS time stamp",
}
"""Dates and times that the standard lets no option of dates keep."""


def act(tag: int, **chosen: object) -> str | None:
    return load_profile().action(tag, DeidentifyOptions.model_validate(chosen))


def test_the_table_has_the_rows_of_its_edition_and_the_one_of_private_elements() -> None:
    table = load_profile()
    assert (table.edition, len(table.rows)) == ("2026c", 655 + 1)
    assert len({row.tag for row in table.rows}) == 656


@pytest.mark.parametrize(
    ("tag", "basic"),
    [
        (0x00100010, "Z"),  # Patient's Name
        (0x00100020, "D"),  # Patient ID, Z/D
        (0x00100030, "Z"),  # Patient's Birth Date
        (0x00080018, "U"),  # SOP Instance UID
        (0x00080080, "D"),  # Institution Name, X/Z/D
        (0x00080022, "Z"),  # Acquisition Date, X/Z
        (0x00080021, "D"),  # Series Date, X/D
        (0x00081140, "U"),  # Referenced Image Sequence, X/Z/U*
        (0x00102000, "X"),  # Medical Alerts
        (0x0040A730, "D"),  # Content Sequence
        (0xFFFCFFFC, "X"),  # Data Set Trailing Padding
        (0x00280010, None),  # Rows
        (0x00280030, None),  # Pixel Spacing
    ],
)
def test_each_code_of_the_basic_profile_becomes_one_action(tag: int, basic: str | None) -> None:
    assert load_profile().action(tag, BASIC) == basic


def test_no_row_is_left_without_an_action_under_any_single_option() -> None:
    table = load_profile()
    for options in [BASIC, *(DeidentifyOptions(**{flag: True}) for flag in FLAGS)]:
        assert all(table.action(row.pattern[1], options) for row in table.rows)


def test_the_basic_profile_keeps_and_cleans_no_attribute_of_the_table() -> None:
    assert {load_profile().action(row.pattern[1], BASIC) for row in load_profile().rows} == {
        "D",
        "Z",
        "X",
        "U",
    }


@pytest.mark.parametrize(
    ("tag", "option", "action"),
    [
        (0x00101010, "patient_characteristics", "K"),  # Patient's Age
        (0x00102110, "patient_characteristics", "C"),  # Allergies
        (0x00181000, "device_identity", "K"),  # Device Serial Number
        (0x00080018, "uids", "K"),
        (0x00091001, "safe_private", "C"),
        (0x0008103E, "descriptors", "C"),  # Series Description
        (0x60003000, "graphics", "C"),  # Overlay Data
        (0x0040A730, "structured", "C"),
    ],
)
def test_an_option_replaces_the_basic_code_of_its_column(tag: int, option: str, action: str) -> None:
    assert act(tag) in {"D", "X", "U"}
    assert act(tag, **{option: True}) == action


def test_shifted_dates_are_cleaned_and_removed_dates_are_not() -> None:
    assert (act(0x00080020), act(0x00080020, dates="remove")) == ("C", "Z")


def test_cleaned_wins_over_kept() -> None:
    assert act(0x00181200, device_identity=True) == "C"  # Date of Last Calibration


def test_to_retain_the_device_retains_no_date_that_was_to_be_removed() -> None:
    assert act(0x300C0127, device_identity=True, dates="remove") == "D"  # Beam Hold Transition DateTime
    assert act(0x00181200, device_identity=True, dates="remove") == "X"


@pytest.mark.parametrize("tag", [0x50000005, 0x501E3000, 0x60003000, 0x60FE4000, 0x601E4000])
def test_repeating_groups_are_matched_in_each_of_their_groups(tag: int) -> None:
    assert (act(tag), act(tag, graphics=True)) == ("X", "C")


def test_a_repeating_group_covers_only_the_elements_of_its_row() -> None:
    assert act(0x60000010) is None  # Overlay Rows


@pytest.mark.parametrize("tag", [0x00090010, 0x50011000, 0x60013000, 0x00110001])
def test_odd_groups_are_private_whatever_their_number(tag: int) -> None:
    assert (act(tag), act(tag, graphics=True), act(tag, safe_private=True)) == ("X", "X", "C")


def test_every_date_and_time_of_the_table_is_shifted_but_of_birth_and_place() -> None:
    known = [int(row.tag, 16) for row in load_profile().rows if row.tag != PRIVATE and "x" not in row.tag]
    dates = [tag for tag in known if _vr(tag) in {"DA", "TM", "DT"}]
    assert len(dates) > 150
    assert {tag for tag in dates if act(tag) != "C"} == set(NOT_SHIFTED)


def test_every_uid_of_the_table_that_names_an_object_can_be_retained() -> None:
    known = [row for row in load_profile().rows if row.tag != PRIVATE and "x" not in row.tag]
    uids = {int(row.tag, 16) for row in known if _vr(int(row.tag, 16)) == "UI"}
    assert len(uids) > 50
    assert {tag for tag in uids if act(tag, uids=True) != "K"} == {0x04000100, 0x0040A124}


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [("edition", "2023", "is edition 2023"), ("rows", [], "other rows"), ("sha256", "0" * 64, "other rows")],
)
def test_a_table_that_was_changed_is_refused(
    key: str, value: object, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = json.loads(profile.FILE.read_bytes()) | {key: value}
    (tmp_path / "profile.json").write_text(json.dumps(table))
    monkeypatch.setattr(profile, "FILE", tmp_path / "profile.json")
    with pytest.raises(EnvironmentFault, match=f"profile.json.*{message}.*install radloop anew"):
        load_profile.__wrapped__()


def test_one_changed_code_of_one_row_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = profile.FILE.read_text().replace('"Patient\'s Name", "Z"', '"Patient\'s Name", "K"')
    assert text != profile.FILE.read_text()
    (tmp_path / "profile.json").write_text(text)
    monkeypatch.setattr(profile, "FILE", tmp_path / "profile.json")
    with pytest.raises(EnvironmentFault, match="other rows"):
        load_profile.__wrapped__()


@pytest.mark.parametrize("content", [None, "", "[]", '{"edition": "2026c"}'])
def test_a_table_that_cannot_be_read_is_a_fault_of_the_installation(
    content: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if content is not None:
        (tmp_path / "profile.json").write_text(content)
    monkeypatch.setattr(profile, "FILE", tmp_path / "profile.json")
    with pytest.raises(EnvironmentFault, match=r"profile\.json cannot be read"):
        load_profile.__wrapped__()


def test_every_choice_changes_the_digest_of_the_options() -> None:
    changed = CHOICES | dict.fromkeys(FLAGS, True)
    assert set(changed) == set(DeidentifyOptions.model_fields)
    digests = {DeidentifyOptions.model_validate({name: value}).digest() for name, value in changed.items()}
    assert len(digests | {DeidentifyOptions().digest()}) == len(changed) + 1


def test_every_option_has_a_title_and_a_description() -> None:
    assert all(field.title and field.description for field in DeidentifyOptions.model_fields.values())


@pytest.mark.parametrize("wrong", [{"dates": "keep"}, {"uid": True}, {"faces": "blur"}])
def test_an_option_that_does_not_exist_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        DeidentifyOptions.model_validate(wrong)


def test_everything_chosen_is_written_as_a_code_in_ascending_order() -> None:
    everything = DeidentifyOptions.model_validate(dict.fromkeys(FLAGS, True) | {"burned_in": "blank"})
    codes = [code for code, _ in method_codes(everything)]
    assert codes == ["113100", "113101", "113103", "113104", "113105"] + [str(113107 + n) for n in range(5)]


@pytest.mark.parametrize(
    ("chosen", "code"),
    [
        ({"burned_in": "blank"}, "113101"),
        ({"graphics": True}, "113103"),
        ({"structured": True}, "113104"),
        ({"descriptors": True}, "113105"),
        ({"dates": "shift"}, "113107"),
        ({"patient_characteristics": True}, "113108"),
        ({"device_identity": True}, "113109"),
        ({"uids": True}, "113110"),
        ({"safe_private": True}, "113111"),
    ],
)
def test_each_option_adds_its_own_code_to_that_of_the_basic_profile(
    chosen: dict[str, object], code: str
) -> None:
    options = DeidentifyOptions.model_validate({"dates": "remove"} | chosen)
    assert [value for value, _ in method_codes(options)] == ["113100", code]


def test_every_meaning_fits_into_an_lo_of_64_characters() -> None:
    everything = DeidentifyOptions.model_validate(dict.fromkeys(FLAGS, True) | {"burned_in": "blank"})
    assert all(len(meaning) <= 64 for _, meaning in method_codes(everything))


def _vr(tag: int) -> str | None:
    try:
        return dictionary_VR(tag)
    except KeyError:
        return None  # newer than pydicom's dictionary
