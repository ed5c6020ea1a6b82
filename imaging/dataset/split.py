"""Owns who is trained on and who is tested on: by patient, stratified by label and site, stable over time."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

from pydantic import BaseModel, ConfigDict, Field, model_validator

SPLITS = ("train", "val", "test")


class SplitConfig(BaseModel):
    """The shares of patients in each split."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    val: float = Field(
        0.15, gt=0, lt=1, description="Share of patients that choose the epoch and the threshold."
    )
    test: float = Field(
        0.25, gt=0, lt=1, description="Share of patients that are locked away for the verdict."
    )

    @model_validator(mode="after")
    def _leave_room_to_train(self) -> "SplitConfig":
        if self.val + self.test >= 0.9:
            raise ValueError(
                f"val + test is {self.val + self.test:.2f}; at most 0.9, so that some are left to train on"
            )
        return self

    @property
    def shares(self) -> dict[str, float]:
        """The share of each split."""
        return {"train": 1 - self.val - self.test, "val": self.val, "test": self.test}


def assign(
    strata: Mapping[str, Sequence[str]],
    previous: Mapping[str, str],
    shares: Mapping[str, float],
    linked: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Return the split of each patient; a patient who had one keeps it, whatever is new.

    `strata` gives each patient's strata, coarse and fine: labels, and labels with the site. A new patient goes where
    they are short, the new ones in the order of their keyed pseudonyms, which is random and repeatable. Patients of one
    group in `linked` share images, and so their split, as far as they are new.

    >>> assign({"a": "x", "b": "x"}, {"a": "test"}, {"train": 0.5, "test": 0.5})
    {'a': 'test', 'b': 'train'}
    """
    together, splits = linked or {}, {patient: previous[patient] for patient in strata if patient in previous}
    number_of = {split: number for number, split in enumerate(shares)}
    counts: dict[str, list[int]] = defaultdict(lambda: [0] * len(shares))

    def place(patient: str, split: str) -> None:
        splits[patient] = split
        for stratum in strata[patient]:
            counts[stratum][number_of[split]] += 1

    for patient in list(splits):
        place(patient, splits[patient])
    taken = {
        together[patient]: previous[patient]
        for patient in sorted(together, reverse=True)
        if patient in previous
    }
    names, parts = list(shares), list(shares.values())
    for patient in sorted(strata.keys() - splits.keys()):
        group = together.get(patient)
        known = taken.get(group) if group is not None else None
        place(patient, known or names[_shortest([counts[stratum] for stratum in strata[patient]], parts)])
        if group is not None:
            taken[group] = splits[patient]
    return splits


def _shortest(strata: Sequence[Sequence[int]], shares: Sequence[float]) -> int:
    """Return the number of the split of which one more patient of some strata would miss the most.

    >>> _shortest([[3, 1], [2, 2]], [0.5, 0.5])
    1
    """
    total = sum(map(sum, strata)) + len(strata)
    short = [share * total - sum(held) for share, held in zip(shares, zip(*strata, strict=True), strict=True)]
    return short.index(max(short))
