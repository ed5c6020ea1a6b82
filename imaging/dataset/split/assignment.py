"""Owns who is trained on and who is tested on: by patient, stratified by label and site, stable over time."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
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
    strata: NDArray[np.int64],
    before: NDArray[np.int64],
    shares: Sequence[float],
    linked: NDArray[np.int64],
) -> NDArray[np.int64]:
    """Return the number of each patient's split; a patient who had one keeps it, whatever is new.

    The patients stand in the order of their keyed pseudonyms, which is random and repeatable. `strata` (patients, 2)
    numbers the coarse stratum and the fine one of each: labels, and labels with the site. A new patient, who is -1
    `before`, goes where they are short. Patients of one group in `linked` share images, and so their split, as far as
    they are new.

    >>> assign(np.array([[0, 1], [0, 1]]), np.array([1, -1]), [0.5, 0.5], np.array([0, 1]))
    array([1, 0])
    """
    held = _counted(strata, before, len(shares))
    taken = np.full(int(linked.max(initial=-1)) + 1, -1)
    known, new = np.flatnonzero(before >= 0), np.flatnonzero(before < 0)
    # The first known one of each group decides: the last that is written.
    taken[linked[known[::-1]]] = before[known[::-1]]
    of_group = taken.tolist()
    for group, (coarse, fine) in zip(linked[new].tolist(), strata[new].tolist(), strict=True):
        if of_group[group] < 0:
            of_group[group] = _shortest(held[coarse], held[fine], shares)
        held[coarse][of_group[group]] += 1
        held[fine][of_group[group]] += 1
    splits = before.copy()
    splits[new] = np.array(of_group, np.int64)[linked[new]]
    return splits


def _counted(strata: NDArray[np.int64], splits: NDArray[np.int64], count: int) -> list[list[int]]:
    """Return how many patients of each stratum are in each of `count` splits."""
    known = splits >= 0
    cells = (strata[known] * count + splits[known, None]).ravel()
    every = (int(strata.max(initial=-1)) + 1) * count
    counts: list[list[int]] = np.bincount(cells, minlength=every).reshape(-1, count).tolist()
    return counts


def _shortest(coarse: Sequence[int], fine: Sequence[int], shares: Sequence[float]) -> int:
    """Return the number of the split of which one more patient of two strata would miss the most.

    >>> _shortest([3, 1], [2, 2], [0.5, 0.5])
    1
    """
    held = [many + few for many, few in zip(coarse, fine, strict=True)]
    total = sum(held) + 2
    short = [share * total - count for share, count in zip(shares, held, strict=True)]
    return short.index(max(short))
