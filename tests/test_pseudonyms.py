"""Keyed pseudonyms: equal every night, different with every key, and a key that others cannot read."""

import hashlib
import hmac
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydicom.uid import UID, UID_dictionary

from imaging.errors import EnvironmentFault
from imaging.pseudonyms import (
    DIGITS,
    FARTHEST_DAYS,
    KEY_BYTES,
    NEAREST_DAYS,
    Level,
    Pseudonyms,
    canonical_patient_id,
    is_standard_uid,
    load_pseudonyms,
)

NAMES = Pseudonyms(b"k" * KEY_BYTES)
JOINED = Pseudonyms(b"k" * KEY_BYTES, patient_variants="join")
VARIANTS = ("00123", "123", "123 ", " 00123", "１２３", "123\0", "0123.", "-123")


def test_the_same_identifier_is_the_same_pseudonym() -> None:
    assert Pseudonyms(b"k" * KEY_BYTES).key("patient", "P1") == NAMES.key("patient", "P1")


@example(b"k" * 64, "P1")
@example(b"k" * 65, "P1")
@given(st.binary(max_size=200), st.text(st.characters(codec="utf-8")))
def test_a_pseudonym_is_the_beginning_of_an_hmac(secret: bytes, text: str) -> None:
    keyed = hmac.new(secret, f"study\0{text.strip()}".encode(), hashlib.sha256)
    assert Pseudonyms(secret).key("study", text) == keyed.hexdigest()[:DIGITS]


@pytest.mark.parametrize("level", ["patient", "study", "file"])
def test_many_identifiers_have_the_pseudonyms_of_each(level: Level) -> None:
    assert JOINED.keys(level, VARIANTS) == [JOINED.key(level, text) for text in VARIANTS]
    assert JOINED.keys(level, iter(())) == []


def test_another_key_gives_other_pseudonyms() -> None:
    assert Pseudonyms(b"j" * KEY_BYTES).key("patient", "P1") != NAMES.key("patient", "P1")


def test_levels_share_no_pseudonym() -> None:
    levels: tuple[Level, ...] = ("patient", "study", "series", "instance", "file")
    assert len({NAMES.key(level, "1.2.3") for level in levels}) == len(levels)


def test_padding_is_no_part_of_an_identifier() -> None:
    assert NAMES.key("patient", " P1 ") == NAMES.key("patient", "P1")


def test_a_pseudonym_is_hexadecimal_of_a_fixed_length() -> None:
    key = NAMES.key("patient", "Müller^Ägidius")
    assert len(key) == DIGITS
    assert int(key, 16) >= 0


def test_the_key_does_not_show() -> None:
    assert "kkk" not in repr(NAMES)


def test_the_fingerprint_differs_between_keys_and_is_no_key() -> None:
    other = Pseudonyms(b"j" * KEY_BYTES)
    assert NAMES.fingerprint != other.fingerprint
    assert NAMES.fingerprint.encode() not in NAMES.secret


def test_a_key_is_made_once_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "private" / "key"
    first = load_pseudonyms(path)
    assert load_pseudonyms(path) == first
    assert len(first.secret) == KEY_BYTES


def test_two_homes_have_two_keys(tmp_path: Path) -> None:
    assert load_pseudonyms(tmp_path / "a") != load_pseudonyms(tmp_path / "b")


def test_nobody_else_can_read_a_new_key(tmp_path: Path) -> None:
    load_pseudonyms(tmp_path / "private" / "key")
    modes = [path.stat().st_mode & 0o777 for path in (tmp_path / "private", tmp_path / "private" / "key")]
    assert modes == [0o700, 0o600]


def test_no_temporary_file_of_the_key_stays(tmp_path: Path) -> None:
    load_pseudonyms(tmp_path / "key")
    assert [path.name for path in tmp_path.iterdir()] == ["key"]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666])
def test_a_key_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    load_pseudonyms(tmp_path / "key")
    (tmp_path / "key").chmod(mode)
    with pytest.raises(EnvironmentFault, match=rf"mode {mode:04o}.*limit is 0600: chmod 600"):
        load_pseudonyms(tmp_path / "key")


def test_a_key_of_the_wrong_length_is_refused_and_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_bytes(b"short")
    path.chmod(0o600)
    with pytest.raises(EnvironmentFault, match="5 bytes and must hold 32: restore it"):
        load_pseudonyms(path)
    assert path.read_bytes() == b"short"


def test_threads_that_start_together_share_one_key(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(load_pseudonyms, [tmp_path / "key"] * 16))
    assert all(names == made[0] for names in made)


def test_a_file_name_that_is_not_utf8_has_a_pseudonym() -> None:
    name = os.fsdecode(b"M\xfcller/IM1")
    assert Pseudonyms(bytes(32)).key("file", name) != Pseudonyms(bytes(32)).key("file", "Muller/IM1")


