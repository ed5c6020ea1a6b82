"""A consumer with none of our packages loads the champion by name from MLflow and sees our own numbers."""

import json
import os
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from imaging.formats.dicom import read_dicom
from imaging.image.image import Image
from imaging.preprocess.slice import prepare
from imaging.preprocess.spec import PreprocessSpec
from infra.stack.ports import choose_ports
from models.config import TrainConfig
from models.networks.catalog import build
from models.objectives.classification import Classification
from models.portable.export import export_onnx
from models.training.batches import normalise
from services.mlflow.registry import model_tags, register, set_alias
from services.mlflow.runs import start_run
from services.settings import Settings
from tests.dicom_objects import dataset, file_bytes

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).parent.parent
NEEDS = ("mlflow-skinny", "onnxruntime", "onnx", "numpy", "pandas", "pydicom")
"""All that a consumer installs; MLflow itself imports pandas, and its ONNX flavour onnx; pydicom is for DICOM files."""

OURS = ("cli", "flows", "tasks", "services", "models", "imaging", "infra", "radloop")
THEIRS = ("torch", "torchvision", "ray", "prefect")
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

DOCUMENTED = next(
    block
    for block in re.findall(
        r"```python\n(.*?)```", (REPOSITORY / "docs" / "consumers.md").read_text(), re.DOTALL
    )
    if "def model_input" in block
)
"""The way from a DICOM file to the model's input that consumers are told of."""
FROM_FILES = """
import json, sys
import onnxruntime

wanted, models, probabilities = json.load(open(sys.argv[1])), {}, []
for path, model, spec in wanted:
    session = models.get(model) or models.setdefault(model, onnxruntime.InferenceSession(model))
    probabilities.append(session.run(["probabilities"], {"image": model_input(path, spec)})[0][0].tolist())
print(json.dumps(probabilities))
"""
OBJECTS = 500


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


def test_the_documented_way_is_short() -> None:
    assert len([line for line in DOCUMENTED.splitlines() if line.strip()]) <= 25


def random_object(draw: np.random.Generator) -> tuple[bytes, PreprocessSpec]:
    """Return a grey DICOM object with a random choice of all that the documented way looks at, and a spec for it."""
    bits, signed = int(draw.choice([8, 12, 16])), bool(draw.integers(2))
    least = -(2 ** (bits - 1)) if signed else 0
    values = draw.integers(least, least + 2**bits, draw.integers(10, 70, 2))
    padding, width = least + int(draw.integers(0, 2**bits - 20)), int(draw.integers(0, 20))
    values[: len(values) // 3] = draw.integers(padding, padding + width + 1)
    spacing = draw.choice([0.5, 0.7, 0.703125, 0.7034, 1.0, 1.3], 2).tolist()
    choices: list[dict[str, Any]] = [
        {
            "RescaleSlope": str(draw.choice([1, 2, 0.5, -1])),
            "RescaleIntercept": int(draw.integers(-2000, 100)),
        },
        {"PhotometricInterpretation": "MONOCHROME1"},
        {"PixelPaddingValue": padding} | ({"PixelPaddingRangeLimit": padding + width} if width else {}),
        {str(draw.choice(["PixelSpacing", "ImagerPixelSpacing"])): spacing},
        {"PixelAspectRatio": draw.integers(1, 5, 2).tolist()},
    ]
    header = {name: value for one in choices if draw.integers(2) for name, value in one.items()}
    kind = str(draw.choice(["fixed", "file", "auto"]))
    if kind != "auto" or draw.integers(2):
        header["WindowCenter"] = draw.integers(-500, 1500, 2).tolist()
        header["WindowWidth"] = draw.integers(2, 3000, 2).tolist()
        header["VOILUTFunction"] = str(draw.choice(["LINEAR", "LINEAR_EXACT", "SIGMOID"]))
    made = dataset(
        values.astype(f"{'i' if signed else 'u'}{1 if bits == 8 else 2}"), BitsStored=bits, **header
    )
    for keyword in header.keys() & {"PixelPaddingValue", "PixelPaddingRangeLimit"}:
        made[keyword].VR = "SS" if signed else "US"
    spec = SPEC if kind == "fixed" else SPEC.model_copy(update={"window": kind})
    number = int(draw.integers(1, 3)) if kind == "file" else 1
    return file_bytes(made), spec.model_copy(update={"window_number": number})


def test_the_documented_way_gives_the_numbers_of_ingest(
    network: torch.nn.Module, python: Path, tmp_path: Path
) -> None:
    objective = Classification(classes=("plain", "contrast"), threshold=0.5)
    files: list[tuple[str, str, Any]] = []
    expected = []
    draw = np.random.default_rng(15)
    for number in range(OBJECTS):
        data, spec = random_object(draw)
        (tmp_path / f"{number}.dcm").write_bytes(data)
        model = tmp_path / f"{spec.portable_window.center:g}.onnx"
        if not model.exists():
            model.write_bytes(export_onnx(network, spec, objective).SerializeToString())
        files.append((str(tmp_path / f"{number}.dcm"), str(model), spec.model_dump(mode="json")))
        (one,) = read_dicom(data, "CT")
        levels = torch.from_numpy(prepare(one.image, spec))
        with torch.no_grad():
            expected.append(network(normalise(levels[None, None])).softmax(1)[0].numpy())
    (tmp_path / "files.json").write_text(json.dumps(files))
    command = [str(python), "-c", DOCUMENTED + FROM_FILES, str(tmp_path / "files.json")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert np.abs(np.array(json.loads(done.stdout)) - np.array(expected)).max() <= 1e-4
