"""Growth of the program: what release 0.1.0 has made is read and continued, what a newer one has made is untouched."""

import hashlib
import json
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import onnx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import Field

from cli.main import main
from cli.proof import prove
from cli.schedules import nightly_request
from imaging.dataset.ingest.ingest_outcome import IngestOutcome
from imaging.dataset.tables import schemas, table_files
from imaging.dataset.tables.table_files import read_parts, read_whole, rows_digest, write_parts
from imaging.dataset.upkeep.garbage import Retention, find_garbage
from imaging.dataset.upkeep.integrity import find_flaws
from imaging.dataset.version.dataset_version import DatasetVersion, open_version
from imaging.dataset.version.head import VersionHead, head_name, pointer_name
from imaging.deidentify.options import DeidentifyOptions
from imaging.errors import EnvironmentFault, UserFault
from imaging.preprocess.spec import PreprocessSpec
from imaging.release_compatibility import Since, canonical, canonical_json, log_once
from imaging.store.folder_store import FolderStore
from infra.stack.processes import OwnedProcess
from infra.stack.record import FILE, Stack, read_stack
from models.config import TrainConfig
from models.objectives.classification import Classification
from models.portable.predictor import Predictor
from services.datasets import ingest_part, newest_dataset
from services.flow_requests import DeidentifyRequest, NightlyRequest, TrainRequest
from services.ledger import entries, ledger_path
from services.mlflow.registry import Registered, by_alias, by_version, model_tags, newest, register, set_tags
from services.mlflow.runs import start_run
from services.settings import Settings
from tasks.deidentification import bring_up_to_date
from tasks.evaluation import Evaluation, champion_of_other_spec, compare, contenders, versions_for
from tasks.ingest import find_pending, open_job, publish_version, read_new
from tasks.promotion import promote
from tasks.training import known_candidate, training_key
from tests.conftest import fresh_environment
from tests.data import make
from tests.synthetic import GREY, bright_model

NAME, DIGEST = "growth", "d1fc2a3e420860652b146c5002df927d"
NEW = 8
"""Patients who come in the second night."""
REPORT_OF_FORMAT_1 = {"images_in_conflict": [], "images_without_label": [], "lines_in_conflict": []}


class GrownSpec(PreprocessSpec):
    """Of a release that can sharpen."""

    sharpen: Annotated[float, Since("0.9.0")] = Field(0.0, ge=0)


class GrownConfig(TrainConfig):
    """Of a release that can mix images."""

    mixup: Annotated[float, Since("0.9.0")] = Field(0.0, ge=0)


class GrownOptions(DeidentifyOptions):
    """Of a release that can keep names of sites."""

    sites: Annotated[bool, Since("0.9.0")] = False


def opened(root: Path) -> Settings:
    """Return the settings of the kept home, unpacked into a folder that there is not yet."""
    make.unpack(root)
    os.environ.update(RADLOOP_HOME=str(root / "home"), RADLOOP_KEY=make.KEY)
    return Settings()


@pytest.fixture
def kept(tmp_path: Path, environment: None) -> Settings:
    return opened(tmp_path / "kept")


def request_of(settings: Settings) -> NightlyRequest:
    return NightlyRequest.model_validate(nightly_request(settings, None, {}))


def ingested(settings: Settings) -> IngestOutcome:
    """Ingest as the remembered night asks for."""
    job = open_job.fn(ingest_part(request_of(settings)), settings)
    return publish_version.fn(job, read_new.fn(job, settings, "night", lambda *_: None), settings)


def to_read(settings: Settings, spec: PreprocessSpec) -> int:
    """Return how many files a night under a specification would read."""
    request = ingest_part(request_of(settings)).model_copy(update={"preprocess": spec})
    job = open_job.fn(request, settings)
    job.sandbox.end()
    return len(find_pending(job).plan.to_read)


