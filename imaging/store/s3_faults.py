"""Faults of S3, each with its remedy: by the code of a server's answer, or by the name of boto3's exception.

boto3 is not loaded: MLflow keeps files on S3, too, and its errors quote those of boto3.
"""

import re
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from typing import Any

from imaging.errors import EnvironmentFault, RadloopError, UserFault
from imaging.store.protocol import Unreachable

Entry = tuple[type[RadloopError], str]
QUOTED = re.compile(r"An error occurred \((\w+)\) when calling")
"""boto3's text for an answer with an error."""
DETAILS = {"ServerTime": "its clock says", "Region": "its region is", "Endpoint": "its endpoint is"}
"""Elements of an answer with an error that a person needs."""

LOGIN = (
    EnvironmentFault,
    "the login at S3 has ended ({reason}): log in again (`aws sso login`), or set AWS_ACCESS_KEY_ID, "
    "AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN anew, all three, and run it again",
)
TOKEN = (
    EnvironmentFault,
    "S3 takes no AWS_SESSION_TOKEN like this one ({reason}): set it with the two keys that it was given out with, or "
    "unset it where the keys have none",
)
CLOCK = (
    EnvironmentFault,
    "S3 refuses requests from this machine, whose clock is wrong by more than 15 min ({reason}): set the clock "
    "(`timedatectl set-ntp true`)",
)
REGION = (
    EnvironmentFault,
    "the {place} is elsewhere ({reason}): set AWS_DEFAULT_REGION and AWS_ENDPOINT_URL_S3 to its region and server",
)
REFUSED = (
    EnvironmentFault,
    "S3 refuses access to the {place} ({reason}): check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and that they may "
    "list, read and, for a store, write it",
)
NO_KEYS = (
    EnvironmentFault,
    "no credentials for S3 were found: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE",
)
PROXY = (
    Unreachable,
    "the proxy to S3 does not answer ({reason}): correct HTTPS_PROXY, or add S3's host to NO_PROXY, and run it again",
)
CERTIFICATE = (
    Unreachable,
    "S3's certificate is not accepted ({reason}): set AWS_CA_BUNDLE to the file of your hospital's certificates",
)
SILENT = (
    Unreachable,
    "S3 did not answer as it must for the {place} ({reason}): "
    "check the network and AWS_ENDPOINT_URL_S3, and run it again",
)
BUSY = (Unreachable, "S3 cannot serve the {place} ({reason}): run it again")
OTHER = (
    EnvironmentFault,
    "S3 cannot serve the {place} ({reason}): look at the server's log, and run it again",
)

BY_CODE: Mapping[str, Entry] = {
    "AccessDenied": REFUSED,
    "AllAccessDisabled": REFUSED,
    "AuthorizationHeaderMalformed": REGION,
    "ExpiredToken": LOGIN,
    "ExpiredTokenException": LOGIN,
    "IllegalLocationConstraintException": REGION,
    "InternalError": BUSY,
    "InvalidAccessKeyId": REFUSED,
    "InvalidToken": TOKEN,
    "NoSuchBucket": (UserFault, "there is no {place}: correct s3://BUCKET/PREFIX"),
    "PermanentRedirect": REGION,
    "RequestExpired": CLOCK,
    "RequestTimeTooSkewed": CLOCK,
    "ServiceUnavailable": BUSY,
    "SignatureDoesNotMatch": (
        EnvironmentFault,
        "S3 refuses access to the {place} ({reason}): AWS_SECRET_ACCESS_KEY does not belong to AWS_ACCESS_KEY_ID: set "
        "both anew; or a proxy changes the requests",
    ),
    "SlowDown": BUSY,
    "TemporaryRedirect": BUSY,
    "TokenRefreshRequired": LOGIN,
    "301": REGION,
}
"""Codes of the lists of errors of S3 and STS; those of other servers (Ceph, MinIO, SeaweedFS) equal them."""

BY_EXCEPTION: Mapping[str, Entry] = {
    "NoCredentialsError": NO_KEYS,
    "PartialCredentialsError": NO_KEYS,
    "ProfileNotFound": (
        EnvironmentFault,
        "AWS_PROFILE names no profile of this machine: correct or unset it",
    ),
    "NoRegionError": (
        EnvironmentFault,
        "S3 has no region: set AWS_DEFAULT_REGION (us-east-1 for most own servers)",
    ),
    "SSOError": LOGIN,
    "TokenRetrievalError": LOGIN,
    "CredentialRetrievalError": LOGIN,
    "LoginError": LOGIN,
    "ProxyConnectionError": PROXY,
    "SSLError": CERTIFICATE,
    "BotoCoreError": SILENT,
}
"""Names of botocore's exceptions, each before that of its base."""


def fault_of_answer(code: str, status: int, place: str, details: Mapping[str, Any]) -> RadloopError:
    """Return the fault of an answer with an error; `place` follows "the": bucket NAME."""
    known = [f"{text} {details[name]}" for name, text in DETAILS.items() if details.get(name)]
    kind, sentence = BY_CODE.get(code) or _by_status(status)
    return kind(sentence.format(place=place, reason="; ".join([_reason(code, status), *known])))


def fault_of_exception(error: BaseException, place: str) -> RadloopError | None:
    """Return the fault of boto3's exception, or of one that quotes it or follows from it; None for any other."""
    causes = list(_causes(error))
    for one in causes:
        names = {base.__name__ for base in type(one).__mro__ if base.__module__ == "botocore.exceptions"}
        if "ClientError" in names:
            answer: Mapping[str, Any] = getattr(one, "response", {})
            details = answer.get("Error", {})
            status = answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
            return fault_of_answer(details.get("Code", ""), status, place, details)
        for name, (kind, sentence) in BY_EXCEPTION.items():
            if name in names:
                return kind(sentence.format(place=place, reason=type(one).__name__))
    quoted = next((match for one in causes if (match := QUOTED.search(str(one)))), None)
    return fault_of_answer(quoted[1], 0, place, {}) if quoted else None


def fault_of_silence(error: BaseException, place: str) -> RadloopError:
    """Return the fault of an exception that is not boto3's, of the network's mostly."""
    kind, sentence = SILENT
    return kind(sentence.format(place=place, reason=type(error).__name__))


def _by_status(status: int) -> Entry:
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        return REFUSED
    passing = status >= HTTPStatus.INTERNAL_SERVER_ERROR or status == HTTPStatus.TOO_MANY_REQUESTS
    return BUSY if passing else OTHER


def _reason(code: str, status: int) -> str:
    return code if code in BY_CODE or not status else f"{code}, status {status}"


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__ or (None if seen.__suppress_context__ else seen.__context__)
