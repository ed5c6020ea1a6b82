"""Classification: one class of several for each image, by softmax and cross entropy."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from imaging.errors import UserFault
from imaging.preprocess.spec import PreprocessSpec
from imaging.statistics.classification import MEASURES, ClassPredictions, best_threshold
from models.networks.catalog import build
from models.objectives.aggregation import (
    ATTENTION,
    EACH_IMAGE,
    OF_ONE_SIDE,
    AggregateConfig,
    Units,
    attention_output,
)
from models.objectives.protocol import Arrays, Objective, PatientExamples, Score, TrainingExamples
from models.portable.contract import EMBEDDING, Axis, TensorContract, embedding_output

if TYPE_CHECKING:
    from torch import Tensor, nn

    from imaging.dataset.version.dataset_version import DatasetVersion
    from models.config import TrainConfig

PROBABILITIES = "probabilities"


@dataclass(frozen=True, kw_only=True)
class Classification(Objective):
    """One of `classes`; of two, the second is the one that is looked for.

    `threshold` is its probability from which a case is called positive; None calls the most probable class.
    """

    name: ClassVar = "classification"
    has_embedding: ClassVar = True
    aggregates: ClassVar = True
    metadata_keys: ClassVar = ("classes", "threshold")
    epoch_titles: ClassVar = {"auroc": "AUROC", "accuracy": "Accuracy"}
    selectors: ClassVar = ("auroc", "loss")
    measures: ClassVar = MEASURES
    report_sections: ClassVar = ("class-curves", "surest-calls")
    techniques: ClassVar = frozenset({"label smoothing", "focal loss", "mixup", "sampled class weights"})

    classes: tuple[str, ...]
    threshold: float | None = None
    embedding: int = 0
    """Width of the embedding that the portable file gives too; 0 where it gives none."""
    aggregation: AggregateConfig = EACH_IMAGE
    class_weights: NDArray[np.float32] | None = field(default=None, compare=False)
    """Weights in the loss (classes,); None weighs all alike."""
    label_smoothing: float = field(default=0.0, compare=False)
    focal_gamma: float = field(default=0.0, compare=False)
    sampled: bool = field(default=False, compare=False)
    """Whether an epoch draws every class equally often."""

    @classmethod
    def of_version(cls, version: "DatasetVersion") -> Self:
        """Return the classification into the classes of a dataset version."""
        return cls(classes=version.classes)

    def check(self, version: "DatasetVersion") -> None:
        """Raise UserFault for fewer than two classes, or a class without a patient in each split."""
        from imaging.dataset.version.dataset_version import check_trainable

        if version.findings:
            raise UserFault(
                f"dataset {version.head.dataset!r} has findings, of which an image may have several, and no classes: "
                "choose objective multilabel (--objective multilabel)"
            )
        check_trainable(version)
        if self.aggregation.rule in OF_ONE_SIDE and len(self.classes) > 2:
            raise UserFault(
                f"aggregate.rule {self.aggregation.rule!r} is for a class that is there or not, and there are "
                f"{len(self.classes)} classes: choose mean or attention"
            )
        for split in ("train", "val") if self.aggregation.is_on else ():
            units = Units.of_version(version, version.examples(split), self.aggregation.over)
            for number in set(range(len(self.classes))) - set(units.labels.tolist()):
                raise UserFault(
                    f"no {self.aggregation.over} of split {split!r} is of class {self.classes[number]!r}: a unit is "
                    "of the second of two classes where any image is, and with several of more classes it is left out; "
                    "add labelled patients, or set aggregate.over to less"
                )

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str]) -> Self:
        """Return the classification of a model; files write no threshold as null, and tags as nothing."""
        threshold = metadata["threshold"]
        return cls(
            classes=tuple(json.loads(metadata["classes"])),
            threshold=None if threshold in ("", "null") else float(threshold),
            embedding=int(metadata.get(EMBEDDING, 0)),
        )

    def metadata(self) -> dict[str, str]:
        """Return the classes in the order of the probabilities, the threshold, and the width of an embedding."""
        entries = {"classes": json.dumps(self.classes), "threshold": json.dumps(self.threshold)}
        return entries | ({EMBEDDING: str(self.embedding)} if self.embedding else {})

    def outputs(self, spec: PreprocessSpec) -> tuple[TensorContract, ...]:
        """Return the probability of each class and, behind it, the embedding where there is one."""
        axes = (Axis(name="batch"), Axis(name="class", size=len(self.classes), labels=self.classes))
        meaning = "probability of each class; those of one image add up to 1"
        return (
            TensorContract(name=PROBABILITIES, axes=axes, units="1", meaning=meaning),
            *([embedding_output(self.embedding)] if self.embedding else []),
            *([attention_output(Axis(name="weight", size=1))] if self.aggregation.learned else []),
        )

    def embedded(self, width: int) -> Self:
        """Return the classification with an embedding."""
        return replace(self, embedding=width)

    def aggregated(self, aggregation: AggregateConfig) -> Self:
        """Return the classification that judges units by a rule."""
        return replace(self, aggregation=aggregation)

    def build(self, network: str, channels: int) -> "nn.Module":
        """Return the named network of the catalog with an output for each class."""
        return build(network, len(self.classes), channels)

    def fitted(self, train: TrainingExamples, config: "TrainConfig") -> Self:
        """Return the classification with the class weights and the loss that the configuration asks for."""
        return replace(
            self,
            class_weights=class_weights(train.labels, len(self.classes), config.class_weights),
            label_smoothing=config.loss.label_smoothing,
            focal_gamma=config.loss.focal_gamma,
            sampled=config.class_weights == "sampled",
        )

    def sampling(self, examples: TrainingExamples) -> NDArray[np.float64] | None:
        """Return the balanced weights of the examples' classes, where classes are sampled."""
        if not self.sampled:
            return None
        weights = class_weights(examples.labels, len(self.classes), "balanced").astype(np.float64)
        return weights[examples.labels]

    def weights(self, examples: TrainingExamples) -> NDArray[np.float32]:
        """Return the weight of each example's class."""
        return self._class_weights[examples.labels]

    def targets(self, examples: TrainingExamples, index: NDArray[np.int64]) -> Arrays:
        """Return the class indices."""
        return {"labels": examples.labels[index]}

    def loss(self, outputs: "Mapping[str, Tensor]", targets: "Mapping[str, Tensor]") -> "Tensor":
        """Return the weighted sum of cross entropies, with label smoothing and focal loss where they are on.

        The focal loss of Lin et al. 2017, https://arxiv.org/abs/1708.02002, (5): times (1 - p) to the power of gamma,
        with the probability p of the true class.
        """
        from torch.nn import functional

        logits, labels = outputs["logits"].float(), targets["labels"]
        weights = logits.new_tensor(self._class_weights)
        smoothing = self.label_smoothing
        if not self.focal_gamma:
            return functional.cross_entropy(
                logits, labels, weights, reduction="sum", label_smoothing=smoothing
            )
        losses = functional.cross_entropy(
            logits, labels, weights, reduction="none", label_smoothing=smoothing
        )
        missing = 1 - logits.softmax(dim=1).gather(1, labels[:, None])[:, 0]
        # The power has no gradient at 0 for a gamma below 1.
        return (losses * missing.clamp(min=1e-6) ** self.focal_gamma).sum()

    def activate(self, outputs: "Mapping[str, Tensor]") -> "Mapping[str, Tensor]":
        """Return the probabilities (n, classes), and where there are the embedding (n, width), the attention (n, 1)."""
        further = [EMBEDDING] * bool(self.embedding) + [ATTENTION] * self.aggregation.learned
        return {PROBABILITIES: outputs["logits"].softmax(dim=1), **{name: outputs[name] for name in further}}

    def logits_of(self, probabilities: "Tensor") -> "Tensor":
        """Return the logarithms."""
        return probabilities.clamp(min=1e-12).log()

    @property
    def score_size(self) -> int:
        """The probabilities themselves are kept, and behind them the attention where there is one."""
        return len(self.classes) + self.aggregation.learned

    def score(self, outputs: Arrays, targets: Arrays) -> NDArray[np.float32]:
        """Return the probabilities, and the attention where there is one."""
        attention = [outputs[ATTENTION]] if self.aggregation.learned else []
        return np.hstack([outputs[PROBABILITIES], *attention]).astype(np.float32, copy=False)

    def unit_scores(self, scores: NDArray[np.float32], units: Units) -> NDArray[np.floating]:
        """Return the probabilities of units; of two classes the rule is for their second, the other has the rest."""
        count = len(self.classes)
        if count > 2:
            return units.aggregate(scores[:, :count], self.aggregation.rule, scores[:, count:])
        second = self.classes.index(units.classes[1])
        made = units.aggregate(scores[:, [second]], self.aggregation.rule, scores[:, count:])
        return np.hstack([1 - made, made] if second else [made, 1 - made])

    def epoch_measures(self, scores: NDArray[np.floating], examples: TrainingExamples) -> dict[str, float]:
        """Return the weighted log loss, the AUROC and the accuracy of the most probable class."""
        predictions = ClassPredictions(
            labels=examples.labels,
            probabilities=scores,
            patients=np.full(len(examples), ""),
            classes=self.classes,
        )
        once, weights = np.ones((1, len(examples))), self.weights(examples)[None].astype(np.float64)
        return {
            "loss": float(MEASURES["log_loss"].values(predictions, weights)[0]),
            "auroc": float(MEASURES["auroc"].values(predictions, once)[0]),
            "accuracy": float(MEASURES["accuracy_argmax"].values(predictions, once)[0]),
        }

    def calibrated(self, score: Score, examples: TrainingExamples) -> Self:
        """Return the classification with the best threshold, where there are two classes."""
        if len(self.classes) != 2:
            return self
        return replace(self, threshold=best_threshold(examples.labels, score(examples)[:, 1]))

    def refusal(self, version: "DatasetVersion") -> str:
        """Return how the classes differ from those of a dataset version, or nothing; their order may."""
        if set(self.classes) == set(version.classes):
            return ""
        there = version.classes or version.findings
        return f"knows the classes {list(self.classes)} and the dataset has {list(there)}"

    def predictions(
        self, scores: NDArray[np.floating], examples: PatientExamples, version: "DatasetVersion"
    ) -> ClassPredictions:
        """Return the probabilities in the order of the version's classes, beside the true classes."""
        order = [self.classes.index(name) for name in version.classes]
        threshold = self.threshold
        if threshold is not None and order == [1, 0]:
            # What is called the one class from a probability on is called the other up to it.
            threshold = float(np.nextafter(1 - threshold, 2))
        return ClassPredictions(
            labels=examples.labels,
            probabilities=scores[:, order],
            patients=examples.patient_keys,
            classes=version.classes,
            threshold=threshold,
        )

    @property
    def _class_weights(self) -> NDArray[np.float32]:
        return np.ones(len(self.classes), np.float32) if self.class_weights is None else self.class_weights


def class_weights(labels: NDArray[np.int64], classes: int, mode: str) -> NDArray[np.float32]:
    """Return one weight per class (classes,), of mean 1 over the examples; a class without examples weighs 0.

    >>> class_weights(np.array([0, 0, 0, 1]), 2, "balanced")
    array([0.6666667, 2.       ], dtype=float32)
    """
    if mode != "balanced":
        return np.ones(classes, np.float32)
    counts = np.bincount(labels, minlength=classes)
    present = np.count_nonzero(counts)
    return np.divide(len(labels), present * counts, out=np.zeros(classes), where=counts > 0).astype(
        np.float32
    )
