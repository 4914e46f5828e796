import subprocess
import sys
from functools import cache
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import mean_pinball_loss

from xlstm_ts.errors import DataError, ParameterError, XLSTMError
from xlstm_ts.evaluation.backtest import backtest
from xlstm_ts.evaluation.baselines import forecast_frame
from xlstm_ts.evaluation.series import variable_names

# sktime 1.2 announces a new default to every forecaster that is constructed, its own included.
ignores_remember_data = pytest.mark.filterwarnings("ignore:The default of config ``remember_data``:FutureWarning")


class DriftForecaster:
    """Last value plus the mean step of the training part, in the form of an sktime forecaster.

    What it was given is recorded on the class, since `backtest` works on clones.
    """

    fitted_on: ClassVar[list] = []
    updated_with: ClassVar[list] = []

    def __init__(self, pred_int=True):
        self.pred_int = pred_int

    def clone(self):
        return type(self)(self.pred_int)

    def get_tag(self, name, default=None):
        return self.pred_int if name == "capability:pred_int" else default

    def fit(self, y, X=None, fh=None):
        self.fitted_on.append(y)
        self._slope = pd.DataFrame(y).diff().mean().to_numpy()
        self._seen = y
        return self

    def update(self, y, X=None, update_params=True):
        assert not update_params
        self.updated_with.append(y)
        self._seen = pd.concat([self._seen, y])
        return self

    def predict(self, fh):
        frame = pd.DataFrame(self._at(self._seen, fh), index=self._future(fh), columns=variable_names(self._seen))
        return frame if isinstance(self._seen, pd.DataFrame) else frame.iloc[:, 0].rename(None)

    def predict_quantiles(self, fh, alpha):
        names = self._seen.columns if isinstance(self._seen, pd.DataFrame) else [0]
        values = self._at(self._seen, fh)[..., np.newaxis] + (np.asarray(alpha) - 0.5)
        columns = pd.MultiIndex.from_product([names, alpha])
        return pd.DataFrame(values.reshape(len(fh), -1), index=self._future(fh), columns=columns)

    def _at(self, seen, fh):
        return pd.DataFrame(seen).iloc[[-1]].to_numpy() + np.outer(fh, self._slope)

    def _future(self, fh):
        index = self._seen.index
        if isinstance(index, pd.DatetimeIndex):
            assert index.freq is not None or pd.infer_freq(index) is not None
            return pd.DatetimeIndex([index[-1] + step * pd.tseries.frequencies.to_offset("h") for step in fh])
        return pd.Index([index[-1] + step for step in fh])


class AtOnce(DriftForecaster):
    """The same forecasts for all origins in one call; rows in an arbitrary order."""

    asked_with: ClassVar[list] = []

    def predict_origins(self, y, X=None, *, origins, fh, quantile_levels=None):
        self.asked_with.append(y)
        quantile_levels = quantile_levels or []
        seen = [y.loc[:origin] for origin in origins]
        points = np.stack([self._at(part, fh) for part in seen])
        times = [origin + step * (y.index[1] - y.index[0]) for origin in origins for step in fh]
        frame = forecast_frame(
            points,
            points[..., np.newaxis] + (np.asarray(quantile_levels) - 0.5),
            origins=pd.Index(origins),
            steps=fh,
            times=pd.Index(times),
            variables=variable_names(y),
            quantile_levels=quantile_levels,
        )
        return frame.sample(frac=1, random_state=0)


@pytest.fixture(autouse=True)
def _forget():
    for log in (DriftForecaster.fitted_on, DriftForecaster.updated_with, AtOnce.asked_with):
        log.clear()


def hourly(rows=80, columns=None, seed=0):
    rng = np.random.default_rng(seed)
    index = pd.date_range("2024-01-01", periods=rows, freq="h")
    values = rng.normal(size=(rows, columns or 1)).cumsum(axis=0) + 50
    return (
        pd.DataFrame(values, index=index, columns=list("abcdef")[: columns or 1])
        if columns
        else pd.Series(values[:, 0], index=index, name="load")
    )


@cache
def goog():
    from matplotlib import cbook

    data = cbook.get_sample_data("goog.npz")["price_data"]
    return pd.Series(data["adj_close"], index=pd.DatetimeIndex(data["date"]), name="GOOG")


# Forecasts and what they are made of


