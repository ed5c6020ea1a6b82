"""Outcomes of flows as values of JSON, for programs: numbers and verdicts, without arrays of patients."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np

LEFT_OUT = frozenset({"predictions", "champion_predictions", "test_keys", "tags"})
"""Fields with a row for each patient, and the tags of a model version, which MLflow has."""


def plain(value: Any) -> Any:
    """Return an outcome, or a part of one, as JSON has it; what is undefined (NaN) is null.

    >>> plain({"auroc": float("nan"), "counts": (1, np.int64(2))})
    {'auroc': None, 'counts': [1, 2]}
    """
    if is_dataclass(value) and not isinstance(value, type):
        named = {field.name: getattr(value, field.name) for field in fields(value)}
        return {name: plain(part) for name, part in named.items() if name not in LEFT_OUT}
    if isinstance(value, Mapping):
        return {str(name): plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(part) for part in value]
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float):
        return value if isfinite(value) else None
    return str(value) if isinstance(value, Path) else value
