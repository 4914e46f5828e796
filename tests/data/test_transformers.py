"""Windows for notebooks and lag columns for pipelines: values by hand, true history, no look ahead."""

import pickle

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.compose import TransformedTargetRegressor
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LinearRegression, Ridge
from sklearn.model_selection import GridSearchCV, TimeSeriesSplit, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from xlstm_ts.data.transformers import WindowTransformer, make_windows
from xlstm_ts.errors import DataError, DataTypeError, ParameterError

BY_DESIGN = "a row's lags are the rows before it, so rows cannot be moved or taken away"
NAN = np.nan


def daily(rows=10, start="2024-01-01"):
    index = pd.date_range(start, periods=rows, freq="D")
    return pd.DataFrame({"a": np.arange(rows) + 1.0, "b": np.arange(rows) * 10.0}, index=index)


@parametrize_with_checks(
    [WindowTransformer(context_length=3), WindowTransformer(context_length=3, padding="edge")],
    expected_failed_checks=lambda estimator: {
        "check_methods_sample_order_invariance": BY_DESIGN,
        "check_methods_subset_invariance": BY_DESIGN,
    },
)
def test_the_transformer_keeps_the_contract_of_scikit_learn(estimator, check):
    check(estimator)


# make_windows


def test_windows_of_a_short_series_by_hand():
    contexts, targets, origins = make_windows(daily(6)["a"], context_length=3, horizon=2)

    assert contexts[..., 0].tolist() == [[1, 2, 3], [2, 3, 4]]
    assert targets[..., 0].tolist() == [[4, 5], [5, 6]]
    assert origins.tolist() == [pd.Timestamp("2024-01-03"), pd.Timestamp("2024-01-04")]


@pytest.mark.parametrize(("rows", "stride"), [(9, 1), (20, 3), (21, 3), (22, 3), (20, 50)])
def test_windows_equal_those_cut_row_by_row(rows, stride):
    frame = daily(rows)

    contexts, targets, origins = make_windows(frame, 5, 4, stride=stride)

    starts = range(0, rows - 9 + 1, stride)
    np.testing.assert_array_equal(contexts, [frame.to_numpy()[s : s + 5] for s in starts])
    np.testing.assert_array_equal(targets, [frame.to_numpy()[s + 5 : s + 9] for s in starts])
    assert origins.equals(frame.index[[s + 4 for s in starts]])


def test_covariates_stand_in_the_contexts_only():
    frame = daily(8)

    contexts, targets, _ = make_windows(frame["a"], 3, 1, X=frame[["b"]])

    assert contexts.shape == (5, 3, 2)
    assert targets.shape == (5, 1, 1)
    np.testing.assert_array_equal(contexts[1], frame.to_numpy()[1:4])


def test_windows_share_memory_and_cannot_be_written():
    series = np.arange(1000.0)

    contexts, targets, origins = make_windows(series, 100, 10)

    assert np.shares_memory(contexts[0], contexts[1])
    assert not contexts.flags.writeable
    assert not targets.flags.writeable
    assert origins[0] == 99
    series[:] = 0.0
    assert contexts[0, 5, 0] == 5.0  # the user's array is not looked through to


def test_integers_and_missing_values_become_float64():
    contexts, _, _ = make_windows(pd.Series([1, None, 3, 4], dtype="Int64"), 2, 1)

    assert contexts.dtype == np.float64
    np.testing.assert_array_equal(contexts[0, :, 0], [1, NAN])


@pytest.mark.parametrize(
    ("series", "options", "error", "words"),
    [
        (np.arange(5.0), {}, DataError, "has 5 rows; context_length=4 and horizon=2 need 6"),
        ([], {}, DataError, "empty"),
        (np.zeros((9, 2, 2)), {}, DataError, "has 3 dimensions"),
        (np.array(list("abcdefghi")), {}, DataTypeError, "expected real numbers"),
        ([1.0, np.inf] * 5, {}, DataError, "infinite"),
        (daily()[::-1], {}, DataError, "comes after a later one"),
        (pd.concat({"s": daily()}), {}, DataError, "2 levels"),
        (daily(), {"X": daily(9)}, DataError, "X has 9 rows and the series 10"),
        (daily(), {"X": daily(start="2024-01-02")}, DataError, "indexes differ"),
        (daily(), {"stride": 0}, ParameterError, "stride=0"),
        (daily(), {"horizon": 1.5}, ParameterError, "horizon=1.5"),
    ],
)
def test_a_series_that_cannot_be_cut_is_named(series, options, error, words):
    with pytest.raises(error, match=words):
        make_windows(series, **({"context_length": 4, "horizon": 2} | options))


# WindowTransformer


def test_lags_by_hand_padded_by_nan_and_by_the_edge():
    X = np.array([[1.0, 10], [2, 20], [3, 30]])

    padded = WindowTransformer(context_length=3).fit_transform(X)
    edge = WindowTransformer(context_length=3, padding="edge").fit_transform(X)

    expected = [[1, NAN, NAN, 10, NAN, NAN], [2, 1, NAN, 20, 10, NAN], [3, 2, 1, 30, 20, 10]]
    np.testing.assert_array_equal(padded, expected)
    np.testing.assert_array_equal(edge, [[1, 1, 1, 10, 10, 10], [2, 1, 1, 20, 10, 10], [3, 2, 1, 30, 20, 10]])


