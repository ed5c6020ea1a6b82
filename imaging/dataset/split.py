"""Owns who is trained on and who is tested on: by patient, stratified by label, stable over time."""

from collections import Counter
from collections.abc import Mapping

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
    strata: Mapping[str, str], previous: Mapping[str, str], shares: Mapping[str, float]
) -> dict[str, str]:
    """Return the split of each patient; a patient who had one keeps it, whatever is new.

    `strata` gives each patient's stratum (its set of labels). A new patient goes where its stratum is short;
    new patients are taken in the order of their keyed pseudonyms, which is random and repeatable.

    >>> assign({"a": "x", "b": "x"}, {"a": "test"}, {"train": 0.5, "test": 0.5})
    {'a': 'test', 'b': 'train'}
    """
    splits = {patient: previous[patient] for patient in strata if patient in previous}
    counts = Counter((strata[patient], split) for patient, split in splits.items())
    for patient in sorted(set(strata) - set(splits)):
        stratum = strata[patient]
        total = sum(counts[stratum, split] for split in shares) + 1
        splits[patient] = max(shares, key=lambda split: shares[split] * total - counts[stratum, split])
        counts[stratum, splits[patient]] += 1
    return splits
