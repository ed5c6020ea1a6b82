"""Whatever the encoding in which an original value was written, the search finds it; and chance finds nothing."""

import base64
import io
import sqlite3
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from imaging.deidentify.identity.identifiers import Identifier, Kind
from imaging.deidentify.proof import pattern_search
from imaging.deidentify.proof.contents import all_contents
from imaging.deidentify.proof.output_search import find_hits
from imaging.deidentify.proof.pattern_search import Searcher, SearchLevel
from imaging.deidentify.proof.patterns import patterns, strength_of

PATIENT = Identifier("id", "HOSP-4815162342", 0x00100020)
NAME = Identifier("name", "Mustermann^Erika", 0x00100010)
STUDY = Identifier("uid", "1.2.826.0.1.3680043.10.99.12345.678", 0x0020000D)
BIRTH = Identifier("date", "19640812", 0x00100030)
VALUE = PATIENT.value

WRITTEN = {
    "raw": VALUE.encode(),
    "small": VALUE.lower().encode(),
    "UTF-16 LE": VALUE.encode("utf-16-le"),
    "UTF-16 BE": VALUE.encode("utf-16-be"),
    "reversed": VALUE[::-1].encode(),
    "hexadecimal": VALUE.encode().hex().encode(),
    "HEXADECIMAL": VALUE.encode().hex().upper().encode(),
    **{f"base64 at {at}": base64.b64encode(b"xyz"[:at] + VALUE.encode() + b"tail") for at in range(3)},
}


def searcher(*identifiers: Identifier, owner: int | None = None) -> Searcher:
    return Searcher(pattern for one in identifiers for pattern in patterns(one, owner=owner))


def encodings(
    data: bytes, *identifiers: Identifier, level: SearchLevel = "bytes", owner: int | None = None
) -> set[str]:
    hits = searcher(*identifiers, owner=0).search(data, level, owner)
    return {pattern.encoding for pattern, _ in hits}


@pytest.mark.parametrize("how", WRITTEN)
def test_a_value_is_a_hit_however_it_is_written(how: str) -> None:
    noise = np.random.default_rng(0).bytes(1000)
    assert encodings(noise + WRITTEN[how] + noise, PATIENT)


