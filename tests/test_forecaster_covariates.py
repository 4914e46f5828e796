"""What the forecaster makes of X, of the clock and of irregular times: values, not only shapes."""

import copy
from functools import cache

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import normal

from xlstm_ts.errors import DataError, DataTypeError, ParameterError
from xlstm_ts.forecaster import XLSTMForecaster

ROWS, AHEAD = 400, 30
KINDS = np.array(["calm", "busy", "wild"])
EFFECT = {"calm": 0.0, "busy": 2.0, "wild": -3.0}
TINY = {
    "horizon": 6,
    "backbone": "patch",
    "context_length": 12,
    "patch_length": 4,
    "hidden_size": 8,
    "num_heads": 2,
    "max_epochs": 1,
    "steps_per_epoch": 5,
    "random_state": 0,
    "past_covariates": ["measured"],
}
BACKBONES = ("patch", "stacked", "mixer")


def make_data(seed=0):
    """A series that a promotion and a kind of day move, and a measurement that says nothing."""
    draw = np.random.default_rng(seed)
    index = pd.date_range("2024-01-01", periods=ROWS, freq="h")
    promotion = (draw.random(ROWS) < 0.2).astype(float)
    kind = draw.choice(KINDS, ROWS)
    X = pd.DataFrame({"promotion": promotion, "measured": draw.normal(size=ROWS), "kind": kind}, index=index)
    effect = 4 * promotion + np.vectorize(EFFECT.get)(kind)
    return pd.Series(10 + effect + 0.1 * draw.normal(size=ROWS), index, name="load"), X


@cache
def fitted(backbone="patch", **changes):
    y, X = make_data()
    return XLSTMForecaster(**TINY | {"backbone": backbone} | dict(changes)).fit(y[:-AHEAD], X[:-AHEAD])


@pytest.mark.parametrize("backbone", BACKBONES)
def test_known_effects_of_the_future_are_forecast(backbone):
    y, X = make_data()

    forecast = fitted(backbone).predict(fh=range(1, AHEAD + 1), X=X[-AHEAD:])

    # The noise alone has a mean absolute value of 0.08; the effects have a standard deviation of 2.6.
    assert np.abs(forecast - y[-AHEAD:]).mean() < 0.16


def test_the_effect_starts_at_a_regression_that_is_not_told_twice_what_the_context_says():
    y, X = make_data()
    carried = X["promotion"].cumsum()  # the last promotion is in X and in the last difference of the context
    model = XLSTMForecaster(**TINY | {"learning_rate": 1e-9}).fit(carried[:-AHEAD], X[:-AHEAD])

    got = model.predict_origins(carried, X, origins=y.index[-AHEAD:-1], fh=[1])

    np.testing.assert_allclose(got["point"], carried[-AHEAD + 1 :], atol=0.1)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_past_only_columns_are_never_read_beyond_the_cutoff(backbone):
    _, X = make_data()
    model, fh = fitted(backbone), [1, 6, 7, 20]
    changed = X[-AHEAD:].copy()
    changed["measured"] = 1e6
    dropped = X[-AHEAD:].drop(columns="measured")

    expected = model.predict_quantiles(fh, X[-AHEAD:], [0.1, 0.5, 0.9])

    pd.testing.assert_frame_equal(model.predict_quantiles(fh, changed, [0.1, 0.5, 0.9]), expected)
    pd.testing.assert_frame_equal(model.predict_quantiles(fh, dropped, [0.1, 0.5, 0.9]), expected)


def test_past_only_columns_need_no_future_and_may_take_any_value_there():
    y, X = make_data()
    past = X[["measured", "kind"]]
    model = XLSTMForecaster(**TINY | {"past_covariates": ["measured", "kind"]}).fit(y[:-AHEAD], past[:-AHEAD])
    expected = model.predict(fh=[1, 9])

    for given in (past[:-AHEAD], past[-AHEAD:].assign(kind="never seen"), past[-AHEAD:-25]):
        pd.testing.assert_series_equal(model.predict(fh=[1, 9], X=given), expected)


