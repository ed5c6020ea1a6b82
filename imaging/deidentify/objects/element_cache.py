"""Cache of elements by their bytes: the identifiers in each, and its treated form where the element names nobody.

Results that depend on the patient are kept for that patient alone.
"""

from collections.abc import Iterable
from functools import lru_cache
from io import BytesIO
from typing import NamedTuple

from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pydicom.tag import BaseTag

from imaging.deidentify.identity.identifiers import Identifier, collect_from_datasets, collect_from_value
from imaging.deidentify.objects.element_parser import META_TAGS, ElementBytes
from imaging.deidentify.objects.rules import rules_for
from imaging.deidentify.options import DeidentifyOptions
from imaging.dicom.element_limits import check_element_limits
from imaging.dicom.elements import Doubt
from imaging.dicom.parse import reading
from imaging.pseudonyms import Pseudonyms

CACHE_BYTES, ELEMENT_BYTES, ENTRY_BYTES = 2**22, 2**12, 512
"""Limits of a cache and of an element in it, and what an entry takes beside its bytes."""
CACHES = 8
BEGIN, BEGIN_TAG = bytes.fromhex("08000000"), BaseTag(0x00080000)
"""An element before the one that is parsed: pydicom recognises the encoding by its first bytes."""
END, END_TAG = bytes.fromhex("fcfffcff"), BaseTag(0xFFFCFFFC)
"""An element after it: it is read only if the parsed one ends where it should."""


class TreatedBytes(NamedTuple):
    """A treated element, valid where no identifier is in the `searched` texts: its value, and all bytes to write.

    The value is left empty for elements that contain others.
    """

    value: bytes
    written: bytes
    searched: str = ""
    needs_utf8: bool = False


class CachedElement(NamedTuple):
    """Element as pydicom reads it, the identifiers in it, and its treated form if that is the same for all patients."""

    raw: RawDataElement
    identifiers: tuple[Identifier, ...]
    treated: TreatedBytes | None


REMOVED = TreatedBytes(b"", b"")


class ElementCache:
    """Results under one key, one set of options, one character set and one encoding; of bounded size."""

    def __init__(self, options: DeidentifyOptions, implicit: bool, charset: ElementBytes | None) -> None:
        self._implicit, self._charset, self._rule_of = implicit, charset, rules_for(options)
        self._charset_value = charset.value() if charset else b""
        self._known: dict[bytes, CachedElement] = {}
        self.of_patients: dict[tuple[bytes, bytes], TreatedBytes] = {}
        """Treated elements that depend on the patient, by the bytes of the PatientID and of the element."""
        self._parsed: dict[bytes, Dataset] = {}
        self._kept_bytes = 0
        self.added: dict[tuple[str, ...], dict[int, bytes]] = {}
        """Bytes of the elements that are added to each object, by its character set."""
        if charset is not None:
            with reading("unreadable"):
                self._parse(b"")

    def known(self, elements: Iterable[ElementBytes]) -> list[CachedElement]:
        """Return what is known of each element of a file; raise Doubt where one cannot be parsed."""
        self._parsed.clear()
        known = self._known.get
        return [known(element.whole) or self._collected(element) for element in elements]

    def keep(
        self, element: ElementBytes, known: CachedElement, treated: TreatedBytes, patient: bytes | None
    ) -> None:
        """Keep the treated form of an element, for one patient or for all."""
        if len(element.whole) > ELEMENT_BYTES:
            return
        self._make_room(2 * len(element.whole) + 2 * len(treated.written) + len(treated.searched))
        if patient is None:
            self._known[element.whole] = CachedElement(known.raw, known.identifiers, treated)
        else:
            self.of_patients[patient, element.whole] = treated

    def parsed(self, element: ElementBytes) -> Dataset:
        """Return the data set of an element that contains others; treatment changes it, so it is for one use."""
        parsed = self._parsed.pop(element.whole, None)
        if parsed is not None:
            return parsed
        with reading("unreadable"):
            return self._parse(element.whole)

    def _collected(self, element: ElementBytes) -> CachedElement:
        is_removed = self._rule_of(element.tag).treatment == "remove"
        raw = element.raw(implicit=self._implicit and element.tag not in META_TAGS)
        identifiers = self._identifiers(element, raw)
        known = CachedElement(raw, identifiers, REMOVED if is_removed else None)
        # An entry without any result is not worth its place.
        if (identifiers or is_removed) and len(element.whole) <= ELEMENT_BYTES:
            self._make_room(2 * len(element.whole))
            self._known[element.whole] = known
        return known

    def _identifiers(self, element: ElementBytes, raw: RawDataElement) -> tuple[Identifier, ...]:
        """Return the identifiers in an element, decoded in its character set; the file meta group has none."""
        if not element.may_contain_elements():
            charset = b"" if element.tag in META_TAGS else self._charset_value
            return collect_from_value(element.tag, raw.VR, raw.value or b"", charset)
        with reading("unreadable"):
            self._parsed[element.whole] = dataset = self._parse(element.whole)
            return tuple(one for one in collect_from_datasets(dataset) if one.kind != "text")

    def _parse(self, whole: bytes) -> Dataset:
        """Return the data set that pydicom reads of one element; raise Doubt where it does not end where it should."""
        charset = self._charset.whole if self._charset else b""
        form = bytes(4) if self._implicit else b"OB" + bytes(6)
        data = BEGIN + form + charset + whole + END + form
        check_element_limits(data, 0, implicit=self._implicit, little=True)
        parsed = read_dataset(BytesIO(data), self._implicit, True)
        if END_TAG not in parsed or len(parsed) != 2 + bool(charset) + bool(whole):
            raise Doubt
        del parsed[BEGIN_TAG], parsed[END_TAG]
        return parsed

    def _make_room(self, count: int) -> None:
        self._kept_bytes += count + ENTRY_BYTES
        if self._kept_bytes > CACHE_BYTES:
            self._known.clear()
            self.of_patients.clear()
            self._kept_bytes = count + ENTRY_BYTES


@lru_cache(CACHES)
def cache_for(
    options: DeidentifyOptions, pseudonyms: Pseudonyms, implicit: bool, charset: ElementBytes | None
) -> ElementCache:
    """Return the cache of this process for these options, this key and files of this encoding."""
    return ElementCache(options, implicit, charset)
