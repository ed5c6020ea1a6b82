"""A DICOMweb server as a source, against a real Orthanc and against servers that answer wrongly."""

import json
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file
from requests.auth import HTTPBasicAuth

from imaging.errors import DataFault, EnvironmentFault, UserFault
from imaging.sources import dicomweb
from imaging.sources.dicomweb import INSTANCE, SERIES, STUDY, DicomWeb, only_part
from imaging.sources.protocol import SourceFile
from tests.servers import Server, dicomweb_server, odd_server

slow = pytest.mark.slow
COMPRESSED = (
    "MR_small_jp2klossless.dcm",  # JPEG 2000
    "SC_rgb_rle_2frame.dcm",  # RLE, two frames
    "image_dfl.dcm",  # deflated
    "CT_small.dcm",
    "JPEG-lossy.dcm",  # JPEG extended
    "SC_rgb_jpeg_dcmtk.dcm",  # JPEG baseline
)
NAME = "1.2/3.4/5.6"


def wheel_file(name: str) -> Path:
    path = get_testdata_file(name, download=False)
    assert path, f"{name} is not in pydicom's wheel"
    return Path(str(path))


@pytest.fixture(scope="module")
def stored(made_up_slices: Path) -> dict[str, bytes]:
    """Return files by what a source names them."""
    paths = [wheel_file(name) for name in COMPRESSED] + sorted(made_up_slices.glob("*.dcm"))[:8]
    files = {}
    for path in paths:
        header = dcmread(path, stop_before_pixels=True)
        files[f"{header.StudyInstanceUID}/{header.SeriesInstanceUID}/{header.SOPInstanceUID}"] = (
            path.read_bytes()
        )
    return files


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, stored: dict[str, bytes]) -> Iterator[Server]:
    with dicomweb_server(tmp_path_factory.mktemp("orthanc")) as server:
        assert {server.upload(content) for content in stored.values()} == {200}
        yield server


def at(server: Server, query: str = "", auth: bool = True) -> DicomWeb:
    login = HTTPBasicAuth(server.user, server.word) if auth else None
    return DicomWeb(f"dicomweb+{server.address}/dicom-web{query}", auth=login)


def names(source: DicomWeb) -> list[str]:
    return [file.name for file in source.scan()]


def content(source: DicomWeb, name: str = NAME) -> bytes:
    (data,) = source.fetch(SourceFile(name=name, size_bytes=0, mtime_ns=0)).contents
    assert isinstance(data, bytes)
    return data


@slow
def test_all_instances_are_listed_by_their_uids(server: Server, stored: dict[str, bytes]) -> None:
    assert sorted(names(at(server))) == sorted(stored)


