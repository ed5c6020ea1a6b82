"""A de-identified folder is proven against its originals: what is clean is said to be, and any leak is seen."""

import io
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from blake3 import blake3
from pydicom import dcmread
from pydicom.uid import UID

from bench.objects import SYNTAXES, base, unchecked
from imaging.deidentify.folder.file_ledger import LedgerEntry, to_table
from imaging.deidentify.objects.file_writer import write_object
from imaging.deidentify.objects.scrub import scrub
from imaging.deidentify.options import DeidentifyOptions
from imaging.deidentify.profile.profile import load_profile
from imaging.deidentify.proof.verification_record import sign, table_rows
from imaging.deidentify.proof.verify import Verification, verify
from imaging.dicom.parse import parse
from imaging.errors import UserFault
from imaging.pseudonyms import Pseudonyms
from imaging.sources.folder_source import FolderSource

pytestmark = pytest.mark.slow

KEY = Pseudonyms(bytes(range(32)))
PATIENT = {
    "PatientID": "HOSP-4815162342",
    "PatientName": "Mustermann^Erika",
    "PatientBirthDate": "19640812",
    "AccessionNumber": "ACC-90210-77",
    "InstitutionName": "Waldklinik am See",
    "StudyDate": "20240229",
    "StudyDescription": "Thorax nativ, Frau Mustermann",
    "PatientComments": "lives in Elmstreet 12",
    "StationName": "CTAWP60001",
}


def write_original(path: Path, number: int, syntax: str = "explicit", **changes: Any) -> Path:
    with unchecked():
        dataset = base(number=number)
        for keyword, value in (PATIENT | changes).items():
            setattr(dataset, keyword, value)
        dataset.ensure_file_meta()
        dataset.file_meta.TransferSyntaxUID = UID(SYNTAXES[syntax])
        path.parent.mkdir(parents=True, exist_ok=True)
        dataset.save_as(path, enforce_file_format=True)
    return path


def deidentify(archive: Path, target: Path, options: DeidentifyOptions) -> Path:
    """Write outputs and a ledger as the command does."""
    entries = []
    for number, file in enumerate(FolderSource(archive).scan()):
        dataset = parse((archive / file.name).read_bytes())
        data = write_object(scrub(dataset, options, KEY))
        output = f"images/{number}.dcm"
        (target / "images").mkdir(parents=True, exist_ok=True)
        (target / output).write_bytes(data)
        entries.append(ledger_entry(file.name, output, data))
    write_record(target, options, entries)
    return target


def ledger_entry(name: str, output: str, data: bytes) -> LedgerEntry:
    return LedgerEntry(
        source_key=KEY.key("file", name),
        source_size=1,
        source_mtime_ns=1,
        output=output,
        blake3=blake3(data).hexdigest(),
    )


def write_record(target: Path, options: DeidentifyOptions, entries: list[LedgerEntry]) -> None:
    head = {
        "key_fingerprint": KEY.fingerprint,
        "options": options.model_dump(),
        "edition": load_profile().edition,
        "profile_sha256": load_profile().sha256,
    }
    (target / ".radloop" / "parts").mkdir(parents=True)
    (target / ".radloop" / "dataset.json").write_text(json.dumps(head))
    sink = io.BytesIO()
    pq.write_table(to_table(entries), sink)
    (target / ".radloop" / "parts" / "00000000.parquet").write_bytes(sink.getvalue())


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("archive")
    for number, syntax in enumerate(SYNTAXES):
        write_original(root / "ward" / f"IM{number}", number, syntax)
    return root