def test_a_category_that_is_only_there_after_the_cutoff_changes_nothing():
    y, X = make_data()
    later = X.assign(kind=X["kind"].where(np.arange(ROWS) < ROWS - AHEAD, "never seen"))
    model = XLSTMForecaster(**TINY | {"past_covariates": ["measured", "kind"]})

    low, high = (model.fit(y[:-AHEAD], given).predict(fh=[1, 6], X=X[-AHEAD:]) for given in (X, later))

    pd.testing.assert_series_equal(low, high)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_of_an_origin_only_what_is_known_ahead_is_read_beyond_it(backbone):
    y, X = make_data()
    model = fitted(backbone)
    origins = y.index[[300, 340]]
    later = X.index > origins[-1]
    expected = model.predict_origins(y, X, origins=origins, fh=[1, 6, 8])
    measured, promoted = X.copy(), X.copy()
    measured.loc[later, "measured"] = -1e9
    promoted.loc[later, "promotion"] = 1 - promoted.loc[later, "promotion"]
    blind = y.copy()
    blind[y.index > origins[-1]] = 1e9

    pd.testing.assert_frame_equal(model.predict_origins(y, measured, origins=origins, fh=[1, 6, 8]), expected)
    pd.testing.assert_frame_equal(model.predict_origins(blind, X, origins=origins, fh=[1, 6, 8]), expected)
    moved = model.predict_origins(y, promoted, origins=origins, fh=[1, 6, 8])
    assert (moved["point"] - expected["point"]).abs().groupby(expected["origin"]).max().gt(1).tolist() == [False, True]


@pytest.mark.parametrize("backbone", BACKBONES)
def test_past_only_columns_before_the_cutoff_are_read(backbone):
    y, X = make_data()
    model = copy.deepcopy(fitted(backbone))
    with torch.no_grad():
        for parameter in model.network_.parameters():
            parameter += 0.1 * normal(*parameter.shape, dtype=torch.float32)
    changed = X.copy()
    changed.loc[y.index[340], "measured"] = 8.0

    before, after = (model.predict_origins(y, frame, origins=[y.index[342]], fh=[1])["point"] for frame in (X, changed))

    assert np.abs(after - before).max() > 1e-3


def test_the_last_measurement_before_the_cutoff_has_its_effect():
    y, X = make_data()
    follows = 3 * X["measured"].shift(1, fill_value=0.0).cumsum()
    model = XLSTMForecaster(**TINY).fit(follows[:-AHEAD], X[:-AHEAD])

    got = model.predict_origins(follows, X, origins=y.index[-AHEAD:-1], fh=[1])

    # Its steps have a standard deviation of 3.
    np.testing.assert_allclose(got["point"], follows[-AHEAD + 1 :], atol=1.0)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_many_origins_equal_update_then_predict(backbone):
    y, X = make_data()
    origins = y.index[[375, 381, 390]]
    together = fitted(backbone).predict_origins(y, X, origins=origins, fh=[1, 6, 9], quantile_levels=[0.1, 0.5, 0.9])

    model, known = copy.deepcopy(fitted(backbone)), ROWS - AHEAD
    for origin in origins:
        end = y.index.get_loc(origin) + 1
        model.update(y[known:end], X[known:end], update_params=False)
        alone = model.predict_quantiles([1, 6, 9], X[end:], [0.1, 0.5, 0.9])
        known = end

        got = together.loc[together["origin"] == origin, [0.1, 0.5, 0.9]]
        np.testing.assert_allclose(got, alone, atol=1e-5 * y.std())


def test_a_step_has_the_same_value_whichever_other_steps_are_asked_for():
    _, X = make_data()
    model = fitted()
    longest = model.predict(fh=range(1, 21), X=X[-AHEAD:])

    for fh in ([1], [6, 7], [3, 13], [20]):
        got = model.predict(fh=fh, X=X[-AHEAD:][: fh[-1]])
        np.testing.assert_array_equal(got, longest.iloc[[step - 1 for step in fh]])


def test_columns_are_found_by_name_and_rows_by_time():
    _, X = make_data()
    model = fitted()

    expected = model.predict(fh=[1, 8], X=X[-AHEAD:])

    pd.testing.assert_series_equal(model.predict(fh=[1, 8], X=X[["kind", "measured", "promotion"]]), expected)