@slow
@pytest.mark.parametrize("query", ["", "?Modality=CT", "?StudyDate=19000101-20991231"])
def test_a_listing_of_several_pages_is_that_of_one(
    server: Server, query: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = names(at(server, query))
    monkeypatch.setattr(dicomweb, "PAGE", 2)
    assert sorted(names(at(server, query))) == sorted(whole)


@slow
def test_instances_come_byte_by_byte_as_they_are_stored(server: Server, stored: dict[str, bytes]) -> None:
    source = at(server)
    assert [name for name, data in stored.items() if content(source, name) != data] == []


@slow
def test_the_modality_is_a_filter(server: Server, stored: dict[str, bytes]) -> None:
    wanted = {name for name, data in stored.items() if dcmread(BytesIO(data)).Modality == "CT"}
    assert set(names(at(server, "?modality=CT"))) == wanted
    assert wanted < stored.keys()


@slow
def test_the_date_is_a_filter(server: Server) -> None:
    assert names(at(server, "?StudyDate=19000101-19000102")) == []


@slow
def test_without_credentials_the_remedy_is_reported(server: Server) -> None:
    with pytest.raises(EnvironmentFault, match=r"status 401: check its credentials in ~/\.netrc"):
        names(at(server, auth=False))


@slow
def test_a_netrc_file_lets_in(server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "netrc").write_text(f"machine 127.0.0.1 login {server.user} password {server.word}\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    assert names(at(server, auth=False))


@slow
def test_a_wrong_path_is_reported(server: Server) -> None:
    source = DicomWeb(f"dicomweb+{server.address}/elsewhere", auth=HTTPBasicAuth(server.user, server.word))
    with pytest.raises(EnvironmentFault, match="status 404: check the path of the address"):
        names(source)


@slow
def test_an_instance_that_is_gone_is_no_bad_file(server: Server) -> None:
    with pytest.raises(EnvironmentFault, match="status 404") as caught:
        content(at(server), "1.2.3.99991/4/5")
    assert "99991" not in str(caught.value)


def test_a_server_that_does_not_answer_is_a_fault_of_the_environment() -> None:
    with pytest.raises(EnvironmentFault, match="check the address, the network and that it runs"):
        names(DicomWeb("dicomweb+http://127.0.0.1:1/dicom-web"))


def listing(path: str) -> tuple[int, dict[str, str], bytes]:
    """Answer as a server whose study has a series of three instances, one of them without a valid UID."""
    if "offset=0" not in path:
        return 200, {}, b"[]"
    tag, values = next(
        (tag, values)
        for end, tag, values in (
            ("instances", INSTANCE, ["5.6", "../../7", "8.9"]),
            ("series", SERIES, ["3.4", ".."]),
            ("studies", STUDY, ["1.2", "MUSTERMANN"]),
        )
        if path.partition("?")[0].endswith(end)
    )
    return 200, {}, json.dumps([{tag: {"vr": "UI", "Value": [value]}} for value in values]).encode()


def test_what_has_no_valid_uid_is_listed_and_refused() -> None:
    with odd_server(listing) as address:
        source = DicomWeb(f"dicomweb+{address}")
        listed = names(source)
        assert listed == [
            "1.2/3.4/5.6",
            "1.2/3.4/(instance 1)",
            "1.2/3.4/8.9",
            "1.2/(series 1)",
            "(study 1)",
        ]
        for name in listed[1:2] + listed[3:]:
            with pytest.raises(DataFault) as caught:
                content(source, name)
            assert caught.value.reason == "missing-identifier"


@pytest.mark.parametrize("name", ["1.2/../5", "1/./2", "a/b/c", "1/2", "1/2/3/4", f"1/2/{'3' * 65}"])
def test_a_name_that_is_not_of_uids_asks_nobody(name: str) -> None:
    with pytest.raises(DataFault):
        content(DicomWeb("dicomweb+http://127.0.0.1:1"), name)


def test_a_server_that_sends_the_same_page_for_ever_is_left() -> None:
    page = json.dumps([{STUDY: {"Value": ["MUSTERMANN"]}}]).encode()
    with odd_server(lambda _: (200, {}, page)) as address:
        assert names(DicomWeb(f"dicomweb+{address}")) == ["(study 0)"]


@pytest.mark.parametrize("body", [b"<html>", b"[1, 2]", b'[{"0020000D": []}]', b'"x"'])
def test_an_answer_that_is_no_listing_is_a_fault_of_the_environment(body: bytes) -> None:
    with odd_server(lambda _: (200, {}, body)) as address, pytest.raises(EnvironmentFault):
        names(DicomWeb(f"dicomweb+{address}"))


Answer = tuple[int, dict[str, str], bytes]
MORE = {"Warning": '299 server: "There are 12 additional results that can be requested"'}


def archive(
    size: int,
    *,
    at_most: int = 1000,
    offsets: bool = True,
    warns: bool = False,
    counts: bool = True,
    **wrong: int,
) -> Callable[[str], Answer]:
    """Return the answers of a server with one study of one series of so many instances; `wrong` are its counts."""
    known = {"00201206": 1, "00201208": size, "00201209": size} if counts else {}
    known |= {
        f"0020{tag}": count for tag, count in zip(("1206", "1208", "1209"), wrong.values(), strict=False)
    }

    def answer(path: str) -> Answer:
        place, _, query = path.partition("?")
        asked = dict(part.split("=", 1) for part in query.split("&"))
        tag, uids, tags = next(
            level
            for end, level in {
                "instances": (INSTANCE, [f"5.{number}" for number in range(size)], ()),
                "series": (SERIES, ["3.4"], ("00201209",)),
                "studies": (STUDY, ["1.2"], ("00201206", "00201208")),
            }.items()
            if place.endswith(end)
        )
        begin = int(asked["offset"]) if offsets else 0
        page = uids[begin : begin + min(at_most, int(asked["limit"]))]
        counted = {one: {"vr": "IS", "Value": [known[one]]} for one in tags if one in known}
        matches = [{tag: {"vr": "UI", "Value": [uid]}} | counted for uid in page]
        is_more = warns and begin + len(page) < len(uids)
        return 200, MORE if is_more else {}, json.dumps(matches).encode()

    return answer


def listed_of(answer: Callable[[str], Answer], query: str = "") -> int:
    with odd_server(answer) as address:
        return len(names(DicomWeb(f"dicomweb+{address}{query}")))


@pytest.mark.parametrize("warns", [True, False])
@pytest.mark.parametrize("counts", [True, False])
@pytest.mark.parametrize("at_most", [1, 8, 20])
def test_a_server_that_hands_out_less_a_page_is_asked_on(at_most: int, counts: bool, warns: bool) -> None:
    # PS3.18 8.3.4.4: a server may return fewer than `limit`, and says so with Warning 299.
    assert listed_of(archive(20, at_most=at_most, counts=counts, warns=warns)) == 20


def test_a_list_longer_than_the_count_is_taken_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dicomweb, "PAGE", 10)
    assert listed_of(archive(25, studies=1, instances=10, of_series=10)) == 25


@pytest.mark.parametrize("warns", [True, False])
def test_a_list_shorter_than_the_count_is_no_archive(warns: bool) -> None:
    with pytest.raises(
        EnvironmentFault, match=r"lists 8 of 20 instances of a series: .* narrower filter"
    ) as caught:
        listed_of(archive(20, at_most=8, offsets=False, warns=warns))
    assert "3.4" not in str(caught.value).replace("127.0.0.1", "")


def test_a_list_that_ends_with_a_warning_is_no_archive() -> None:
    with pytest.raises(EnvironmentFault, match="lists 8 instances and has more of them"):
        listed_of(archive(20, at_most=8, offsets=False, warns=True, counts=False))


def test_the_same_full_page_again_is_no_archive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dicomweb, "PAGE", 10)
    with pytest.raises(EnvironmentFault, match="lists 10 instances and has more of them"):
        listed_of(archive(20, offsets=False, counts=False))


