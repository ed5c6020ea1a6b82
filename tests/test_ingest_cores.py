"""Bench of ingest on two cores: rounds take turns, and a speed below the bound is called a miss."""

from dataclasses import dataclass, field

import pytest

from bench.ingest_cores import Costs, in_turn, row


@dataclass
class Recording:
    """Ingest of given times that records the order of the calls."""

    name: str
    took: list[float]
    asked: list[str] = field(default_factory=list)

    def take_in(self, size: int) -> Costs:
        self.asked.append(self.name)
        return self.took.pop(0), 1.0


@pytest.mark.parametrize(("two_cores_ms", "missed"), [(0.56, False), (0.6, True)])
def test_less_than_asked_for_is_missed(two_cores_ms: float, missed: bool) -> None:
    assert ("MISSED" in row(256, [(1.0, 1.0)], [(two_cores_ms, 1.0)])) == missed


def test_the_speed_is_that_of_the_same_round() -> None:
    one, both = [(1.0, 1.0), (9.0, 1.0), (1.0, 1.0)], [(0.5, 1.0), (4.5, 1.0), (0.5, 1.0)]
    assert "| 2.00 x |" in row(256, one, both)


def test_both_take_turns_and_the_first_round_does_not_count() -> None:
    asked: list[str] = []
    one, both = Recording("one", [100.0, 1.0, 2.0], asked), Recording("both", [100.0, 3.0, 4.0], asked)
    costs = in_turn(256, one, both, rounds=2)
    assert [[time for time, _ in side] for side in costs] == [[1.0, 2.0], [3.0, 4.0]]
    assert asked == ["both", "one", "one", "both", "both", "one"]