def test_names_and_index_survive_in_a_frame():
    lags = WindowTransformer(context_length=2).set_output(transform="pandas").fit_transform(daily(3))

    assert lags.columns.tolist() == ["a_lag0", "a_lag1", "b_lag0", "b_lag1"]
    assert lags.index.equals(daily(3).index)
    assert lags.iloc[2].tolist() == [3, 2, 20, 10]


def test_names_of_an_array_are_numbered():
    lags = WindowTransformer(context_length=2).fit(np.zeros((4, 1)))

    assert lags.get_feature_names_out().tolist() == ["x0_lag0", "x0_lag1"]


INDEXES = {
    "days": pd.date_range("2024-01-01", periods=60, freq="D"),
    "days without freq": pd.DatetimeIndex(pd.date_range("2024-01-01", periods=60, freq="D").to_numpy()),
    "hours over a clock change": pd.date_range("2024-03-30", periods=60, freq="h", tz="Europe/Berlin"),
    "month ends": pd.date_range("2020-01-31", periods=60, freq="ME"),
    "periods": pd.period_range("2020-01", periods=60, freq="M"),
    "range": pd.RangeIndex(60),
    "tens": pd.Index(np.arange(60) * 10),
    "business days without freq": pd.DatetimeIndex(pd.bdate_range("2024-01-01", periods=60).to_numpy()),
}


@pytest.mark.parametrize("padding", ["nan", "edge"])
@pytest.mark.parametrize("index", INDEXES.values(), ids=INDEXES.keys())
def test_rows_that_continue_the_fit_see_their_true_history(index, padding):
    X = pd.DataFrame(np.random.default_rng(0).normal(size=(60, 2)), index=index)
    joined = WindowTransformer(context_length=5, padding=padding).fit_transform(X)

    test = WindowTransformer(context_length=5, padding=padding).fit(X[:40]).transform(X[40:])

    np.testing.assert_array_equal(test, joined[40:])


def test_the_session_after_a_holiday_continues_the_one_before_it():
    sessions = pd.bdate_range("2021-01-01", "2024-07-31")
    sessions = sessions[~((sessions.month == 7) & (sessions.day == 4))]
    X = pd.DataFrame({"x": np.arange(len(sessions))}, index=sessions)

    out = WindowTransformer(context_length=2).fit(X[:"2024-07-03"]).transform(X["2024-07-05":])

    assert out[0, 0] - out[0, 1] == 1


def test_history_shorter_than_the_context_is_padded_before_it():
    X = daily(6)
    joined = WindowTransformer(context_length=5, padding="edge").fit_transform(X)

    test = WindowTransformer(context_length=5, padding="edge").fit(X[:2]).transform(X[2:])

    np.testing.assert_array_equal(test, joined[2:])


@pytest.mark.parametrize(
    "test",
    [
        daily()[:7],
        daily()[2:],
        daily()[8:],
        daily()[7:].to_numpy(),
        daily()[7:].reset_index(drop=True),
        daily()[7:].tz_localize("UTC"),
    ],
    ids=["the fit itself", "inside it", "after a gap", "an array", "another index", "another time zone"],
)
@pytest.mark.filterwarnings("ignore:X does not have valid feature names")
def test_rows_that_do_not_continue_the_fit_are_padded(test):
    lags = WindowTransformer(context_length=3).fit(daily()[:7])

    out = lags.transform(test)

    np.testing.assert_array_equal(out, WindowTransformer(context_length=3).fit_transform(test))
    assert np.isnan(out[0]).sum() == 4


def test_labels_without_a_rule_are_never_continued():
    for labels in (list("abcd"), [1, 5, 6, 7], [3, 2, 1, 0], [0.0, 1.0, 2.0, 3.0], [1, 10**15, 10**16, 10**17]):
        frame = daily(4).set_axis(labels)

        lags = WindowTransformer(context_length=2).fit(frame)

        assert lags._tail.next_label is None


def test_a_later_row_never_changes_an_earlier_one():
    X = daily(20)
    changed = X.copy()
    changed.iloc[12:] = 1e6

    before, after = (WindowTransformer(context_length=4).fit(X[:5]).transform(frame[5:]) for frame in (X, changed))

    np.testing.assert_array_equal(before[:7], after[:7])
    assert (before[7:, 0] != after[7:, 0]).all()


def test_transform_does_not_change_what_is_remembered():
    lags = WindowTransformer(context_length=3).fit(daily()[:7])
    first = lags.transform(daily()[7:])

    lags.transform(daily()[:7])

    np.testing.assert_array_equal(lags.transform(daily()[7:]), first)


