"""Training options that a person may choose; bounds and descriptions become the form and the help."""

from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from imaging.release_compatibility import Since, config_digest
from models.networks.catalog import NETWORKS, names_of, wrong_output
from models.objectives.objective_catalog import DEFAULT, OBJECTIVES

if TYPE_CHECKING:
    # Options are loaded where no table is.
    from imaging.dataset.version.dataset_version import DatasetVersion

if TYPE_CHECKING:
    NetworkName = str
else:
    # Of the table itself, which a checker of types cannot read.
    NetworkName = Literal[tuple(NETWORKS)]


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


class OptimizerConfig(BaseModel):
    """Optimizer and learning rate."""

    model_config = ConfigDict(frozen=True, extra="forbid", title="Optimizer")

    name: Literal["adamw", "sgd"] = Field(
        "adamw", title="Optimizer", description="AdamW, or SGD with Nesterov momentum."
    )
    learning_rate: float = Field(
        3e-3, gt=0, le=10, title="Learning rate", description="Step size; with 'one-cycle' the peak."
    )
    momentum: float = Field(0.9, ge=0, lt=1, title="Momentum", description="Momentum; used by SGD alone.")
    weight_decay: float = Field(
        0.02, ge=0, le=1, title="Weight decay", description="L2 decay of weight matrices; biases are spared."
    )
    schedule: Literal["one-cycle", "constant"] = Field(
        "one-cycle",
        title="Schedule",
        description="'one-cycle' rises to the learning rate and falls to nearly 0 over the whole run.",
    )
    l1_penalty: float = Field(
        0.0, ge=0, le=1, title="L1 penalty", description="Weight of the sum of absolute weights in the loss."
    )


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
    class_weights: Literal["balanced", "none"] = Field(
        "balanced", title="Class weights", description="'balanced' lets every class count the same."
    )
    augment: AugmentConfig = Field(AugmentConfig(), title="Augmentation")
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
        description="Validation measure that selects the best epoch: auroc or loss for classes.",
        json_schema_extra={"examples": list(OBJECTIVES[DEFAULT].selectors)},
    )
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto", title="Precision", description="'auto' is bf16 on GPUs that have it, fp32 elsewhere."
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
    start: Annotated[StartConfig, Since("0.2.0")] = Field(StartConfig(), title="Start")
    embedding: Annotated[bool, Since("0.2.0")] = Field(
        False,
        title="Embedding",
        description="Let the portable file give the embedding of each image too, for `radloop features`.",
    )

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
        if self.measure not in (selectors := OBJECTIVES[self.objective].selectors):
            raise ValueError(
                f"measure {self.measure!r} cannot select an epoch of {self.objective}: "
                f"choose one of {', '.join(selectors)}"
            )
        if refusal := wrong_output(self.network, OBJECTIVES[self.objective].network_output):
            raise ValueError(refusal)
        if self.embedding and not OBJECTIVES[self.objective].has_embedding:
            raise ValueError(f"models of {self.objective} have no embedding: leave `embedding` as it is")
        return self

    @model_validator(mode="after")
    def _feeds_every_worker(self) -> Self:
        if self.batch_size < self.workers:
            raise ValueError(
                f"batch_size {self.batch_size} is less than workers {self.workers}: "
                "raise batch_size or lower workers, each worker needs an image"
            )
        return self

    @property
    def digest(self) -> str:
        """The name of this configuration: 16 hex digits of its content."""
        return config_digest(self)


def training_key(version: "DatasetVersion", config: TrainConfig) -> str:
    """Name a training by its content: the same data and the same configuration make the same model."""
    return f"{version.digest[:16]}-{config.digest}"
