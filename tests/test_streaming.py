"""A stream says at each time what updating and predicting says, and grows with nothing."""

import numpy as np
import pandas as pd
import pytest
from helpers import monthly, tiny_forecaster

from xlstm_ts.data.calendar import EasterOffset, FixedDate, TradingCalendar
from xlstm_ts.errors import DataError, DataTypeError, ParameterError

pytestmark = pytest.mark.filterwarnings("ignore::xlstm_ts.forecaster.ShortSeriesWarning")


def sessions(rows=60):
    market = TradingCalendar(holidays=(EasterOffset(-2), FixedDate(5, 1)))
    index = market.sessions_after(pd.Timestamp("2024-01-01"), rows)
    return pd.Series(np.random.default_rng(0).normal(size=rows).cumsum(), index=index, name="price")


def missing(frame):
    return frame + np.where(np.arange(len(frame)) % 5 == 2, np.nan, 0.0)[:, None]


def hourly(zone):
    index = pd.date_range("2024-03-29", periods=60, freq="h", tz=zone)
    return pd.Series(np.sin(np.arange(60) / 4), index=index, name="load")


CASES = {
    "patch": ({}, monthly()["a"]),
    "stacked": ({"backbone": "stacked", "layout": "sm"}, monthly(columns=2)),
    "mixer": ({"backbone": "mixer", "layout": "m"}, monthly(columns=3)),
    "decomposition": ({"decomposition": 3, "layout": "l"}, monthly()),
    "student_t": ({"loss": "student_t"}, monthly()),
    "mae": ({"loss": "mae"}, monthly()),
    "huber": ({"loss": "huber", "validation_fraction": 0.6}, monthly(150)),
    "calibrated": ({"validation_fraction": 0.6}, monthly(150)["a"]),
    "adaptive": ({"validation_fraction": 0.6, "calibrate": "adaptive"}, monthly(150)["a"]),
    "adaptive columns": (
        {"validation_fraction": 0.6, "calibrate": "adaptive", "backbone": "mixer"},
        missing(monthly(150, columns=2)),
    ),
    "missing": ({}, missing(monthly(columns=2))),
    "constant": ({}, monthly() * 0 + 4.0),
    "whole numbers": ({}, monthly()["a"].set_axis(range(0, 96, 2))),
    "zone": ({"calendar_features": ["day", "week"]}, hourly("Europe/Berlin")),
    "sessions": ({}, sessions()),
    "short": ({"context_length": 40}, monthly(20)),
}
NEW = 10


def frame_of(forecast):
    return forecast.to_frame() if isinstance(forecast, pd.Series) else forecast


