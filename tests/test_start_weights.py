"""Names of the weights that a training starts from: a file, a registered model, and the digest of their bytes."""

from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from imaging.errors import UserFault
from imaging.store.content_digest import file_digest
from models.config import StartConfig, TrainConfig
from models.networks.catalog import build
from models.networks.weights_file import WEIGHTS_FILE, stored_name
from models.objectives.classification import Classification
from models.training.checkpoint import save_weights
from services.mlflow.registry import model_tags, register, set_alias
from services.mlflow.run_weights import log_weights
from services.mlflow.runs import start_run
from services.settings import Settings
from services.start_weights import check_weights, named_by_content, with_absolute_weights
from tests.synthetic import GREY, bright_model, register_bright


@pytest.fixture
def file(tmp_path: Path) -> Path:
    save_weights(build("small_cnn", 2).state_dict(), tmp_path / WEIGHTS_FILE, "small_cnn", {})
    return tmp_path / WEIGHTS_FILE


def starting(weights: Path | str, network: str = "small_cnn") -> TrainConfig:
    return TrainConfig(network=network, start=StartConfig(weights=str(weights)))


def test_a_file_is_named_by_its_digest_and_kept_in_the_store(file: Path, settings: Settings) -> None:
    config = named_by_content(starting(file), settings)
    assert config.start.weights == f"weights:{file_digest(file)}"
    assert settings.dataset_store.read(stored_name(config.start.weights)) == file.read_bytes()
    assert file.is_file()


def test_equal_weights_at_another_place_make_the_same_training(file: Path, settings: Settings) -> None:
    moved = file.rename(file.with_name("moved.safetensors"))
    copied = file.with_name("copied.safetensors")
    copied.write_bytes(moved.read_bytes())
    assert (
        named_by_content(starting(moved), settings).digest
        == named_by_content(starting(copied), settings).digest
    )
    save_file(load_file(copied) | {"9.bias": load_file(copied)["9.bias"] + 1}, copied)
    assert (
        named_by_content(starting(moved), settings).digest
        != named_by_content(starting(copied), settings).digest
    )


def test_a_name_by_digest_stays_what_it_is(file: Path, settings: Settings) -> None:
    config = named_by_content(starting(file), settings)
    assert named_by_content(config, settings) == config
    check_weights(config, settings)


def test_a_preview_writes_nothing(file: Path, settings: Settings) -> None:
    config = named_by_content(starting(file), settings, keep=False)
    assert not settings.dataset_store.exists(stored_name(config.start.weights))


@pytest.mark.parametrize("of", [check_weights, named_by_content])
def test_another_network_is_refused_before_anything_starts(
    of: object, file: Path, settings: Settings
) -> None:
    with pytest.raises(UserFault, match="the network 'small_cnn', and 'residual_small' is to be trained"):
        of(starting(file, "residual_small"), settings)  # type: ignore[operator]


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (
            "gone.safetensors",
            "there are no weights at gone.safetensors: give start.weights a safetensors file",
        ),
        ("models:/nobody/3", "model 'nobody' has no version 3 to start from: there is no model of that name"),
        ("nobody@champion", "model 'nobody' has no champion to start from"),
        ("s3://bucket/weights.safetensors", "there are no weights at s3://bucket"),
    ],
)
def test_what_is_not_there_is_refused(weights: str, message: str, settings: Settings) -> None:
    with pytest.raises(UserFault, match=message):
        check_weights(starting(weights), settings)


def test_nothing_is_asked_where_no_weights_are_named(settings: Settings) -> None:
    check_weights(TrainConfig(), settings)
    assert named_by_content(TrainConfig(), settings) == TrainConfig()


@pytest.mark.slow
def test_a_registered_model_is_named_by_version_or_as_champion(file: Path, tracked: Settings) -> None:
    run_id = start_run(tracked, "start-of-others", "run", {}, {})
    tags = model_tags(GREY, TrainConfig(network="small_cnn"), Classification(classes=("dark", "bright")))
    model = register(tracked, "start-of-others", run_id, bright_model(), tags)
    log_weights(tracked, run_id, file)
    set_alias(tracked, model, "champion")
    digests = {
        named_by_content(starting(name), tracked).start.weights
        for name in (model.uri, "models:/start-of-others@champion", "start-of-others@champion")
    }
    assert digests == {f"weights:{file_digest(file)}"}
    with pytest.raises(UserFault, match="has no version 7 to start from: choose one of 1"):
        check_weights(starting("models:/start-of-others/7"), tracked)
    older = register_bright(tracked, "start-of-the-first-release")
    with pytest.raises(UserFault, match=r"has no weights.safetensors .* an earlier release made it"):
        named_by_content(starting(older.uri), tracked)


def test_a_schedule_finds_the_file_from_another_folder(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(file.parent)
    assert with_absolute_weights(starting(file.name)).start.weights == str(file)
    assert with_absolute_weights(starting("lesion@champion")) == starting("lesion@champion")