def test_frame_holds_the_forecasts_beside_the_actual_values():
    y = pd.Series([0.0, 1, 2, 3, 4, 5, 6, 10, 20, 30])

    result = backtest(DriftForecaster(), y, horizon=2, origins=[5, 7], quantile_levels=[0.1, 0.9], baselines=False)

    assert result.frame.drop(columns="series").to_dict("list") == {
        "model": ["DriftForecaster"] * 4,
        "origin": [5, 5, 7, 7],
        "step": [1, 2, 1, 2],
        "time": [6, 7, 8, 9],
        "variable": ["y"] * 4,
        "y": [6, 10, 20, 30],
        "point": [6, 7, 11, 12],
        0.1: pytest.approx([5.6, 6.6, 10.6, 11.6]),
        0.9: pytest.approx([6.4, 7.4, 11.4, 12.4]),
    }


def test_the_clone_is_fitted_once_up_to_the_first_origin_and_moved_without_refitting():
    y = hourly()
    model = DriftForecaster()

    result = backtest(model, y, horizon=3, origins=y.index[[40, 41, 50]])

    assert [part.index[-1] for part in DriftForecaster.fitted_on] == [y.index[40]]
    assert [(part.index[0], part.index[-1]) for part in DriftForecaster.updated_with] == [
        (y.index[41], y.index[41]),
        (y.index[42], y.index[50]),
    ]
    assert vars(model) == {"pred_int": True}
    assert set(result.frame["model"]) == {"DriftForecaster", "last_value", "seasonal_naive"}


def test_predict_origins_is_given_nothing_after_the_last_origin():
    y = hourly()

    backtest(AtOnce(), y, horizon=3, origins=y.index[[40, 50]])

    assert AtOnce.fitted_on[0].index[-1] == y.index[40]
    assert [part.index[-1] for part in AtOnce.asked_with] == [y.index[50]]
    assert not AtOnce.updated_with


@pytest.mark.parametrize("columns", [None, 3], ids=["series", "three variables"])
def test_looped_and_batched_paths_give_the_same_frame(columns):
    y = hourly(columns=columns)

    result = backtest({"loop": DriftForecaster(), "batch": AtOnce()}, y, horizon=5, origins=7, baselines=False)

    loop, batch = (part.drop(columns="model").reset_index(drop=True) for _, part in result.frame.groupby("model"))
    pd.testing.assert_frame_equal(loop, batch, rtol=0, atol=1e-12)
    assert len(loop) == 5 * 7 * (columns or 1)


@pytest.mark.parametrize("model", [DriftForecaster(), AtOnce()], ids=["loop", "batch"])
def test_no_forecast_changes_when_everything_after_its_origin_changes(model):
    y = hourly(columns=2)
    origins = y.index[[40, 47, 60]]
    frame = backtest(model, y, horizon=4, origins=origins).frame
    forecasts = ["point", 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95]

    for number, origin in enumerate(origins):
        changed = y.copy()
        changed.loc[y.index > origin] = -1e6
        again = backtest(model, changed, horizon=4, origins=origins).frame
        known = frame["origin"].isin(origins[: number + 1])
        pd.testing.assert_frame_equal(frame.loc[known, forecasts], again.loc[known, forecasts], check_exact=True)
        assert not frame["y"].equals(again["y"])


def test_no_score_scale_depends_on_the_test_part():
    y = hourly()
    origins = y.index[[40, 60]]
    changed = y.where(y.index <= origins[0], -1e6)

    scales = [backtest(DriftForecaster(), s, horizon=2, origins=origins).train_scale for s in (y, changed)]

    pd.testing.assert_series_equal(*scales, check_exact=True)
    expected = np.abs(y.to_numpy()[24:41] - y.to_numpy()[:17]).mean()
    assert scales[0].to_dict() == {("", "load"): pytest.approx(expected)}


def test_a_forecaster_without_intervals_is_scored_by_its_points_alone():
    result = backtest(DriftForecaster(pred_int=False), hourly(), horizon=2, origins=3)

    row = result.summary().loc["DriftForecaster"]
    assert np.isfinite(row[["MAE", "RMSE", "MASE"]]).all()
    assert row[["pinball", "coverage_80", "width_90"]].isna().all()
    assert result.plot() is not None


