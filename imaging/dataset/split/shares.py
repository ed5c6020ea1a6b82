"""Names of the splits, and the share of patients in each; light to load, since request forms need it."""

from pydantic import BaseModel, ConfigDict, Field, model_validator

SPLITS = ("train", "val", "test")


class SplitConfig(BaseModel):
    """The shares of patients in each split."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    val: float = Field(
        0.15,
        gt=0,
        lt=1,
        title="Validation",
        description="Share of patients that choose the epoch and the threshold.",
    )
    test: float = Field(
        0.25,
        gt=0,
        lt=1,
        title="Test",
        description="Share of patients that are locked away for the verdict.",
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
