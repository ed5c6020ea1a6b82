"""Tree of errors: the class tells whose fault it is, and so what happens next.

RadloopError
├── DataFault          one bad file: it goes to quarantine with a reason, the run goes on
├── UserFault          a wrong path, name or value: the run stops before anything is written
└── EnvironmentFault   a missing decoder, a full disk, a dead server: the run stops and publishes nothing
"""

from collections.abc import Sequence


class RadloopError(Exception):
    """An error whose message is meant for a person: it names the value, the limit and the remedy."""


class DataFault(RadloopError):
    """A source file that cannot become an example; `reason` is a key of `imaging.refusal_reasons.REASONS`."""

    def __init__(self, reason: str, detail: str = "") -> None:
        # Both values, so that the fault survives pickling on its way out of a worker process.
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail


class LeftOut(DataFault):
    """Parts of a source file that cannot become examples, where the file's other images do; raised after these."""

    def __init__(self, faults: Sequence[DataFault]) -> None:
        super().__init__(faults[0].reason, faults[0].detail)
        self.faults = tuple(faults)


class UserFault(RadloopError):
    """A request of the user that cannot be fulfilled as it is."""


class EnvironmentFault(RadloopError):
    """A machine, a server or an installation that is not as it must be."""
