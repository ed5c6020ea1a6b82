"""Training options that a person may choose; bounds and descriptions become the form and the help."""

from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from imaging.release_compatibility import Since, config_digest
from models.networks.catalog import NETWORKS, names_of, wrong_output
from models.objectives.aggregation import EACH_IMAGE, AggregateConfig
from models.objectives.objective_catalog import DEFAULT, OBJECTIVES

if TYPE_CHECKING:
    # Options are loaded where no table is.
    from imaging.dataset.version.dataset_version import DatasetVersion

    NetworkName = str
else:
    # Of the table itself, which a checker of types cannot read.
    NetworkName = Literal[tuple(NETWORKS)]
LAST = "last"
"""The `measure` that takes the last epoch: no validation patients choose it."""


class AugmentConfig(BaseModel):
    """Variation of training images; every bound is the largest deviation, drawn evenly on both sides."""

    model_config = ConfigDict(frozen=True, extra="forbid", title="Augmentation")

    # Off: mirrored anatomy (heart on the right) is a finding, not a variation.
    flip: bool = Field(False, title="Flip", description="Mirror half of the images left to right.")
    shift_fraction: float = Field(
        0.06, ge=0, le=0.5, title="Shift", description="Shift, as a fraction of the image's side."
    )
    rotate_deg: float = Field(8.0, ge=0, le=180, title="Rotation", description="Rotation, in degrees.")
    scale: float = Field(
        0.08, ge=0, le=0.9, title="Scale", description="Relative change of size; 0.1 is 0.9 to 1.1 times."
    )
    contrast: float = Field(
        0.15, ge=0, le=0.9, title="Contrast", description="Relative change of contrast about the mean."
    )
    brightness: float = Field(
        0.08,
        ge=0,
        le=0.9,
        title="Brightness",
        description="Change of brightness, as a fraction of 255 levels.",
    )
    flip_vertical: Annotated[bool, Since("0.2.0")] = Field(
        False, title="Flip vertically", description="Mirror half of the images top to bottom."
    )
    mixup_alpha: Annotated[float, Since("0.2.0")] = Field(
        0.0,
        ge=0,
        le=10,
        title="Mixup",
        description="Both parameters of the Beta distribution from which the share of a second image is drawn, "
        "which is mixed into the first; 0 is off.",
    )


class OptimizerConfig(BaseModel):
    """Optimizer and learning rate."""

    model_config = ConfigDict(frozen=True, extra="forbid", title="Optimizer")

    name: Literal["adamw", "sgd", "muon"] = Field(
        "adamw",
        title="Optimizer",
        description="AdamW, SGD with Nesterov momentum, or Muon for kernels and matrices with AdamW for the rest.",
    )
    learning_rate: float = Field(
        3e-3, gt=0, le=10, title="Learning rate", description="Step size; with 'one-cycle' the peak."
    )
    momentum: float = Field(0.9, ge=0, lt=1, title="Momentum", description="Momentum of SGD and Muon.")
    weight_decay: float = Field(
        0.02, ge=0, le=1, title="Weight decay", description="L2 decay of weight matrices; biases are spared."
    )
    schedule: Literal["one-cycle", "cosine", "constant"] = Field(
        "one-cycle",
        title="Schedule",
        description="'one-cycle' rises to the learning rate and falls to nearly 0 over the whole run; 'cosine' falls "
        "to 0 from the start.",
    )
    l1_penalty: float = Field(
        0.0, ge=0, le=1, title="L1 penalty", description="Weight of the sum of absolute weights in the loss."
    )
    warm_up: Annotated[float | None, Since("0.2.0")] = Field(
        None,
        ge=0,
        le=0.9,
        title="Warm-up",
        description="Share of the run in which the learning rate rises; default: 0.25 with 'one-cycle', else 0.",
    )
    clip_norm: Annotated[float, Since("0.2.0")] = Field(
        0.0,
        ge=0,
        le=1e6,
        title="Clipping",
        description="Largest norm of the gradient of all weights together; a larger one is scaled down; 0 is off.",
    )
    accumulation: Annotated[int, Since("0.2.0")] = Field(
        1,
        ge=1,
        le=1024,
        title="Accumulation",
        description="Parts in which a worker passes through its images of a step, to need less memory; the gradients "
        "add up.",
    )


class LossConfig(BaseModel):
    """Variants of the training loss; the validation loss is always the plain one."""

    model_config = ConfigDict(frozen=True, extra="forbid", title="Loss")

    label_smoothing: Annotated[float, Since("0.2.0")] = Field(
        0.0,
        ge=0,
        lt=1,
        title="Label smoothing",
        description="Share of the true class that is given to all classes alike; 0 is off.",
    )
    focal_gamma: Annotated[float, Since("0.2.0")] = Field(
        0.0,
        ge=0,
        le=10,
        title="Focal loss",
        description="Exponent by which examples that are right already count less; 2 is usual, 0 is off.",
    )


