"""Columns of X by hand: what they are, and the features that stand for them."""

import numpy as np
import pandas as pd
import pytest

from xlstm_ts.data.covariates import Column, CovariatePlan, plan_columns, to_matrix, with_categories
from xlstm_ts.data.scaler import SeriesScaler
from xlstm_ts.data.time_features import TimeFeatures
from xlstm_ts.errors import DataError

DAYS = pd.date_range("2024-01-01", periods=4)
FRAME = pd.DataFrame(
    {
        "price": [1.0, 3.0, np.nan, 5.0],
        "kind": ["b", "a", None, "b"],
        "open": [True, False, True, True],
        "wind": [0.0, 1.0, 2.0, 3.0],
    },
    index=DAYS,
)


def plan(past=("wind",), static=()):
    columns = plan_columns(FRAME, past, static, "fit")
    scaler = SeriesScaler(np.array([3.0, 0.0, 0.0, 1.0]), np.array([2.0, 1.0, 1.0, 0.0]))
    return CovariatePlan(columns, TimeFeatures(("week",)), scaler)


def test_columns_are_known_ahead_unless_they_are_named_otherwise():
    columns = plan_columns(FRAME, ["wind"], ["kind"], "fit")

    assert columns == (
        Column("price", "known", None),
        Column("kind", "static", ("a", "b")),
        Column("open", "known", None),
        Column("wind", "past", None),
    )


def test_categories_become_numbers_and_nothing_becomes_nan():
    matrix = to_matrix(FRAME[["wind", "open", "kind", "price"]], plan().columns, "fit")

    expected = [[1, 1, 1, 0], [3, 0, 0, 1], [np.nan, np.nan, 1, 2], [5, 1, 1, 3]]
    np.testing.assert_array_equal(matrix, expected)


def test_features_by_hand():
    matrix = to_matrix(FRAME, plan().columns, "fit")

    features = plan().encode(matrix, DAYS)

    # price scaled and its flag; a, b; open and its flag; wind never moved in training, and its flag.
    by_hand = [
        [-1, 1, 0, 1, 1, 1, 0, 1],
        [0, 1, 1, 0, 0, 1, 0, 1],
        [0, 0, 0, 0, 1, 1, 0, 1],
        [1, 1, 0, 1, 1, 1, 0, 1],
    ]
    np.testing.assert_allclose(features[:, :8], by_hand)
    np.testing.assert_array_equal(features[:, 8:], TimeFeatures(("week",)).of(DAYS))
    assert plan().known.tolist() == [True] * 6 + [False] * 2 + [True] * 6
    assert features.dtype == np.float32


def test_text_becomes_categories_for_sktime_and_all_else_stays():
    got = with_categories(FRAME)

    assert isinstance(got["kind"].dtype, pd.CategoricalDtype)
    pd.testing.assert_frame_equal(got.drop(columns="kind"), FRAME.drop(columns="kind"))
    assert with_categories(got) is got
    assert with_categories(None) is None


def test_a_mixture_of_categories_is_ordered_by_kind_and_value():
    mixed = pd.DataFrame({"x": [2, "b", 1, "a"]}, dtype=object)

    assert plan_columns(mixed, [], [], "fit")[0].categories == (1, 2, "a", "b")


def test_columns_that_stand_twice_are_refused():
    with pytest.raises(DataError, match="'a' twice"):
        plan_columns(pd.DataFrame([[1, 2]], columns=["a", "a"]), [], [], "fit")


def test_a_million_columns_are_refused_before_they_are_looked_at():
    wide = pd.DataFrame(np.zeros((2, 1_000_000), dtype=np.float32))

    with pytest.raises(DataError, match="1000000 columns; at most 10000"):
        plan_columns(wide, [], [], "fit")
