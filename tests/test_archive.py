"""Zip and tar files as sources: what is listed, what is read in one pass, and what is refused."""

import bz2
import gzip
import io
import lzma
import os
import stat
import struct
import tarfile
import time
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydicom.data import get_testdata_file

from imaging.errors import DataFault, UserFault
from imaging.sources import archive_member, tar_members
from imaging.sources.archive import Archive, is_archive
from imaging.sources.protocol import FETCHED_LIMIT_BYTES, SourceFile
from imaging.sources.tar_members import END, TarMembers

PACKERS: dict[str, Callable[[bytes], bytes]] = {
    ".tar": bytes,
    ".tar.gz": gzip.compress,
    ".tar.bz2": bz2.compress,
    ".tar.xz": lzma.compress,
}
COMPRESSED = [name for name in PACKERS if name != ".tar"]
NOISE = os.urandom(100_000)
PATIENT = "MUSTERMANN"


def zip_of(path: Path, *entries: tuple[str | zipfile.ZipInfo, bytes], **options: Any) -> Archive:
    with zipfile.ZipFile(path, "w", **options) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of names that are there already
        for name, content in entries:
            archive.writestr(name, content)
    return Archive("zip", path)


def tar_bytes(*entries: tuple[str | tarfile.TarInfo, bytes]) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        for name, content in entries:
            info = tarfile.TarInfo(name) if isinstance(name, str) else name
            info.size = len(content) if info.isreg() else 0
            archive.addfile(info, io.BytesIO(content))
    return made.getvalue()


def tar_of(path: Path, *entries: tuple[str | tarfile.TarInfo, bytes]) -> Archive:
    packed = next(pack for suffix, pack in PACKERS.items() if path.name.endswith(suffix))
    path.write_bytes(packed(tar_bytes(*entries)))
    return Archive("tar", path)


def tar_info(name: str, kind: bytes = tarfile.REGTYPE, **options: Any) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = kind
    for key, value in options.items():
        setattr(info, key, value)
    return info