class ComputeConfig(BaseModel):
    """How processors and GPUs compute a step."""

    model_config = ConfigDict(frozen=True, extra="forbid", title="Computation")

    compile: Annotated[bool, Since("0.2.0")] = Field(
        False,
        title="Compile",
        description="torch.compile: up to minutes at the start for faster steps on GPUs; needs a C++ compiler.",
    )
    sync_batch_norm: Annotated[bool, Since("0.2.0")] = Field(
        False,
        title="Common batch statistics",
        description="Batch normalisation over the images of all GPUs together; processors cannot.",
    )


class PatchConfig(BaseModel):
    """Patches that are cut out of training images; the model takes whole ones."""

    model_config = ConfigDict(frozen=True, extra="forbid", title="Patches")

    size_px: Annotated[int | None, Since("0.2.0")] = Field(
        None,
        ge=16,
        le=1024,
        title="Size (pixels)",
        description="Side of the square patches of images with masks to train on; default: whole images.",
    )
    slices: Annotated[int | None, Since("0.2.0")] = Field(
        None, ge=2, le=512, title="Slices", description="Slices of the patch of a volume; default: all."
    )
    # nnU-Net's share (Isensee et al. 2021): the others teach what is not there.
    class_share: Annotated[float, Since("0.2.0")] = Field(
        0.33,
        ge=0,
        le=1,
        title="Share with a class",
        description="Share of the patches that meet a class, each one as often as the others, however small it is.",
    )

    @property
    def cuts(self) -> bool:
        """Whether anything is cut."""
        return bool(self.size_px or self.slices)


class StartConfig(BaseModel):
    """Weights that a training begins with, and what it may change of them."""

    model_config = ConfigDict(frozen=True, extra="forbid", title="Start")

    weights: Annotated[str, Since("0.2.0")] = Field(
        "",
        title="Weights",
        description="A safetensors file, or a registered model as models:/NAME/VERSION or models:/NAME@champion; "
        "default: weights drawn from the seed.",
    )
    mode: Annotated[Literal["full", "discriminative", "frozen"], Since("0.2.0")] = Field(
        "full",
        title="Mode",
        description="'full' trains all layers alike, 'discriminative' the earlier ones more slowly, 'frozen' the last "
        "one alone.",
    )

    @model_validator(mode="after")
    def _mode_has_weights(self) -> Self:
        if self.mode != "full" and not self.weights:
            raise ValueError(f"start.mode is {self.mode!r} and no weights are given: set start.weights")
        return self


