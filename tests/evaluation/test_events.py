import numpy as np
import pandas as pd
import pytest
import scoringrules
from fake_forecasters import Walker, hourly
from scipy.stats import norm

from xlstm_ts.errors import ParameterError
from xlstm_ts.evaluation.backtest import backtest
from xlstm_ts.evaluation.events import brier_score, exceedance, flag_outside, reliability

LEVELS = [0.05, 0.1, 0.5, 0.9, 0.95]


class Gaussian(Walker):
    """Normal quantiles with a standard deviation of 2 around the last value."""

    def predict_quantiles(self, fh, alpha, X=None):
        frame = self._frame(fh, X)
        columns = pd.MultiIndex.from_product([frame.columns, alpha])
        values = frame.to_numpy()[..., np.newaxis] + 2 * norm.ppf(alpha)
        return pd.DataFrame(values.reshape(len(frame), -1), index=frame.index, columns=columns)


@pytest.fixture(scope="module")
def result():
    y = hourly(200)
    y.iloc[150] = np.nan
    return backtest(Gaussian(), y, horizon=2, initial=120, stride=2, quantile_levels=LEVELS, baselines=["climatology"])


def test_brier_score_equals_that_of_scoringrules_and_skips_unknown_events():
    rng = np.random.default_rng(0)
    event, probability = rng.integers(0, 2, 50).astype(float), rng.random(50)

    expected = scoringrules.brier_score(event, probability).mean()
    assert brier_score(event, probability) == pytest.approx(expected)
    assert brier_score([*event, np.nan], [*probability, 0.3]) == pytest.approx(expected)
    assert np.isnan(brier_score([np.nan], [0.5]))
    assert np.isnan(brier_score([1.0], [np.nan]))


def test_reliability_counts_by_bins():
    table = reliability([0, 1, 1, 1, np.nan], [0.0, 0.04, 0.96, 1.0, 0.5], bins=10)

    assert table.index.tolist() == [0, 9]
    assert table["forecast"].tolist() == pytest.approx([0.02, 0.98])
    assert table["observed"].tolist() == [0.5, 1.0]
    assert table["count"].tolist() == [2, 2]
    assert (table["low"] < table["observed"]).all()


def test_exceedance_probabilities_are_those_of_the_forecast_distribution(result):
    threshold = result.frame["y"].median()

    found = exceedance(result, threshold)

    rows = result.frame[result.frame["model"] == "Gaussian"]
    part = found.frame[found.frame["model"] == "Gaussian"]
    np.testing.assert_allclose(part["probability"], norm.sf(threshold, rows["point"], 2), atol=1e-9)
    np.testing.assert_array_equal(part["event"], np.where(rows["y"].isna(), np.nan, rows["y"] > threshold))
    below = exceedance(result, threshold, above=False).frame
    np.testing.assert_allclose(below["probability"], 1 - found.frame["probability"], atol=1e-12)
    np.testing.assert_array_equal(below["event"], 1 - found.frame["event"])


def test_exceedance_summary_scores_each_model(result):
    threshold = result.frame["y"].median()

    found = exceedance(result, threshold)

    part = found.frame[found.frame["model"] == "Gaussian"].dropna()
    row = found.summary().loc["Gaussian"]
    assert row["brier"] == pytest.approx(((part["probability"] - part["event"]) ** 2).mean())
    rate = part["event"].mean()
    assert row["skill"] == pytest.approx(1 - row["brier"] / (rate * (1 - rate)))
    assert row["base_rate"] == pytest.approx(rate)
    assert row["scored"] == len(part)
    assert found.reliability("climatology")["count"].sum() == len(part)
    assert len(found.plot().axes) == 2
    with pytest.raises(ParameterError, match="model='x'"):
        found.reliability("x")


def test_readings_outside_their_interval_are_flagged(result):
    flags = flag_outside(result)

    rows = result.frame[(result.frame["model"] == "Gaussian") & (result.frame["step"] == 1)]
    np.testing.assert_allclose(flags["upper"], rows[0.95])
    side = 1.0 * (flags["y"] > flags["upper"]) - 1.0 * (flags["y"] < flags["lower"])
    np.testing.assert_array_equal(flags["outside"], side.where(flags["y"].notna()))
    assert flags["time"].is_monotonic_increasing
    outside = flags[flags["outside"] == 1]
    np.testing.assert_allclose(
        outside["distance"], (outside["y"] - outside["upper"]) / (outside["upper"] - outside["lower"])
    )
    assert (flags["distance"][flags["outside"] == 0] == 0).all()
    narrow = flag_outside(result, coverage=0.8)
    assert (narrow["outside"] != 0).sum() >= (flags["outside"] != 0).sum()


@pytest.mark.parametrize(
    "arguments", [{"model": "x"}, {"step": 9}, {"coverage": 0.7}], ids=lambda arguments: next(iter(arguments))
)
def test_flags_of_what_is_not_there_are_refused(result, arguments):
    with pytest.raises(ParameterError, match="flag_outside: model="):
        flag_outside(result, **arguments)


def test_impossible_thresholds_and_bins_are_refused(result):
    with pytest.raises(ParameterError, match="threshold=nan"):
        exceedance(result, np.nan)
    with pytest.raises(ParameterError, match="bins=0"):
        reliability([1], [0.5], bins=0)