def test_a_gapped_index_reaches_foreign_forecasters_as_positions():
    y = goog()[:200]

    result = backtest(DriftForecaster(), y, horizon=5, origins=y.index[[120, 150]])

    assert isinstance(DriftForecaster.fitted_on[0].index, pd.RangeIndex)
    first = result.frame.query("model == 'DriftForecaster'").iloc[:5]
    assert first["time"].tolist() == y.index[121:126].tolist()
    slope = (y.iloc[120] - y.iloc[0]) / 120
    np.testing.assert_allclose(first["point"], y.iloc[120] + slope * np.arange(1, 6))


def test_an_index_whose_frequency_can_be_inferred_keeps_its_times():
    y = hourly()
    y.index = pd.DatetimeIndex(y.index.to_numpy())

    backtest(DriftForecaster(), y, horizon=2, origins=2)

    assert DriftForecaster.fitted_on[0].index.freq == "h"


def test_gapped_index_is_passed_on_to_predict_origins_and_steps_are_rows():
    class Steps(AtOnce):
        def predict_origins(self, y, X=None, *, origins, fh, quantile_levels=None):
            assert isinstance(y.index, pd.DatetimeIndex)
            return super().predict_origins(y, X, origins=origins, fh=fh, quantile_levels=quantile_levels)

    y = goog()[:200]

    result = backtest(Steps(), y, horizon=5, origins=y.index[[120]])

    assert result.frame["time"].iloc[:5].tolist() == y.index[121:126].tolist()


@ignores_remember_data
def test_sktime_forecaster_on_holiday_gapped_prices_equals_its_hand_computed_forecast():
    from sktime.forecasting.naive import NaiveForecaster

    y = goog()[-160:]

    result = backtest(NaiveForecaster(), y, horizon=5, origins=4)

    naive, last = (result.frame.query("model == @name") for name in ("NaiveForecaster", "last_value"))
    np.testing.assert_array_equal(naive["point"], last["point"])
    np.testing.assert_array_equal(naive["point"], y[naive["origin"]].to_numpy())
    np.testing.assert_array_equal(naive["y"], y[naive["time"]].to_numpy())
    assert result.seasonal_period == 5


@ignores_remember_data
def test_sktime_forecaster_on_periods_equals_the_seasonal_baseline():
    from sktime.datasets import load_airline
    from sktime.forecasting.naive import NaiveForecaster

    y = load_airline()
    model = NaiveForecaster(sp=12)

    result = backtest(model, y, horizon=12, origins=5)

    scores = result.summary()
    assert scores.loc["NaiveForecaster", "MAE"] == pytest.approx(scores.loc["seasonal_naive", "MAE"])
    assert scores.loc["NaiveForecaster", "coverage_80"] > 0
    assert isinstance(result.frame["origin"].iloc[0], pd.Period)
    assert not model.is_fitted


def test_sktime_forecaster_on_two_variables_with_missing_values(recwarn):
    # With several columns sktime itself puts a filter before ours, so that the notice is recorded instead.
    from sktime.forecasting.naive import NaiveForecaster

    y = hourly(columns=2)
    y.iloc[70:74, 0] = np.nan

    result = backtest(NaiveForecaster(), y, horizon=3, origins=y.index[[60, 68, 74]], quantile_levels=[0.1, 0.9])

    naive, last = (result.frame.query("model == @name") for name in ("NaiveForecaster", "last_value"))
    np.testing.assert_allclose(naive["point"], last["point"])
    assert result.summary()["scored"].tolist() == [2 * 9 - 2] * 3
    assert np.isfinite(result.summary()["MAE"]).all()


# Scores


def test_summary_equals_scores_computed_by_hand():
    y = hourly()
    y.iloc[45] = np.nan

    result = backtest(DriftForecaster(), y, horizon=3, origins=y.index[[41, 50]], seasonal_period=1)

    row = result.summary().loc["DriftForecaster"]
    rows = result.frame.query("model == 'DriftForecaster'").dropna(subset="y")
    error = rows["y"] - rows["point"]
    levels = result.quantile_levels
    assert row["MAE"] == pytest.approx(error.abs().mean())
    assert row["RMSE"] == pytest.approx(np.sqrt((error**2).mean()))
    assert row["MASE"] == pytest.approx(error.abs().mean() / y[:42].diff().abs().mean())
    assert row["pinball"] == pytest.approx(np.mean([mean_pinball_loss(rows["y"], rows[a], alpha=a) for a in levels]))
    assert row["coverage_80"] == pytest.approx((error.abs() <= 0.4).mean())
    assert row["width_90"] == pytest.approx(0.9)
    assert (row["origins"], row["scored"]) == (2, len(rows))
    assert row["fit_seconds"] >= 0
    assert list(result.summary().index) == ["DriftForecaster", "last_value", "seasonal_naive"]


