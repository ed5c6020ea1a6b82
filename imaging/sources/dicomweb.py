"""DICOMweb server as a source: QIDO-RS lists it (PS3.18 10.6), WADO-RS hands over an instance (10.4)."""

import logging
import re
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from email.message import Message
from functools import cached_property
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import requests
from dicomweb_client.uri import URI
from dicomweb_client.web import DICOMwebClient
from pydicom.datadict import keyword_dict
from requests.auth import AuthBase

from imaging.errors import DataFault, EnvironmentFault, UserFault
from imaging.preprocess.spec import PreprocessSpec
from imaging.sources.patients import Patients
from imaging.sources.protocol import DICOMWEB, FETCHED_LIMIT_BYTES, Payload, SourceFile

PAGE = 1000
STEP_BYTES = 2**20
TIMEOUT_S = (10.0, 60.0)
"""Limits of connecting, and of waiting for the next bytes."""

UID = re.compile(r"(?!\.{1,2}$)[0-9.]{1,64}")
"""Form of a UID (PS3.5 9.1); never the step of a path `.` or `..`."""

STUDY, SERIES, INSTANCE = "0020000D", "0020000E", "00080018"
LEVELS = (
    ("study", "studies", STUDY, ("00201206", "00201208")),
    ("series", "series", SERIES, ("00201209", "00201209")),
    ("instance", "instances", INSTANCE, ()),
)
"""Noun, plural and tag of the UID of each level; tags of the server's counts of what is right below one of it, and of
the instances below it (Number of Study Related Series and Instances, Number of Series Related Instances)."""
MORE = re.compile(r"\b299\b(?!.*fuzzymatching)", re.IGNORECASE)
"""Warning of a server that there are more matches than it returned (PS3.18 8.3.4.4), not the one that fuzzy matching is
not supported (8.3.4.2)."""

OF_SERIES = frozenset(
    {"Modality", "SeriesInstanceUID", "SeriesNumber", "SeriesDescription", "BodyPartExamined"}
)
"""Filters of a search for series (PS3.18 table 10.6.1-5); all others are the study's."""

ORIGINAL = 'multipart/related; type="application/dicom"; transfer-syntax=*'
"""The file as it is stored: after transcoding its original syntax is not known."""

LINE, BLANK = b"\r\n", b"\r\n\r\n"

Counts = tuple[int | None, int | None]
"""The server's count of what is right below a study or a series, and of the instances below it; None where unknown."""
UNKNOWN: Counts = (None, None)
Match = Mapping[str, Mapping[str, Any]]
"""One match of a search, in DICOM's JSON model: attributes by tag (PS3.18 F.2)."""


