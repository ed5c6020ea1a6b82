"""Windows, sigmoids and tables: values as 0..1 by the formulas of PS3.3 C.11."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from imaging.image.window import IDENTITY, Lut, Sigmoid, Window


@given(st.floats(-1e4, 1e4), st.floats(1.1, 1e4), st.floats(-3e4, 3e4))
def test_a_window_is_the_formula_of_the_standard(center: float, width: float, value: float) -> None:
    expected = min(max((value - (center - 0.5)) / (width - 1) + 0.5, 0), 1)
    shown = Window(center=center, width=width).show(np.array([value], np.float32))[0]
    assert shown == pytest.approx(expected, abs=2e-3 * max(1, abs(value) / width / 10))


def test_bounds_are_black_and_white() -> None:
    window = Window(center=40, width=400)
    np.testing.assert_array_equal(window.show(np.array(window.bounds, np.float32)), [0, 1])


@pytest.mark.parametrize("width", [1, 0, -3])
def test_a_window_needs_a_width(width: float) -> None:
    with pytest.raises(ValidationError, match="width"):
        Window(center=0, width=width)


def test_the_identity_shows_grey_levels_as_they_are() -> None:
    np.testing.assert_allclose(IDENTITY.show(np.arange(256, dtype=np.float32)) * 255, np.arange(256), 0, 1e-4)


@given(st.floats(-1e3, 1e3), st.floats(1, 1e4), st.floats(-1e6, 1e6))
def test_a_sigmoid_is_the_formula_of_the_standard(center: float, width: float, value: float) -> None:
    shown = Sigmoid(center, width).show(np.array([value], np.float32))[0]
    with np.errstate(over="ignore"):
        expected = 1 / (1 + np.exp(np.float64(-4 * (value - center) / width)))
    assert shown == pytest.approx(expected, abs=1e-3)
    assert shown.dtype == np.float32


def test_values_outside_of_a_table_take_its_ends() -> None:
    lut = Lut(10, 8, np.array([5, 6, 7], np.uint16))
    np.testing.assert_array_equal(lut.look_up(np.array([-9, 10, 11, 12, 99])), [5, 5, 6, 7, 7])


def test_a_table_takes_the_nearest_whole_value() -> None:
    lut = Lut(0, 8, np.array([0, 255], np.uint16))
    np.testing.assert_array_equal(lut.show(np.array([0.4, 0.6], np.float32)), [0, 1])