@pytest.mark.parametrize("how", WRITTEN)
def test_a_value_with_another_character_is_no_hit(how: str) -> None:
    written = WRITTEN[how]
    assert not encodings(written[: len(written) // 2] + b"?" + written[len(written) // 2 + 1 :], PATIENT)


def test_a_value_across_the_border_of_two_windows_is_a_hit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pattern_search, "WINDOW_BYTES", 64)
    for start in range(40, 70):
        data = b" " * start + VALUE.encode() + b" " * 200
        assert [offset for _, offset in searcher(PATIENT).search(data, "bytes")] == [start]


@pytest.mark.parametrize(
    ("text", "kind", "strength"),
    [
        ("1234", "id", "weak"),
        ("12345678", "id", "plain"),
        ("MEYER", "name", "weak"),
        ("MEYER^ANNA", "name", "plain"),
        ("19640812", "date", "weak"),
        ("SIEMENS", "device", "weak"),
        ("HOSP-4815162342", "id", "sure"),
        ("山田^太郎", "name", "sure"),
    ],
)
def test_the_strength_of_a_hit_depends_on_its_text(text: str, kind: Kind, strength: str) -> None:
    assert strength_of(text, kind) == strength


def test_a_number_inside_a_longer_one_is_no_find() -> None:
    number = Identifier("id", "12345678", 0x00100020)
    assert encodings(b"no 12345678, please", number, level="values")
    assert not encodings(b"2.25.99123456789", number, level="values")


def test_noise_of_pixels_is_no_find() -> None:
    # The worst there is: every sample is a digit.
    pixels = np.random.default_rng(0).integers(48, 58, 1_000_000).astype(np.uint8).tobytes()
    ids = [Identifier("id", f"{number:08d}", 0x00100020) for number in range(0, 100_000_000, 1_000_003)]
    assert any(f"{number:08d}".encode() in pixels for number in range(0, 100_000_000, 1_003))
    assert not encodings(pixels, *ids)


def test_a_study_date_proves_something_in_texts_of_its_own_object_alone() -> None:
    assert encodings(b"seen on 1964-08-12 or 19640812.", BIRTH, level="text", owner=0)
    assert not encodings(b"seen on 1964-08-12 or 19640812.", BIRTH, level="text", owner=1)
    assert not encodings(b"seen on 1964-08-12 or 19640812.", BIRTH, level="values", owner=0)


def test_a_part_of_a_name_proves_something_in_its_own_object_alone() -> None:
    name = Identifier("name", "Meyer^Anna", 0x00100010)
    assert encodings(b"Frau Meyer kommt", name, level="text", owner=0)
    assert not encodings(b"Frau Meyer kommt", name, level="text", owner=1)
    assert not encodings(b"Meyerhof", name, level="text", owner=0)


@pytest.mark.parametrize("text", ["Erika Mustermann", "MUSTERMANN, ERIKA", "mustermann^erika"])
def test_a_name_is_a_hit_however_it_is_split(text: str) -> None:
    assert encodings(f"<{text}>".encode(), NAME, level="values", owner=7)


@pytest.mark.parametrize(
    "nobody",
    [
        Identifier("uid", "1.2.840.10008.5.1.4.1.1.2", 0x00080016),
        Identifier("text", "CHEST", 0x00081030),
        Identifier("text", "CT thorax", 0x00081030),
        Identifier("name", "Anonymous", 0x00100010),
        Identifier("id", "123", 0x00100020),
        Identifier("date", "101530", 0x00080030),
        Identifier("date", "101530.123456", 0x00080030),
    ],
)
def test_what_identifies_nobody_is_not_searched(nobody: Identifier) -> None:
    assert not list(patterns(nobody))


def packed(folder: Path) -> dict[str, Path]:
    """Write one value into files that hide it from a search of their bytes."""
    paths = {name: folder / name for name in ("t.parquet", "t.zip", "t.gz", "t.html", "t.db", "t.png")}
    pq.write_table(pa.table({"a": ["x" * 99, VALUE] * 50}), paths["t.parquet"], compression="zstd")
    with zipfile.ZipFile(paths["t.zip"], "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("inner", f"{'x' * 99} {VALUE} " * 50)
    import gzip

    paths["t.gz"].write_bytes(gzip.compress(f"{'x' * 99} {VALUE} ".encode() * 50))
    picture = base64.b64encode(b"\x89PNG" + b"\0" * 77 + VALUE.encode() + b"\0" * 77).decode()
    paths["t.html"].write_text(f"<img src='data:image/png;base64,{picture}'>")
    with sqlite3.connect(paths["t.db"]) as database:
        database.execute("CREATE TABLE t (a TEXT, b TEXT, c TEXT)")
        database.execute("INSERT INTO t VALUES ('7', ?, '7')", ["PH000012"])
        database.execute("INSERT INTO t VALUES ('', ?, '')", [VALUE])
    database.close()
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    metadata = PngInfo()
    metadata.add_text("Comment", f"{VALUE} " * 20, zip=True)
    buffer = io.BytesIO()
    Image.new("L", (4, 4)).save(buffer, "png", pnginfo=metadata)
    paths["t.png"].write_bytes(buffer.getvalue())
    return paths


@pytest.mark.parametrize("name", ["t.parquet", "t.zip", "t.gz", "t.html", "t.db", "t.png"])
def test_a_value_in_the_packed_parts_of_a_file_is_a_hit(tmp_path: Path, name: str) -> None:
    path = packed(tmp_path)[name]
    assert [hit.tag for hit in find_hits(name, all_contents(path), searcher(PATIENT))][:1] == [PATIENT.tag]


def test_values_of_a_database_are_searched_one_by_one(tmp_path: Path) -> None:
    path = packed(tmp_path)["t.db"]
    short = Identifier("id", "PH000012", 0x00100020)
    assert {hit.where for hit in find_hits("t.db", all_contents(path), searcher(short))} == {"rows"}


def test_the_log_that_a_database_writes_ahead_is_searched(tmp_path: Path) -> None:
    database = sqlite3.connect(tmp_path / "t.db")
    database.execute("PRAGMA journal_mode=WAL")
    database.execute("CREATE TABLE t (a TEXT)")
    database.execute("INSERT INTO t VALUES (?)", [VALUE])
    database.commit()
    log = tmp_path / "t.db-wal"
    assert log.exists()
    assert list(find_hits("wal", all_contents(log), searcher(PATIENT)))
    database.close()


def test_the_name_of_a_file_is_searched(tmp_path: Path) -> None:
    path = tmp_path / f"{VALUE}.txt"
    path.touch()
    assert [hit.where for hit in find_hits("it", all_contents(path), searcher(PATIENT))] == ["name"]


def test_a_hit_never_shows_the_value(tmp_path: Path) -> None:
    path = tmp_path / "it.txt"
    path.write_text(VALUE)
    assert VALUE not in repr(list(find_hits("it.txt", all_contents(path), searcher(PATIENT, NAME, STUDY))))


def test_a_short_number_proves_something_in_its_own_object_alone() -> None:
    number = Identifier("id", "4711", 0x00100020)
    assert encodings(b"of patient 4711", number, level="text", owner=0)
    assert not encodings(b"of patient 4711", number, level="text", owner=1)