def zip_info(name: str, mode: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = mode << 16
    return info


def names(source: Archive) -> list[str]:
    return [file.name for file in source.scan()]


def content(source: Archive, name: str) -> bytes:
    (data,) = source.fetch(SourceFile(name=name, size_bytes=0, mtime_ns=0)).contents
    assert isinstance(data, bytes)
    return data


def outcome(source: Archive, name: str) -> str:
    """Return "read", or the reason for which a member is refused."""
    try:
        content(source, name)
    except DataFault as fault:
        assert PATIENT not in fault.detail
        return fault.reason
    return "read"


def outcomes(source: Archive) -> dict[str, str]:
    return {name: outcome(source, name) for name in names(source)}


@pytest.fixture(params=["zip", *PACKERS])
def packed(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[..., Archive]:
    """Return a function that writes files into an archive of each kind."""
    suffix = request.param

    def write(*entries: tuple[str, bytes]) -> Archive:
        if suffix == "zip":
            return zip_of(tmp_path / "a.zip", *entries, compression=zipfile.ZIP_DEFLATED)
        return tar_of(tmp_path / f"a{suffix}", *entries)

    return write


def test_members_come_out_as_they_went_in(packed: Callable[..., Archive]) -> None:
    source = packed(("a/IM1", NOISE), ("IM2", b"short"), ("empty", b""))
    assert names(source) == ["a/IM1", "IM2", "empty"]
    assert [content(source, name) for name in names(source)] == [NOISE, b"short", b""]


def test_sizes_are_of_the_unpacked_files(packed: Callable[..., Archive]) -> None:
    assert [file.size_bytes for file in packed(("a", bytes(5000)), ("b", b"x")).scan()] == [5000, 1]


def test_nothing_is_written_beside_the_archive(packed: Callable[..., Archive], tmp_path: Path) -> None:
    source = packed(("a/IM1", NOISE))
    content(source, "a/IM1")
    assert [path.name for path in tmp_path.iterdir()] == [source.path.name]


def test_the_format_is_known_by_the_name(packed: Callable[..., Archive]) -> None:
    source = packed(("a/IM1", b"x"))
    assert source.fetch(next(source.scan())).format == "dicom"


def test_of_two_equal_names_both_are_listed(packed: Callable[..., Archive]) -> None:
    source = packed(("a", b"first"), ("a", b"second"), ("a#2", b"third"))
    assert [(name, content(source, name)) for name in names(source)] == [
        ("a", b"first"),
        ("a#2", b"second"),
        ("a#2#2", b"third"),
    ]


def test_folders_are_not_listed(tmp_path: Path) -> None:
    assert names(tar_of(tmp_path / "a.tar", (tar_info("d", tarfile.DIRTYPE), b""), ("d/a", b"x"))) == ["d/a"]
    assert names(zip_of(tmp_path / "a.zip", ("d/", b""), ("d/a", b"x"))) == ["d/a"]


def test_the_time_of_a_member_is_that_in_a_tar(tmp_path: Path) -> None:
    source = tar_of(tmp_path / "a.tar", (tar_info("a", mtime=1_700_000_000), b"x"))
    assert next(source.scan()).mtime_ns == 1_700_000_000 * 10**9


def test_the_time_of_a_member_is_that_in_a_zip(tmp_path: Path) -> None:
    source = zip_of(tmp_path / "a.zip", (zipfile.ZipInfo("a", (2026, 1, 2, 3, 4, 6)), b"x"))
    assert next(source.scan()).mtime_ns == 1_767_323_046 * 10**9


def test_a_name_that_is_not_there_any_more_is_the_users_matter(packed: Callable[..., Archive]) -> None:
    with pytest.raises(UserFault, match="scan the archive again"):
        content(packed(("a", b"x")), "b")


def test_a_directory_of_dicom_is_known_by_its_name(packed: Callable[..., Archive]) -> None:
    assert outcomes(packed(("d/DICOMDIR", b"x"))) == {"d/DICOMDIR": "dicomdir"}


def test_a_large_member_is_refused_unread(tmp_path: Path) -> None:
    info = tar_info("a")
    info.size = FETCHED_LIMIT_BYTES + 1
    (tmp_path / "a.tar").write_bytes(info.tobuf() + bytes(1024))
    assert outcomes(Archive("tar", tmp_path / "a.tar"))["a"] == "too-large"


@pytest.mark.parametrize("name", ["../a", "/a", "d/../../a", "d\\a", "C:a", "..", "C:/a"])
def test_a_name_that_leaves_the_root_is_refused(packed: Callable[..., Archive], name: str) -> None:
    source = packed((name, b"x"), ("b", b"y"))
    assert list(outcomes(source).values()) == ["archive-escape", "read"]


def test_a_name_that_hides_its_end_behind_a_zero_is_refused(tmp_path: Path) -> None:
    zip_of(tmp_path / "a.zip", ("aXb", b"x"))
    (tmp_path / "a.zip").write_bytes((tmp_path / "a.zip").read_bytes().replace(b"aXb", b"a\0b"))
    assert list(outcomes(Archive("zip", tmp_path / "a.zip")).values()) == ["archive-escape"]


@pytest.mark.parametrize("name", ["a..b", "..a", "a.", "d/..a/b"])
def test_dots_within_a_name_are_no_escape(packed: Callable[..., Archive], name: str) -> None:
    assert outcomes(packed((name, b"x"))) == {name: "read"}


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_in_a_tar_are_refused(tmp_path: Path, kind: bytes) -> None:
    source = tar_of(tmp_path / "a.tar", ("a", b"x"), (tar_info("b", kind, linkname="a"), b""))
    assert outcomes(source) == {"a": "read", "b": "archive-link"}


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFIFO])
def test_links_and_devices_in_a_zip_are_refused(tmp_path: Path, kind: int) -> None:
    assert outcomes(zip_of(tmp_path / "a.zip", (zip_info("a", kind), b"/etc/passwd"))) == {
        "a": "archive-link"
    }


@pytest.mark.parametrize("name", ["a.zip", "a.tar.gz", "a.TGZ", "a.tar", "a.7z", "a.gz", "a.npz"])
def test_what_is_called_an_archive_is_refused(packed: Callable[..., Archive], name: str) -> None:
    assert outcomes(packed((name, b"x"))) == {name: "nested-archive"}


@pytest.mark.parametrize("kind", ["zip", *PACKERS])
def test_what_is_an_archive_is_refused(packed: Callable[..., Archive], tmp_path: Path, kind: str) -> None:
    inner = tmp_path / f"inner{kind}"
    (zip_of if kind == "zip" else tar_of)(inner, ("x", NOISE))
    assert outcomes(packed(("IM1", inner.read_bytes()))) == {"IM1": "nested-archive"}


