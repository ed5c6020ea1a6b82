"""Search targets of an original: the identifying values that its output must not hold, as no option keeps them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pydicom.charset import convert_encodings
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from imaging.deidentify.identity.dates import shift_da
from imaging.deidentify.identity.identifiers import Identifier, collect_identifiers
from imaging.deidentify.options import DeidentifyOptions
from imaging.deidentify.profile.profile import Profile, load_profile
from imaging.deidentify.profile.safe_private import is_safe
from imaging.deidentify.proof.patterns import is_identifying
from imaging.dicom.parse import reading
from imaging.pseudonyms import Pseudonyms, canonical_patient_id

META_GROUP, MEDIA_STORAGE_INSTANCE = 0x0002, 0x00020003
TEXTS = frozenset({"AE", "CS", "DA", "DS", "DT", "IS", "LO", "LT", "PN", "SH", "ST", "UC", "UI", "UR", "UT"})
WIDE = frozenset({"text", "device", "place"})
"""Kinds that devices write into many attributes, kept ones too: there the value is no identifier."""
EVERYWHERE = frozenset({"latin_1", "iso8859", "utf8", "utf_8", "ascii"})


@dataclass(frozen=True, slots=True)
class SearchTargets:
    """The identifiers of one original, and the character sets in which they stand in it."""

    identifiers: tuple[Identifier, ...]
    charsets: tuple[str, ...] = ()


def search_targets(dataset: Dataset, options: DeidentifyOptions, pseudonyms: Pseudonyms) -> SearchTargets:
    """Return the values to search for in the output of a data set that `parse` returned; raise DataFault."""
    with reading("unreadable"):
        identifiers = collect_identifiers(dataset)
        kept, cleaned = kept_values(dataset, options, load_profile())
        shifted = _shifted(dataset, identifiers, options, pseudonyms)
        charsets = convert_encodings(dataset.get("SpecificCharacterSet") or None)
    blob = "\0".join(cleaned)

    def gone(identifier: Identifier) -> bool:
        value = identifier.value.strip().casefold()
        if (
            not is_identifying(identifier)
            or value in kept
            or (identifier.kind == "date" and value in shifted)
        ):
            return False
        if identifier.tag >> 16 == META_GROUP and identifier.tag != MEDIA_STORAGE_INSTANCE:
            # It names the programs that wrote the file, and files of many hospitals have the same.
            return False
        return identifier.kind not in WIDE or value not in blob

    names = [name for name in dict.fromkeys(charsets) if name not in EVERYWHERE]
    return SearchTargets(tuple(filter(gone, identifiers)), tuple(names))


def kept_values(
    dataset: Dataset, options: DeidentifyOptions, profile: Profile
) -> tuple[frozenset[str], frozenset[str]]:
    """Return the texts that stay as they are by an option, and those that stay but for identifiers in them."""
    kept: set[str] = set()
    cleaned: set[str] = set()
    for element in dataset.iterall():
        action = profile.action(int(element.tag), options)
        if element.tag.is_private:
            safe = options.safe_private and is_safe(element.private_creator or "", int(element.tag))
            action = "C" if safe else "X"
        if action in ("K", "C", None) and element.VR in TEXTS:
            values = set(_texts(element.value))
            cleaned |= values
            if action == "K":
                kept |= values
    return frozenset(kept), frozenset(cleaned)


def _texts(value: object) -> Iterator[str]:
    values = value if isinstance(value, MultiValue) else (value,)
    return (str(one).strip().casefold() for one in values if one)


def _shifted(
    dataset: Dataset, identifiers: Sequence[Identifier], options: DeidentifyOptions, pseudonyms: Pseudonyms
) -> frozenset[str]:
    """Return the dates of the output, as one of them may equal an original date."""
    if options.dates != "shift":
        return frozenset()
    patient = str(dataset.get("PatientID", ""))
    days = pseudonyms.shift_days(
        canonical_patient_id(patient) if options.patient_variants == "join" else patient
    )
    moved = (shift_da(one.value.strip()[:8], days) for one in identifiers if one.kind == "date")
    return frozenset(date for date in moved if date)