def test_a_new_uid_is_made_from_a_uuid_and_legal() -> None:
    made = NAMES.uid("1.2.840.113619.2.55.3")
    assert made.startswith("2.25.")
    assert UID(made).is_valid
    assert int(made.removeprefix("2.25.")) < 2**128


def test_the_same_uid_is_the_same_new_one_whatever_pads_it() -> None:
    assert len({NAMES.uid(text) for text in ("1.2.3", "1.2.3\0", "1.2.3 ")}) == 1


def test_uids_and_keys_give_different_new_ones() -> None:
    assert len({NAMES.uid("1.2.3"), NAMES.uid("1.2.4"), Pseudonyms(b"j" * KEY_BYTES).uid("1.2.3")}) == 3


def test_no_uid_where_there_was_none() -> None:
    assert NAMES.uid(" ") == ""


def test_every_uid_that_the_standard_registers_stays() -> None:
    registered = [uid for uid in UID_dictionary if uid.startswith("1.2.840.10008.")]
    assert len(registered) > 400
    assert all(NAMES.uid(uid) == uid and is_standard_uid(uid) for uid in registered)


@pytest.mark.parametrize(
    "uid", ["1.2.840.10008", "1.2.840.100089.1", "1.2.840.10008.1.19640812", "1.2.840.10008.1x"]
)
def test_a_uid_that_only_resembles_one_of_the_standard_is_replaced(uid: str) -> None:
    assert NAMES.uid(uid).startswith("2.25.")


def test_a_patient_is_named_by_the_beginning_of_the_pseudonym() -> None:
    assert NAMES.key("patient", "P1").startswith(NAMES.patient_id("P1"))
    assert len(NAMES.patient_id("P1")) == 16


def test_a_patient_has_one_shift_and_patients_have_many() -> None:
    shifts = [NAMES.shift_days(f"P{number}") for number in range(2000)]
    assert shifts[7] == NAMES.shift_days(" P7 ")
    assert min(shifts) >= -FARTHEST_DAYS
    assert max(shifts) <= -NEAREST_DAYS
    assert len(set(shifts)) > 1000


def test_a_shift_does_not_follow_from_what_is_published() -> None:
    other = Pseudonyms(b"j" * KEY_BYTES)
    assert NAMES.shift_days("P1") != other.shift_days("P1")


@pytest.mark.parametrize("text", VARIANTS)
def test_variants_of_a_patient_id_have_one_form(text: str) -> None:
    assert canonical_patient_id(text) == "123"


@pytest.mark.parametrize(
    ("text", "form"),
    [("000", "0"), ("P-00123", "p-00123"), ("0-1", "0-1"), ("--", "--"), ("STRAßE", "strasse"), ("", "")],
)
def test_what_is_inside_a_patient_id_stays(text: str, form: str) -> None:
    assert canonical_patient_id(text) == form


@example("ß\u0301")
@given(st.text())
def test_the_form_of_a_form_is_itself(text: str) -> None:
    form = canonical_patient_id(text)
    assert canonical_patient_id(form) == form


@example("\x85")
@given(st.text())
def test_no_patient_loses_the_whole_id(text: str) -> None:
    assert bool(canonical_patient_id(text)) == bool(text.strip())


def test_joined_variants_are_one_patient_everywhere() -> None:
    assert len({JOINED.key("patient", text) for text in VARIANTS}) == 1
    assert len({JOINED.patient_id(text) for text in VARIANTS}) == 1
    assert len({JOINED.shift_days(text) for text in VARIANTS}) == 1


def test_variants_that_are_not_joined_share_a_variant_key() -> None:
    assert NAMES.key("patient", "00123") != NAMES.key("patient", "123")
    assert NAMES.variant_key("00123") == NAMES.variant_key("123") == JOINED.key("patient", "123")
    assert JOINED.variant_key("00123") == NAMES.key("patient", "00123")


def test_the_policy_joins_no_studies() -> None:
    assert JOINED.key("study", "01") != JOINED.key("study", "1")


def test_a_secret_is_the_key_and_no_file_is_made(tmp_path: Path) -> None:
    assert load_pseudonyms(tmp_path / "key", "ab" * KEY_BYTES + "\n").secret == b"\xab" * KEY_BYTES
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("secret", ["", "ab", "ab" * 33, "xy" * 32, "ab " * 32])
def test_a_wrong_secret_is_refused_and_not_quoted(tmp_path: Path, secret: str) -> None:
    with pytest.raises(EnvironmentFault, match="must be 64 hex digits") as caught:
        load_pseudonyms(tmp_path / "key", secret)
    assert not secret or secret not in str(caught.value)
    assert list(tmp_path.iterdir()) == []
