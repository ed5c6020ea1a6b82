"""Keyed pseudonyms: the same every night, another with every key, and a key that others cannot read."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from imaging.deidentify.pseudonyms import DIGITS, KEY_BYTES, Level, Pseudonyms, load_pseudonyms
from imaging.errors import EnvironmentFault

NAMES = Pseudonyms(b"k" * KEY_BYTES)


def test_the_same_identifier_is_the_same_pseudonym() -> None:
    assert Pseudonyms(b"k" * KEY_BYTES).key("patient", "P1") == NAMES.key("patient", "P1")


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


def test_the_fingerprint_tells_keys_apart_and_is_no_key() -> None:
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


def test_no_draft_of_the_key_stays(tmp_path: Path) -> None:
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


def test_those_that_start_together_share_one_key(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(load_pseudonyms, [tmp_path / "key"] * 16))
    assert all(names == made[0] for names in made)


def test_a_file_name_that_is_not_utf8_has_a_pseudonym() -> None:
    name = os.fsdecode(b"M\xfcller/IM1")
    assert Pseudonyms(bytes(32)).key("file", name) != Pseudonyms(bytes(32)).key("file", "Muller/IM1")
