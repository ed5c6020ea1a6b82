"""Which private elements may stay."""

from pathlib import Path

import pytest
from pydicom.datadict import private_dictionary_VR

from imaging.deidentify.profile import safe_private
from imaging.deidentify.profile.safe_private import is_safe
from imaging.errors import EnvironmentFault


@pytest.mark.parametrize(
    ("creator", "tag"),
    [
        ("Philips PET Private Group", 0x70531000),  # SUV factor
        ("SIEMENS MR HEADER", 0x0019100C),  # b value
        ("GEMS_PARM_01", 0x00431039),
        ("ELSCINT1", 0x01F11026),  # pitch
    ],
)
def test_an_element_of_the_list_is_safe(creator: str, tag: int) -> None:
    assert is_safe(creator, tag)


def test_the_block_does_not_matter() -> None:
    assert is_safe("SIEMENS MR HEADER", 0x0019FF0C)


def test_padding_of_the_creator_does_not_matter() -> None:
    assert is_safe("SIEMENS MR HEADER ", 0x0019100C)


@pytest.mark.parametrize(
    ("creator", "tag"),
    [
        ("SIEMENS MR HEADER", 0x0019100B),  # another element
        ("SIEMENS MR HEADER", 0x0021100C),  # another group
        ("SIEMENS CSA HEADER", 0x0019100C),  # another creator
        ("siemens mr header", 0x0019100C),
        ("", 0x0019100C),
        ("SIEMENS MR HEADER", 0x0019000C),  # where creators stand
        ("NQHeader", 0x00991002),  # a UID
        ("HOLOGIC, Inc.", 0x7E011012),  # images nobody looks into
    ],
)
def test_anything_else_is_not(creator: str, tag: int) -> None:
    assert not is_safe(creator, tag)


def test_the_list_has_no_name_no_date_and_no_uid_as_far_as_pydicom_knows_its_elements() -> None:
    listed = safe_private._elements()
    assert len(listed) == 343
    known = {_vr(creator, (group << 16) | 0x1000 | element) for creator, group, element in listed}
    assert len(known) > 5
    assert not known & {"PN", "DA", "DT", "TM", "UI"}


def test_a_list_that_was_changed_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = safe_private.FILE.read_text().replace('"10 11 12"', '"10 11 12 13"')
    assert text != safe_private.FILE.read_text()
    (tmp_path / "safe_private.json").write_text(text)
    monkeypatch.setattr(safe_private, "FILE", tmp_path / "safe_private.json")
    with pytest.raises(EnvironmentFault, match=r"safe_private\.json has other elements"):
        safe_private._elements.__wrapped__()


def _vr(creator: str, tag: int) -> str | None:
    try:
        return private_dictionary_VR(tag, creator)
    except KeyError:
        return None
