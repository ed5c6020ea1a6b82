"""Checks of a de-identification before any work: the source, the destination, and the key that it was made with."""

from pathlib import Path

from imaging.deidentify.folder.deidentify_chunk import DicomOnly
from imaging.deidentify.folder.destination import Destination, DestinationRecord, check_apart
from imaging.deidentify.profile.profile import load_profile
from imaging.dicom.codecs import check_decoders
from imaging.errors import EnvironmentFault, UserFault
from imaging.pseudonyms import Pseudonyms
from imaging.release_compatibility import canonical
from imaging.sources.open_source import open_source
from imaging.sources.protocol import Source
from services.flow_requests import DeidentifyRequest
from services.settings import Settings


def open_places(request: DeidentifyRequest) -> tuple[Source, Destination]:
    """Return source and destination, after a look at both; nothing is written."""
    if not request.source or not request.destination:
        raise UserFault("give the source and the destination: radloop deidentify SRC DST")
    load_profile()
    check_decoders()
    source = open_source(request.source)
    if source.kind == "medmnist":
        raise UserFault(
            "an .npz file holds no DICOM objects: give a folder, an archive, s3:// or dicomweb+https://"
        )
    destination = Destination(Path(request.destination).expanduser().resolve())
    if "://" not in request.source:
        check_apart(Path(request.source).expanduser(), destination.root)
    if next(source.scan(), None) is None:
        raise UserFault("the source holds no files: is it mounted, and the right one?")
    return DicomOnly(source), destination


def existing_key(settings: Settings, destination: Destination) -> Pseudonyms:
    """Return the key; one is made only where nothing was made with another before."""
    known = settings.known_pseudonyms()
    if known is None and destination.exists():
        raise EnvironmentFault(
            f"{destination.root} was made with a key and there is none at {settings.private / 'pseudonym.key'}: "
            "restore it from your backup, set RADLOOP_KEY, or give a new destination"
        )
    return known or settings.pseudonyms()


def made_with(request: DeidentifyRequest, key_fingerprint: str) -> DestinationRecord:
    """Return what a destination of this request has to be made with."""
    profile = load_profile()
    return DestinationRecord(
        key_fingerprint=key_fingerprint,
        options=canonical(request.options),
        edition=profile.edition,
        profile_sha256=profile.sha256,
    )


def check_deidentify(request: DeidentifyRequest, settings: Settings) -> None:
    """Refuse a de-identification that cannot succeed."""
    _, destination = open_places(request)
    # A destination that is new has no key to compare with.
    key = existing_key(settings, destination) if destination.exists() else settings.known_pseudonyms()
    destination.check(made_with(request, key.fingerprint if key else ""))