def test_in_the_sample_the_covariates_of_the_step_itself_are_used():
    y, _ = make_data()
    steps = list(range(-40, 1))

    forecast = fitted().predict(fh=steps, X=None)

    assert np.abs(forecast - y[-AHEAD - 41 : -AHEAD].to_numpy()).mean() < 0.2


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        (lambda X: None, ["no X was given", "Missing columns: ['promotion', 'kind']", "Missing steps: 9", "past_cov"]),
        (
            lambda X: X[:5],
            ["X covers", "2024-01-16 18:00", "Missing columns: none", "Missing steps: 4 (2024-01-16 15:00:00, "],
        ),
        (lambda X: X.iloc[[0, 1, 3, 4, 5, 6, 7, 8]], ["Missing steps: 1"]),
        (lambda X: X.drop(columns="kind"), ["Missing columns: ['kind']", "Missing steps: 0"]),
        (lambda X: X.rename(columns={"kind": "sort"}), ["columns"]),
        (lambda X: X.assign(more=1.0), ["['more']", "Leave them out"]),
        (lambda X: X.assign(kind="odd"), ["'kind'", "'odd'", "'busy', 'calm', 'wild'"]),
        (lambda X: X.assign(promotion="x"), ["'promotion'", "numbers", "pd.to_numeric"]),
        (lambda X: X.assign(promotion=np.inf), ["'promotion'", "infinite", "NaN"]),
        (lambda X: X.assign(promotion=1j), ["'promotion'", "complex"]),
        (lambda X: X.iloc[::-1], ["sort_index"]),
    ],
    ids=["none", "short", "hole", "column", "renamed", "extra", "unseen", "text", "infinite", "complex", "unsorted"],
)
def test_an_x_that_does_not_serve_the_horizon_is_named_with_the_remedy(change, parts):
    _, X = make_data()

    with pytest.raises(DataError) as caught:
        fitted().predict(fh=[9], X=change(X[-AHEAD:]))

    assert all(part in str(caught.value) for part in parts), str(caught.value)


@pytest.mark.parametrize(
    ("changes", "frame", "error", "parts"),
    [
        ({"past_covariates": ["absent"]}, {}, DataError, ["past_covariates", "absent", "promotion"]),
        ({"static_covariates": ["measured"]}, {}, ParameterError, ["measured", "Choose one"]),
        ({"past_covariates": [], "static_covariates": ["kind"]}, {}, DataError, ["'kind'", "static_covariates"]),
        ({"past_covariates": "measured"}, {}, ParameterError, ["past_covariates", "list"]),
        ({}, {"when": pd.Timestamp("2024-01-01")}, DataTypeError, ["'when'", "datetime64"]),
        ({}, {"name": [f"row {j}" for j in range(ROWS)]}, DataError, ["'name'", "400 different", "200"]),
        ({}, {"promotion": -np.inf}, DataError, ["'promotion'", "infinite", "2024-01-01"]),
        ({"calendar_features": ["moon"]}, {}, ParameterError, ["calendar_features", "moon"]),
        ({"calendar_features": "yes"}, {}, ParameterError, ["calendar_features", "auto"]),
        ({"on_gap": "fill"}, {}, ParameterError, ["on_gap", "mask"]),
        ({"resample": "often"}, {}, ParameterError, ["resample", "often"]),
    ],
)
def test_what_cannot_be_used_is_named_before_training(changes, frame, error, parts, monkeypatch):
    from xlstm_ts.training import fitting

    monkeypatch.setattr(fitting, "train", lambda *a, **k: pytest.fail("training had begun"))
    y, X = make_data()

    with pytest.raises(error) as caught:
        XLSTMForecaster(**TINY | changes).fit(y, X.assign(**frame))

    assert all(part in str(caught.value) for part in parts), str(caught.value)


def test_x_must_cover_the_times_of_y():
    y, X = make_data()

    with pytest.raises(DataError, match=r"lacks 2 of the 400 times of y .* 2024-01-01 03:00:00"):
        XLSTMForecaster(**TINY).fit(y, X.drop(X.index[[3, 9]]))
    with pytest.raises(DataError, match=r"lacks 400.*\(int64\)|\(int64\).*lacks 400"):
        XLSTMForecaster(**TINY).fit(y, X.reset_index(drop=True))