class TrainConfig(BaseModel):
    """One training run; its digest, with the dataset version's, names the run."""

    model_config = ConfigDict(frozen=True, extra="forbid", title="Training")

    network: NetworkName = Field(
        "residual_small",
        title="Network",
        description="The network's name; docs/configuration.md has their table.",
    )
    epochs: int = Field(10, ge=1, le=10_000, title="Epochs", description="Passes over the training set.")
    batch_size: int = Field(
        32, ge=1, le=65_536, title="Batch size", description="Images per step, over all workers together."
    )
    workers: int = Field(2, ge=1, le=1024, title="Workers", description="Processes that train together.")
    optimizer: OptimizerConfig = Field(OptimizerConfig(), title="Optimizer")
    class_weights: Literal["balanced", "sampled", "none"] = Field(
        "balanced",
        title="Class weights",
        description="'balanced' lets every class count the same in the loss, 'sampled' draws every class equally "
        "often.",
    )
    augment: AugmentConfig | Annotated[Literal["modality"], Field(title="of the modality")] = Field(
        AugmentConfig(),
        title="Augmentation",
        description="'modality' takes what is safe for the dataset's modality: no mirrored chest, a tissue turned "
        "by any angle.",
    )
    ema_decay: float = Field(
        0.98,
        ge=0,
        lt=1,
        title="EMA decay",
        description="Decay, per step, of the moving average of the weights that becomes the model; 0 is off.",
    )
    patience: int = Field(
        10, ge=1, le=10_000, title="Patience", description="Epochs without a better measure before stopping."
    )
    measure: str = Field(
        OBJECTIVES[DEFAULT].selectors[0],
        title="Measure",
        description="Validation measure that selects the best epoch, auroc or loss for classes; 'last' takes the last "
        "epoch, which is better on few validation patients.",
        json_schema_extra={"examples": [*OBJECTIVES[DEFAULT].selectors, LAST]},
    )
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto",
        title="Precision",
        description="'auto' is bf16 on GPUs and processors (AMX) that are faster with it, else fp32; fp16 is for GPUs.",
    )
    seed: int = Field(0, ge=0, lt=2**32, title="Seed", description="Every random choice follows from it.")
    max_failures: int = Field(
        2, ge=0, le=100, title="Failures", description="How often lost workers are replaced before giving up."
    )
    objective: Annotated[str, Since("0.2.0")] = Field(
        DEFAULT,
        title="Objective",
        description="Kind of task that is learned.",
        json_schema_extra={"enum": list(OBJECTIVES)},
    )
    patch: Annotated[PatchConfig, Since("0.2.0")] = Field(PatchConfig(), title="Patches")
    loss: Annotated[LossConfig, Since("0.2.0")] = Field(LossConfig(), title="Loss")
    compute: Annotated[ComputeConfig, Since("0.2.0")] = Field(ComputeConfig(), title="Computation")
    start: Annotated[StartConfig, Since("0.2.0")] = Field(StartConfig(), title="Start")
    embedding: Annotated[bool, Since("0.2.0")] = Field(
        False,
        title="Embedding",
        description="Let the portable file give the embedding of each image too, for `radloop features`.",
    )
    aggregate: Annotated[AggregateConfig, Since("0.2.0")] = Field(EACH_IMAGE, title="Aggregation")

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_the_objective(cls, given: Any) -> Any:
        """Fill in the first selector of an objective that is not the default one, and its first network."""
        if not isinstance(given, dict) or given.get("objective", DEFAULT) not in OBJECTIVES:
            return given
        objective = OBJECTIVES[given.get("objective", DEFAULT)]
        filled = {"measure": objective.selectors[0]}
        if objective.network_output != OBJECTIVES[DEFAULT].network_output:
            filled["network"] = names_of(objective.network_output, "slice")[0]
        return filled | given

    @model_validator(mode="after")
    def _known_objective(self) -> Self:
        if self.objective not in OBJECTIVES:
            raise ValueError(
                f"no objective is called {self.objective!r}: choose one of {', '.join(OBJECTIVES)}"
            )
        if self.measure not in (selectors := (*OBJECTIVES[self.objective].selectors, LAST)):
            raise ValueError(
                f"measure {self.measure!r} cannot select an epoch of {self.objective}: "
                f"choose one of {', '.join(selectors)}"
            )
        if refusal := wrong_output(self.network, OBJECTIVES[self.objective].network_output):
            raise ValueError(refusal)
        return self

    @model_validator(mode="after")
    def _options_of_the_objective(self) -> Self:
        objective = OBJECTIVES[self.objective]
        if self.embedding and not objective.has_embedding:
            raise ValueError(f"models of {self.objective} have no embedding: leave `embedding` as it is")
        if self.aggregate.is_on and not objective.aggregates:
            raise ValueError(f"{self.objective} judges each image alone: leave `aggregate` as it is")
        if self.patch.cuts and objective.network_output != "masks":
            raise ValueError(f"patches need masks, and {self.objective} has none: leave patch out")
        return self

    @model_validator(mode="after")
    def _techniques_of_the_objective(self) -> Self:
        chosen = {
            "label smoothing": self.loss.label_smoothing > 0,
            "focal loss": self.loss.focal_gamma > 0,
            "mixup": isinstance(self.augment, AugmentConfig) and self.augment.mixup_alpha > 0,
            "sampled class weights": self.class_weights == "sampled",
        }
        known = OBJECTIVES[self.objective].techniques
        if unknown := [name for name, used in chosen.items() if used and name not in known]:
            raise ValueError(f"{self.objective} has no {' and no '.join(unknown)}: leave the option as it is")
        return self

    @model_validator(mode="after")
    def _feeds_every_worker(self) -> Self:
        passes = self.optimizer.accumulation
        if self.batch_size < self.workers * passes:
            parts = f" x accumulation {passes}, raise batch_size or lower one of them"
            raise ValueError(
                f"batch_size {self.batch_size} is less than workers {self.workers}"
                f"{parts if passes > 1 else ': raise batch_size or lower workers'}, each worker needs an image"
            )
        return self

    @property
    def compared_by(self) -> str:
        """The validation measure by which trainings are compared, also those that take their last epoch."""
        return OBJECTIVES[self.objective].selectors[0] if self.measure == LAST else self.measure

    @property
    def digest(self) -> str:
        """The name of this configuration: 16 hex digits of its content."""
        return config_digest(self)


def training_key(version: "DatasetVersion", config: TrainConfig) -> str:
    """Name a training by its content: the same data and the same configuration make the same model."""
    return f"{version.digest[:16]}-{config.digest}"
