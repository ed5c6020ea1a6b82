"""Owns the step from the best checkpoint to a registered candidate: export, proof, threshold, tags, alias."""

from pathlib import Path

from imaging.dataset.version.dataset_version import DatasetVersion
from imaging.statistics.classification import best_threshold
from models.config import TrainConfig
from models.portable.predictor import Predictor, predict_rows
from services.mlflow.registry import Registered, model_tags, newest, register, set_alias
from services.mlflow.runs import commit
from services.ray.fitting import FitOutcome, TrainingJob
from services.settings import Settings


def training_key(version: DatasetVersion, config: TrainConfig) -> str:
    """Name a training by its content: the same data and the same configuration make the same model."""
    return f"{version.digest[:16]}-{config.digest}"


def find_trained(settings: Settings, version: DatasetVersion, config: TrainConfig) -> Registered | None:
    """Return the model that this very training made before, or None."""
    return newest(settings, version.head.dataset, **{"training.key": training_key(version, config)})


def make_candidate(
    settings: Settings, job: TrainingJob, outcome: FitOutcome, version: DatasetVersion
) -> Registered:
    """Export the best epoch, prove it equal to torch, choose the threshold on validation rows, and register it."""
    # Loaded here: torch and the exporter take seconds, and most processes never export.
    from models.portable.export import export_onnx, set_threshold, verify_export
    from models.training.checkpoint import best_network

    config = TrainConfig.model_validate(job.train)
    network = best_network(
        Path(outcome.checkpoint), config.network, len(version.classes), version.spec.channels
    )
    model = export_onnx(network, version.spec, version.classes)
    verify_export(model, network, version.spec)
    threshold = None
    if len(version.classes) == 2:
        rows = version.rows("val")
        scores = predict_rows(Predictor.load(model.SerializeToString()), rows)
        threshold = best_threshold(rows.labels, scores[:, 1])
        set_threshold(model, threshold)
    tags = model_tags(version.spec, config, version.classes) | {
        "dataset": version.head.dataset,
        "dataset.digest": version.digest,
        "training.key": training_key(version, config),
        "threshold": "" if threshold is None else repr(threshold),
        "git.commit": commit(),
    }
    candidate = register(settings, version.head.dataset, job.run_id, model, tags)
    set_alias(settings, candidate, "challenger")
    return candidate
