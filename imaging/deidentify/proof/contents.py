"""Contents to be searched: of a DICOM object, and of a file of any type what is packed or tabulated in it too."""

import base64
import gzip
import io
import mmap
import re
import sqlite3
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.uid import DeflatedExplicitVRLittleEndian

from imaging.deidentify.proof.pattern_search import Searchable, SearchLevel
from imaging.dicom.elements import Buffer
from imaging.dicom.limits import LIMITS
from imaging.dicom.parse import parse, reading
from imaging.errors import DataFault

INFLATED_BYTES = 256 << 20
ROWS_AT_A_TIME = 65536
EMBEDDED = re.compile(rb"base64,([A-Za-z0-9+/=\s]{64,})")
IMAGES = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8")
TEXTUAL = (b"SQLite format 3\0", b"\x37\x7f\x06\x82", b"\x37\x7f\x06\x83")
"""Databases and their write-ahead logs: binary, but made of texts, also of rows that were deleted."""
UNREADABLE = (OSError, EOFError, ValueError, zlib.error, zipfile.BadZipFile, sqlite3.Error, pa.ArrowException)
"""Exceptions for a file that is not of the type it seems to be; its bytes are searched as they are."""
TEXT_VRS = frozenset({"AE", "DA", "LO", "LT", "PN", "SH", "ST", "UC", "UN", "UR", "UT"})
"""VRs whose values are written by people; a code string (CS) is from a list, where a name may be an organ's too, and
UIDs that an option keeps contain days of studies."""
META_AT = 144
"""Offset of the elements after the length of the file meta group."""
VALUE_BYTES = 1 << 16
"""Longer values are pixels, tables and documents: searched as bytes of the file."""


@dataclass(frozen=True, slots=True)
class Content:
    """Some bytes of a file, and the level at which they are searched; see `imaging.deidentify.proof.patterns`."""

    where: str
    level: SearchLevel
    data: Searchable


def all_contents(path: Path, name: str = "") -> Iterator[Content]:
    """Yield the contents to search of a file of any type: its name with its folders, its bytes, what is packed in it.

    The bytes are mapped and not read.
    """
    yield Content("name", "values", (name or path.name).encode("utf-8", "surrogateescape"))
    if not path.stat().st_size:
        return
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        magic, is_object = data[:16], data[128:132] == b"DICM"  # PS3.10 7.1
        opener = next((opens for begin, opens in OPENERS.items() if magic.startswith(begin)), None)
        packed = opener is not None or magic.startswith(IMAGES) or b"\0" in data[:4096]
        binary = packed and not magic.startswith(TEXTUAL)
        yield Content("file", "bytes" if binary else "values", data)
        if not binary and b"base64," in data[: 1 << 16]:
            yield from _embedded(data)
    # A file that is not what it seems to be, or not whole: its bytes were searched.
    with suppress(*UNREADABLE):
        yield from opener(path) if opener is not None else ()
    with suppress(DataFault):
        yield from object_contents(path.read_bytes()) if is_object else ()


def object_contents(data: Buffer) -> Iterator[Content]:
    """Yield the contents of a DICOM file that are to be searched; raise DataFault where it cannot be parsed."""
    yield Content("file", "bytes", data)
    dataset = parse(data)
    if dataset.file_meta.TransferSyntaxUID == DeflatedExplicitVRLittleEndian:
        yield Content("inflated", "bytes", _inflated(data))
    with reading("unreadable"):
        texts, values = list[str](), list[bytes]()
        for item in (dataset.file_meta, dataset):
            _gather(item, texts, values)
    yield Content("values", "values", b"\0".join(values))
    yield Content("texts", "text", "\0".join(texts).encode("utf-8", "surrogateescape"))


def _inflated(data: Buffer) -> bytes:
    """Return the inflated data set after the file meta group, whose length is known to be right (PS3.10 7.1)."""
    start = META_AT + int.from_bytes(data[META_AT - 4 : META_AT], "little")
    return zlib.decompressobj(-zlib.MAX_WBITS).decompress(bytes(data[start:]), LIMITS.inflated_bytes)


