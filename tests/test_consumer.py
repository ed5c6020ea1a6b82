"""A consumer with none of our packages loads the champion by name from MLflow and sees our own numbers."""

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from imaging.image.image import Image
from imaging.preprocess.slice import prepare
from imaging.preprocess.spec import PreprocessSpec
from infra.stack.processes import choose_ports
from models.config import TrainConfig
from models.networks.catalog import build
from models.objectives.classification import Classification
from models.portable.export import export_onnx
from models.training.batches import normalise
from services.mlflow.registry import model_tags, register, set_alias
from services.mlflow.runs import start_run
from services.settings import Settings

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).parent.parent
NEEDS = ("mlflow-skinny", "onnxruntime", "onnx", "numpy", "pandas")
"""All that a consumer installs; MLflow itself imports pandas, and its ONNX flavour onnx."""

OURS = ("cli", "flows", "tasks", "services", "models", "imaging", "infra", "radloop")
THEIRS = ("torch", "torchvision", "ray", "prefect", "pydicom")
SPEC = PreprocessSpec(size_px=16)
SHAPES = {"square": (3, 1, 64, 64), "wide": (1, 1, 40, 61), "smaller": (2, 1, 13, 9)}

CONSUMER = """
import importlib.util, json, sys
import mlflow, numpy as np

images = np.load(sys.argv[1])
model = mlflow.pyfunc.load_model("models:/consumed@champion")
probabilities = {name: model.predict({"image": images[name]})["probabilities"].tolist() for name in images.files}
importable = [name for name in json.loads(sys.argv[2]) if importlib.util.find_spec(name)]
print(json.dumps({"probabilities": probabilities, "importable": importable}))
"""


def wait_for(address: str, server: subprocess.Popen[bytes]) -> None:
    """Return when the server answers."""
    for _ in range(600):
        if server.poll() is not None:
            pytest.fail(f"the MLflow server ended with {server.returncode}")
        try:
            urllib.request.urlopen(f"{address}/health", timeout=1).close()
            return
        except OSError:
            time.sleep(0.1)
    pytest.fail("the MLflow server did not start within a minute")


@pytest.fixture(scope="module")
def starting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Start an MLflow server on a free port without waiting for it, and end it."""
    folder = tmp_path_factory.mktemp("server")
    (port,) = choose_ports({"mlflow": None}).values()
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--workers", "1", "--backend-store-uri", f"sqlite:///{folder}/mlflow.db"]
    command += ["--artifacts-destination", str(folder / "artifacts")]
    quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    log = (folder / "log").open("wb")
    # A group of its own, so that its workers end with it.
    process = subprocess.Popen(
        command, env=os.environ | quiet, stdout=log, stderr=log, start_new_session=True, cwd=folder
    )
    try:
        yield f"http://127.0.0.1:{port}", process
    finally:
        os.killpg(process.pid, 15)
        process.wait(30)
        log.close()


@pytest.fixture(scope="module")
def python(starting: object, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the bare environment of a consumer, while the server starts, and return its Python."""
    folder = tmp_path_factory.mktemp("consumer") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    python = folder / "bin" / "python"
    # By our own pip, and compiling nothing: both would take longer than the installing.
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-compile"]
    quiet = ["--quiet", "--disable-pip-version-check", "-c", str(REPOSITORY / "constraints.txt")]
    subprocess.run([*pip, *quiet, *NEEDS], check=True, capture_output=True)
    return python


@pytest.fixture(scope="module")
def server(starting: tuple[str, subprocess.Popen[bytes]], python: Path) -> str:
    """Return the address of the server once it answers."""
    wait_for(*starting)
    return starting[0]


@pytest.fixture(scope="module")
def network() -> torch.nn.Module:
    """Return an untrained network."""
    torch.manual_seed(0)
    network = build("small_cnn", 2).eval()
    # Fresh weights hardly look at their input. With these a window or a resize that is not ours shows at once,
    # and a pixel that two runtimes round to neighbouring levels (one image in sixty has one) does not.
    torch.nn.init.normal_(network[-1].weight, std=1.0)  # type: ignore[index, arg-type]
    return network


@pytest.fixture
def champion(network: torch.nn.Module, server: str, environment: None) -> None:
    """Register the network as the champion of the model that the consumer asks for."""
    os.environ["MLFLOW_TRACKING_URI"] = server
    settings = Settings()
    objective = Classification(classes=("plain", "contrast"), threshold=0.5)
    tags = model_tags(SPEC, TrainConfig(network="small_cnn"), objective)
    model = export_onnx(network, SPEC, objective)
    run_id = start_run(settings, "consumed", "run", {}, {})
    set_alias(settings, register(settings, "consumed", run_id, model, tags), "champion")


def hounsfield() -> dict[str, np.ndarray]:
    """Return images of whole Hounsfield units that fill the window and more."""
    draw = np.random.default_rng(0)
    return {
        name: np.rint(draw.uniform(-300, 400, shape)).astype(np.float32) for name, shape in SHAPES.items()
    }


def ours(network: torch.nn.Module, images: np.ndarray) -> np.ndarray:
    """Return what torch predicts for images that were prepared as for training."""
    levels = np.stack([prepare(Image(stored=image), SPEC) for image in images[:, 0]])
    with torch.no_grad():
        return network(normalise(torch.from_numpy(levels)[:, None])).softmax(1).numpy()


def test_the_numbers_that_are_compared_depend_on_the_preparation(network: torch.nn.Module) -> None:
    images = hounsfield()["square"]
    assert np.abs(ours(network, images) - ours(network, images[:, :, ::-1] + 20)).max() > 0.003


def test_a_bare_consumer_sees_our_own_numbers(
    champion: None, network: torch.nn.Module, server: str, python: Path, tmp_path: Path
) -> None:
    images = hounsfield()
    np.savez(tmp_path / "images.npz", **images)
    command = [str(python), "-c", CONSUMER, str(tmp_path / "images.npz"), json.dumps([*OURS, *THEIRS])]
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "MLFLOW_TRACKING_URI": server}
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    output = json.loads(done.stdout.splitlines()[-1])
    assert output["importable"] == []
    for name, batch in images.items():
        wanted = ours(network, batch)
        assert np.array(output["probabilities"][name]).shape == (len(batch), 2)
        assert np.abs(np.array(output["probabilities"][name]) - wanted).max() <= 1e-4
