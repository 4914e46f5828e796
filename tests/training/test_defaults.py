"""What "auto" stands for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xlstm_ts.training.defaults import LONGEST, Shape, choose_shape


@pytest.mark.parametrize(
    ("series", "expected"),
    [
        ((11_520, 7, 24), Shape("mixer", 512, 16, "s")),  # two sensors' years of hours
        ((10_000, 1, 5), Shape("patch", 96, 8, "sm")),  # forty years of sessions
        ((300, 1, 24), Shape("patch", 80, 8, "sm")),  # two weeks of hours: 75, rounded up to whole patches
        ((150, 2, 24), Shape("mixer", 48, 8, "s")),  # two days, since a quarter would be less
        ((144, 1, 12), Shape("patch", 40, 8, "sm")),  # twelve years of months: 36
        ((40, 1, 52), Shape("patch", 24, 8, "sm")),  # two years do not fit: half of what there is, 20
        ((3, 1, 1), Shape("patch", 2, 2, "sm")),
    ],
    ids=str,
)
def test_the_table(series, expected):
    assert choose_shape(*series) == expected


@given(rows=st.integers(2, 10**6), channels=st.integers(1, 50), season=st.integers(1, 400))
def test_contexts_are_whole_patches_and_leave_most_of_the_series(rows, channels, season):
    shape = choose_shape(rows, channels, season)

    assert 2 <= shape.context_length <= LONGEST[shape.backbone]
    assert 1 <= shape.patch_length <= shape.context_length
    assert shape.context_length <= max(2, rows // 2) + shape.patch_length
    assert shape.backbone != "patch" or shape.context_length % shape.patch_length == 0


def test_what_is_given_stays_as_it_is():
    assert choose_shape(9999, 3, 24, backbone="stacked") == Shape("stacked", 96, 8, "sm")
    assert choose_shape(9999, 3, 24, context_length=30) == Shape("mixer", 30, 8, "s")
    assert choose_shape(9999, 1, 24, context_length=30) == Shape("patch", 32, 8, "sm")
    assert choose_shape(9999, 1, 24, patch_length=24) == Shape("patch", 96, 24, "sm")
    assert choose_shape(9999, 1, 24, layout="m").layout == "m"
