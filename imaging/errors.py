"""Owns the tree of errors: whose fault it is decides what happens next.

RadloopError
├── DataFault          one bad file: it goes to quarantine with a reason, the run goes on
├── UserFault          a wrong path, name or value: the run stops before anything is written
└── EnvironmentFault   a missing decoder, a full disk, a dead server: the run stops and publishes nothing
"""


class RadloopError(Exception):
    """An error whose message is meant for a person: it names the value, the limit and the remedy."""


class DataFault(RadloopError):
    """One source file cannot become an example; `reason` is a key of `imaging.refusal_reasons.REASONS`."""

    def __init__(self, reason: str, detail: str = "") -> None:
        # Both values, so that the fault survives pickling on its way out of a worker process.
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail


class UserFault(RadloopError):
    """What the user asked for cannot be done as asked."""


class EnvironmentFault(RadloopError):
    """The machine, a server or an installation is not as it must be."""