def test_a_dicom_file_may_begin_like_an_archive() -> None:
    assert not is_archive("a", b"PK\x03\x04".ljust(128, b"\0") + b"DICM")


def test_gzip_is_fine_where_nifti_uses_it(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("file,PatientID\na.nii.gz,P1\n")
    zip_of(tmp_path / "a.zip", ("a.nii.gz", gzip.compress(b"x")))
    from imaging.sources.open_source import open_source

    source = open_source(tmp_path / "a.zip", tmp_path / "t.csv")
    payload = source.fetch(next(source.scan()))
    assert (payload.format, dict(payload.metadata)["patient"]) == ("nifti", "P1")


def test_an_encrypted_member_is_refused(tmp_path: Path) -> None:
    zip_of(tmp_path / "a.zip", ("a", b"x"))
    data = bytearray((tmp_path / "a.zip").read_bytes())
    for header, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(header) + flags] |= 1
    (tmp_path / "a.zip").write_bytes(data)
    assert outcomes(Archive("zip", tmp_path / "a.zip")) == {"a": "archive-encrypted"}


def test_a_compression_that_is_not_known_is_unsupported(tmp_path: Path) -> None:
    zip_of(tmp_path / "a.zip", ("a", b"x"))
    data = bytearray((tmp_path / "a.zip").read_bytes())
    for header, method in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
        data[data.index(header) + method] = 97
    (tmp_path / "a.zip").write_bytes(data)
    assert outcomes(Archive("zip", tmp_path / "a.zip")) == {"a": "unsupported"}


def test_a_member_whose_checksum_is_wrong_is_refused_alone(tmp_path: Path) -> None:
    zip_of(tmp_path / "a.zip", (PATIENT, NOISE), ("b", b"y"))
    data = bytearray((tmp_path / "a.zip").read_bytes())
    data[5000] ^= 1
    (tmp_path / "a.zip").write_bytes(data)
    assert outcomes(Archive("zip", tmp_path / "a.zip")) == {PATIENT: "unreadable", "b": "read"}


METHODS = [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]


@pytest.mark.parametrize("method", METHODS)
def test_a_damaged_member_is_refused(tmp_path: Path, method: int) -> None:
    zip_of(tmp_path / "a.zip", ("a", NOISE), compression=method)
    data = bytearray((tmp_path / "a.zip").read_bytes())
    data[3000:3100] = bytes(100)
    (tmp_path / "a.zip").write_bytes(data)
    assert outcome(Archive("zip", tmp_path / "a.zip"), "a") in ("unreadable", "truncated")


@pytest.mark.parametrize("method", METHODS[1:])
@pytest.mark.parametrize("declared", [10, 200_000], ids=["less", "more"])
def test_a_member_that_is_not_as_long_as_declared_is_refused(
    tmp_path: Path, method: int, declared: int
) -> None:
    zip_of(tmp_path / "a.zip", ("a", NOISE), compression=method)
    data = bytearray((tmp_path / "a.zip").read_bytes())
    struct.pack_into("<I", data, data.index(b"PK\x01\x02") + 24, declared)
    (tmp_path / "a.zip").write_bytes(data)
    expected = "archive-bomb" if declared == 10 else "truncated"
    assert outcomes(Archive("zip", tmp_path / "a.zip")) == {"a": expected}


def test_a_bomb_is_known_by_what_a_zip_declares(tmp_path: Path) -> None:
    zip_of(tmp_path / "a.zip", ("a", bytes(2**20)), ("b", b"y"), compression=zipfile.ZIP_DEFLATED)
    data = bytearray((tmp_path / "a.zip").read_bytes())
    struct.pack_into("<I", data, data.index(b"PK\x01\x02") + 24, 2**30)
    (tmp_path / "a.zip").write_bytes(data)
    assert outcomes(Archive("zip", tmp_path / "a.zip")) == {"a": "archive-bomb", "b": "read"}


def test_a_member_that_lies_before_the_archive_is_refused_alone(tmp_path: Path) -> None:
    zip_of(tmp_path / "a.zip", ("a", b"x"), ("b", b"y"))
    data = bytearray((tmp_path / "a.zip").read_bytes())
    end = data.index(b"PK\x05\x06")
    # The listing declares to begin later than it does, so all places move to the front.
    struct.pack_into("<I", data, end + 16, struct.unpack_from("<I", data, end + 16)[0] + 20)
    (tmp_path / "a.zip").write_bytes(data)
    assert outcome(Archive("zip", tmp_path / "a.zip"), "a") == "unreadable"


