"""Table of objectives by name, and the metadata by which a model names its objective."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from imaging.errors import UserFault
from imaging.preprocess.spec import PreprocessSpec
from imaging.release_compatibility import canonical_json, needed_release, newest_release, read_config
from imaging.statistics.predictions import no_better_than_chance
from models.networks.catalog import check_network
from models.objectives.aggregation import AGGREGATE, AggregateConfig
from models.objectives.classification import Classification
from models.objectives.multilabel import Multilabel
from models.objectives.protocol import Objective
from models.objectives.segmentation import Segmentation
from models.portable.contract import ENTRY, Contract, image_input

if TYPE_CHECKING:
    from imaging.dataset.version.dataset_version import DatasetVersion
    from models.config import TrainConfig

OBJECTIVES: dict[str, type[Objective]] = {one.name: one for one in (Classification, Multilabel, Segmentation)}

DEFAULT = Classification.name
"""The objective of files and tags that name none: those of the first releases, and of all classifiers since."""

VALIDATION_TAG = "validation."
"""Beginning of the tags of a model version with the measures of its best epoch."""

FIRST_ENTRIES = ("classes", "spec", "input_units", "threshold")
"""The metadata of the first releases in their order; equal models keep equal bytes."""


def objective_class(name: str) -> type[Objective]:
    """Return the objective of this name; raise UserFault if the table does not have it."""
    if name not in OBJECTIVES:
        raise UserFault(
            f"no objective is called {name!r}: choose one of {', '.join(OBJECTIVES)}, or install the release of "
            "radloop that has it"
        )
    return OBJECTIVES[name]


def objective_class_of(metadata: Mapping[str, str]) -> type[Objective]:
    """Return the kind of objective that metadata or tags name."""
    return objective_class(Contract.read(metadata[ENTRY]).objective if ENTRY in metadata else DEFAULT)


def check_training(config: "TrainConfig", version: "DatasetVersion") -> None:
    """Raise UserFault unless a dataset version can be learned by a configuration, before any worker starts."""
    objective = objective_class(config.objective).of_version(version).aggregated(config.aggregate)
    check_network(config.network, objective.network_output, version.spec)
    objective.check(version)


def objective_of(metadata: Mapping[str, str]) -> Objective:
    """Return the objective of a portable file's metadata, or of a model version's tags."""
    objective = objective_class_of(metadata)
    if missing := {"spec", *objective.metadata_keys} - set(metadata):
        raise UserFault(f"the model's metadata lack {', '.join(sorted(missing))}: export it with radloop")
    described = objective.from_metadata(metadata)
    if AGGREGATE not in metadata:
        return described
    return described.aggregated(
        read_config(AggregateConfig, metadata[AGGREGATE], "the model", needs=metadata.get("needs", ""))
    )


def useless_in_validation(tags: Mapping[str, str]) -> str:
    """Return why a version was of no use on the validation patients already, as the end of a sentence, or nothing.

    A version of a release that wrote no such tags is judged by the test patients alone.
    """
    values = {
        key.removeprefix(VALIDATION_TAG): float(value)
        for key, value in tags.items()
        if key.startswith(VALIDATION_TAG)
    }
    chance = no_better_than_chance(objective_class_of(tags).measures, values)
    return f"{chance}, on the validation patients." if chance else ""


def contract_of(objective: Objective, spec: PreprocessSpec) -> Contract:
    """Return the contract of a portable file."""
    return Contract(objective=objective.name, inputs=(image_input(spec),), outputs=objective.outputs(spec))


def objective_metadata(objective: Objective, spec: PreprocessSpec) -> dict[str, str]:
    """Return what a file or a model version says of its objective, and the oldest release that reads it.

    A classifier's contract is left out: it follows from the classes.
    """
    entries = objective.metadata()
    if objective.name != DEFAULT:
        entries |= {ENTRY: contract_of(objective, spec).model_dump_json()}
    if objective.aggregation.is_on:
        entries |= {AGGREGATE: objective.aggregation.model_dump_json()}
    needs = newest_release(needed_release(spec), objective.since, needed_release(objective.aggregation))
    return entries | ({"needs": needs} if needs else {})


def file_metadata(objective: Objective, spec: PreprocessSpec) -> dict[str, str]:
    """Return the metadata of a portable file, always in the same order."""
    entries = {"spec": canonical_json(spec), "input_units": spec.input_units}
    entries |= objective_metadata(objective, spec)
    first = [key for key in FIRST_ENTRIES if key in entries]
    return {key: entries[key] for key in [*first, *(key for key in entries if key not in first)]}
