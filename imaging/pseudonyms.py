"""Keyed pseudonyms, which replace identifiers everywhere beyond ingest, and the key that they are made with."""

import hmac
import os
import re
import secrets
import stat
import tempfile
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Literal
from uuid import UUID

from imaging.errors import EnvironmentFault

Level = Literal["patient", "study", "series", "instance", "file", "site", "frame-of-reference"]
VariantPolicy = Literal["report", "join"]
"""Whether "00123" and "123" are two patients and reported, or one."""

KEY_BYTES = 32
DIGITS = 32
"""Hex digits of a pseudonym: 128 bits, so that 10 million instances do not collide."""
NO_KEY = "0" * DIGITS
"""Stands in a row of keys where there is no identifier."""
PATIENT_DIGITS = 16
"""Hex digits of a new PatientID: two of 10 million patients share one with a chance of 3 in a million."""
NEAREST_DAYS, FARTHEST_DAYS = 31, 3653
"""By how many days dates go back: more than a month, less than ten years."""
STANDARD_UID = re.compile(r"1\.2\.840\.10008(?:\.[0-9]{1,4}){1,9}")
"""The form of the UIDs that the standard itself registers (PS3.6 annex A): no patient is identified by them."""
LEADING_ZEROS = re.compile(r"^0+(?=[^\W_])")
AT_THE_ENDS = re.compile(r"^[\s\0.,;:_/\\#^-]+|[\s\0.,;:_/\\#^-]+$")


@dataclass(frozen=True, slots=True)
class Pseudonyms:
    """HMAC-SHA-256 under one secret key: the same identifier maps to the same pseudonym on every night."""

    secret: bytes = field(repr=False)
    patient_variants: VariantPolicy = "report"

    def key(self, level: Level, identifier: str) -> str:
        """Return the pseudonym of an identifier; levels never share pseudonyms, and variants of a patient may.

        >>> Pseudonyms(b"k").key("patient", "P1") == Pseudonyms(b"k").key("study", "P1")
        False
        """
        return self.keys(level, (identifier,))[0]

    def keys(self, level: Level, identifiers: Iterable[str]) -> list[str]:
        """Return the pseudonyms of many identifiers of one level, in their order.

        >>> Pseudonyms(b"k").keys("study", ["1.2", "1.3"])[1] == Pseudonyms(b"k").key("study", "1.3")
        True
        """
        plain = self._patient if level == "patient" else str.strip
        digest = _keyed(self.secret, level)
        return [digest(plain(identifier)).hex()[:DIGITS] for identifier in identifiers]

    def variant_key(self, patient_id: str) -> str:
        """Return a patient's pseudonym under the other policy about variants: patients who share it may be one."""
        other: VariantPolicy = "report" if self.patient_variants == "join" else "join"
        return replace(self, patient_variants=other).key("patient", patient_id)

    def uid(self, uid: str) -> str:
        """Return the UID that replaces another, made from a UUID (PS3.5 B.2); the standard's own UIDs stay as they are.

        >>> Pseudonyms(b"k").uid("1.2.840.10008.1.2")
        '1.2.840.10008.1.2'
        >>> Pseudonyms(b"k").uid("1.2.3")
        '2.25.173662519797298068381705908722597047085'
        """
        plain = uid.strip(" \0")
        if not plain or is_standard_uid(plain):
            return plain
        return f"2.25.{UUID(bytes=_keyed(self.secret, 'uid')(plain)[:16], version=4).int}"

    def patient_id(self, patient_id: str) -> str:
        """Return the new PatientID and PatientName: the first digits of the patient's pseudonym."""
        return self.key("patient", patient_id)[:PATIENT_DIGITS]

    def shift_days(self, patient_id: str) -> int:
        """Return by how many days all dates of a patient move, -3653 to -31, so that intervals stay."""
        drawn = int.from_bytes(_keyed(self.secret, "shift")(self._patient(patient_id))[:8])
        return -NEAREST_DAYS - drawn % (FARTHEST_DAYS - NEAREST_DAYS + 1)

    def _patient(self, patient_id: str) -> str:
        return canonical_patient_id(patient_id) if self.patient_variants == "join" else patient_id.strip()

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the key, which does not reveal it: a dataset names by it the key that it was made with."""
        return self.key("file", "fingerprint of the key")[:16]


@lru_cache(maxsize=64)
def _keyed(secret: bytes, purpose: str) -> Callable[[str], bytes]:
    """Return HMAC-SHA-256 of a purpose and a text as a function; the common beginning is hashed once: half the cost."""
    begun = hmac.new(secret, f"{purpose}\0".encode(), "sha256")

    def digest(text: str) -> bytes:
        whole = begun.copy()
        # File names need not be UTF-8: what os.fsdecode could not read comes as surrogates.
        whole.update(text.encode(errors="surrogateescape"))
        return whole.digest()

    return digest


def is_standard_uid(uid: str) -> bool:
    """Return whether the standard registers UIDs of this form, such as SOP classes and transfer syntaxes."""
    return STANDARD_UID.fullmatch(uid) is not None


def canonical_patient_id(text: str) -> str:
    """Return the form that the variants of one PatientID share; it never becomes empty where the text is not.

    >>> {canonical_patient_id(text) for text in ("00123", "123", "123 ", "１２３")}
    {'123'}
    """
    folded = unicodedata.normalize("NFKC", text).casefold()
    # Folding may leave apart what belongs together.
    plain = AT_THE_ENDS.sub("", unicodedata.normalize("NFKC", folded))
    return LEADING_ZEROS.sub("", plain) or text.strip()


def load_pseudonyms(path: Path, secret: str | None = None) -> Pseudonyms:
    """Return the pseudonyms under the key of a secret (64 hex digits), else of the key file, which is made if missing.

    A new key is a new beginning: no dataset that was made with the old one can be continued (it names its key by the
    fingerprint). Raises EnvironmentFault for a key of another length, and for a file that others can read.
    """
    if secret is not None:
        return Pseudonyms(_key_of_digits(secret))
    if not path.exists():
        _create_key(path)
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        raise EnvironmentFault(
            f"{path} has mode {mode:04o} and may be read by others; the limit is 0600: chmod 600 {path}"
        )
    key = path.read_bytes()
    if len(key) != KEY_BYTES:
        raise EnvironmentFault(
            f"{path} holds {len(key)} bytes and must hold {KEY_BYTES}: restore it from your backup; "
            "a new key would turn every known patient into a new one"
        )
    return Pseudonyms(key)


def _key_of_digits(secret: str) -> bytes:
    plain = secret.strip()
    if re.fullmatch(rf"[0-9a-fA-F]{{{2 * KEY_BYTES}}}", plain) is None:
        raise EnvironmentFault(
            f"the key given as a secret has {len(plain)} characters and must be {2 * KEY_BYTES} hex digits: "
            "write the key file as hex, or make a new one with 'openssl rand -hex 32'"
        )
    return bytes.fromhex(plain)


def _create_key(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    # Readable by its owner alone from the first moment.
    descriptor, partial = tempfile.mkstemp(dir=path.parent, prefix=".draft-")
    with os.fdopen(descriptor, "wb") as file:
        file.write(secrets.token_bytes(KEY_BYTES))
        file.flush()
        os.fsync(file.fileno())
    # A link, unlike a rename, never replaces the key that another process made meanwhile.
    try:
        os.link(partial, path)
    except FileExistsError:
        pass
    finally:
        Path(partial).unlink()
