"""Contract of a portable model: its named inputs and outputs with their axes, units and meaning.

It stands in the metadata of the file and becomes the signature in the registry. A file without a contract is a
classifier, whose contract follows from its classes; so files of the first releases are read for ever.
"""

import json
from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from imaging.errors import UserFault
from imaging.preprocess.spec import PreprocessSpec
from imaging.release_compatibility import log_unknown

ENTRY = "contract"
"""Key of the metadata."""


EMBEDDING = "embedding"
"""Name of an output: what the last layer of a network sees of an example."""


class Axis(BaseModel):
    """One axis of a tensor; without a size it is free, and equal in all tensors that name it.

    `labels` name the positions along it, such as the classes.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    size: int | None = None
    labels: tuple[str, ...] = ()


class TensorContract(BaseModel):
    """A named tensor of 32-bit floats."""

    model_config = ConfigDict(frozen=True)

    name: str
    axes: tuple[Axis, ...]
    units: str
    meaning: str

    @property
    def shape(self) -> tuple[int | None, ...]:
        """The size of each axis; None is free."""
        return tuple(axis.size for axis in self.axes)

    def sized(self, sizes: Mapping[str, int]) -> tuple[int, ...]:
        """Return the shape where the free axes have these sizes."""
        return tuple(sizes[axis.name] if axis.size is None else axis.size for axis in self.axes)


class Contract(BaseModel):
    """Everything that a consumer of the file has to know about what goes in and comes out.

    Fields that a newer release has added are ignored, with a line in the log; a newer format is refused.
    """

    model_config = ConfigDict(frozen=True)

    format: Literal[1] = 1
    objective: str
    inputs: tuple[TensorContract, ...]
    outputs: tuple[TensorContract, ...]

    @classmethod
    def read(cls, entry: str) -> Self:
        """Read the contract out of a file's metadata; raise UserFault for one that this release does not know."""
        try:
            contract = cls.model_validate_json(entry)
        except ValidationError as error:
            raise UserFault(
                f"the model's contract is of another format ({error.errors()[0]['msg']}): install the release of "
                "radloop that made the model, or a newer one"
            ) from None
        if unknown := _names(json.loads(entry)) - _names(contract.model_dump(mode="json")):
            log_unknown("the model's contract", ", ".join(sorted(unknown)))
        return contract

    def check(self, outputs: Mapping[str, Any], sizes: Mapping[str, int]) -> None:
        """Raise UserFault unless these arrays or tensors are the outputs, where free axes have these sizes."""
        names = [output.name for output in self.outputs]
        if sorted(outputs) != sorted(names):
            raise UserFault(
                f"objective {self.objective!r} gives the outputs {sorted(outputs)} and its contract names "
                f"{sorted(names)}: nothing was exported"
            )
        for output in self.outputs:
            expected, actual = output.sized(sizes), tuple(outputs[output.name].shape)
            if actual != expected:
                axes = ", ".join(axis.name for axis in output.axes)
                raise UserFault(
                    f"output {output.name!r} of objective {self.objective!r} has the shape {actual} and its contract "
                    f"expects {expected} ({axes}): choose a network that gives it; nothing was exported"
                )


def embedding_output(width: int) -> TensorContract:
    """Return the output that embeds each example."""
    axes = (Axis(name="batch"), Axis(name="feature", size=width))
    meaning = "what the last layer sees of each image"
    return TensorContract(name=EMBEDDING, axes=axes, units="1", meaning=meaning)


def _names(value: Any) -> set[str]:
    """Return the names of all fields in a value of JSON, at any depth."""
    if isinstance(value, dict):
        return {*value}.union(*map(_names, value.values()))
    return set().union(*map(_names, value)) if isinstance(value, list) else set()


def image_input(spec: PreprocessSpec) -> TensorContract:
    """Return the input of every portable model: images in modality units, of any height and width."""
    return TensorContract(
        name="image",
        axes=(
            Axis(name="batch"),
            Axis(name="channel", size=spec.channels),
            Axis(name="height"),
            Axis(name="width"),
        ),
        units=spec.input_units,
        meaning="images; the slices of a volume are its channels",
    )
