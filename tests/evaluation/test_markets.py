import numpy as np
import pandas as pd
import pytest
from fake_forecasters import AllAtOnce, Walker, hourly, panel

from xlstm_ts.errors import DataError, ParameterError
from xlstm_ts.evaluation.backtest import backtest
from xlstm_ts.evaluation.markets import (
    direction,
    evaluate_trading,
    in_returns,
    to_prices,
    to_returns,
    trading_positions,
)
from xlstm_ts.evaluation.significance import pesaran_timmermann, wilson_interval

LEVELS = [0.1, 0.5, 0.9]


@pytest.fixture(scope="module")
def result():
    return backtest(AllAtOnce(), hourly(120), horizon=3, initial=60, stride=1, quantile_levels=LEVELS)


# Returns


@pytest.mark.parametrize("log", [True, False])
@pytest.mark.parametrize("periods", [1, 5])
def test_returns_and_prices_are_inverse(log, periods):
    prices = hourly(50)

    returns = to_returns(prices, periods, log=log)

    base = prices.iloc[:-periods].to_numpy()
    np.testing.assert_allclose(to_prices(returns, base, log=log), prices.iloc[periods:], rtol=1e-14)
    expected = prices.iloc[periods] / prices.iloc[0]
    assert returns.iloc[0] == pytest.approx(np.log(expected) if log else expected - 1)


@pytest.mark.parametrize("log", [True, False])
def test_quantiles_of_returns_are_exactly_those_of_prices(result, log):
    returns = in_returns(result, log=log)

    base = result.y["load"].loc[result.frame["origin"]].to_numpy()
    for column in ("y", "point", *LEVELS):
        np.testing.assert_allclose(to_prices(returns.frame[column], base, log=log), result.frame[column], rtol=1e-13)
    np.testing.assert_allclose(returns.summary()["coverage_80"], result.summary()["coverage_80"])
    train = result.y["load"][: result.settings["train_end"]]
    assert returns.train_scale.iloc[0] == pytest.approx(to_returns(train, 24, log=log).abs().mean())


def test_returns_of_a_panel_start_at_the_price_of_their_own_series():
    y = panel((60, 60), columns=2)
    result = backtest(AllAtOnce(), y, horizon=2, origins=3)

    returns = in_returns(result)

    for row in (0, 3, 7, 20):
        cells = result.frame.iloc[row]
        base = y[cells["variable"]].loc[(cells["series"], cells["origin"])]
        assert returns.frame["point"].iloc[row] == pytest.approx(np.log(cells["point"] / base))


def test_simple_returns_allow_forecasts_below_zero():
    class Low(AllAtOnce):
        def predict_origins(self, *args, **kwargs):
            frame = super().predict_origins(*args, **kwargs)
            return frame.assign(point=frame["point"] - 200)

    result = backtest(Low(), hourly(80), horizon=2, origins=3, quantile_levels=LEVELS)

    simple = in_returns(result, log=False)
    base = result.y["load"].loc[result.frame["origin"]].to_numpy()
    np.testing.assert_allclose(simple.frame["point"], result.frame["point"] / base - 1)
    with pytest.raises(DataError, match="in_returns: 6 prices are not positive"):
        in_returns(result)


def test_prices_below_zero_have_no_returns(result):
    with pytest.raises(DataError, match="1 prices are not positive"):
        to_returns(pd.Series([1.0, -37.0, 2.0]))
    negative = backtest(Walker(), hourly(80) - 60, horizon=2, origins=3, quantile_levels=LEVELS)
    with pytest.raises(DataError, match="in_returns"):
        in_returns(negative)
    with pytest.raises(ParameterError, match="periods=0"):
        to_returns(hourly(5), 0)


# Directions