def trees(folder: Path) -> dict[str, str]:
    """Return the digest of each file below a folder."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def rewrite_head(settings: Settings, **changes: Any) -> None:
    path = settings.store_root / head_name(NAME, DIGEST)
    path.write_text(json.dumps(json.loads(path.read_text()) | changes, indent=1, sort_keys=True))


def test_the_kept_store_is_read_and_verified(kept: Settings) -> None:
    version = newest_dataset(kept, NAME)
    assert (version.digest, find_flaws(version)) == (DIGEST, [])
    assert version.head.named().digest == DIGEST
    assert (version.counts.examples, dict(version.counts.refusals)) == (make.PATIENTS, {"truncated": 1})


def test_the_head_is_written_again_byte_for_byte(kept: Settings) -> None:
    text = (kept.store_root / head_name(NAME, DIGEST)).read_text()
    assert VersionHead.from_json(text).to_json() == text


@pytest.mark.slow
def test_the_same_archive_is_not_read_again(kept: Settings) -> None:
    outcome = ingested(kept)
    assert (outcome.digest, outcome.files_read, outcome.changed) == (DIGEST, 0, False)


@pytest.mark.slow
def test_a_field_more_in_the_specification_reads_nothing_again(kept: Settings) -> None:
    assert to_read(kept, GrownSpec(size_px=32)) == 0


@pytest.mark.slow
def test_another_value_of_such_a_field_reads_all_again(kept: Settings) -> None:
    assert to_read(kept, GrownSpec(size_px=32, sharpen=1)) == make.PATIENTS + 1


@pytest.mark.slow
def test_the_same_training_is_known(kept: Settings) -> None:
    known = known_candidate.fn(TrainRequest(dataset=NAME, training=request_of(kept).training), kept)
    assert known is not None
    assert (known.candidate.version, known.trained_now) == (1, False)


def test_a_field_more_in_the_training_renames_none(kept: Settings) -> None:
    version, before = newest_dataset(kept, NAME), request_of(kept).training
    plain = before.model_dump()
    assert training_key(version, GrownConfig(**plain)) == training_key(version, before)
    assert training_key(version, GrownConfig(**plain, mixup=0.5)) != training_key(version, before)


def test_the_champion_and_the_dataset_have_one_spec(kept: Settings) -> None:
    champion = by_alias(kept, NAME, "champion")
    assert champion is not None
    assert champion.spec == newest_dataset(kept, NAME).spec == PreprocessSpec(size_px=32)
    assert champion_of_other_spec(NAME, kept) is None


@pytest.mark.slow
def test_the_kept_folder_is_continued_and_proven(kept: Settings) -> None:
    root = kept.folder.parent
    for options in (DeidentifyOptions(), GrownOptions()):
        request = DeidentifyRequest(source=str(root / "few"), destination=str(root / "deidentified"))
        outcome = bring_up_to_date(request.model_copy(update={"options": options}), kept, lambda _: None)
        assert (outcome.files_listed, outcome.files_read) == (make.DEIDENTIFIED, 0)
    assert prove(root / "deidentified", str(root / "few"), kept, lambda *_: None).clean


def test_a_folder_made_with_an_unknown_option_is_refused(kept: Settings) -> None:
    root = kept.folder.parent
    path = root / "deidentified" / ".radloop" / "dataset.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps(record | {"options": canonical(GrownOptions(sites=True))}))
    before = trees(root)
    request = DeidentifyRequest(source=str(root / "few"), destination=str(root / "deidentified"))
    with pytest.raises(
        UserFault, match=r"was made with the options {'sites': True} and this run has {'sites': None}"
    ):
        bring_up_to_date(request, kept, lambda _: None)
    with pytest.raises(UserFault, match=r"has sites, which this release does not know.*install"):
        prove(root / "deidentified", str(root / "few"), kept, lambda *_: None)
    assert trees(root) == before


@dataclass(frozen=True, kw_only=True)
class SecondNight:
    """What a night of this release makes of the kept home, whose archive has grown."""

    settings: Settings
    before: dict[str, str]
    outcome: IngestOutcome
    evaluation: Evaluation

    @property
    def version(self) -> DatasetVersion:
        return newest_dataset(self.settings, NAME)


@pytest.fixture(scope="module")
def second(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecondNight]:
    with fresh_environment():
        root = tmp_path_factory.mktemp("second") / "kept"
        settings = opened(root)
        for number in range(make.PATIENTS, make.PATIENTS + NEW):
            make.write_slice(root / "archive" / f"IM{number:03d}", number, patient=number)
        # Of a patient of the first night.
        make.write_slice(root / "archive" / "again", 1000, patient=1)
        make.write_labels(root / "labels.csv", make.PATIENTS + NEW)
        before = newest_dataset(settings, NAME).splits()
        outcome = ingested(settings)
        gate = request_of(settings).gate
        pair = contenders.fn(NAME, register_candidate(settings).version, settings)
        evaluation = compare.fn(pair, versions_for(pair, settings), gate, settings)
        promote(settings, pair.candidate, pair.champion, evaluation.verdict)
        yield SecondNight(settings=settings, before=before, outcome=outcome, evaluation=evaluation)


def register_candidate(settings: Settings) -> Registered:
    """Register a model of two classes, the second of which is the darker one."""
    version = newest_dataset(settings, NAME)
    model = bright_model(gain=-1, offset=1)
    metadata = {item.key: item.value for item in model.metadata_props}
    metadata |= {"classes": json.dumps(version.classes), "spec": json.dumps(canonical(version.spec))}
    onnx.helper.set_model_props(model, metadata)
    run_id = start_run(settings, NAME, "second", {}, {})
    objective = Classification(classes=version.classes, threshold=0.5)
    tags = model_tags(version.spec, TrainConfig(network="small_cnn"), objective)
    return register(settings, NAME, run_id, model, tags)


@pytest.mark.slow
def test_the_next_night_reads_what_is_new_alone(second: SecondNight) -> None:
    assert (second.outcome.files_read, second.outcome.changed) == (NEW + 1, True)
    assert second.version.counts.examples == make.PATIENTS + NEW + 1
    assert find_flaws(second.version) == []


@pytest.mark.slow
def test_every_patient_keeps_the_split(second: SecondNight) -> None:
    now = second.version.splits()
    assert len(second.before) == make.PATIENTS
    assert second.before.items() <= now.items()
    assert len(now) == make.PATIENTS + NEW


@pytest.mark.slow
def test_images_of_the_first_night_stay_where_they_are(second: SecondNight) -> None:
    old = open_version(second.settings.dataset_store, NAME, DIGEST)
    columns = ["instance_key", "shard", "row", "split"]
    was, now = (version.table("examples", columns).to_pylist() for version in (old, second.version))
    assert {tuple(row.values()) for row in was} <= {tuple(row.values()) for row in now}
    assert find_flaws(old) == []


@pytest.mark.slow
def test_the_new_candidate_meets_the_old_champion_on_the_same_patients(second: SecondNight) -> None:
    evaluation = second.evaluation
    assert (evaluation.candidate.version, evaluation.champion and evaluation.champion.version) == (2, 1)
    assert evaluation.champion_measures["auroc"].value == evaluation.measures["auroc"].value == 1
    tested = {key for key, split in second.before.items() if split == "test"}
    assert tested <= set(second.version.test_examples("test").patient_keys)


@pytest.mark.slow
def test_the_ledger_goes_on(second: SecondNight) -> None:
    lines = entries(ledger_path(second.settings, NAME))
    assert [(line["candidate"], line["champion"]) for line in lines] == [(1, None), (2, 1)]


NEWER = [
    (
        {"format": 3, "needs": "0.9.0", "tables": {}},
        r"is of format 3; this is radloop 0\.2\.0: install radloop 0\.9\.0",
    ),
    (
        {"format": 3},
        r"is of format 3; this is radloop 0\.2\.0: install the release of radloop that wrote it",
    ),
    ({"needs": "0.9.0"}, r"needs release 0\.9\.0; this is radloop 0\.2\.0: install radloop 0\.9\.0"),
    (
        {"spec": canonical(GrownSpec(sharpen=1))},
        r"has sharpen, which this release does not know; this is radloop 0\.2\.0: install",
    ),
]


@pytest.mark.slow
@pytest.mark.parametrize(("changes", "remedy"), NEWER)
def test_a_newer_store_is_refused_and_nothing_is_touched(
    kept: Settings, changes: dict[str, Any], remedy: str
) -> None:
    rewrite_head(kept, **changes)
    before = trees(kept.folder.parent)
    training = TrainRequest(dataset=NAME)
    steps: list[Callable[[], Any]] = [
        lambda: ingested(kept),
        lambda: known_candidate.fn(training, kept),
        lambda: versions_for(contenders.fn(NAME, None, kept), kept),
        lambda: open_version(kept.dataset_store, NAME, DIGEST),
    ]
    for step in steps:
        with pytest.raises(UserFault, match=f"dataset 'growth' {remedy}"):
            step()
    with pytest.raises(EnvironmentFault, match=remedy):
        find_garbage(kept.dataset_store, Retention(oldest_ns=2**62, keep=1))
    assert trees(kept.folder.parent) == before


@pytest.mark.slow
def test_the_commands_name_the_release_to_install(
    kept: Settings, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    rewrite_head(kept, format=3, needs="0.9.0")
    before = trees(kept.store_root)
    monkeypatch.setenv("COLUMNS", "400")
    for command in (("verify", NAME), ("show", NAME), ("gc", "--yes"), ("list",)):
        monkeypatch.setattr(sys, "argv", ["radloop", "--home", str(kept.folder), "dataset", *command])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capfd.readouterr()
        assert "install radloop 0.9.0 or newer" in " ".join((printed.out + printed.err).split()), command
        assert bool(ended.value.code) == (command != ("list",))
    assert trees(kept.store_root) == before


def test_fields_of_a_newer_head_are_ignored_with_a_warning(
    kept: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    plain = json.loads(newest_dataset(kept, NAME).head.to_json()) | {"language": "de"}
    newer = VersionHead.from_json(json.dumps(plain)).named()
    kept.folder_store.write(head_name(NAME, newer.digest), newer.to_json().encode())
    assert kept.dataset_store.swap(pointer_name(NAME), DIGEST, newer.digest)
    caplog.clear()
    log_once.cache_clear()
    versions = [newest_dataset(kept, NAME) for _ in range(2)]
    assert [record.getMessage() for record in caplog.records] == [
        "dataset 'growth' was written by a newer radloop: read without language, which changes nothing here"
    ]
    assert (versions[0].digest != DIGEST, find_flaws(versions[0])) == (True, [])
    assert versions[0].splits() == open_version(kept.dataset_store, NAME, DIGEST).splits()


def test_nothing_is_removed_beside_a_head_that_is_not_wholly_known(kept: Settings) -> None:
    rewrite_head(kept, masks=["shards/00/0.npy"])
    with pytest.raises(EnvironmentFault, match="its head has masks; this is radloop"):
        find_garbage(kept.dataset_store, Retention(oldest_ns=2**62, keep=1))


@pytest.mark.slow
def test_a_newer_champion_is_refused_and_nothing_is_touched(kept: Settings) -> None:
    champion = by_alias(kept, NAME, "champion")
    assert champion is not None
    candidate = register_candidate(kept)
    set_tags(kept, champion, {"needs": "0.9.0"})
    before = trees(kept.store_root)
    steps: list[Callable[[], Any]] = [
        lambda: by_alias(kept, NAME, "champion"),
        lambda: by_version(kept, NAME, 1),
        lambda: contenders.fn(NAME, candidate.version, kept),
        lambda: champion_of_other_spec(NAME, kept),
    ]
    for step in steps:
        with pytest.raises(
            UserFault, match=r"version 1 of 'growth' needs release 0\.9\.0; .* install radloop 0\.9\.0"
        ):
            step()
    latest = newest(kept, NAME)
    assert (latest and latest.version, trees(kept.store_root)) == (candidate.version, before)


@pytest.mark.slow
def test_a_night_beside_a_newer_champion_is_refused_before_it_begins(
    kept: Settings, plain_flows: list[dict[str, Any]]
) -> None:
    from flows import nightly, reevaluate

    champion = by_alias(kept, NAME, "champion")
    assert champion is not None
    set_tags(
        kept,
        champion,
        {"spec": canonical_json(GrownSpec(sharpen=1)), "spec.digest": GrownSpec(sharpen=1).digest},
    )
    before = trees(kept.store_root)
    request = request_of(kept)
    for flow in (nightly.nightly, reevaluate.reevaluate):
        with pytest.raises(UserFault, match=r"version 1 of 'growth' has sharpen, .*: install the release"):
            flow(request)
    assert (trees(kept.store_root), plain_flows) == (before, [])


def test_a_stack_that_a_newer_release_has_started_is_read(tmp_path: Path) -> None:
    ports = {"prefect": 1, "mlflow": 2, "ray": 3}
    one = OwnedProcess(name="prefect", pid=7, boot="b", since_boot_s=1.0, log="prefect.log")
    made = Stack(home=tmp_path, mark="m", ports=ports, ray_temp="r", processes=(one,)).written()
    record = json.loads((tmp_path / FILE).read_text())
    record["processes"] = [item | {"niceness": 5} for item in record["processes"]]
    (tmp_path / FILE).write_text(json.dumps(record | {"release": "0.9.0"}))
    assert read_stack(tmp_path) == made


def model_of(spec: str, digest: str, **tags: str) -> Registered:
    return Registered(name="m", version=3, run_id="r", tags={"spec": spec, "spec.digest": digest, **tags})


def test_tags_of_a_newer_release_are_read_where_they_change_nothing() -> None:
    whole = GrownSpec(size_px=32).model_dump_json()
    model = model_of(whole, GrownSpec(size_px=32).digest, colour="blue")
    assert model.spec == PreprocessSpec(size_px=32)
    with pytest.raises(UserFault, match=r"version 3 of 'm' has sharpen, which this release does not know"):
        _ = model_of(GrownSpec(sharpen=1).model_dump_json(), GrownSpec(sharpen=1).digest).spec


def test_tags_name_the_release_they_need() -> None:
    objective = Classification(classes=("a", "b"))
    tags = [model_tags(spec, TrainConfig(), objective) for spec in (GrownSpec(), GrownSpec(sharpen=1))]
    assert [one.get("needs") for one in tags] == [None, "0.9.0"]
    assert tags[0] == model_tags(PreprocessSpec(), TrainConfig(), objective)


@pytest.mark.parametrize(
    ("metadata", "fault"),
    [
        ({"units": "mm"}, None),
        ({"needs": "0.9.0"}, r"the model needs release 0\.9\.0; .*install radloop 0\.9\.0"),
        (
            {"spec": GrownSpec(sharpen=1).model_dump_json()},
            "the model has sharpen, which this release does not know",
        ),
    ],
)
def test_metadata_of_a_newer_model(metadata: dict[str, str], fault: str | None) -> None:
    model = bright_model()
    stored = {item.key: item.value for item in model.metadata_props}
    onnx.helper.set_model_props(model, stored | metadata)
    if fault is None:
        assert Predictor.load(model.SerializeToString()).spec == GREY
    else:
        with pytest.raises(UserFault, match=fault):
            Predictor.load(model.SerializeToString())


def as_format_1(settings: Settings) -> dict[str, str]:
    """Make the version one of format 1, as commit d55244a~1 has written it; return the split of each patient."""
    digest, version = "c8b37221d19778ffdb89ec7eea108590", newest_dataset(settings, NAME)
    head = json.loads(version.head.to_json()) | {"digest": digest}
    for name in ("format", "parts", "contents", "counts"):
        del head[name]
    head["label_report"] |= REPORT_OF_FORMAT_1
    folder = settings.store_root / "datasets" / NAME / "versions" / digest
    folder.mkdir()
    (folder / "version.json").write_text(json.dumps(head, indent=1, sort_keys=True))
    pq.write_table(version.table("splits"), folder / "splits.parquet", compression="zstd")
    assert settings.dataset_store.swap(pointer_name(NAME), DIGEST, digest)
    settings.folder_store.remove(head_name(NAME, DIGEST))
    return version.splits()


@pytest.mark.slow
def test_a_dataset_of_format_1_keeps_the_split_of_every_patient(
    kept: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    older = newest_dataset(kept, NAME).table("examples")
    splits = as_format_1(kept)
    log_once.cache_clear()
    version = newest_dataset(kept, NAME)
    assert (version.splits(), version.counts.examples) == (splits, 0)
    assert "is of format 1: the next ingest prepares its images again" in caplog.text
    outcome = ingested(kept)
    assert (outcome.files_read, outcome.examples) == (make.PATIENTS + 1, make.PATIENTS)
    newest = newest_dataset(kept, NAME)
    assert newest.splits() == splits
    # The images were read anew: all is as it was, and their rows have the grid of the source too.
    grid = [field.name for field in schemas.GRID]
    assert newest.table("examples").drop_columns(grid) == older.drop_columns(grid)
    assert (outcome.digest == DIGEST, set(newest.table("examples")["slices"].to_pylist())) == (False, {1})


# A table that has a column more in a later release.

ROWS = pa.schema([pa.field("k", pa.string(), nullable=False), pa.field("v", pa.int64())])
GROWN = pa.schema([*ROWS, pa.field("note", pa.string())])


@pytest.fixture
def grown_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (schemas, table_files):
        monkeypatch.setattr(module, "LATER_COLUMNS", {"note": ""})


def rows(notes: list[str] | None = None) -> pa.Table:
    plain = pa.table([["a", "b"], [1, None]], schema=ROWS)
    return plain if notes is None else plain.append_column("note", pa.array(notes))


@pytest.mark.usefixtures("grown_tables")
def test_a_column_more_renames_no_part_that_does_not_use_it(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    old = write_parts(store, [rows()], ROWS, "k", 0)
    assert write_parts(store, [rows(["", ""])], GROWN, "k", 0) == old
    assert write_parts(store, [rows(["", "x"])], GROWN, "k", 0) != old


@pytest.mark.usefixtures("grown_tables")
def test_a_part_without_the_column_is_read_with_its_default(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    groups = [rows(), rows(["", "x"])]
    names = [write_parts(store, [one], one.schema, "k", 0)[0].name for one in groups]
    table = read_parts(store, names, GROWN)
    assert table["note"].to_pylist() == ["", "", "", "x"]
    assert read_parts(store, names, GROWN, ["note"]).num_rows == 4


def test_a_column_that_only_a_newer_release_knows_is_verified_and_not_read(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    (part,) = write_parts(store, [rows(["", "x"])], GROWN, "k", 0)
    assert rows_digest(read_whole(store, part.name)) == part.content
    assert read_parts(store, [part.name], ROWS).equals(rows())
