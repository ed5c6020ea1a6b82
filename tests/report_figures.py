"""Figures for tests: predictions to draw, and what is read from axes and files."""

import base64

import numpy as np
from matplotlib.axes import Axes

from imaging.statistics.classification import ClassPredictions


def predictions_of(classes: int, n: int = 60, noise: float = 1.0) -> ClassPredictions:
    generator = np.random.default_rng(0)
    labels = np.arange(n) % classes
    raw = np.exp(2 * np.eye(classes)[labels] + noise * generator.normal(size=(n, classes)))
    return ClassPredictions(
        labels=labels,
        probabilities=raw / raw.sum(axis=1, keepdims=True),
        patients=np.array([f"patient-{i:04d}" for i in range(n)]),
        classes=tuple(f"class {k}" for k in range(classes)),
        threshold=0.4 if classes == 2 else None,
    )


def legend(axes: Axes) -> list[str]:
    return [text.get_text() for text in axes.get_legend().get_texts()]


def decoded(uri: str) -> bytes:
    return base64.b64decode(uri.partition(",")[2])