def test_direction_counts_right_signs_and_tests_those_that_do_not_overlap(result):
    table = direction(result)

    rows = result.frame[(result.frame["model"] == "AllAtOnce") & (result.frame["step"] == 2)]
    base = result.y["load"].loc[rows["origin"]].to_numpy()
    right = np.sign(rows["y"] - base) == np.sign(rows["point"] - base)
    row = table.loc[("AllAtOnce", 2)]
    assert row["share"] == pytest.approx(right.mean())
    assert row["trials"] == -(-len(rows) // 2)
    limits = wilson_interval(row["share"] * row["trials"], row["trials"])
    assert (row["low"], row["high"]) == pytest.approx(limits), "around the share, as wide as so many trials leave them"
    every_other = rows.iloc[::2]
    other_base = base[::2]
    expected = pesaran_timmermann(
        every_other["y"].to_numpy() - other_base, every_other["point"].to_numpy() - other_base
    )
    assert row["p_value"] == pytest.approx(expected.p_value, nan_ok=True)
    assert table.loc[("last_value", 1), "share"] == 0.5, "no change is no direction"


def test_values_that_do_not_change_have_no_direction():
    y = pd.Series([1.0] * 40 + [2.0] * 3 + [3.0] * 3)

    table = direction(
        backtest(AllAtOnce(), y, horizon=1, origins=[39, 40, 42, 43], quantile_levels=(), seasonal_period=1)
    )

    assert table.loc[("AllAtOnce", 1), ["share", "scored"]].tolist() == [1.0, 2]


def test_forecasts_that_are_missing_have_no_direction():
    class Silent(AllAtOnce):
        def predict_origins(self, *args, **kwargs):
            return super().predict_origins(*args, **kwargs).assign(point=np.nan)

    with pytest.raises(DataError, match="NaN"):
        direction(backtest(Silent(), hourly(60), horizon=1, origins=3))


# Trading


def test_positions_come_from_the_forecast_made_before_the_bar():
    class Knows(AllAtOnce):
        """Its forecast at step k is the last value plus its sign, times k."""

        def predict_origins(self, y, X=None, *, origins, fh, quantile_levels=None):
            frame = super().predict_origins(y, X, origins=origins, fh=fh, quantile_levels=quantile_levels)
            last = y.loc[frame["origin"]].to_numpy()
            return frame.assign(point=last + np.where(last > 50, 1, -1) * frame["step"])

    y = hourly(80)
    result = backtest(Knows(), y, horizon=2, initial=60, stride=1, quantile_levels=())

    for delay in (0, 1):
        positions = trading_positions(result, delay=delay)
        bar = y.index[70]
        assert positions[bar] == (1 if y.iloc[69 - delay] > 50 else -1)
        assert positions.index[0] == y.index[60 + delay]
        assert len(positions) == len(result.origins)
    half = trading_positions(result, delay=0, rule=lambda signal: 0.5 * np.sign(signal))
    assert set(half.abs()) == {0.5}


def test_trading_result_equals_the_case_worked_by_hand():
    prices = pd.Series([100.0, 110.0, 99.0, 99.0, 108.9])
    positions = pd.Series([1.0, -1.0, -1.0, 0.0], index=[1, 2, 3, 4])

    found = evaluate_trading(prices, positions, cost=0.001, slippage=0.002, periods_per_year=4, random_strategies=10)

    # Returns 10 %, -10 %, 0, 10 %; traded 1, 2, 0, 1 at 0.3 % each.
    expected = [0.1 - 0.003, 0.1 - 0.006, 0.0, 0.0 - 0.003]
    np.testing.assert_allclose(found.returns["strategy"], expected)
    np.testing.assert_allclose(found.returns["buy_and_hold"], [0.1 - 0.003, -0.1, 0.0, 0.1])
    row = found.table.loc["strategy"]
    assert row["total_return"] == pytest.approx(1.097 * 1.094 * 0.997 - 1)
    assert row["turnover"] == 1.0
    assert row["costs"] == pytest.approx(4 * 0.003)
    assert row["exposure"] == 0.75
    assert row["hit_rate"] == pytest.approx(2 / 3)
    assert row["max_drawdown"] == pytest.approx(0.003)
    assert row["sharpe"] == pytest.approx(np.mean(expected) / np.std(expected, ddof=1) * 2)
    assert found.table.loc["buy_and_hold", "max_drawdown"] == pytest.approx(0.1)


def test_drawdown_counts_a_loss_from_the_very_start():
    found = evaluate_trading(
        pd.Series([100.0, 50.0, 60.0]), pd.Series([1.0, 1.0], index=[1, 2]), cost=0, slippage=0, random_strategies=1
    )

    assert found.table.loc["strategy", "max_drawdown"] == pytest.approx(0.5)


def test_sharpe_limits_hold_the_truth_as_often_as_they_promise():
    rng = np.random.default_rng(0)
    hits = []
    for _ in range(300):
        returns = rng.normal(0.001, 0.01, 300)
        prices = pd.Series(100 * np.cumprod(np.concatenate([[1.0], 1 + returns])))
        row = evaluate_trading(
            prices, pd.Series(1.0, index=range(1, 301)), cost=0, slippage=0, random_strategies=1
        ).table.loc["strategy"]
        hits.append(row["sharpe_low"] < 0.1 * np.sqrt(252) < row["sharpe_high"])

    assert 0.91 < np.mean(hits) < 0.985


def test_random_signs_turn_as_often_as_the_strategy_and_a_perfect_one_beats_them():
    prices = pd.Series(100 * np.exp(np.random.default_rng(1).normal(0, 0.01, 400).cumsum()))
    perfect = np.sign(prices.diff().iloc[1:])

    found = evaluate_trading(prices, perfect, random_strategies=200)
    chance = evaluate_trading(
        prices, perfect.sample(frac=1, random_state=0).set_axis(perfect.index), random_strategies=200
    )

    assert found.p_value == pytest.approx(1 / 201)
    assert chance.p_value > 0.02
    turnover = found.table["turnover"]
    assert turnover["random_sign"] == pytest.approx(turnover["strategy"], rel=0.1)
    again = evaluate_trading(prices, perfect, random_strategies=200)
    np.testing.assert_array_equal(found.random_sharpe, again.random_sharpe)
    assert len(found.plot().axes) == 2


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda r: trading_positions(r, "x"), ParameterError, "model='x'"),
        (lambda r: trading_positions(r, delay=3), ParameterError, r"needs forecasts of the steps \[3, 4\]"),
        (lambda r: trading_positions(r, rule=lambda s: 2 * np.sign(s)), DataError, "from -1 to 1"),
        (lambda r: evaluate_trading(r.y["load"], pd.Series([1.0])), ParameterError, "1 positions"),
        (lambda r: evaluate_trading(r.y["load"], trading_positions(r), cost=-1), ParameterError, "cost=-1"),
        (lambda r: evaluate_trading(r.y["load"], pd.Series([1.0, 1], index=r.y.index[:2])), DataError, "1 positions"),
    ],
)
def test_what_cannot_be_traded_is_refused(result, call, error, message):
    with pytest.raises(error, match=message):
        call(result)
