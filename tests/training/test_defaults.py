"""What "auto" stands for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xlstm_ts.training.defaults import LONG, Shape, choose_shape, choose_shapes


@pytest.mark.parametrize(
    ("series", "expected"),
    [
        ((11_520, 7, 24), Shape("mixer", 512, 16, "s")),  # hours of several sensors
        ((10_000, 1, 48), Shape("mixer", 512, 16, "s")),  # half hours of one
        ((20_000, 1, 288), Shape("patch", 96, 8, "sm")),  # five minutes of one
        ((20_000, 9, 288), Shape("mixer", 512, 16, "s")),  # and of several
        ((10_000, 1, 5), Shape("patch", 96, 8, "sm")),  # forty years of sessions
        ((7_588, 8, 7), Shape("mixer", 96, 8, "s")),  # twenty years of days, eight currencies
        ((9_000, 3, 52), Shape("mixer", 96, 8, "s")),  # weeks
        ((5_000, 3, 1), Shape("mixer", 96, 8, "s")),  # a step that is unknown
        ((300, 1, 24), Shape("mixer", 75, 8, "s")),  # two weeks of hours
        ((150, 2, 24), Shape("mixer", 48, 8, "s")),  # two days, since a quarter would be less
        ((144, 1, 12), Shape("patch", 40, 8, "sm")),  # twelve years of months: 36, rounded up to whole patches
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

    assert 2 <= shape.context_length <= LONG
    assert 1 <= shape.patch_length <= shape.context_length
    assert shape.context_length <= max(2, rows // 2) + shape.patch_length
    assert shape.backbone != "patch" or shape.context_length % shape.patch_length == 0


def test_what_is_given_stays_as_it_is():
    assert choose_shape(9999, 3, 24, backbone="stacked") == Shape("stacked", 96, 8, "sm")
    assert choose_shape(9999, 3, 24, context_length=30) == Shape("mixer", 30, 8, "s")
    assert choose_shape(9999, 1, 12, context_length=30) == Shape("patch", 32, 8, "sm")
    assert choose_shape(9999, 1, 12, patch_length=24) == Shape("patch", 96, 24, "sm")
    assert choose_shape(9999, 1, 12, layout="m").layout == "m"


def test_averaged_networks_read_a_whole_two_thirds_and_a_third_of_the_context():
    assert choose_shapes(11_520, 7, 24) == [Shape("mixer", length, patch, "s") for length, patch in SENSORS]
    assert [shape.context_length for shape in choose_shapes(10_000, 1, 5)] == [96, 64, 32]
    assert [shape.context_length for shape in choose_shapes(144, 1, 12)] == [40, 32, 16]
    assert choose_shapes(3, 1, 1) == [Shape("patch", 2, 2, "sm")]
    assert choose_shapes(9999, 3, 24, backbone="stacked", layout="m", patch_length=4) == [
        Shape("stacked", length, 4, "m") for length in (96, 64, 32)
    ]


SENSORS = ((512, 16), (341, 16), (171, 8))