def test_x_where_there_was_none_and_none_where_there_was_are_errors():
    y, X = make_data()
    plain = XLSTMForecaster(**TINY | {"past_covariates": None}).fit(y[:-AHEAD])

    for call in (
        lambda: plain.predict(fh=[1], X=X[-AHEAD:]),
        lambda: copy.deepcopy(plain).update(y[-AHEAD:], X[-AHEAD:]),
        lambda: plain.predict_origins(y, X, origins=[y.index[-1]], fh=[1]),
    ):
        with pytest.raises(DataError, match=r"fitted without.*leave it out"):
            call()
    with pytest.raises(DataError, match=r"no X was given.*promotion"):
        copy.deepcopy(fitted()).update(y[-AHEAD:])
    with pytest.raises(DataError, match=r"past_covariates.*no X was given"):
        XLSTMForecaster(**TINY).fit(y)


@pytest.mark.parametrize("place", ["one", "block", "leading", "trailing", "column", "category"])
def test_missing_values_in_x_leave_finite_forecasts_and_a_known_effect(place):
    y, X = make_data()
    X = X.copy()
    rows, columns = {
        "one": (slice(50, 51), ["promotion"]),
        "block": (slice(100, 150), ["promotion", "kind"]),
        "leading": (slice(0, 80), ["promotion", "measured"]),
        "trailing": (slice(ROWS - AHEAD - 20, ROWS - AHEAD), ["measured"]),
        "column": (slice(0, ROWS), ["measured"]),
        "category": (slice(0, 60), ["kind"]),
    }[place]
    X.loc[X.index[rows], columns] = np.nan

    model = XLSTMForecaster(**TINY).fit(y[:-AHEAD], X[:-AHEAD])
    forecast = model.predict(fh=range(1, 7), X=X[-AHEAD:])

    assert np.abs(forecast - y[-AHEAD:][:6]).mean() < 0.8


def test_a_future_value_that_is_missing_is_neither_its_presence_nor_an_error():
    _, X = make_data()
    asked = X[-AHEAD:].assign(promotion=np.nan, kind=np.nan)

    forecast = fitted().predict_quantiles([1, 7], asked, [0.1, 0.9])

    assert np.isfinite(forecast.to_numpy()).all()


@pytest.mark.parametrize("dtype", ["category", "string", object, "bool", "Int64", "float32", "Float64"])
def test_columns_of_every_sensible_dtype_are_read_alike(dtype):
    y, X = make_data()
    plain = X[["promotion"]] if dtype in ("bool", "Int64", "float32", "Float64") else X[["kind"]]
    settings = TINY | {"past_covariates": None}

    expected = XLSTMForecaster(**settings).fit(y[:-AHEAD], plain[:-AHEAD]).predict([1, 2], plain[-AHEAD:])
    other = plain.astype(dtype)
    got = XLSTMForecaster(**settings).fit(y[:-AHEAD], other[:-AHEAD]).predict([1, 2], other[-AHEAD:])

    np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_the_scale_of_a_column_does_not_matter():
    y, X = make_data()
    moved = X.assign(promotion=X["promotion"] * 1e6 - 5e8)

    other = XLSTMForecaster(**TINY).fit(y[:-AHEAD], moved[:-AHEAD]).predict([1, 6], moved[-AHEAD:])

    np.testing.assert_allclose(other, fitted().predict([1, 6], X[-AHEAD:]), atol=1e-4)


def test_a_column_that_never_moves_changes_nothing_that_is_not_finite():
    y, X = make_data()
    still = X.assign(still=7.0)
    model = XLSTMForecaster(**TINY).fit(y[:-AHEAD], still[:-AHEAD])

    moved = still[-AHEAD:].assign(still=1e9)

    np.testing.assert_array_equal(model.predict([1, 2], moved), model.predict([1, 2], still[-AHEAD:]))