def test_by_step_and_by_variable_score_their_parts():
    y = hourly(columns=2)

    result = backtest(DriftForecaster(), y, horizon=3, origins=6)

    part = result.frame.query("model == 'last_value' and step == 3")
    assert result.by_step().loc[("last_value", 3), "MAE"] == pytest.approx((part["y"] - part["point"]).abs().mean())
    assert result.by_step().index.names == ["model", "step"]
    per_variable = result.by_variable().loc["last_value", "MASE"]
    assert result.summary().loc["last_value", "MASE"] == pytest.approx(per_variable.mean())


def test_mase_of_a_series_that_was_constant_in_training_is_nan():
    y = hourly(columns=2).assign(a=1.0)

    result = backtest(DriftForecaster(), y, horizon=2, origins=4)

    assert np.isnan(result.by_variable().loc[("last_value", "a"), "MASE"])
    assert np.isfinite(result.by_variable().loc[("last_value", "b"), "MASE"])
    assert result.summary()["MASE"].isna().all()


def test_a_forecast_that_is_nan_makes_the_scores_nan():
    class Silent(DriftForecaster):
        def _at(self, seen, fh):
            return super()._at(seen, fh) * np.nan

    assert np.isnan(backtest(Silent(), hourly(), horizon=2, origins=3).summary().loc["Silent", "MAE"])


# Origins


@pytest.mark.parametrize(
    ("rows", "horizon", "count", "first", "last", "number"),
    [
        (1000, 10, 5, 799, 989, 5),  # the last fifth
        (100, 10, 31, 59, 89, 31),  # more than the last fifth can hold
        (100, 10, 500, 49, 89, 41),  # at most the last half
        (38, 10, 5, 27, 27, 1),  # the shortest series
        (1000, 10, 1, 989, 989, 1),
    ],
)
def test_origins_are_spread_over_the_end_of_the_series(rows, horizon, count, first, last, number):
    y = pd.Series(np.arange(float(rows)))

    origins = backtest(AtOnce(), y, horizon=horizon, origins=count).frame["origin"].unique()

    assert (origins[0], origins[-1], len(origins)) == (first, last, number)
    assert number == 1 or np.ptp(np.diff(origins)) <= 1


def test_origins_may_be_given_as_dates_in_words():
    y = hourly()

    origins = backtest(DriftForecaster(), y, horizon=2, origins=["2024-01-02 16:00", "2024-01-03"]).frame["origin"]

    assert origins.unique().tolist() == [y.index[40], y.index[48]]


def test_origins_of_a_period_index_may_be_given_as_text():
    y = pd.Series(np.arange(40.0), index=pd.period_range("2020-01", periods=40, freq="M"))

    assert backtest(DriftForecaster(), y, horizon=2, origins=["2022-03"]).frame["origin"].iloc[0] == y.index[26]


# Errors


