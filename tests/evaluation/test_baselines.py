import numpy as np
import pandas as pd
import pytest

from xlstm_ts.errors import ParameterError
from xlstm_ts.evaluation.baselines import (
    Climatology,
    Drift,
    SeasonalNaive,
    forecast_frame,
    future_index,
    make_baseline,
    naive_baselines,
    seasonal_period,
)


@pytest.mark.parametrize(
    ("freq", "period"),
    [
        ("h", 24),
        ("30min", 48),
        ("15min", 96),
        ("10min", 144),
        ("5min", 288),
        ("D", 7),
        ("B", 5),
        ("W-SUN", 52),
        ("MS", 12),
        ("ME", 12),
        ("QS", 4),
        ("YS", 1),
        ("7s", 1),
    ],
)
def test_seasonal_period_of_dates(freq, period):
    index = pd.date_range("2021-01-04", periods=60, freq=freq)

    assert seasonal_period(index) == period
    assert seasonal_period(pd.DatetimeIndex(index.to_numpy())) == period


@pytest.mark.parametrize(("freq", "period"), [("h", 24), ("D", 7), ("B", 5), ("W", 52), ("M", 12), ("Q", 4), ("Y", 1)])
@pytest.mark.filterwarnings("ignore:Period with BDay freq is deprecated:FutureWarning")
@pytest.mark.filterwarnings("ignore:PeriodDtype.B. is deprecated:FutureWarning")
def test_seasonal_period_of_periods(freq, period):
    assert seasonal_period(pd.period_range("2021-01-04", periods=30, freq=freq)) == period


def test_seasonal_period_survives_holidays_clock_changes_and_integers():
    sessions = pd.bdate_range("2021-01-04", periods=100).delete([3, 17, 44])
    daily_in_berlin = pd.date_range("2021-03-20", periods=30, freq="D", tz="Europe/Berlin")

    assert seasonal_period(sessions) == 5
    assert seasonal_period(daily_in_berlin) == 7
    assert seasonal_period(pd.date_range("2021-01-04", periods=3, freq="D")) == 7
    assert seasonal_period(pd.RangeIndex(50)) == 1
    assert seasonal_period(pd.DatetimeIndex(["2021-01-04"])) == 1


def points(baseline, y, origins, fh):
    frame = baseline.predict_origins(y, origins=origins, fh=fh)
    return frame["point"].to_numpy().reshape(len(origins), len(fh))


def test_seasonal_naive_repeats_the_last_season():
    y = pd.Series([1.0, 2, 3, 4, 5, 6, 7, 8])

    forecast = points(SeasonalNaive(3).fit(y[:6]), y, origins=[5, 7], fh=[1, 2, 3, 4, 7])

    np.testing.assert_array_equal(forecast, [[4, 5, 6, 4, 4], [6, 7, 8, 6, 6]])


def test_missing_values_are_replaced_by_the_same_season_and_then_by_the_last_value():
    y = pd.Series([1.0, np.nan, 3, 4, np.nan, np.nan])

    forecast = points(SeasonalNaive(3).fit(y), y, origins=[5], fh=[1, 2, 3])

    np.testing.assert_array_equal(forecast, [[4, 4, 3]])
    np.testing.assert_array_equal(points(SeasonalNaive(1).fit(y), y, [1, 5], [1, 2]), [[1, 1], [4, 4]])


def test_training_shorter_than_a_season_falls_back_to_the_last_value():
    y = pd.Series([1.0, 2, 3, 4])

    np.testing.assert_array_equal(points(SeasonalNaive(12).fit(y[:3]), y, [2, 3], [1, 5]), [[3, 3], [4, 4]])


def test_quantiles_add_the_training_errors_of_the_same_step():
    y = pd.Series([0.0, 1, 4, 9, 16])

    frame = SeasonalNaive(1).fit(y[:4]).predict_origins(y, origins=[4], fh=[1, 2], quantile_levels=[0.0, 0.5])

    # Errors in training: 1, 3, 5 at step 1 and 4, 8 at step 2.
    np.testing.assert_allclose(frame[[0.0, 0.5]], 16 + np.array([[1, 3], [4, 6]]))


def test_seasonal_errors_start_after_the_first_season():
    y = pd.Series([0.0, 10, 1, 12, 3, 15])

    frame = SeasonalNaive(2).fit(y).predict_origins(y, origins=[5], fh=[1, 2], quantile_levels=[0.5])

    # y_t - y_(t-2) is 1, 2, 2, 3 at step 1 and at step 2.
    np.testing.assert_allclose(frame[0.5], [3 + 2, 15 + 2])


def test_frame_has_the_columns_of_the_contract_in_the_order_origin_step_variable():
    index = pd.period_range("2020-01", periods=6, freq="M")
    y = pd.DataFrame({"a": np.arange(6.0), "b": 10 * np.arange(6.0)}, index=index)

    frame = (
        naive_baselines(12)["last_value"]
        .fit(y)
        .predict_origins(y, origins=index[[3, 5]], fh=[1, 3], quantile_levels=[0.1, 0.9])
    )

    assert list(frame.columns) == ["series", "origin", "step", "time", "variable", "point", 0.1, 0.9]
    assert frame["variable"].tolist() == ["a", "b"] * 4
    assert frame["step"].tolist() == [1, 1, 3, 3] * 2
    assert frame["point"].tolist() == [3, 30, 3, 30, 5, 50, 5, 50]
    assert frame["time"].astype(str).tolist()[::2] == ["2020-05", "2020-07", "2020-07", "2020-09"]


