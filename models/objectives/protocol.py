"""Protocol of an objective: everything in which one kind of task differs from another, from targets to the report.

Training, validation, export, prediction, registry, gate and report know objectives through this protocol alone; a
new kind of task is one file beside this one and a line in `models.objectives.objective_catalog`. Importing an
objective loads no torch, because evaluation and reports need none: torch belongs into the functions that training
calls.

A network returns either a tensor, which is the output `logits`, or a dictionary of named tensors.
"""

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from imaging.errors import UserFault
from imaging.preprocess.spec import PreprocessSpec
from imaging.statistics.predictions import MeasureDefinition, Predictions
from models.networks.catalog import Output
from models.objectives.aggregation import EACH_IMAGE, AggregateConfig, Units
from models.portable.contract import TensorContract

if TYPE_CHECKING:
    from torch import Tensor, nn

    from imaging.dataset.version.dataset_version import DatasetVersion
    from models.config import TrainConfig
    from models.training.augment import Variation

Arrays = Mapping[str, NDArray[Any]]
"""Named arrays whose first axis is the example."""


def named_outputs(returned: Any) -> "Mapping[str, Tensor]":
    """Return what a network returned by name; a tensor alone is the output `logits`."""
    return returned if isinstance(returned, Mapping) else {"logits": returned}


