"""Each epoch is judged on the validation rows alone, and ties on few patients are broken by the loss."""

import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss, roc_auc_score

from models.config import TrainConfig
from models.objectives.classification import Classification
from models.training import validation
from models.training.batches import ArrayExamples
from models.training.ranks import Ranks
from models.training.validation import score, validate
from models.training.worker import TrainData, Worker


@pytest.fixture
def worker() -> Worker:
    draw = np.random.default_rng(0)
    rows = ArrayExamples(
        draw.integers(0, 256, (21, 16, 16), dtype=np.uint8), (np.arange(21) % 3 == 0).astype(np.int64)
    )
    data = TrainData(train=rows, val=rows, objective=Classification(classes=("plain", "lesion")))
    return Worker.start(TrainConfig(network="small_cnn", workers=1), data, Ranks(), None)


def test_probabilities_come_from_the_averaged_network(worker: Worker) -> None:
    torch.nn.init.normal_(worker.average.network[-1].weight)  # type: ignore[index, arg-type]
    images = torch.from_numpy(worker.data.val.gather(np.arange(21)))[:, None] / 127.5 - 1
    with torch.no_grad():
        wanted = worker.average.network(images).softmax(1).numpy()
    assert np.allclose(score(worker, worker.data.val), wanted, atol=1e-6)


def test_a_rank_alone_fills_in_its_stripe_only(worker: Worker) -> None:
    worker.ranks = Ranks(rank=1, size=2)
    # Alone in the process: nobody adds the other stripe.
    object.__setattr__(worker.ranks, "size", 1)
    whole = score(worker, worker.data.val)
    assert whole[0].sum() == 0
    assert np.allclose(whole[1:].sum(axis=1), 1)


def test_small_batches_give_the_same_probabilities(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    at_once = score(worker, worker.data.val)
    monkeypatch.setattr(validation, "BATCH", 4)
    assert np.allclose(score(worker, worker.data.val), at_once, atol=1e-6)


def test_measures_equal_scikit_learns(worker: Worker) -> None:
    labels, probabilities = worker.data.val.labels, score(worker, worker.data.val)
    measures = validate(worker)
    assert measures["val_auroc"] == pytest.approx(roc_auc_score(labels, probabilities[:, 1]))
    assert measures["val_accuracy"] == pytest.approx((probabilities.argmax(1) == labels).mean())
    weights = worker.objective.weights(worker.data.val)
    assert measures["val_loss"] == pytest.approx(
        log_loss(labels, probabilities, sample_weight=weights), rel=1e-5
    )


def test_validation_moves_no_weight(worker: Worker) -> None:
    before = {name: value.clone() for name, value in worker.network.state_dict().items()}
    validate(worker)
    assert all(torch.equal(before[name], value) for name, value in worker.network.state_dict().items())