@pytest.fixture(scope="module")
def clean(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return deidentify(archive, tmp_path_factory.mktemp("clean"), DeidentifyOptions(descriptors=True))


@pytest.fixture(scope="module")
def proven(archive: Path, clean: Path) -> Verification:
    return verify(clean, FolderSource(archive), KEY, workers=1)


@pytest.fixture
def target(clean: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(clean, tmp_path / "target"))


def leak(target: Path, number: int, keyword: str, value: str) -> None:
    """Put a value into an output, as if it had been overlooked, and into the ledger's digest."""
    path = target / "images" / f"{number}.dcm"
    dataset = dcmread(path)
    with unchecked():
        setattr(dataset, keyword, value)
        dataset.save_as(path)


def test_a_clean_folder_is_proven_clean(proven: Verification) -> None:
    assert proven.hits == ()
    assert proven.unproven == ()
    assert proven.clean


def test_the_proof_counts_what_it_searched(proven: Verification) -> None:
    assert proven.originals == 4
    assert proven.outputs == 6  # with the two files of the record
    assert {"name", "id", "uid", "date", "place"} <= set(proven.searched)


@pytest.mark.parametrize(
    ("keyword", "value", "kind"),
    [
        ("ImageComments", "seen with Erika Mustermann", "name"),
        ("ImageComments", "Mustermann", "name"),
        ("ImageComments", "born 12.08.1964", "date"),
        ("ContentDate", "20240229", "date"),
        ("ImageComments", "hosp4815162342", "id"),
        ("SeriesDescription", "Waldklinik am See", "place"),
        ("IrradiationEventUID", "1.2.826.0.1.3680043.10.777.2", "uid"),
    ],
)
def test_a_leak_is_detected_in_each_encoding(
    archive: Path, target: Path, keyword: str, value: str, kind: str
) -> None:
    for number in range(len(SYNTAXES)):
        leak(target, number, keyword, value)
    verification = verify(target, FolderSource(archive), KEY, workers=1)
    wanted = {(f"images/{number}.dcm", kind) for number in range(len(SYNTAXES))}
    assert {(hit.output, hit.kind) for hit in verification.hits} == wanted
    assert not verification.clean


def test_a_value_of_another_object_is_no_leak_where_many_may_have_it(archive: Path, target: Path) -> None:
    write_original(archive / "ward" / "IM9", 9, PatientName="Nativ^Anna", StudyDate="19990101")
    try:
        assert verify(target, FolderSource(archive), KEY, workers=1).hits == ()
    finally:
        (archive / "ward" / "IM9").unlink()


def test_an_identifier_in_a_file_beside_the_outputs_is_a_leak(archive: Path, target: Path) -> None:
    (target / "images" / "note.txt").write_text("HOSP-4815162342")
    verification = verify(target, FolderSource(archive), KEY, workers=1)
    assert {hit.output for hit in verification.hits} == {"images/note.txt"}


def test_a_name_of_a_file_is_a_leak_too(archive: Path, target: Path) -> None:
    (target / "images" / "Mustermann_Erika.txt").touch()
    assert {hit.where for hit in verify(target, FolderSource(archive), KEY, workers=1).hits} == {"name"}


def test_an_output_whose_original_is_gone_is_not_proven(archive: Path, target: Path) -> None:
    moved = archive / "ward" / "IM0"
    moved.rename(archive.parent / "elsewhere")
    try:
        verification = verify(target, FolderSource(archive), KEY, workers=1)
    finally:
        (archive.parent / "elsewhere").rename(moved)
    assert verification.unproven == ("images/0.dcm: it or its original is gone",)
    assert not verification.clean


def test_an_output_whose_original_can_no_longer_be_read_is_not_proven(archive: Path, target: Path) -> None:
    damaged = archive / "ward" / "IM2"
    whole = damaged.read_bytes()
    damaged.write_bytes(b"damaged")
    try:
        assert verify(target, FolderSource(archive), KEY, workers=1).unproven == ("images/2.dcm: not-dicom",)
    finally:
        damaged.write_bytes(whole)


def test_an_output_that_was_changed_is_not_proven(archive: Path, target: Path) -> None:
    leak(target, 1, "ImageComments", "nothing in particular")
    verification = verify(target, FolderSource(archive), KEY, workers=1)
    assert verification.hits == ()
    assert [text.partition(":")[0] for text in verification.unproven] == ["images/1.dcm"]


def test_what_an_option_keeps_is_no_leak(archive: Path, tmp_path: Path) -> None:
    options = DeidentifyOptions(uids=True, device_identity=True, patient_characteristics=True)
    target = deidentify(archive, tmp_path / "kept", options)
    assert verify(target, FolderSource(archive), KEY, workers=1).hits == ()


def test_what_was_kept_without_the_option_is_a_leak(archive: Path, tmp_path: Path) -> None:
    target = deidentify(archive, tmp_path / "kept", DeidentifyOptions(uids=True))
    head = json.loads((target / ".radloop" / "dataset.json").read_text())
    head["options"]["uids"] = False
    (target / ".radloop" / "dataset.json").write_text(json.dumps(head))
    assert {hit.kind for hit in verify(target, FolderSource(archive), KEY, workers=1).hits} == {"uid"}


def test_a_folder_without_a_record_is_searched_for_what_identifies_any_patient(
    archive: Path, tmp_path: Path
) -> None:
    shutil.copytree(archive, tmp_path / "copied")
    verification = verify(tmp_path / "copied", FolderSource(archive), KEY, workers=1)
    assert {"id", "name", "uid"} <= {hit.kind for hit in verification.hits}


def test_a_folder_made_with_another_key_is_refused(archive: Path, target: Path) -> None:
    with pytest.raises(UserFault, match="was made with the key"):
        verify(target, FolderSource(archive), Pseudonyms(b"another"), workers=1)


def test_an_empty_folder_is_refused(archive: Path, tmp_path: Path) -> None:
    with pytest.raises(UserFault, match="holds nothing"):
        verify(tmp_path, FolderSource(archive), KEY, workers=1)


def test_the_signature_is_valid_for_what_was_signed_alone(proven: Verification) -> None:
    assert sign(proven, KEY) == proven
    assert sign(proven, Pseudonyms(b"another")) != proven
    changed = replace(proven, hits=(), outputs=7)
    assert sign(changed, KEY) != changed


def test_the_table_shows_no_value(archive: Path, target: Path) -> None:
    leak(target, 0, "ImageComments", "Erika Mustermann, HOSP-4815162342")
    verification = verify(target, FolderSource(archive), KEY, workers=1)
    rendered = repr((verification, table_rows(verification))).casefold()
    assert verification.hits
    assert not any(value.casefold() in rendered for value in PATIENT.values())


def test_the_same_outputs_have_the_same_digest(archive: Path, clean: Path, proven: Verification) -> None:
    assert verify(clean, FolderSource(archive), KEY, workers=1).outputs_sha256 == proven.outputs_sha256