def _gather(item: Dataset, texts: list[str], values: list[bytes]) -> None:
    for tag in list(item.keys()):
        raw = item.get_item(tag).value
        element = item[tag]
        if element.VR == "SQ":
            for nested in element.value:
                _gather(nested, texts, values)
        elif element.VR == "DT":
            # The day by itself: more digits follow it.
            texts += [part for text in _value_texts(element.value) for part in (text[:8], text[8:])]
        elif element.VR in TEXT_VRS:
            texts += _value_texts(element.value)
        elif isinstance(raw, bytes) and len(raw) <= VALUE_BYTES:
            values.append(raw)


def _value_texts(value: object) -> list[str]:
    if isinstance(value, bytes):
        return [value.decode("latin-1")]
    return [str(one) for one in (value if isinstance(value, MultiValue) else (value,)) if one is not None]


def _database(path: Path) -> Iterator[Content]:
    """Yield the values of each table: in the file's pages nothing separates them."""
    # A write-ahead log beside it is a file of its own, and read with the database here.
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=5)) as database:
        database.text_factory = bytes
        named = database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        for (name,) in named:
            quoted = name.decode(errors="replace").replace('"', '""')
            rows = database.execute(f'SELECT * FROM "{quoted}"')
            while batch := rows.fetchmany(ROWS_AT_A_TIME // 16):
                values = (value for row in batch for value in row if isinstance(value, bytes))
                yield Content("rows", "values", b"\0".join(values))


def _parquet(path: Path) -> Iterator[Content]:
    """Yield the texts of each column, decompressed, and the metadata of the table."""
    table = pq.ParquetFile(path)
    metadata = table.schema_arrow.metadata or {}
    yield Content("schema", "values", b"\0".join([*metadata, *metadata.values(), str(table.schema).encode()]))
    for batch in table.iter_batches(ROWS_AT_A_TIME):
        for column in batch.columns:
            if values := _texts(column):
                yield Content("column", "values", values)


def _texts(column: pa.Array) -> bytes:
    if pa.types.is_dictionary(column.type):
        column = column.dictionary
    if pa.types.is_nested(column.type):
        return "\0".join(map(str, column.to_pylist())).encode(errors="surrogateescape")
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        return b""
    return "\0".join(text for text in column.to_pylist() if text).encode(errors="surrogateescape")


def _zip(path: Path) -> Iterator[Content]:
    with zipfile.ZipFile(path) as archive:
        left = INFLATED_BYTES
        for member in archive.infolist():
            yield Content("member's name", "values", member.filename.encode(errors="surrogateescape"))
            if 0 < member.file_size <= left:
                left -= member.file_size
                with archive.open(member) as file:
                    content = file.read(member.file_size)
                yield Content("member", "bytes" if b"\0" in content[:4096] else "values", content)


def _gzip(path: Path) -> Iterator[Content]:
    with gzip.open(path) as file:
        while content := file.read(32 << 20):
            yield Content("inflated", "bytes" if b"\0" in content[:4096] else "values", content)
            if file.tell() > INFLATED_BYTES:
                return


def _embedded(page: Searchable) -> Iterator[Content]:
    """Yield the images that are embedded in a page."""
    for match in EMBEDDED.finditer(page):
        try:
            yield Content("picture", "bytes", base64.b64decode(match[1], validate=False))
        except ValueError:
            continue


def _picture_texts(path: Path) -> Iterator[Content]:
    """Yield the compressed texts of a PNG (zTXt, iTXt)."""
    from PIL import Image

    with Image.open(io.BytesIO(path.read_bytes())) as picture:
        yield Content("picture's texts", "values", "\0".join(map(str, picture.info.values())).encode())


OPENERS: dict[bytes, Callable[[Path], Iterator[Content]]] = {
    b"SQLite format 3\0": _database,
    b"PAR1": _parquet,
    b"PK\x03\x04": _zip,
    b"\x1f\x8b": _gzip,
    b"\x89PNG": _picture_texts,
}
"""Functions that open a file, by its first bytes."""