class TrainingExamples(Protocol):
    """Examples of one split: labels at hand, images by index."""

    @property
    def labels(self) -> NDArray[np.int64]:
        """Class indices (n,); -1 where there is none."""
        ...

    @property
    def findings(self) -> NDArray[np.int8]:
        """What is known of each finding (n, findings): 1 present, 0 absent, -1 unknown."""
        ...

    def __len__(self) -> int:
        """Return the number of examples."""
        ...

    def gather(self, index: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return prepared images (k, [slices,] size_px, size_px) of grey levels."""
        ...


class PatientExamples(TrainingExamples, Protocol):
    """Examples that also say whose they are."""

    @property
    def patient_keys(self) -> NDArray[np.str_]:
        """Patient keys (n,)."""
        ...


class MaskedExamples(PatientExamples, Protocol):
    """Examples with a mask of class numbers on the model's grid: 0 is background, 255 an unknown pixel."""

    @property
    def unknown_classes(self) -> NDArray[np.bool_]:
        """Which classes nobody drew in an example (n, classes); column k is class number k + 1."""
        ...

    @property
    def spacings_mm(self) -> NDArray[np.float64]:
        """Distances of slices, rows and columns of the model's grid (n, 3); NaN where they are not known.

        Of an image the first is the thickness of its slice.
        """
        ...

    def masks(self, index: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return the masks (k, [slices,] size_px, size_px)."""
        ...


Score = Callable[[TrainingExamples], NDArray[np.float32]]


class Objective(Protocol):
    """One kind of task, bound to what a dataset annotates, such as its classes; frozen."""

    name: ClassVar[str]
    """Key in the catalog; it is stored with a model."""
    since: ClassVar[str] = ""
    """Release that brought it, which a file of it needs; nothing for 0.1.0."""
    network_output: ClassVar[Output] = "classes"
    """What its networks give, see `models.networks.catalog`."""
    has_embedding: ClassVar[bool] = False
    """Whether it has `embedded`."""
    aggregates: ClassVar[bool] = False
    """Whether it has `aggregated`."""
    metadata_keys: ClassVar[tuple[str, ...]] = ("contract",)
    """What `from_metadata` needs."""
    epoch_titles: ClassVar[Mapping[str, str]]
    """Titles of what `epoch_measures` returns beside the loss; the first is shown while training goes on."""
    selectors: ClassVar[tuple[str, ...]]
    """What may select the best epoch (`TrainConfig.measure`); the first is the default."""
    measures: ClassVar[Mapping[str, MeasureDefinition]]
    """Measures of its predictions; see `imaging.statistics.predictions`."""
    report_sections: ClassVar[tuple[str, ...]]
    """Sections of a night's report, keys of `tasks.reporting.SECTIONS`."""
    techniques: ClassVar[frozenset[str]] = frozenset()
    """Options of a training that it follows, of those that `TrainConfig` refuses elsewhere, such as mixup.

    With mixup the loss of an image is the mean of its losses for two targets, each by its share.
    """

    # What it is about

    @classmethod
    def of_version(cls, version: "DatasetVersion") -> Self:
        """Return the objective for what a dataset version annotates."""
        ...

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str]) -> Self:
        """Return the objective that a model's metadata, or the tags of its version, describe."""
        ...

    def metadata(self) -> dict[str, str]:
        """Return what a portable file must say, beside its contract, so that `from_metadata` finds it again."""
        return {}

    def outputs(self, spec: PreprocessSpec) -> tuple[TensorContract, ...]:
        """Return the outputs of a portable file with their axes, units and meaning."""
        ...

    def check(self, version: "DatasetVersion") -> None:
        """Raise UserFault unless the version holds enough to train on and to judge."""

    def embedded(self, width: int) -> Self:
        """Return the objective whose models give the embedding of each example too, so many numbers.

        Raises UserFault for an objective whose models have none.
        """
        raise UserFault(f"models of {self.name} have no embedding: leave `embedding` as it is")

    @property
    def aggregation(self) -> AggregateConfig:
        """What is judged, and by which rule; the model's metadata name it."""
        return EACH_IMAGE

    def aggregated(self, aggregation: AggregateConfig) -> Self:
        """Return the objective that judges units by a rule; raise UserFault where it judges images alone."""
        if aggregation.is_on:
            raise UserFault(f"{self.name} judges each image alone: leave `aggregate` as it is")
        return self

    # Training: the parts of the loss of all ranks add up, whatever their number.

    def build(self, network: str, channels: int) -> "nn.Module":
        """Return a fresh network for images of so many channels, drawn from torch's global generator."""
        ...

    def fitted(self, train: TrainingExamples, config: "TrainConfig") -> Self:
        """Return the objective with what it takes from the training examples, such as class weights."""
        return self

    def weights(self, examples: TrainingExamples) -> NDArray[np.float32]:
        """Return the weight of each example in the loss (n,); the loss of a batch is divided by their sum."""
        return np.ones(len(examples), np.float32)

    def sampling(self, examples: TrainingExamples) -> NDArray[np.float64] | None:
        """Return how often an epoch draws each example in the mean (n,), of sum n; None is once each."""
        return None

    def targets(self, examples: TrainingExamples, index: NDArray[np.int64]) -> Arrays:
        """Return what the network is to learn about these examples; it becomes tensors on the device."""
        ...

    def vary(self, targets: "Mapping[str, Tensor]", variation: "Variation") -> "Mapping[str, Tensor]":
        """Return targets varied as their images are; what has no place in the image stays as it is."""
        return targets

    def loss(self, outputs: "Mapping[str, Tensor]", targets: "Mapping[str, Tensor]") -> "Tensor":
        """Return the weighted sum of the losses of these examples, in float32."""
        ...

    def activate(self, outputs: "Mapping[str, Tensor]") -> "Mapping[str, Tensor]":
        """Return the outputs of the contract; the portable file holds this step."""
        ...

    def logits_of(self, probabilities: "Tensor") -> "Tensor":
        """Return the logits that are activated to these probabilities; raise UserFault where it judges images alone."""
        raise UserFault(f"{self.name} judges each image alone: leave `aggregate` as it is")

    # Judging: a few numbers are kept of each example, and every measure is computed from them.

    @property
    def score_size(self) -> int:
        """How many numbers `score` keeps of an example."""
        ...

    def score(self, outputs: Arrays, targets: Arrays) -> NDArray[np.float32]:
        """Return the numbers (k, score_size) that measures need of activated outputs and the truth about them."""
        ...

    def unit_scores(self, scores: NDArray[np.float32], units: Units) -> NDArray[np.floating]:
        """Return the scores of units by the rule, from those of all examples (n, score_size).

        Raises UserFault where it judges images alone.
        """
        raise UserFault(f"{self.name} judges each image alone: leave `aggregate` as it is")

    def epoch_measures(self, scores: NDArray[np.floating], examples: TrainingExamples) -> dict[str, float]:
        """Return `loss`, weighted as in training, and the keys of `epoch_titles`, of validation examples."""
        ...

    def merit(self, metrics: Mapping[str, float], selector: str) -> tuple[float, ...]:
        """Return what sorts higher for a better epoch: the measure and, between equal ones, the loss; or only the loss.

        The keys of `metrics` begin with `val_`.
        """
        if selector == "loss":
            return (-metrics["val_loss"],)
        # An AUROC of 1 is soon reached on few patients, and an undefined one says nothing: the loss decides then.
        value = metrics[f"val_{selector}"]
        return (0.0 if math.isnan(value) else value, -metrics["val_loss"])

    def calibrated(self, score: Score, examples: TrainingExamples) -> Self:
        """Return the objective with what is chosen on validation examples, such as a threshold.

        `score` lets the portable file itself predict examples and returns what the method `score` keeps of them.
        """
        return self

    def refusal(self, version: "DatasetVersion") -> str:
        """Return why a model of this objective cannot predict what the version annotates, or nothing."""
        return ""

    def predictions(
        self, scores: NDArray[np.float32], examples: PatientExamples, version: "DatasetVersion"
    ) -> Predictions:
        """Return the predictions about examples of a dataset version, which the gate and the report measure."""
        ...