def assert_same(stream, model, fh, **options):
    expected = frame_of(model.predict(fh=fh, **options))
    got = stream.forecast(fh, **options)
    assert got.index.equals(expected.index)
    np.testing.assert_allclose(got.to_numpy(), expected.to_numpy(), rtol=1e-6, atol=1e-9)
    levels = [0.1, 0.45, 0.95]
    expected = model.predict_quantiles(fh=fh, alpha=levels, **options)
    got = stream.forecast(fh, quantile_levels=levels, **options)
    assert got.columns.equals(expected.columns)
    np.testing.assert_allclose(got.to_numpy(), expected.to_numpy(), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", CASES)
def test_a_stream_says_what_updating_and_predicting_says(name):
    settings, y = CASES[name]
    model = tiny_forecaster(**settings).fit(y[:-NEW])
    stream = model.stream()
    updated = tiny_forecaster(**settings).fit(y[:-NEW])
    before = frame_of(model.predict(fh=[1, 2, 3]))
    for k in range(len(y) - NEW, len(y)):
        new = y.iloc[k : k + 1]
        stream.push(new if k % 3 == 0 else y.iloc[k] if y.ndim == 1 else y.iloc[k].to_numpy())
        updated.update(new, update_params=False)
        assert stream.cutoff == y.index[k]
        assert_same(stream, updated, fh=[1, 3] if k % 2 else [2, 7])
    np.testing.assert_array_equal(frame_of(model.predict(fh=[1, 2, 3])), before)  # the model is as it was


@pytest.mark.parametrize("backbone", ["patch", "stacked", "mixer"])
def test_covariates_come_with_the_observations(backbone):
    y = monthly(60, columns=2)
    place = np.arange(70)
    index = pd.period_range("2018-01", periods=70, freq="M")
    X = pd.DataFrame({"price": place / 9.0, "kind": np.array(["a", "b"])[place % 2], "flow": np.cos(place)}, index)
    settings = {"backbone": backbone, "past_covariates": ["flow"], "calendar_features": ["year"]}
    model = tiny_forecaster(**settings).fit(y[:50], X=X[:50])
    updated = tiny_forecaster(**settings).fit(y[:50], X=X[:50])
    stream = model.stream()
    for k in range(50, 60):
        stream.push(y[k : k + 1], X=X[k : k + 1])
        updated.update(y[k : k + 1], X=X[k : k + 1], update_params=False)
        assert_same(stream, updated, fh=[1, 2, 5], X=X[k + 1 : k + 6])

    with pytest.raises(DataError, match=r"forecast: no X was given"):
        stream.forecast()
    with pytest.raises(DataError, match=r"push: no X was given"):
        stream.push([1.0, 2.0])


def test_several_rows_and_rows_that_were_left_out():
    y = monthly(60)["a"]
    model = tiny_forecaster().fit(y[:40])
    stream = model.stream()
    stream.push(y[40:43])
    stream.push(y[45:47].to_frame())  # two months were not reported
    updated = model.update(y[40:43], update_params=False).update(y[45:47], update_params=False)
    assert_same(stream, updated, fh=[1, 2, 3])

    far = tiny_forecaster().fit(y[:20]).stream()
    far.push(y[59:])  # nothing of the context was reported but one value
    assert_same(far, tiny_forecaster().fit(y[:20]).update(y[59:], update_params=False), fh=[1, 2])


def test_a_series_of_a_panel_streams_with_its_own_scale():
    y = pd.concat({"u": monthly(40), "v": 50 + 3 * monthly(40, seed=1)}, names=["key", "time"])
    model = tiny_forecaster().fit(y)
    stream = model.stream(series="v")
    expected = model.predict(fh=[1, 2, 3]).loc["v"]

    np.testing.assert_allclose(stream.forecast().to_numpy(), expected.to_numpy(), rtol=1e-6)
    with pytest.raises(ParameterError, match=r"series=None is impossible; expected one of \['u', 'v'\]"):
        model.stream()
    with pytest.raises(ParameterError, match=r"series='w'"):
        model.stream("w")
    with pytest.raises(ParameterError, match="None: there is one"):
        tiny_forecaster().fit(monthly()).stream("a")


def test_the_forecaster_may_change_beside_a_stream():
    y = monthly(60)["a"]
    model = tiny_forecaster().fit(y[:40])
    stream = model.stream()
    before = stream.forecast()
    model.update(y[40:])

    pd.testing.assert_frame_equal(stream.forecast(), before)


@pytest.mark.parametrize("calibrate", [True, "adaptive"])
def test_what_a_stream_holds_does_not_grow(calibrate):
    y = monthly(150)["a"]
    stream = tiny_forecaster(validation_fraction=0.6, calibrate=calibrate).fit(y).stream()
    rows = 8 if calibrate is True else 8 + 3
    for value in range(50):
        stream.push(float(value))
        series = stream._series
        assert len(series.values) == len(series.x) == len(series.axis.index) == rows
        assert series.values.base is None


BAD = {
    "the same time": (lambda y: y[39:40], DataError, r"2021-04 does not come after the last observation, 2021-04"),
    "an earlier time": (lambda y: y[30:31], DataError, "does not come after"),
    "text": (lambda y: "high", DataTypeError, "y is of type str; expected a number"),
    "a table of names": (lambda y: {"a": 1.0}, DataTypeError, "y is of type dict"),
    "two numbers": (lambda y: [1.0, 2.0], DataError, r"shape \(2,\); expected one number for each of the 1"),
    "an infinite number": (lambda y: np.inf, DataError, "infinite"),
    "another index": (lambda y: pd.Series([1.0], index=[50]), DataError, "times of int64"),
    "two columns": (lambda y: monthly(50, columns=2)[40:41], DataError, "columns"),
    "unsorted": (lambda y: y[40:43].iloc[::-1], DataError, "Sort"),
    "no rows": (lambda y: y[:0], DataError, "empty"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_pushed_changes_nothing(name):
    y = monthly(50)["a"]
    stream = tiny_forecaster().fit(y[:40]).stream()
    before = stream.forecast(quantile_levels=[0.1, 0.9])
    make, kind, message = BAD[name]

    with pytest.raises(kind, match=message):
        stream.push(make(y))
    pd.testing.assert_frame_equal(stream.forecast(quantile_levels=[0.1, 0.9]), before)


def test_impossible_questions_are_named():
    stream = tiny_forecaster().fit(monthly()).stream()
    for fh in (0, [-1, 2], [1.5], [], 10**9, "x"):
        with pytest.raises(ParameterError, match="fh="):
            stream.forecast(fh)
    with pytest.raises(ParameterError, match=r"1\.5"):
        stream.forecast(quantile_levels=[1.5])
    with pytest.raises(DataError, match="X was given"):
        stream.forecast(X=monthly())
    with pytest.raises(DataError, match="X was given"):
        stream.push(1.0, X=monthly())


def test_a_constant_that_moves_is_told():
    stream = tiny_forecaster().fit(monthly() * 0 + 4.0).stream()
    with pytest.warns(UserWarning, match="was constant in training"):
        stream.push(5.0)
    assert (stream.forecast() == 4.0).all().all()