def test_training_on_all_keeps_the_effect():
    y, X = make_data()
    model = XLSTMForecaster(**TINY | {"refit_on_all": True}).fit(y[:-AHEAD], X[:-AHEAD])

    assert np.abs(model.predict(range(1, 7), X[-AHEAD:]) - y[-AHEAD:][:6]).mean() < 0.3


def test_a_copy_and_a_pickle_forecast_the_same():
    import pickle

    _, X = make_data()
    expected = fitted().predict([1, 9], X[-AHEAD:])

    pd.testing.assert_series_equal(pickle.loads(pickle.dumps(fitted())).predict([1, 9], X[-AHEAD:]), expected)


# The clock


def clocked(index, **changes):
    values = np.where(index.dayofweek >= 5, 5.0, 0.0) + 0.1 * np.random.default_rng(0).normal(size=len(index))
    settings = TINY | {"past_covariates": None, "calendar_features": "auto", "context_length": 4, "horizon": 7}
    settings |= {"calibrate": False}
    return pd.Series(values, index), XLSTMForecaster(**settings | changes)


def test_calendar_features_know_the_day_of_the_week_that_a_short_context_cannot():
    y, model = clocked(pd.date_range("2024-01-01", periods=200, freq="D"))

    forecast = model.fit(y[:-7]).predict(fh=range(1, 8))

    assert np.abs(forecast - y[-7:]).max() < 0.6
    assert forecast.index.equals(y.index[-7:])


def test_calendar_features_need_no_x_at_predict_and_serve_many_origins():
    y, model = clocked(pd.date_range("2024-01-01", periods=200, freq="D"))
    model.fit(y[:-20])

    together = model.predict_origins(y, origins=y.index[[185, 190]], fh=[1, 7, 9])
    model.update(y[-20:-9], update_params=False)

    np.testing.assert_allclose(together["point"].iloc[3:], model.predict(fh=[1, 7, 9]), atol=1e-5)


def test_an_integer_index_has_no_clock():
    y = pd.Series(np.random.default_rng(0).normal(size=400))

    assert XLSTMForecaster(**TINY | {"past_covariates": None, "calendar_features": "auto"}).fit(y).is_fitted
    with pytest.raises(DataError, match="DatetimeIndex"):
        XLSTMForecaster(**TINY | {"past_covariates": None, "calendar_features": ["week"]}).fit(y)


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu"])
@pytest.mark.parametrize("freq", ["h", "30min"])
@pytest.mark.parametrize("start", ["2024-03-01", "2024-10-15"])
def test_a_time_zone_with_summer_time_gives_the_forecasts_of_utc(zone, freq, start):
    steps = 40 * (24 if freq == "h" else 48)
    utc = pd.date_range(start, periods=steps, freq=freq, tz="UTC")
    y = pd.Series(np.sin(np.arange(steps) / 5) + 0.1 * np.random.default_rng(0).normal(size=steps), utc)
    settings = TINY | {"past_covariates": None, "steps_per_epoch": 1}

    expected = XLSTMForecaster(**settings).fit(y).predict(fh=[1, 6, 13])
    local = XLSTMForecaster(**settings).fit(y.tz_convert(zone)).predict(fh=[1, 6, 13])

    assert local.index.equals(expected.index.tz_convert(zone))
    np.testing.assert_array_equal(local, expected)


def test_a_clock_cannot_be_read_off_integers_later():
    y, model = clocked(pd.date_range("2024-01-01", periods=100, freq="h"), calendar_features=["day"])
    model.fit(y)

    with pytest.raises(DataError, match=r"int64.*DatetimeIndex"):
        model.predict_origins(pd.Series(np.arange(50.0)), origins=[40], fh=[1])


# Irregular times


def wave(rows=400):
    index = pd.date_range("2024-01-01", periods=rows, freq="h")
    return pd.Series(np.sin(np.arange(rows) / 4) + 0.05 * np.random.default_rng(0).normal(size=rows), index, name="x")


def plain(**changes):
    return XLSTMForecaster(**TINY | {"past_covariates": None} | changes)


