"""Variants of a PatientID: reported or joined, and a dataset never changes from one to the other."""

import csv
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from imaging.dataset.ingest.chunk import prepare_chunk
from imaging.dataset.ingest.diff import plan_ingest
from imaging.dataset.ingest.ingest_outcome import IngestOutcome
from imaging.dataset.ingest.listing import list_files
from imaging.dataset.tables.lazy_rows import LazyRows
from imaging.dataset.tables.schemas import EXAMPLES
from imaging.dataset.version.dataset_version import DatasetVersion
from imaging.dataset.version.publish import build_version
from imaging.dataset.version.summary import patient_variants
from imaging.errors import EnvironmentFault, UserFault
from imaging.formats.peek import HeaderPeek
from imaging.pseudonyms import Pseudonyms, VariantPolicy
from imaging.source_overview import OverviewCounter
from imaging.sources.protocol import SourceFile
from imaging.store.folder_store import FolderStore
from services.flow_requests import IngestRequest
from services.settings import Settings
from tasks.report.ingest_summary import ingest_markdown
from tests.synthetic import GREY, MemorySource, built, instance, recipe, write_archive

NAMES = Pseudonyms(b"k" * 32)
WRITTEN = ("00123", "123", "123 ", "P7", "p7", "9", "10")
POLICIES: tuple[VariantPolicy, ...] = ("report", "join")


def taken_in(root: Path, policy: VariantPolicy) -> DatasetVersion:
    """Take in an image of each PatientID."""
    names, store = replace(NAMES, patient_variants=policy), FolderStore(root)
    source = MemorySource({f"f{at}": [instance(at, patient_id=one)] for at, one in enumerate(WRITTEN)})
    made = prepare_chunk(source, list(source.scan()), GREY, names, store, source.run())
    made_by = recipe(key_fingerprint=names.fingerprint, patient_variants=policy)
    return build_version(store, made_by, LazyRows.of(made.examples), made.refusals, None)


def test_variants_are_patients_of_their_own_where_they_are_reported(tmp_path: Path) -> None:
    version = taken_in(tmp_path, "report")
    assert len(set(version.table("examples")["patient_key"].to_pylist())) == 6
    assert set(patient_variants(version)) == {
        NAMES.key("patient", one) for one in ("00123", "123", "P7", "p7")
    }


def test_variants_are_one_patient_on_one_side_where_they_are_joined(tmp_path: Path) -> None:
    version = taken_in(tmp_path, "join")
    assert len(set(version.table("examples")["patient_key"].to_pylist())) == 4
    assert len(version.splits()) == 4


@pytest.mark.parametrize("policy", POLICIES)
def test_variants_belong_together_under_both_policies(tmp_path: Path, policy: VariantPolicy) -> None:
    variants = patient_variants(taken_in(tmp_path, policy))
    shared = {variants[NAMES.key("patient", one)] for one in ("00123", "123")}
    assert (len(variants), len(shared)) == (4, 1)


@pytest.mark.parametrize(("made", "asked"), [POLICIES, POLICIES[::-1]])
def test_another_policy_is_refused_with_the_remedy(
    tmp_path: Path, made: VariantPolicy, asked: VariantPolicy
) -> None:
    version, names = taken_in(tmp_path, made), replace(NAMES, patient_variants=asked)
    with pytest.raises(UserFault, match=rf"made with patient_variants '{made}'.* another --name"):
        plan_ingest(list_files([], names), version, GREY.digest, names)


def test_a_new_variant_of_a_known_patient_is_reported(tmp_path: Path) -> None:
    version = taken_in(tmp_path, "report")
    rows = version.table("examples", EXAMPLES.names).to_pylist()
    plain = [row for row in rows if row["patient_key"] == NAMES.key("patient", "9")]
    other = {"patient_key": NAMES.key("patient", "09"), "patient_variant": NAMES.variant_key("09")}
    second = built(version.store, [*plain, plain[0] | {"instance_key": "n"} | other])
    assert set(patient_variants(second)) == {NAMES.key("patient", "9"), NAMES.key("patient", "09")}


def test_an_overview_counts_variants() -> None:
    counter = OverviewCounter()
    for one in WRITTEN:
        peek = HeaderPeek(format="dicom", attributes={"PatientID": one.strip()})
        counter.add(SourceFile(name=one, size_bytes=1, mtime_ns=1), peek)
    assert counter.result().patient_variants == 4


@pytest.fixture
def ingest(settings: Settings, plain_flows: list[Any], tmp_path: Path) -> Callable[..., IngestOutcome]:
    """Return an ingest of 24 patients, two of whom may be two others."""
    folder, labels = write_archive(tmp_path / "dicom")
    import pydicom

    for name, patient in (("IM2", "P0001"), ("IM3", "p1"), ("IM1", "0P1")):
        changed = pydicom.dcmread(folder / name)
        changed.PatientID = patient
        changed.save_as(folder / name)

    def run(**changes: Any) -> IngestOutcome:
        from flows.ingest import ingest

        asked = {"source": str(folder), "labels": str(labels), "dataset": "d", **changes}
        return ingest(IngestRequest.model_validate(asked))

    return run


@pytest.mark.slow
def test_an_ingest_reports_variants_and_lists_their_files(ingest: Callable[..., IngestOutcome]) -> None:
    outcome = ingest()
    assert (outcome.patients, outcome.patient_variants) == (24, 2)
    assert "**Patients**: 2 PatientIDs differ" in ingest_markdown(outcome)
    assert outcome.problems_file is not None
    with Path(outcome.problems_file).open(newline="") as file:
        listed = [row for row in csv.DictReader(file) if row["reason"] == "patient-variant"]
    assert {row["where"] for row in listed} == {"IM1", "IM3"}
    assert len({row["detail"] for row in listed}) == 1


@pytest.mark.slow
def test_an_ingest_joins_variants_by_policy(ingest: Callable[..., IngestOutcome]) -> None:
    outcome = ingest(patient_variants="join")
    assert (outcome.patients, outcome.patient_variants) == (23, 2)
    assert "were joined" in ingest_markdown(outcome)
    with pytest.raises(UserFault, match="keep 'join'"):
        ingest(patient_variants="report")


@pytest.mark.slow
def test_the_key_may_be_a_secret_of_the_environment(
    ingest: Callable[..., IngestOutcome], settings: Settings
) -> None:
    os.environ["RADLOOP_KEY"] = "ab" * 32
    assert ingest().patients == 24
    assert not (settings.private / "pseudonym.key").exists()


def test_the_secret_does_not_show(environment: None) -> None:
    os.environ["RADLOOP_KEY"] = "ab" * 32
    settings = Settings()
    assert settings.pseudonyms().secret == b"\xab" * 32
    assert "abab" not in f"{settings!r} {settings} {settings.model_dump_json()}"


def test_an_empty_secret_makes_no_key(settings: Settings) -> None:
    os.environ["RADLOOP_KEY"] = ""
    with pytest.raises(EnvironmentFault, match="has 0 characters"):
        Settings().pseudonyms()
    assert not settings.private.exists()