def test_forecast_frame_without_quantiles_and_with_one_cell():
    frame = forecast_frame(
        np.array([[[5.0]]]),
        np.empty((1, 1, 1, 0)),
        origins=pd.Index([3]),
        steps=[1],
        times=pd.Index([4]),
        variables=pd.Index(["y"]),
        quantile_levels=[],
    )

    assert frame.to_dict("records") == [
        {"series": "", "origin": 3, "step": 1, "time": 4, "variable": "y", "point": 5.0}
    ]


@pytest.mark.parametrize(
    ("index", "following"),
    [
        (pd.date_range("2024-01-31", periods=4, freq="ME"), pd.to_datetime(["2024-05-31", "2024-06-30"])),
        (pd.DatetimeIndex(["2024-01-01", "2024-01-02", "2024-01-05"]), pd.to_datetime(["2024-01-07", "2024-01-09"])),
        (pd.RangeIndex(5), pd.Index([5, 6])),
        (pd.period_range("2024-11", periods=2, freq="M"), pd.period_range("2025-01", periods=2, freq="M")),
    ],
    ids=["frequency", "median distance", "integers", "periods"],
)
def test_future_index_continues_the_index(index, following):
    assert (future_index(index, 2) == following).all()


def test_drift_goes_on_by_the_mean_step_of_the_training_part():
    y = pd.Series([0.0, np.nan, 3.0, 6.0, 4.0, 8.0])

    frame = Drift().fit(y[:4]).predict_origins(y, origins=[4, 5], fh=[1, 3], quantile_levels=[0.5])

    # Slope 6 / 3 = 2. Errors in training at step 1: 3 - 0 - 2 = 1 after the last known 0, 6 - 3 - 2 = 1.
    np.testing.assert_allclose(frame["point"], [6, 10, 10, 14])
    np.testing.assert_allclose(frame[0.5].iloc[[0, 2]], [7, 11])


def test_climatology_takes_the_same_hour_in_the_same_weeks_of_other_years():
    index = pd.date_range("2020-01-01", "2022-12-31 23:00", freq="h")
    # Each day of each year has a value of its own; the hour adds to it.
    y = pd.Series(100.0 * index.dayofyear + index.hour, index=index)
    origin = pd.Timestamp("2022-06-09 22:00")

    frame = (
        Climatology(window=1)
        .fit(y[:"2022-01-01"])
        .predict_origins(y, origins=[origin], fh=[1, 2], quantile_levels=[0.1, 0.5])
    )

    assert origin.dayofyear == 160
    # Days 159, 160, 161 of 2020 and 2021 at 23:00; then days 160, 161, 162 at 00:00.
    np.testing.assert_allclose(frame["point"], [16023, 16100])
    np.testing.assert_allclose(frame[0.5], frame["point"])
    np.testing.assert_allclose(
        frame[0.1], np.quantile(2 * [[15923, 16000], [16023, 16100], [16123, 16200]], 0.1, axis=0)
    )


def test_climatology_crosses_the_new_year_and_does_without_a_whole_year():
    index = pd.date_range("2020-01-01", periods=800, freq="D")
    y = pd.Series(np.where(index.month == 12, 12.0, np.where(index.month == 1, 1.0, 50.0)), index=index)

    around = Climatology(window=3).fit(y).predict_origins(y, origins=[index[730]], fh=[1], quantile_levels=[0.01, 0.99])
    short = Climatology().fit(y[:40]).predict_origins(y[:40], origins=[index[39]], fh=[1])
    plain = Climatology().fit(pd.Series([1.0, 2, 9])).predict_origins(pd.Series([1.0, 2, 9]), origins=[2], fh=[1])

    assert index[731] == pd.Timestamp("2022-01-01")
    assert around[[0.01, 0.99]].to_numpy().round().tolist() == [[1, 12]]
    assert short["point"].iloc[0] == 1.0, "less than a year: the median of all days"
    assert plain["point"].iloc[0] == 2.0


def test_baselines_forecast_each_series_of_a_panel_and_learn_new_ones_late():
    old, new = pd.Series([1.0, 2, 4, 7, 11]), pd.Series([10.0, 20, 10, 20], index=range(1, 5))
    y = pd.concat({"old": old, "new": new}, names=["series", "time"]).to_frame("y")

    frame = SeasonalNaive(1).fit(y.loc[["old"]]).predict_origins(y, origins=[0, 3, 4], fh=[1], quantile_levels=[0.5])

    assert frame["series"].tolist() == ["old"] * 3 + ["new"] * 2
    assert frame["point"].tolist() == [1, 7, 11, 10, 20]
    # Errors of the new series up to its first origin: 10, -10.
    assert frame[0.5].tolist()[3:] == [10, 20]


def test_unknown_baselines_are_named():
    with pytest.raises(ParameterError, match=r"no baseline is called 'mean'.*'climatology'"):
        make_baseline("mean", 1)