def test_holes_count_as_missing_when_asked_for():
    y = wave()
    holes = y.drop(y.index[[20, 21, 22, 90]])

    with pytest.raises(DataError, match="on_gap"):
        plain().fit(holes)
    got = plain(on_gap="mask").fit(holes)

    expected = plain().fit(y.where(y.index.isin(holes.index)))
    np.testing.assert_array_equal(got.predict(fh=[1, 9]), expected.predict(fh=[1, 9]))
    assert got.predict(fh=[1]).index[0] == y.index[-1] + pd.Timedelta("1h")


@pytest.mark.parametrize("freq", ["MS", "ME", "QS", "W-WED", "15min", "D"])
def test_holes_are_found_on_every_regular_grid(freq):
    full = pd.date_range("2010-01-31", periods=80, freq=freq)
    y = pd.Series(np.random.default_rng(0).normal(size=80), full)

    model = plain(on_gap="mask", validation_fraction=0).fit(y.drop(full[[10, 11, 40]]))

    assert model.predict(fh=[1]).index[0] == full[-1] + full.freq


@pytest.mark.parametrize("closed", [[], [30, 55]], ids=["business days", "holidays"])
def test_weekends_and_holidays_are_no_holes(closed):
    sessions = pd.DatetimeIndex(pd.bdate_range("2024-01-01", periods=100).delete(closed).to_numpy())
    y = pd.Series(np.random.default_rng(0).normal(size=len(sessions)), sessions)

    masked, plainly = (plain(on_gap=gap, validation_fraction=0).fit(y).predict(fh=[1, 6]) for gap in ("mask", "raise"))

    pd.testing.assert_series_equal(masked, plainly)


def test_new_sessions_around_a_weekend_leave_no_hole():
    sessions = pd.bdate_range("2024-01-01", periods=104)
    y = pd.Series(np.random.default_rng(0).normal(size=104), sessions)
    model = plain(on_gap="mask", validation_fraction=0).fit(y[:98])

    model.update(y[98:], update_params=False)

    expected = plain(validation_fraction=0).fit(y[:98]).update(y[98:], update_params=False).predict(fh=[1, 6])
    pd.testing.assert_series_equal(model.predict(fh=[1, 6]), expected)


def test_holes_in_local_days_are_found_across_a_change_of_the_clock():
    days = pd.date_range("2024-03-01", periods=60, freq="D", tz="Europe/Berlin")
    y = pd.Series(np.random.default_rng(0).normal(size=60), days)

    got = plain(on_gap="mask", validation_fraction=0).fit(y.drop(days[[10, 40]])).predict(fh=[1])

    masked = y.where(~y.index.isin(days[[10, 40]]))
    np.testing.assert_array_equal(got, plain(validation_fraction=0).fit(masked).predict(fh=[1]))
    assert got.index[0] == pd.Timestamp("2024-04-30", tz="Europe/Berlin")


def test_many_origins_of_a_series_with_holes():
    y = wave()
    holes = y.drop(y.index[[20, 21, 300, 330]])
    model = plain(on_gap="mask", validation_fraction=0).fit(holes[:250])

    got = model.predict_origins(holes, origins=y.index[[305, 340]], fh=[1, 6])

    expected = model.predict_origins(holes.reindex(y.index), origins=y.index[[305, 340]], fh=[1, 6])
    pd.testing.assert_frame_equal(got, expected)


@pytest.mark.parametrize("kind", ["period", "integer"])
def test_holes_in_periods_and_integers_count_as_missing_too(kind):
    index = pd.period_range("2010-01", periods=80, freq="M") if kind == "period" else pd.Index(range(100, 260, 2))
    y = pd.Series(np.random.default_rng(0).normal(size=80), index)

    model = plain(on_gap="mask", validation_fraction=0).fit(y.drop(index[[10, 11, 40]]))

    assert model.predict(fh=[1]).index[0] == index[-1] + (1 if kind == "period" else 2)


def test_times_off_every_grid_cannot_be_masked():
    y = wave(60)
    moved = y.set_axis(y.index.where(y.index != y.index[30], y.index[30] + pd.Timedelta("7min")))

    with pytest.raises(DataError, match=r"lie on none.*resample"):
        plain(on_gap="mask").fit(moved)