def test_fewer_series_than_the_study_has_are_no_archive() -> None:
    with pytest.raises(EnvironmentFault, match="lists 1 of 3 series of a study"):
        listed_of(archive(20, series=3))


def test_fewer_instances_than_the_study_has_are_no_archive() -> None:
    with pytest.raises(EnvironmentFault, match="lists 20 of 23 instances of a study"):
        listed_of(archive(20, series=1, instances=23))


def test_what_a_filter_leaves_out_is_not_missed() -> None:
    # Number of Study Related Series counts series of all modalities.
    assert listed_of(archive(20, series=3, instances=60), "?Modality=CT") == 20


def test_a_warning_about_fuzzy_matching_is_no_short_list() -> None:
    # PS3.18 8.3.4.2
    text = (
        "299 server: The fuzzymatching parameter is not supported. Only literal matching has been performed."
    )

    def answer(path: str) -> Answer:
        status, _, body = archive(20)(path)
        return status, {"Warning": text}, body

    assert listed_of(answer) == 20


MULTIPART = {"Content-Type": 'multipart/related; type="application/dicom"; boundary=xyz'}
WHOLE = b"--xyz\r\nContent-Type: application/dicom\r\n\r\nDICM\r\n--not\r\n\r\n--xyz--\r\n"


def sent(body: bytes, **headers: str) -> bytes:
    with odd_server(lambda _: (200, MULTIPART | headers, body)) as address:
        return content(DicomWeb(f"dicomweb+{address}"))


def test_the_one_part_is_handed_over_untouched() -> None:
    assert sent(WHOLE) == b"DICM\r\n--not\r\n"


def test_a_part_without_an_envelope_is_taken() -> None:
    assert sent(b"DICM", **{"Content-Type": "application/dicom"}) == b"DICM"


@pytest.mark.parametrize("kept", range(5, len(WHOLE) - 3, 7))
def test_an_answer_that_ends_early_is_no_short_file(kept: int) -> None:
    with pytest.raises(EnvironmentFault):
        sent(WHOLE[:kept])


def test_a_body_shorter_than_its_content_length_is_no_short_file() -> None:
    with pytest.raises(EnvironmentFault):
        sent(b"DICM", **{"Content-Type": "application/dicom", "Content-Length": "99"})


def test_several_parts_are_refused() -> None:
    with pytest.raises(EnvironmentFault, match="several parts"):
        only_part(b"--x\r\n\r\na\r\n--x\r\n\r\nb\r\n--x--", "multipart/related; boundary=x")


def test_an_answer_over_the_limit_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dicomweb, "FETCHED_LIMIT_BYTES", 10)
    with pytest.raises(DataFault) as caught:
        sent(WHOLE)
    assert caught.value.reason == "too-large"


def test_what_the_server_cannot_hand_over_as_stored_is_a_bad_file() -> None:
    with odd_server(lambda _: (406, {}, b"")) as address, pytest.raises(DataFault) as caught:
        content(DicomWeb(f"dicomweb+{address}"))
    assert caught.value.reason == "unsupported"


def test_a_server_in_trouble_is_no_bad_file() -> None:
    with odd_server(lambda _: (500, {}, b"")) as address, pytest.raises(EnvironmentFault, match="status 500"):
        content(DicomWeb(f"dicomweb+{address}"))


def test_no_uid_reaches_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(0)
    with odd_server(listing) as address:
        names(DicomWeb(f"dicomweb+{address}"))
    ours = [record.getMessage() for record in caplog.records if record.levelname != "DEBUG"]
    assert not [line for line in ours if "3.4" in line or "1.2" in line]


@pytest.mark.parametrize("address", ["dicomweb+ftp://a/b", "dicomweb+https:///x", "dicomweb+nothing"])
def test_an_address_that_is_no_server_is_refused(address: str) -> None:
    with pytest.raises(UserFault, match="write dicomweb"):
        DicomWeb(address)


def test_credentials_in_the_address_are_refused_and_not_repeated() -> None:
    with pytest.raises(UserFault, match="netrc") as caught:
        DicomWeb("dicomweb+https://erika:secret@host/dicom-web")
    assert "secret" not in str(caught.value)


def test_a_filter_that_is_no_keyword_is_refused() -> None:
    with pytest.raises(UserFault, match="modalty: no DICOM keyword"):
        DicomWeb("dicomweb+https://host/dicom-web?modalty=CT")