def test_black_images_are_no_bomb(tmp_path: Path) -> None:
    source = zip_of(tmp_path / "a.zip", ("a", bytes(2**22)), compression=zipfile.ZIP_DEFLATED)
    assert outcomes(source) == {"a": "read"}


def test_members_that_share_their_bytes_are_refused(tmp_path: Path) -> None:
    zip_of(tmp_path / "a.zip", ("a", NOISE), ("b", NOISE))
    data = bytearray((tmp_path / "a.zip").read_bytes())
    second = data.index(b"PK\x01\x02", data.index(b"PK\x01\x02") + 4)
    struct.pack_into("<I", data, second + 42, 0)
    (tmp_path / "a.zip").write_bytes(data)
    assert set(outcomes(Archive("zip", tmp_path / "a.zip")).values()) == {"archive-bomb", "unreadable"}


@pytest.mark.slow
def test_a_zip_of_many_members_is_listed_quickly(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for number in range(70_000):  # more than 65,535, so zip64
            archive.writestr(zipfile.ZipInfo(f"d/{number}"), b"x")
    begin = time.perf_counter()
    source = Archive("zip", tmp_path / "a.zip")
    assert len(names(source)) == 70_000
    assert content(source, "d/69999") == b"x"
    assert time.perf_counter() - begin < 20


@pytest.mark.parametrize("kept", [0, 10, 50_000])
def test_a_zip_that_is_cut_has_no_listing(tmp_path: Path, kept: int) -> None:
    zip_of(tmp_path / "a.zip", ("a", NOISE))
    (tmp_path / "a.zip").write_bytes((tmp_path / "a.zip").read_bytes()[:kept])
    with pytest.raises(UserFault, match="copy it again"):
        names(Archive("zip", tmp_path / "a.zip"))


def test_what_is_no_tar_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(NOISE)
    with pytest.raises(UserFault, match="no tar archive"):
        names(Archive("tar", tmp_path / "a.tar"))


@pytest.mark.parametrize("suffix", COMPRESSED)
def test_reading_in_order_inflates_once(tmp_path: Path, suffix: str) -> None:
    source = tar_of(tmp_path / f"a{suffix}", *((f"IM{n}", os.urandom(50_000)) for n in range(20)))
    for file in source.scan():
        source.fetch(file)
    assert isinstance(source.members, TarMembers)
    assert source.members.passes == 1


def test_going_back_costs_a_new_start(tmp_path: Path) -> None:
    source = tar_of(tmp_path / "a.tar.gz", ("a", b"1"), ("b", NOISE), ("c", b"3"))
    assert [content(source, name)[:1] for name in "cabca"] == [b"3", b"1", NOISE[:1], b"3", b"1"]
    assert isinstance(source.members, TarMembers)
    assert source.members.passes == 3


def test_a_few_out_of_order_cost_one_pass_more(tmp_path: Path) -> None:
    source = tar_of(tmp_path / "a.tar.gz", *((f"{n:02}", os.urandom(20_000)) for n in range(30)))
    swapped = [name for n in range(0, 30, 2) for name in (f"{n + 1:02}", f"{n:02}")]
    for name in swapped:
        content(source, name)
    assert isinstance(source.members, TarMembers)
    assert source.members.passes == 2


def test_listing_a_compressed_tar_is_kept_for_reading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tar_of(tmp_path / "a.tar.gz", ("a", b"x"))
    names(source)
    monkeypatch.delattr(TarMembers, "list")
    assert content(source, "a") == b"x"


@pytest.mark.slow
@pytest.mark.parametrize("suffix", PACKERS)
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_a_tar_that_is_cut_lists_what_is_before_and_the_cut(
    tmp_path: Path, suffix: str, share: float
) -> None:
    path = tmp_path / f"a{suffix}"
    # Small packets, so that bzip2's blocks of 900 kB do not hide the members before the cut.
    tar_of(path, *((f"IM{n}", os.urandom(300_000)) for n in range(10)))
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    listed = list(outcomes(Archive("tar", path)).items())
    assert listed[-1] == (END, "truncated")
    assert [reason for _, reason in listed].count("read") >= int(share * 10) - 4


@pytest.mark.parametrize("kept", [0, 1])
def test_a_tar_that_ends_between_two_members_is_cut_too(tmp_path: Path, kept: int) -> None:
    data = tar_bytes(("a", b"x"), ("b", b"y"))
    (tmp_path / "a.tar").write_bytes(data[: 1024 + 512 * kept])
    result = outcomes(Archive("tar", tmp_path / "a.tar"))
    assert (result["a"], result[END]) == ("read", "truncated")


def test_a_damaged_header_is_listed_as_such(tmp_path: Path) -> None:
    data = bytearray(tar_bytes(("a", b"x"), ("b", b"y"), ("c", b"z")))
    data[1024] ^= 1
    (tmp_path / "a.tar").write_bytes(data)
    assert outcomes(Archive("tar", tmp_path / "a.tar")) == {"a": "read", END: "unreadable"}


def test_a_damaged_last_header_is_listed_as_such(tmp_path: Path) -> None:
    data = bytearray(tar_bytes(("a", b"x"), ("b", b"")))
    data[1024] ^= 1
    (tmp_path / "a.tar").write_bytes(data)
    assert outcomes(Archive("tar", tmp_path / "a.tar")) == {"a": "read", END: "unreadable"}


def test_what_follows_the_end_is_not_lost_in_silence(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(tar_bytes(("a", b"x")) + tar_bytes(("b", b"y")))
    assert outcomes(Archive("tar", tmp_path / "a.tar")) == {"a": "read", END: "unreadable"}


def test_where_the_checksum_of_the_whole_is_wrong_no_member_is_trusted(tmp_path: Path) -> None:
    packed = bytearray(gzip.compress(tar_bytes(("a", b"x"), ("b", b"y"))))
    packed[-6] ^= 1
    (tmp_path / "a.tar.gz").write_bytes(packed)
    assert set(outcomes(Archive("tar", tmp_path / "a.tar.gz")).values()) == {"unreadable"}


def test_a_header_that_leads_back_ends_the_listing(tmp_path: Path) -> None:
    info = tar_info("b")
    info.size = -2048
    data = tar_bytes(("a", b"x"))[:1024] + info.tobuf(tarfile.GNU_FORMAT) + bytes(2048)
    (tmp_path / "a.tar").write_bytes(data)
    result = outcomes(Archive("tar", tmp_path / "a.tar"))
    assert (result["a"], result["b"], result[END]) == ("read", "unreadable", "unreadable")


def test_a_sparse_member_is_unsupported(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(tar_info("a", tarfile.GNUTYPE_SPARSE).tobuf() + bytes(1024))
    assert outcomes(Archive("tar", tmp_path / "a.tar")) == {"a": "unsupported"}


@pytest.mark.slow
@pytest.mark.parametrize("suffix", COMPRESSED)
def test_a_compressed_tar_stops_where_it_grows_too_far(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = type(archive_member.LIMITS)(inflated_bytes=2**20)
    monkeypatch.setattr(archive_member, "LIMITS", small)
    source = tar_of(tmp_path / f"a{suffix}", ("a", b"x"), ("b", bytes(2**24)), ("c", b"y"))
    result = outcomes(source)
    assert (result["a"], result[END]) == ("read", "archive-bomb")
    assert "c" not in result


def test_a_header_may_not_claim_the_memory(tmp_path: Path) -> None:
    info = tar_info("x", tarfile.XHDTYPE)
    info.size = tar_members.HEADER_LIMIT_BYTES + 1
    (tmp_path / "a.tar").write_bytes(tar_bytes(("a", b"x"))[:1024] + info.tobuf() + bytes(4096))
    assert outcomes(Archive("tar", tmp_path / "a.tar")) == {"a": "read", END: "archive-bomb"}


def test_headers_of_headers_of_headers_end(tmp_path: Path) -> None:
    info = tar_info("x", tarfile.GNUTYPE_LONGNAME)
    info.size = 1
    block = info.tobuf() + b"a".ljust(512, b"\0")
    (tmp_path / "a.tar").write_bytes(tar_bytes(("a", b"x"))[:1024] + block * 3000 + bytes(1024))
    assert outcomes(Archive("tar", tmp_path / "a.tar")) == {"a": "read", END: "unreadable"}


def test_real_files_come_out_of_an_archive(packed: Callable[..., Archive]) -> None:
    path = get_testdata_file("CT_small.dcm", download=False)
    assert path
    data = Path(str(path)).read_bytes()
    assert content(packed(("CT_small.dcm", data)), "CT_small.dcm") == data