GOOD = hourly()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"horizon": 0}, ParameterError, "horizon=0"),
        ({"horizon": 2.5}, ParameterError, "horizon=2.5"),
        ({"origins": 0}, ParameterError, "origins=0"),
        ({"origins": True}, ParameterError, "origins=True"),
        ({"origins": []}, ParameterError, "0 index values"),
        ({"origins": ["2024-01-02 16:30"]}, ParameterError, "1 of 1 origins are not in the index"),
        ({"origins": ["no date"]}, ParameterError, "no values of the index"),
        ({"origins": GOOD.index[[50, 40]]}, ParameterError, "increasing"),
        ({"origins": GOOD.index[[1]]}, DataError, "2 rows of y lie up to the first origin"),
        ({"origins": GOOD.index[[79]]}, DataError, "0 after the last"),
        ({"horizon": 40}, DataError, "y has 80 rows; horizon=40 needs at least 128: 88 to learn"),
        ({"quantile_levels": [0.0, 0.5]}, ParameterError, "quantile_levels"),
        ({"quantile_levels": [0.9, 0.1]}, ParameterError, "quantile_levels"),
        ({"quantile_levels": [0.5, np.nan]}, ParameterError, "quantile_levels"),
        ({"seasonal_period": 0}, ParameterError, "seasonal_period=0"),
        ({"seasonal_period": "weekly"}, ParameterError, "seasonal_period='weekly'"),
        ({"y": GOOD.astype(str)}, DataError, "dtype str.*to_numeric, or put times and names of series in the index"),
        ({"y": GOOD.rename_axis("date").reset_index()}, DataError, "'date' in y.*needed. Put times in the index"),
        ({"y": GOOD > 0}, DataError, "dtype bool"),
        ({"y": GOOD.replace(GOOD.iloc[3], np.inf)}, DataError, "infinite"),
        ({"y": GOOD[::-1]}, DataError, "not sorted"),
        ({"y": GOOD.iloc[[0, 0, *range(1, 80)]]}, DataError, "repeats 2024-01-01"),
        ({"y": GOOD.set_axis(GOOD.index.astype(str))}, DataError, "pandas.to_datetime"),
        ({"y": GOOD.set_axis(GOOD.index[:-1].append(pd.DatetimeIndex([None])))}, DataError, "missing times"),
        ({"y": GOOD.to_numpy()}, DataError, "ndarray"),
        ({"y": pd.concat([GOOD, GOOD], axis=1)}, DataError, "columns"),
        ({"y": GOOD[:0]}, DataError, "y has 0 rows"),
        ({"forecaster": {}}, ParameterError, "empty dict"),
        ({"forecaster": DriftForecaster}, ParameterError, "no sktime forecaster instance"),
        ({"forecaster": {"x": 3}}, ParameterError, "'x' is 3"),
        ({"forecaster": {"last_value": DriftForecaster()}}, ParameterError, "baselines=False"),
    ],
)
def test_bad_input_is_refused_before_any_fit(change, error, message):
    arguments = {"forecaster": DriftForecaster(), "y": GOOD, "horizon": 3, **change}

    with pytest.raises(error, match=message):
        backtest(**arguments)
    assert not DriftForecaster.fitted_on


def test_a_fold_that_fails_raises_and_names_model_and_origin():
    class Fragile(DriftForecaster):
        def predict(self, fh):
            if len(self._seen) > 50:
                raise RuntimeError("no luck")
            return super().predict(fh)

    with pytest.raises(XLSTMError, match="'Fragile' failed at the origin 2024-01-03 12:00:00: no luck") as caught:
        backtest(Fragile(), GOOD, horizon=3, origins=GOOD.index[[40, 60]])
    assert isinstance(caught.value.__cause__, RuntimeError)


@pytest.mark.parametrize(("method", "words"), [("fit", "to fit on the 41 rows"), ("predict_origins", "2 origins")])
def test_a_failing_fit_or_batch_raises_and_names_the_model(method, words):
    def fail(self, *args, **kwargs):
        raise RuntimeError("no luck")

    broken = type("Broken", (AtOnce,), {method: fail})()

    with pytest.raises(XLSTMError, match=f"'Broken' failed.*{words}.*no luck"):
        backtest(broken, GOOD, horizon=3, origins=GOOD.index[[40, 60]])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda frame: frame.iloc[1:], "predict of 'Wrong' at the origin .* returned 2 forecasts"),
        (lambda frame: frame.set_axis(frame.index + pd.Timedelta("1h")), "3 were asked for"),
        (lambda frame: frame.set_axis(range(3)), "3 were asked for"),
    ],
    ids=["too few", "late", "positions"],
)
def test_a_forecast_with_another_index_is_refused(damage, message):
    class Wrong(DriftForecaster):
        def predict(self, fh):
            return damage(super().predict(fh))

    with pytest.raises(DataError, match=message):
        backtest(Wrong(), GOOD, horizon=3, origins=2)