class DicomWeb:
    """Instances of a server, named by the UIDs of study, series and instance.

    The address may carry filters: `dicomweb+https://host/dicom-web?Modality=CT&StudyDate=20260101-`. Credentials
    come with `auth` or `headers`, or from a .netrc file. QIDO-RS has neither size nor time, so an instance counts
    as unchanged as long as its UIDs are listed.
    """

    kind = "dicomweb"

    def __init__(
        self, address: str, auth: AuthBase | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        parts = urlsplit(address.removeprefix(DICOMWEB))
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UserFault("this is no DICOMweb server: write dicomweb+https://HOST:PORT/dicom-web")
        if parts.username or parts.password:
            # Not quoted: an address ends up in tables, logs and pages.
            raise UserFault("the address of a DICOMweb server carries no credentials: keep them in ~/.netrc")
        self.address = f"{parts.scheme}://{parts.netloc}{parts.path}".rstrip("/")
        self.filters = _filters(parts.query)
        self._auth, self._headers = auth, dict(headers or {})
        self._warning = ""

    def default_spec(self) -> PreprocessSpec:
        """Return the spec of CT in a soft-tissue window."""
        return PreprocessSpec()

    def scan(self) -> Iterator[SourceFile]:
        """List the instances in the server's order, a thousand a request.

        Raises EnvironmentFault where the list is shorter than the server's own counts or than it says: what is not
        listed would count as deleted.
        """
        yield from self._below((), UNKNOWN)

    def fetch(self, file: SourceFile) -> Payload:
        """Get one instance in the transfer syntax in which it is stored, byte by byte as the server has it."""
        uids = file.name.split("/")
        if len(uids) != 3 or not all(map(UID.fullmatch, uids)):
            raise DataFault("missing-identifier", "the server lists it without a valid UID")
        return Patients().payload(file, lambda: self._get(uids))

    def _below(self, names: tuple[str, ...], counts: Counts) -> Generator[SourceFile, None, int | None]:
        """Yield the instances below a study or a series; one without a valid UID stands for what is below it.

        Returns how many there are, None where one stood for others.
        """
        is_instance = len(names) == len(LEVELS)
        if is_instance or not all(map(UID.fullmatch, names)):
            yield SourceFile(name="/".join(names), size_bytes=0, mtime_ns=0)
            return 1 if is_instance else None
        noun, total = LEVELS[len(names)][0], 0
        is_known = counts[1] is not None and not (len(names) == 1 and self._of_series)
        for number, (uid, below) in enumerate(self._pages(names, counts[0])):
            listed = yield from self._below((*names, uid or f"({noun} {number})"), below)
            is_known, total = is_known and listed is not None, total + (listed or 0)
        if is_known and total < (counts[1] or 0):
            raise self._short(total, f"of {counts[1]} instances of a {LEVELS[len(names) - 1][0]}")
        return total

    def _pages(self, within: tuple[str, ...], expected: int | None) -> Iterator[tuple[str | None, Counts]]:
        """Yield the UID of each match, None for one that is not valid, and the server's counts of what is below it.

        A UID that two patients share is listed for each of them, and has what is below both: it comes once.
        """
        client, (_, plural, tag, count_tags) = self._client, LEVELS[len(within)]
        # Modality is not turned into ModalitiesInStudy: with it, Orthanc 1.10 has no second page.
        of_series = self._of_series
        of_study = {key: value for key, value in self.filters.items() if key not in of_series}
        searches: Sequence[tuple[Callable[..., Sequence[Match]], dict[str, str]]] = (
            (client.search_for_studies, of_study),
            (client.search_for_series, of_series),
            (client.search_for_instances, {}),
        )
        search, filters = searches[len(within)]
        if filters:
            expected = None  # the server counts what does not match, too
        offset, last, seen, listed, is_more = 0, None, set[str | None](), 0, False
        while True:
            with self._faults():
                self._warning = ""
                fields = list(dict.fromkeys(count_tags))
                page = search(*within, limit=PAGE, offset=offset, fields=fields, search_filters=filters)
                matches = [(_uid(match, tag), _counts(match, count_tags)) for match in page]
            # A server that knows no offset would send the same page for ever.
            is_new = any(uid is None or uid not in seen for uid, _ in matches)
            if not page or page[0] == last or not is_new:
                is_more = is_more or (expected is None and len(page) == PAGE)
                break
            for uid, counts in matches:
                if uid is None or uid not in seen:
                    listed += 1
                    yield uid, counts
                seen.add(uid)
            offset, last, is_more = offset + len(page), page[0], MORE.search(self._warning) is not None
            if expected is not None and offset >= expected and len(page) < PAGE and not is_more:
                break
        if expected is not None and listed < expected:
            raise self._short(listed, f"of {expected} {plural} of a {LEVELS[len(within) - 1][0]}")
        if is_more:
            raise self._short(listed, f"{plural} and has more of them")

    def _short(self, listed: int, rest: str) -> EnvironmentFault:
        return EnvironmentFault(
            f"the DICOMweb server at {self.address} lists {listed} {rest}: what it leaves out would count as deleted. "
            "Raise its limit on matches, or ask for less at once with a narrower filter, "
            "as ?StudyDate=20260101-20260131; if the archive has just changed, run it again"
        )

    @cached_property
    def _of_series(self) -> dict[str, str]:
        return {key: value for key, value in self.filters.items() if key in OF_SERIES}

    def _get(self, uids: Sequence[str]) -> bytes:
        study, series, instance = uids
        url, body = str(URI(self.address, study, series, instance, permissive=True)), bytearray()
        with (
            self._faults(),
            self._session.get(url, headers={"Accept": ORIGINAL}, stream=True, timeout=TIMEOUT_S) as answer,
        ):
            answer.raise_for_status()
            for chunk in answer.iter_content(STEP_BYTES):
                body += chunk
                if len(body) > FETCHED_LIMIT_BYTES:
                    raise DataFault(
                        "too-large", f"the limit of a fetched file is {FETCHED_LIMIT_BYTES} bytes"
                    )
        return only_part(bytes(body), answer.headers.get("Content-Type", ""))

    @cached_property
    def _session(self) -> requests.Session:
        session = requests.Session()
        session.auth = self._auth
        session.headers.update(self._headers)
        session.hooks["response"].append(self._note_warning)
        return session

    def _note_warning(self, answer: requests.Response, *_: object, **__: object) -> None:
        """Keep the warning of an answer, which dicomweb-client does not hand on."""
        self._warning = answer.headers.get("Warning", "")

    @cached_property
    def _client(self) -> DICOMwebClient:
        # It logs the UIDs of what it searches for.
        logging.getLogger("dicomweb_client").setLevel(logging.CRITICAL)
        client = DICOMwebClient(self.address, self._session, permissive_uid=True, timeout=TIMEOUT_S)
        client.set_http_retry_params(retry=False)
        return client

    @contextmanager
    def _faults(self) -> Iterator[None]:
        """Turn errors into ours; their texts quote addresses with UIDs."""
        try:
            yield
        except requests.HTTPError as error:
            raise self._refusal(error.response.status_code if error.response is not None else 0) from None
        except (requests.RequestException, OSError, ValueError, TypeError, AttributeError) as error:
            raise EnvironmentFault(
                f"no DICOMweb server answers as it must at {self.address} ({type(error).__name__}): "
                "check the address, the network and that it runs"
            ) from None

    def _refusal(self, status: int) -> DataFault | EnvironmentFault:
        if status == requests.codes.not_acceptable:
            return DataFault("unsupported", "the server does not hand it over as it is stored (status 406)")
        remedy = {
            401: "check its credentials in ~/.netrc",
            403: "check that its credentials may read what is listed",
            404: "check the path of the address; if it was right before, an instance is gone: run it again",
        }.get(status, "look into its log, and run it again")
        return EnvironmentFault(
            f"the DICOMweb server at {self.address} answers with status {status}: {remedy}"
        )


def _filters(query: str) -> Mapping[str, str]:
    known = {keyword.lower(): keyword for keyword in keyword_dict}
    given = parse_qsl(query, keep_blank_values=True)
    wrong = [key for key, _ in given if key.lower() not in known]
    if wrong:
        raise UserFault(f"{', '.join(wrong)}: no DICOM keyword to search by, such as Modality or StudyDate")
    return {known[key.lower()]: value for key, value in given}


def _uid(match: Match, tag: str) -> str | None:
    value = _first(match, tag)
    return value if isinstance(value, str) and UID.fullmatch(value) else None


def _counts(match: Match, tags: Sequence[str]) -> Counts:
    values = [_first(match, tag) for tag in tags]
    known = [value if isinstance(value, int) and value > 0 else None for value in values]
    return (known[0], known[1]) if known else UNKNOWN


def _first(match: Match, tag: str) -> object:
    values = match.get(tag, {}).get("Value") or [None]
    return values[0]


def only_part(body: bytes, content_type: str) -> bytes:
    r"""Return the one part of a multipart/related body (RFC 2387); raise EnvironmentFault for anything else.

    dicomweb-client's decoder also takes a body that ends early, and returns what there is.

    >>> only_part(b"--x\r\nContent-Type: a/b\r\n\r\nDICM\r\n--x--", 'multipart/related; boundary="x"')
    b'DICM'
    """
    header = Message()
    header["Content-Type"] = content_type
    if header.get_content_type() == "application/dicom":
        return body
    boundary = header.get_boundary()
    if header.get_content_type() != "multipart/related" or not boundary:
        raise EnvironmentFault(
            f"the server sent {header.get_content_type()} where DICOM is asked for: check the address"
        )
    mark = b"--" + boundary.encode("ascii", "replace")
    begin, end = body.find(mark + LINE), body.rfind(LINE + mark + b"--")
    content = body.find(BLANK, begin)
    if begin < 0 or content < 0 or end < content + len(BLANK):
        raise EnvironmentFault(
            f"the server sent {len(body)} bytes without a whole part in them: run it again"
        )
    if body.find(LINE + mark + LINE, content, end) >= 0:
        raise EnvironmentFault("the server sent several parts where one is asked for: run it again")
    return body[content + len(BLANK) : end]
