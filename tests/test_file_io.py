"""File buffer: files are read into the same memory, or mapped where they are large."""

import mmap
import os
from pathlib import Path

import numpy as np
import pytest

from imaging.errors import DataFault, EnvironmentFault
from imaging.file_io import MAPPED_BYTES, FileBuffer, write_file


def written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("size", [0, 1, 4097, 2**20, 5 * 2**20 + 3])
def test_a_file_is_read_whole(tmp_path: Path, size: int) -> None:
    data = bytes(range(256)) * (size // 256 + 1)
    assert FileBuffer().load(written(tmp_path / "x", data[:size]), 2**30) == data[:size]


def test_a_short_file_behind_a_long_one_keeps_nothing_of_it(tmp_path: Path) -> None:
    buffer = FileBuffer()
    buffer.load(written(tmp_path / "long", b"x" * 5000), 2**20)
    assert buffer.load(written(tmp_path / "short", b"abc"), 2**20) == b"abc"


def test_the_memory_is_used_again(tmp_path: Path) -> None:
    buffer = FileBuffer()
    first = buffer.load(written(tmp_path / "a", b"aaaa"), 2**20)
    buffer.load(written(tmp_path / "b", b"bbbb"), 2**20)
    assert first == b"bbbb"


def test_a_large_file_is_mapped(tmp_path: Path) -> None:
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(MAPPED_BYTES)
        file.write(b"begin")
    view = FileBuffer().load(path, 2**30)
    assert isinstance(view.obj, mmap.mmap)
    assert view.readonly
    assert view[:5] == b"begin"
    assert len(view) == MAPPED_BYTES


def test_a_file_above_the_limit_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "huge"
    with path.open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(DataFault) as caught:
        FileBuffer().load(path, 2**33)
    assert caught.value.args == ("too-large", f"the file has {2**40} bytes, the limit is {2**33}")


def test_a_head_is_read_with_the_size_of_the_whole(tmp_path: Path) -> None:
    path = written(tmp_path / "x", b"abcdefgh")
    assert FileBuffer().head(path, 3) == (b"abc", 8)
    assert FileBuffer().head(path, 99) == (b"abcdefgh", 8)


def test_a_missing_file_is_a_fault_of_the_environment_without_its_name(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFault, match="No such file") as caught:
        FileBuffer().load(tmp_path / "DOE^JANE", 2**20)
    assert "DOE" not in str(caught.value)
    assert caught.value.__suppress_context__


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    path, buffer = written(tmp_path / "x", b"abc"), FileBuffer()
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(50):
        buffer.load(path, 2**20)
        buffer.head(path, 2)
    assert len(list(Path("/proc/self/fd").iterdir())) <= before + 1


@pytest.mark.parametrize("most", [1, 7, 2**20])
def test_a_file_is_written_whole_however_little_the_kernel_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    def writev(descriptor: int, parts: list[memoryview]) -> int:
        return os.write(descriptor, b"".join(parts)[:most])

    monkeypatch.setattr(os, "writev", writev)
    write_file(tmp_path / "x", [b"abc", b"", bytearray(b"defgh"), memoryview(np.arange(6, dtype="<u2"))])
    assert (tmp_path / "x").read_bytes() == b"abcdefgh" + np.arange(6, dtype="<u2").tobytes()


def test_a_file_of_very_many_parts_is_written(tmp_path: Path) -> None:
    write_file(tmp_path / "x", [b"%04d" % number for number in range(5000)])
    assert (tmp_path / "x").read_bytes() == b"".join(b"%04d" % number for number in range(5000))


def test_a_file_that_is_written_is_its_owners_alone(tmp_path: Path) -> None:
    write_file(tmp_path / "x", [b"abc"])
    assert (tmp_path / "x").stat().st_mode & 0o777 == 0o600