def test_a_forecast_with_other_variables_or_levels_is_refused():
    class WrongLevels(DriftForecaster):
        def predict_quantiles(self, fh, alpha):
            return super().predict_quantiles(fh, [level / 2 for level in alpha])

    class WrongColumns(DriftForecaster):
        def predict(self, fh):
            return super().predict(fh).iloc[:, ::-1]

    with pytest.raises(DataError, match="'WrongLevels' returned the levels"):
        backtest(WrongLevels(), GOOD, horizon=3, origins=2)
    with pytest.raises(DataError, match="'WrongColumns' returned the columns"):
        backtest(WrongColumns(), hourly(columns=2), horizon=3, origins=2)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda frame: frame.iloc[1:], "returned 5 rows that are not the 6 asked"),
        (lambda frame: pd.concat([frame.iloc[1:], frame.iloc[1:2]]), "not the 6 asked"),
        (lambda frame: frame.assign(step=frame["step"] + 1), "not the 6 asked"),
        (lambda frame: frame.assign(origin=frame["origin"] + pd.Timedelta("1min")), "not the 6 asked"),
        (lambda frame: frame.assign(time=frame["time"] + pd.Timedelta("1h")), "was asked for"),
        (lambda frame: frame.drop(columns=0.5), r"no columns \[0.5\]"),
        (lambda frame: frame.to_numpy(), "no columns"),
    ],
    ids=["row missing", "row twice", "steps", "origins", "times", "level missing", "array"],
)
def test_an_answer_to_other_origins_is_refused(damage, message):
    class Wrong(AtOnce):
        def predict_origins(self, *args, **kwargs):
            return damage(super().predict_origins(*args, **kwargs))

    with pytest.raises(DataError, match=f"predict_origins of 'Wrong'.*{message}"):
        backtest(Wrong(), GOOD, horizon=3, origins=2)


# Progress, figure, imports


def test_progress_is_shown_only_when_asked_for(capsys):
    backtest(DriftForecaster(), GOOD, horizon=3, origins=2)
    assert capsys.readouterr() == ("", "")

    backtest(DriftForecaster(), GOOD, horizon=3, origins=2, verbose=True)
    assert "6/6" in capsys.readouterr().err


def test_plot_shows_the_forecasts_the_error_by_step_and_the_calibration():
    import matplotlib.pyplot as plt

    y = hourly(columns=2)
    result = backtest(AtOnce(), y, horizon=4, origins=9)

    figure = result.plot(variable="b", origins=2)

    first, second, errors, calibration, coverage, residuals = figure.axes
    frame = result.frame.query("model == 'AtOnce' and variable == 'b'")
    lines = {line.get_label(): line.get_ydata() for line in first.lines}
    origin = frame["origin"].iloc[0]
    np.testing.assert_allclose(lines["median"], [y.loc[origin, "b"], *frame[0.5].iloc[:4]])
    np.testing.assert_allclose(lines["actual"], [y.loc[origin, "b"], *frame["y"].iloc[:4]])
    assert second.get_title(loc="left") == f"from {frame['origin'].iloc[-1]:%Y-%m-%d %H:%M}"
    by_step = {line.get_label(): line.get_ydata() for line in errors.lines}
    expected = (frame["y"] - frame["point"]).abs().groupby(frame["step"]).mean()
    np.testing.assert_allclose(by_step["AtOnce"], expected)
    below = {line.get_label(): line.get_ydata() for line in calibration.lines}
    np.testing.assert_allclose(below["AtOnce"], [(frame["y"] <= frame[a]).mean() for a in result.quantile_levels])
    held = {line.get_label(): line.get_ydata() for line in coverage.lines}
    inside = (frame[0.1] <= frame["y"]) & (frame["y"] <= frame[0.9])
    np.testing.assert_allclose(next(iter(held.values())), inside.groupby(frame["origin"]).mean())
    last, first = (points.get_offsets()[:, 1] for points in residuals.collections)
    np.testing.assert_allclose(first, (frame["y"] - frame["point"])[frame["step"] == 1])
    np.testing.assert_allclose(last, (frame["y"] - frame["point"])[frame["step"] == 4])
    assert figure._repr_png_().startswith(b"\x89PNG")
    assert plt.get_fignums() == []


def test_plot_refuses_unknown_names():
    result = backtest(AtOnce(), GOOD, horizon=2, origins=3, quantile_levels=())

    assert result.plot("last_value", origins=50) is not None
    for bad in ({"model": "x"}, {"variable": "x"}, {"origins": 0}):
        with pytest.raises(ParameterError, match=f"BacktestResult.plot: {next(iter(bad))}="):
            result.plot(**bad)


def test_importing_the_package_imports_neither_sktime_nor_matplotlib():
    code = (
        "import sys, xlstm_ts.evaluation.backtest, xlstm_ts.evaluation.report;"
        "print([name for name in ('sktime', 'matplotlib', 'torch') if name in sys.modules])"
    )

    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