def test_resampling_averages_unsorted_repeated_and_irregular_times():
    y = wave()
    low, high = y - 1, y + 1
    mixed = pd.concat([low, high.set_axis(y.index + pd.Timedelta("20min"))]).drop(y.index[50])
    shuffled = mixed.sample(frac=1, random_state=1)

    got = plain(resample="1h").fit(shuffled)

    expected = y.copy()
    expected.iloc[50] = y.iloc[50] + 1
    np.testing.assert_allclose(got.predict(fh=[1, 8]), plain().fit(expected).predict(fh=[1, 8]), atol=1e-5)


def test_resampling_brings_x_to_the_same_grid():
    y, X = make_data()
    fine = X.index.repeat(2) + pd.to_timedelta(np.tile([0, 30], ROWS), "min")
    X2 = X.loc[X.index.repeat(2)].set_axis(fine)
    y2 = y.loc[y.index.repeat(2)].set_axis(fine)
    model = XLSTMForecaster(**TINY | {"resample": "1h"}).fit(y2[: -2 * AHEAD], X2[: -2 * AHEAD])

    got = model.predict(fh=[1, 6], X=X2[-2 * AHEAD :])

    np.testing.assert_allclose(got, fitted().predict(fh=[1, 6], X=X[-AHEAD:]), atol=1e-5)


def test_rows_that_begin_inside_a_known_step_are_refused_and_whole_steps_replace_it():
    y, X = make_data()
    fine = y.index.repeat(2) + pd.to_timedelta(np.tile([0, 30], ROWS), "min")
    y2, X2 = (data.loc[data.index.repeat(2)].set_axis(fine) for data in (y, X))
    model = XLSTMForecaster(**TINY | {"resample": "1h", "validation_fraction": 0}).fit(
        y2[:601], X2[:601]
    )  # half of the last hour is there
    cutoff = model.cutoff[0]

    for rest_y, rest_x in ((y2[601:], X2[601:]), (y2[600:], X2[601:])):
        with pytest.raises(DataError, match=r"begin at 2024-.*inside the step of 1h from .*from the next one on"):
            model.update(rest_y, X=rest_x, update_params=False)
        assert model.cutoff[0] == cutoff

    model.update(y2[600:], X=X2[600:], update_params=False)  # from the beginning of that hour
    expected = XLSTMForecaster(**TINY | {"resample": "1h", "validation_fraction": 0}).fit(y2[:601], X2[:601])
    expected.update(y2, X=X2, update_params=False)  # from the beginning of all
    future = X2.set_axis(fine + (fine[-1] - fine[0] + pd.Timedelta("30min")))[: 2 * AHEAD]
    pd.testing.assert_series_equal(model.predict(fh=[1], X=future), expected.predict(fh=[1], X=future))


def test_rows_of_a_panel_that_begin_inside_a_known_step_are_named_by_their_series():
    y = wave(120)
    fine = y.index.repeat(2) + pd.to_timedelta(np.tile([0, 30], 120), "min")
    half = pd.concat({name: y.loc[y.index.repeat(2)].set_axis(fine).to_frame() for name in "ab"}, names=["s", "t"])
    known = half[half.index.get_level_values(1) <= fine[200]]
    model = plain(resample="1h", validation_fraction=0).fit(known)

    with pytest.raises(DataError, match=r"update: series 'a': the rows begin at"):
        model.update(half.drop(known.index), update_params=False)


def test_pieces_of_a_series_come_to_the_same_grid():
    y, X = make_data()  # 400 hours, which seven do not divide
    model = XLSTMForecaster(**TINY | {"resample": "7h", "horizon": 2, "validation_fraction": 0}).fit(y[:203], X[:203])
    whole = XLSTMForecaster(**TINY | {"resample": "7h", "horizon": 2, "validation_fraction": 0}).fit(y[:203], X[:203])
    first = model.cutoff[0] + pd.Timedelta("7h")

    model.predict(fh=[1, 2], X=X[first:])
    model.update(y[first:"2024-01-14"], X[first:], update_params=False)
    whole.update(y[:"2024-01-14"], X, update_params=False)

    later = X["2024-01-14 18:00":]
    pd.testing.assert_series_equal(model.predict(fh=[1], X=later), whole.predict(fh=[1], X=later))