def test_the_remembered_rows_are_a_copy():
    train, test = daily()[:7].copy(), daily()[7:]
    lags = WindowTransformer(context_length=3).fit(train)
    train.iloc[:] = -1.0

    assert lags.transform(test)[0].tolist() == [8, 7, 6, 70, 60, 50]


def test_missing_values_pass_through():
    out = WindowTransformer(context_length=2).fit_transform([[1.0], [NAN], [3.0]])

    np.testing.assert_array_equal(out, [[1, NAN], [NAN, 1], [3, NAN]])


def test_a_linear_model_on_lags_finds_the_recurrence_also_across_the_end_of_training():
    rng = np.random.default_rng(0)
    x = pd.DataFrame({"x": rng.normal(size=200)}, index=pd.date_range("2024", periods=200, freq="h"))
    y = x["x"] + 2 * x["x"].shift(2, fill_value=0.0)
    model = make_pipeline(
        StandardScaler().set_output(transform="pandas"), WindowTransformer(4, padding="edge"), LinearRegression()
    )

    model.fit(x[3:150], y[3:150])

    # Edge padding falsifies the first training rows a little; the test rows have their history.
    np.testing.assert_allclose(model.predict(x[150:]), y[150:], atol=0.3)
    assert model.score(x[150:152], y[150:152]) > 0.95


def test_cross_validation_over_time_of_lags_and_ridge():
    rng = np.random.default_rng(0)
    x = pd.DataFrame({"x": rng.normal(size=300)})
    y = x["x"].shift(3, fill_value=0.0)
    model = make_pipeline(WindowTransformer(context_length=5, padding="edge"), Ridge(alpha=1e-3))

    scores = cross_val_score(model, x, y, cv=TimeSeriesSplit(n_splits=4))

    assert scores.min() > 0.95


def test_a_grid_search_finds_how_many_lags_are_needed():
    x = pd.DataFrame(
        {"x": np.random.default_rng(0).normal(size=300)}, index=pd.date_range("2024", periods=300, freq="h")
    )
    y = 2 * x["x"].shift(3, fill_value=0.0)
    lags = WindowTransformer(padding="edge").set_output(transform="pandas")
    model = TransformedTargetRegressor(make_pipeline(lags, Ridge(1e-6)), transformer=StandardScaler())
    search = GridSearchCV(
        model,
        {"regressor__windowtransformer__context_length": [2, 4, 12]},
        cv=TimeSeriesSplit(n_splits=3, gap=2),
        error_score="raise",
    )

    search.fit(x, y)

    scores = search.cv_results_["mean_test_score"]
    assert scores[0] < 0.1
    assert scores[1:].min() > 0.85
    assert search.best_params_["regressor__windowtransformer__context_length"] in (4, 12)


def test_threads_may_share_a_fitted_transformer():
    x = pd.DataFrame({"x": np.arange(40.0)})
    fitted = WindowTransformer(4).fit(x[:20])

    together = joblib.Parallel(n_jobs=2, prefer="threads")(
        joblib.delayed(fitted.transform)(x[first : first + 10]) for first in (20, 30, 20)
    )

    np.testing.assert_array_equal(together[0], fitted.transform(x[20:30]))
    np.testing.assert_array_equal(together[0], together[2])
    assert together[0][0].tolist() == [20.0, 19.0, 18.0, 17.0]


def test_the_transformer_can_be_cloned_and_pickled():
    lags = WindowTransformer(context_length=3, padding="edge").fit(daily()[:7])

    again = pickle.loads(pickle.dumps(lags))

    np.testing.assert_array_equal(again.transform(daily()[7:]), lags.transform(daily()[7:]))
    assert clone(lags).get_params() == {"context_length": 3, "padding": "edge"}


@pytest.mark.parametrize(
    ("X", "options", "error", "words"),
    [
        (daily(), {"context_length": 0}, ParameterError, "context_length=0"),
        (daily(), {"padding": "zero"}, ParameterError, "padding='zero'"),
        (daily()[::-1], {}, DataError, "comes after a later one"),
        (pd.concat([daily(), daily()]).sort_index(), {}, DataError, "stands twice"),
        (pd.concat({"s": daily()}), {}, DataError, "2 levels"),
        (daily().assign(a="x"), {}, DataError, "could not convert"),
        (daily().assign(a=daily().index), {}, DataTypeError, "'a' is of type datetime64"),
        (daily() / 0.0, {}, DataError, "infinity"),
        (daily()["a"], {}, DataError, "Expected a 2-dimensional container|Expected 2D"),
        (daily()[:0], {}, DataError, "0 sample"),
    ],
)
def test_rows_that_cannot_be_used_are_named(X, options, error, words):
    with pytest.raises(error, match=words):
        WindowTransformer(**options).fit(X)


def test_other_columns_at_transform_are_an_error_of_ours():
    lags = WindowTransformer(context_length=3).fit(daily())

    with pytest.raises(DataError, match=r"WindowTransformer.transform: .*feature names"):
        lags.transform(daily().rename(columns={"a": "c"}))
    with pytest.raises(NotFittedError):
        WindowTransformer().transform(daily())
