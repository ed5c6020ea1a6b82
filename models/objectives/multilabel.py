"""Multi-label: several findings of one image, each by a sigmoid and a binary cross entropy of what is known of it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from imaging.errors import UserFault
from imaging.preprocess.spec import PreprocessSpec
from imaging.statistics.classification import best_threshold
from imaging.statistics.multilabel import MEASURES, FindingPredictions
from models.networks.catalog import build
from models.objectives.aggregation import ATTENTION, EACH_IMAGE, AggregateConfig, Units, attention_output
from models.objectives.classification import PROBABILITIES, class_weights
from models.objectives.protocol import Arrays, Objective, PatientExamples, Score, TrainingExamples
from models.portable.contract import ENTRY, Axis, Contract, TensorContract

if TYPE_CHECKING:
    from torch import Tensor, nn

    from imaging.dataset.version.dataset_version import DatasetVersion
    from models.config import TrainConfig


@dataclass(frozen=True, kw_only=True)
class Multilabel(Objective):
    """Any of `findings`; from its threshold on an image is called to have one (None before calibration)."""

    name: ClassVar = "multilabel"
    since: ClassVar = "0.2.0"
    aggregates: ClassVar = True
    metadata_keys: ClassVar = (ENTRY, "thresholds")
    epoch_titles: ClassVar = {"auroc": "AUROC", "auprc": "AUPRC"}
    selectors: ClassVar = ("auroc", "loss")
    measures: ClassVar = MEASURES
    report_sections: ClassVar = ("finding-measures", "finding-curves", "finding-calls")

    findings: tuple[str, ...]
    thresholds: tuple[float, ...] | None = None
    aggregation: AggregateConfig = EACH_IMAGE
    side_weights: NDArray[np.float32] | None = field(default=None, compare=False)
    """Weights in the loss (findings, 2) of images without and with each finding; None weighs all alike."""

    @classmethod
    def of_version(cls, version: "DatasetVersion") -> Self:
        """Return the objective for the findings of a dataset version."""
        return cls(findings=version.findings)

    def check(self, version: "DatasetVersion") -> None:
        """Raise UserFault for a version without findings, or a finding that is not on both sides in each split."""
        from imaging.dataset.version.dataset_version import check_trainable

        if not version.findings:
            raise UserFault(
                f"dataset {version.head.dataset!r} has one label for each image, {', '.join(version.classes)}, and no "
                "findings: leave objective out, or take it in again with --findings or --label-separator"
            )
        check_trainable(version)
        for split in ("train", "val") if self.aggregation.is_on else ():
            units = Units.of_version(version, version.examples(split), self.aggregation.over)
            for name, truth in zip(self.findings, units.findings.T, strict=True):
                if not {0, 1} <= set(truth.tolist()):
                    raise UserFault(
                        f"finding {name!r} is on one side alone in every {self.aggregation.over} of split {split!r}: a "
                        "unit has what any of its images has; add patients, leave the finding out of --findings, or "
                        "set aggregate.over to less"
                    )

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str]) -> Self:
        """Return the objective of a model; files write no thresholds as null, and tags as nothing."""
        thresholds = metadata["thresholds"]
        output, *_ = Contract.read(metadata[ENTRY]).outputs
        return cls(
            # Tags are few, and its contract names them already.
            findings=output.axes[1].labels,
            thresholds=None if thresholds in ("", "null") else tuple(json.loads(thresholds)),
        )

    def metadata(self) -> dict[str, str]:
        """Return the thresholds in the order of the probabilities, whose contract names the findings."""
        return {"thresholds": json.dumps(self.thresholds)}

    def outputs(self, spec: PreprocessSpec) -> tuple[TensorContract, ...]:
        """Return the probability of each finding and, behind it, the attention for each where there is one."""
        axes = (Axis(name="batch"), Axis(name="finding", size=len(self.findings), labels=self.findings))
        meaning = "probability of each finding; an image may have several or none"
        attention = [attention_output(axes[1])] if self.aggregation.learned else []
        return (TensorContract(name=PROBABILITIES, axes=axes, units="1", meaning=meaning), *attention)

    def aggregated(self, aggregation: AggregateConfig) -> Self:
        """Return the objective that judges units by a rule."""
        return replace(self, aggregation=aggregation)

    def build(self, network: str, channels: int) -> "nn.Module":
        """Return the named network of the catalog with an output for each finding."""
        return build(network, len(self.findings), channels)

    def fitted(self, train: TrainingExamples, config: "TrainConfig") -> Self:
        """Return the objective with the weights that the configuration asks for: both sides of a finding alike."""
        sides = [
            class_weights(column[column >= 0].astype(np.int64), 2, config.class_weights)
            for column in train.findings.T
        ]
        return replace(self, side_weights=np.array(sides, np.float32))

    def weights(self, examples: TrainingExamples) -> NDArray[np.float32]:
        """Return the sum of the weights of what is known of each example: who tells more counts more."""
        return self._weights(examples.findings).sum(axis=1)

    def targets(self, examples: TrainingExamples, index: NDArray[np.int64]) -> Arrays:
        """Return what is known of each finding, and its weight, which is 0 where nothing is."""
        findings = examples.findings[index]
        return {"present": (findings == 1).astype(np.float32), "weights": self._weights(findings)}

    def loss(self, outputs: "Mapping[str, Tensor]", targets: "Mapping[str, Tensor]") -> "Tensor":
        """Return the weighted sum of binary cross entropies of what is known."""
        from torch.nn import functional

        return functional.binary_cross_entropy_with_logits(
            outputs["logits"].float(), targets["present"], targets["weights"], reduction="sum"
        )

    def activate(self, outputs: "Mapping[str, Tensor]") -> "Mapping[str, Tensor]":
        """Return the probabilities (n, findings), and the attention (n, findings) where there is one."""
        attention = {ATTENTION: outputs[ATTENTION]} if self.aggregation.learned else {}
        return {PROBABILITIES: outputs["logits"].sigmoid(), **attention}

    def logits_of(self, probabilities: "Tensor") -> "Tensor":
        """Return the logarithms of the odds."""
        return probabilities.logit(eps=1e-6)

    @property
    def score_size(self) -> int:
        """The probabilities themselves are kept, and behind them the attention where there is one."""
        return len(self.findings) * (2 if self.aggregation.learned else 1)

    def score(self, outputs: Arrays, targets: Arrays) -> NDArray[np.float32]:
        """Return the probabilities, and the attention where there is one."""
        attention = [outputs[ATTENTION]] if self.aggregation.learned else []
        return np.hstack([outputs[PROBABILITIES], *attention]).astype(np.float32, copy=False)

    def unit_scores(self, scores: NDArray[np.float32], units: Units) -> NDArray[np.floating]:
        """Return the probabilities of each finding in units."""
        count = len(self.findings)
        return units.aggregate(scores[:, :count], self.aggregation.rule, scores[:, count:])

    def epoch_measures(self, scores: NDArray[np.floating], examples: TrainingExamples) -> dict[str, float]:
        """Return the weighted cross entropy, and the means over findings of AUROC and average precision."""
        predictions = self._predictions(scores, examples.findings, np.full(len(examples), ""), self.findings)
        weights, present = self._weights(examples.findings).astype(np.float64), examples.findings == 1
        right = np.clip(np.where(present, scores, 1 - scores).astype(np.float64), np.finfo(np.float64).eps, 1)
        once = np.ones((1, len(examples)))
        return {
            "loss": float((weights * -np.log(right)).sum() / weights.sum()),
            "auroc": float(MEASURES["auroc"].values(predictions, once)[0]),
            "auprc": float(MEASURES["auprc"].values(predictions, once)[0]),
        }

    def calibrated(self, score: Score, examples: TrainingExamples) -> Self:
        """Return the objective with the best threshold of each finding on the images of which it is known."""
        scores, thresholds = score(examples), []
        for name, truth, values in zip(self.findings, examples.findings.T, scores.T, strict=True):
            known = truth >= 0
            if len(np.unique(truth[known])) < 2:
                raise UserFault(
                    f"finding {name!r} is known on one side alone in validation ({int(known.sum())} images), and a "
                    "threshold needs both: enlarge the validation split, or leave the finding out of --findings"
                )
            thresholds.append(best_threshold(truth[known].astype(np.int64), values[known]))
        return replace(self, thresholds=tuple(thresholds))

    def refusal(self, version: "DatasetVersion") -> str:
        """Return how the findings differ from those of a dataset version, or nothing; their order may."""
        if set(self.findings) == set(version.findings):
            return ""
        there = version.findings or version.classes
        return f"knows the findings {list(self.findings)} and the dataset has {list(there)}"

    def predictions(
        self, scores: NDArray[np.float32], examples: PatientExamples, version: "DatasetVersion"
    ) -> FindingPredictions:
        """Return the probabilities in the order of the version's findings, beside what is true."""
        return self._predictions(scores, examples.findings, examples.patient_keys, version.findings)

    def _predictions(
        self,
        scores: NDArray[np.float32],
        truth: NDArray[np.int8],
        patients: NDArray[np.str_],
        names: tuple[str, ...],
    ) -> FindingPredictions:
        order = [self.findings.index(name) for name in names]
        thresholds = self.thresholds or (0.5,) * len(self.findings)
        return FindingPredictions(
            truth=truth,
            probabilities=scores[:, order],
            patients=patients,
            findings=names,
            thresholds=tuple(thresholds[at] for at in order),
        )

    def _weights(self, findings: NDArray[np.int8]) -> NDArray[np.float32]:
        """Return the weight of each finding of each example (n, findings); 0 of what is unknown."""
        count = len(self.findings)
        sides = np.ones((count, 2), np.float32) if self.side_weights is None else self.side_weights
        return np.where(findings < 0, np.float32(0), sides[np.arange(count), np.maximum(findings, 0)])
