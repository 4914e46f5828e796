"""Forecasts of prices, judged as a trader would: returns, directions, and what trading on them would have earned.

Levels of a price are close to a random walk, so a small error of the level says nothing. What counts is the change
from the last price known at the origin, whether its sign was right more often than luck gives, and what is left of it
after costs.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri

from xlstm_ts.errors import DataError, ParameterError
from xlstm_ts.evaluation import plots
from xlstm_ts.evaluation.baselines import each_series
from xlstm_ts.evaluation.results import BacktestResult
from xlstm_ts.evaluation.significance import pesaran_timmermann, wilson_interval

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TRADING_DAYS = 252  # per year


# Returns


def to_returns(prices: pd.Series | pd.DataFrame, periods: int = 1, *, log: bool = True) -> pd.Series | pd.DataFrame:
    """Return the change of prices over some rows, as log-returns or as simple returns.

    Parameters
    ----------
    prices : Series or DataFrame
        Positive prices; NaN is missing.
    periods : int
        Rows from one price to the other.
    log : bool
        ln(p_t / p_(t-k)) if true, else p_t / p_(t-k) - 1.

    Returns
    -------
    Series or DataFrame
        Like `prices`, without its first `periods` rows.

    Raises
    ------
    DataError
        A price is not positive.
    ParameterError
        `periods` is below 1.
    """
    if periods < 1:
        raise ParameterError(f"to_returns: periods={periods}; at least 1 row is needed.")
    _require_positive(prices.to_numpy(dtype=float), "to_returns")
    ratio = (prices / prices.shift(periods)).iloc[periods:]
    return np.log(ratio) if log else ratio - 1


def to_prices(returns: ArrayLike, base: ArrayLike, *, log: bool = True) -> NDArray:
    """Turn returns since a known price into prices: points and quantiles alike, exactly.

    A price is an increasing function of its return since `base`, so a quantile of the return becomes the quantile of
    the price at the same level. That holds for the return over the whole stretch from the base to the target; the
    quantiles of several one-step returns may not be added up.

    Parameters
    ----------
    returns : array_like
        Returns from the time of `base` to the target.
    base : array_like
        Last known price, broadcast against `returns`.
    log : bool
        Whether the returns are log-returns.
    """
    returns = np.asarray(returns, dtype=float)
    return np.asarray(base, dtype=float) * (np.exp(returns) if log else 1 + returns)


def in_returns(result: BacktestResult, *, log: bool = True) -> BacktestResult:
    """Express a backtest of prices in returns from the price at the origin to the target.

    Parameters
    ----------
    result : BacktestResult
        Of prices.
    log : bool
        Whether log-returns are wanted, or simple ones.

    Returns
    -------
    BacktestResult
        The same forecasts; `y`, `point` and the quantiles are returns over the steps ahead, exactly transformed. The
        unit of MASE is the training error, in returns over one season, of the forecast "no change".

    Raises
    ------
    DataError
        The price at an origin is not positive; or, for log-returns, any price or forecast of one is not.
    """
    base = _base(result)
    columns = ["y", "point", *result.quantile_levels]
    values = result.frame[columns].to_numpy(dtype=float)
    for prices in (values, base) if log else (base,):
        _require_positive(prices, "in_returns")
    ratio = values / base[:, np.newaxis]
    frame = result.frame.copy()
    frame[columns] = np.log(ratio) if log else ratio - 1
    known = result.y[result.y.index.get_level_values(-1) <= result.settings["train_end"]]
    scales = [_return_scale(result, known, power, log) for power in (1, 2)]
    return replace(result, frame=frame, train_scale=scales[0], train_rms_scale=scales[1])


def _return_scale(result: BacktestResult, known: pd.DataFrame, power: int, log: bool) -> pd.Series:
    values = []
    for _, part in each_series(known):
        lag = result.seasonal_period if len(part) > result.seasonal_period else 1
        change = to_returns(part, lag, log=log).abs() ** power
        values.extend((change.mean() ** (1 / power)).tolist())
    return pd.Series(values, index=result.train_scale.index, name=result.train_scale.name)


def _base(result: BacktestResult) -> NDArray:
    """Last price known at the origin of each row; a missing one is that before it."""
    base = np.full(len(result.frame), np.nan)
    frame = result.frame
    for key, values in each_series(result.y):
        last = values.ffill()
        rows = np.flatnonzero(np.array([name == key for name in frame["series"]]))
        place = last.index.get_indexer(pd.Index(frame["origin"].iloc[rows]))
        column = last.columns.get_indexer(frame["variable"].iloc[rows])
        base[rows] = last.to_numpy(dtype=float)[place, column]
    return base


def _require_positive(values: NDArray, where: str) -> None:
    if (values <= 0).any():
        raise DataError(
            f"{where}: {int((values <= 0).sum())} prices are not positive (the lowest is {np.nanmin(values):g}); their "
            "returns (log-returns, if these are forecasts) have no meaning."
        )


# Directions


def direction(result: BacktestResult, *, confidence: float = 0.95) -> pd.DataFrame:
    """Return how often each model foresaw whether the value would rise or fall from its last known one.

    Parameters
    ----------
    result : BacktestResult
        Of prices or of any other level.
    confidence : float
        Of the limits.

    Returns
    -------
    DataFrame
        One row per model and step. "share" of right signs; values that did not change are not counted, and a forecast
        of no change counts one half. Changes from neighbouring origins overlap; "trials" counts origins so far apart
        that theirs do not. "low" and "high" are the Wilson limits of the share if it came from so many trials, and
        "p_value" is that of the one-sided test of Pesaran and Timmermann on these alone.
    """
    frame = result.frame
    base = _base(result)
    actual, forecast = (frame[name].to_numpy(dtype=float) - base for name in ("y", "point"))
    spacing = _spacing(result)
    numbers = result.origins.get_indexer(pd.Index(frame["origin"]))
    rows = []
    for (model, step), index in frame.groupby(["model", "step"], sort=False).indices.items():
        every = max(1, math.ceil(step / spacing))
        apart = index[numbers[index] % every == 0]
        right = _right_signs(actual[index], forecast[index])
        trials = len(_right_signs(actual[apart], forecast[apart]))
        test = pesaran_timmermann(actual[apart], forecast[apart])
        share = right.mean() if len(right) else np.nan
        low, high = wilson_interval(share * trials, trials, confidence)
        rows.append((model, step, share, float(low), float(high), test.p_value, len(right), trials))
    columns = ["model", "step", "share", "low", "high", "p_value", "scored", "trials"]
    table = pd.DataFrame(rows, columns=columns).set_index(["model", "step"])
    return table.loc[result.models]


def _right_signs(actual: NDArray, forecast: NDArray) -> NDArray:
    """Return 1 for a right sign, 0 for a wrong one, 1/2 for a forecast of no change; of the rows that have a change."""
    counted = ~np.isnan(actual) & (actual != 0)
    signs = np.sign(actual[counted]) * np.sign(forecast[counted])
    if np.isnan(signs).any():
        raise DataError(f"direction: {int(np.isnan(signs).sum())} forecasts are NaN; they have no direction.")
    return (signs + 1) / 2


def _spacing(result: BacktestResult) -> int:
    """Rows between neighbouring origins, the fewest."""
    times = pd.Index(result.y.index.get_level_values(-1).unique()).sort_values()
    places = times.get_indexer(result.origins)
    return int(np.diff(places).min()) if len(places) > 1 else 1


# Trading


@dataclass(frozen=True, eq=False)
class TradingResult:
    """What a strategy would have earned, beside buy-and-hold and random signs.

    Attributes
    ----------
    table : DataFrame
        Rows "strategy", "buy_and_hold" and "random_sign" (the median over its draws). Columns: total_return (compound),
        annual_return, annual_volatility, sharpe (annual, of returns per bar) with sharpe_low and sharpe_high,
        max_drawdown (largest loss from a peak, from 0 to 1), turnover (mean absolute change of position per bar),
        costs (sum), exposure (mean absolute position), hit_rate (share of bars with a position that gained).
    returns : DataFrame
        Net returns per bar of "strategy" and "buy_and_hold".
    positions : Series
        Position held during each bar.
    random_sharpe : ndarray
        Sharpe ratios of the random-sign strategies.
    p_value : float
        Share of random-sign strategies that did at least as well, counting the strategy itself as one.
    """

    table: pd.DataFrame
    returns: pd.DataFrame
    positions: pd.Series
    random_sharpe: NDArray
    p_value: float

    def plot(self) -> Figure:
        """Draw the wealth of strategy and buy-and-hold, and the drawdown."""
        figure = plots.new_figure(9, 5)
        top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(2.2, 1))
        wealth = (1 + self.returns.fillna(0)).cumprod()
        times = plots.plot_times(wealth.index)
        for name, style in plots.model_styles(["strategy", "buy_and_hold"]).items():
            top.plot(times, wealth[name], label=name.replace("_", " "), **style)
            bottom.plot(times, 100 * (wealth[name] / np.maximum(wealth[name].cummax(), 1.0) - 1), **style)
        top.axhline(1, color=plots.QUIET_COLOUR, lw=0.8, ls=(0, (2, 3)))
        top.set_ylabel("wealth, start = 1", color=plots.QUIET_COLOUR)
        bottom.set_ylabel("below the peak, %", color=plots.QUIET_COLOUR)
        for ax in (top, bottom):
            plots.clean_axes(ax)
        plots.format_time_axis(bottom, wealth.index)
        plots.add_legend(top, top)
        return figure


def trading_positions(
    result: BacktestResult,
    model: Any = None,
    *,
    delay: int = 1,
    rule: Callable[[NDArray], NDArray] = np.sign,
    variable: Any = None,
    series: Any = None,
) -> pd.Series:
    """Return the position held during each bar, from the forecast made before it.

    The bar that ends at a time is traded on the forecast whose origin lies ``1 + delay`` bars earlier: with a delay
    of 0 the position is taken at the very price that the forecast has just read, which is not possible in practice;
    with 1, one bar later. The signal is the forecast change over that bar, as a share of the last known price.

    Parameters
    ----------
    result : BacktestResult
        Of prices, with all steps up to ``1 + delay`` and an origin at every bar.
    model : optional
        Default: the first.
    delay : int
        Bars between forecast and trade.
    rule : callable
        Maps signals to positions between -1 (short) and 1 (long); the sign by default.
    variable, series : optional
        Default: the first.

    Returns
    -------
    Series
        Positions, indexed by the end of the bar; without the bars for which no forecast was made.
    """
    model = result.models[0] if model is None else model
    if model not in result.models:
        raise ParameterError(f"trading_positions: model={model!r} is not one of {result.models}.")
    part = _one(result, variable, series).query("model == @model")
    steps = set(part["step"])
    needed = {delay, delay + 1} - {0}
    if delay < 0 or not needed <= steps:
        raise ParameterError(
            f"trading_positions: delay={delay} needs forecasts of the steps {sorted(needed)}; this backtest has "
            f"{sorted(steps)}. Choose a longer horizon or a shorter delay."
        )
    wide = part.pivot(index="origin", columns="step", values="point")
    base = pd.Series(_base(result), index=result.frame.index).loc[part.index]
    last = base.groupby(part["origin"].to_numpy()).first().reindex(wide.index)
    before = wide[delay] if delay else last
    signal = (wide[delay + 1] - before) / last
    ends = part[part["step"] == delay + 1].set_index("origin")["time"]
    positions = pd.Series(np.asarray(rule(signal.to_numpy()), dtype=float), index=pd.Index(ends[wide.index]))
    if positions.isna().any() or (positions.abs() > 1).any():
        raise DataError(
            "trading_positions: positions must be numbers from -1 to 1; the rule gave "
            f"{positions[positions.isna() | (positions.abs() > 1)].iloc[0]}."
        )
    return positions.rename("position").rename_axis("time")


def evaluate_trading(
    prices: pd.Series,
    positions: pd.Series,
    *,
    cost: float = 0.0005,
    slippage: float = 0.0005,
    periods_per_year: int = TRADING_DAYS,
    random_strategies: int = 1000,
    confidence: float = 0.95,
    random_state: int | np.random.Generator | None = 0,
) -> TradingResult:
    """Evaluate positions against the prices: returns after costs, risk, and whether luck would do as well.

    Each bar earns its position times the simple return of the price. Every change of the position, the first
    included, costs ``cost + slippage`` of the amount traded.

    Parameters
    ----------
    prices : Series
        Prices at the end of each bar.
    positions : Series
        Position during the bar that ends at each time, from -1 to 1; decided before the bar began (see
        `trading_positions`).
    cost, slippage : float
        Fee, and worse price than the one quoted, as shares of the amount traded.
    periods_per_year : int
        Bars per year, for annual figures.
    random_strategies : int
        Number of strategies with random signs to compare with. They hold positions of the same size, and change sign
        as often on average as the strategy, so that their costs are like its own.
    confidence : float
        Of the limits of the Sharpe ratio.
    random_state : int, Generator or None
        For the random signs.

    Returns
    -------
    TradingResult
        The Sharpe ratio is the mean over the standard deviation of the returns per bar, times the root of the bars
        per year, with no risk-free rate taken off. Its limits are the normal ones with the standard error of Mertens
        (2002), which counts skewness and kurtosis, for returns that do not depend on each other.

    Raises
    ------
    DataError
        A position has no price, or prices are not positive.
    ParameterError
        A cost is negative, or there are no positions or no random strategies.
    """
    if cost < 0 or slippage < 0 or random_strategies < 1 or len(positions) < 2:
        raise ParameterError(
            f"evaluate_trading: cost={cost}, slippage={slippage}, random_strategies={random_strategies}, "
            f"{len(positions)} positions; costs from 0, at least 1 strategy and 2 positions are needed."
        )
    place = prices.index.get_indexer(positions.index)
    if (place < 1).any():
        raise DataError(
            f"evaluate_trading: {int((place < 1).sum())} positions have no price at their time and before it, the "
            f"first at {positions.index[place < 1][0]}."
        )
    known = prices.ffill().to_numpy(dtype=float)
    _require_positive(known, "evaluate_trading")
    asset = known[place] / known[place - 1] - 1
    rate = cost + slippage
    held = positions.to_numpy(dtype=float)
    rng = np.random.default_rng(random_state)
    random = np.abs(held) * _random_signs(held, random_strategies, rng)
    random_returns = _net(random, asset, rate)
    random_sharpe = np.array([_sharpe(row, periods_per_year) for row in random_returns])
    rows = {
        "strategy": _measures(held, asset, rate, periods_per_year, confidence),
        "buy_and_hold": _measures(np.ones_like(held), asset, rate, periods_per_year, confidence),
    }
    drawn = pd.DataFrame([_measures(row, asset, rate, periods_per_year, confidence) for row in random])
    rows["random_sign"] = drawn.median().to_dict()
    net = {"strategy": _net(held, asset, rate), "buy_and_hold": _net(np.ones_like(held), asset, rate)}
    own = rows["strategy"]["sharpe"]
    better = int((random_sharpe >= own).sum()) if np.isfinite(own) else random_strategies
    return TradingResult(
        table=pd.DataFrame.from_dict(rows, orient="index"),
        returns=pd.DataFrame(net, index=positions.index),
        positions=positions,
        random_sharpe=random_sharpe,
        p_value=(better + 1) / (random_strategies + 1),
    )


def _one(result: BacktestResult, variable: Any, series: Any) -> pd.DataFrame:
    frame = result.frame
    variable = frame["variable"].iloc[0] if variable is None else variable
    series = frame["series"].iloc[0] if series is None else series
    return frame[(frame["variable"] == variable) & np.array([key == series for key in frame["series"]])]


def _net(positions: NDArray, asset: NDArray, rate: float) -> NDArray:
    """Net return of each bar, along the last axis."""
    traded = np.abs(np.diff(positions, axis=-1, prepend=0.0))
    return positions * asset - rate * traded


def _random_signs(positions: NDArray, count: int, rng: np.random.Generator) -> NDArray:
    """Signs that turn as often, on average, as those of the positions: [count, bars]."""
    signs = np.sign(positions[positions != 0])
    turns = float((np.diff(signs) != 0).mean()) if len(signs) > 1 else 0.5
    start = rng.choice([-1.0, 1.0], size=(count, 1))
    flips = np.where(rng.random((count, len(positions) - 1)) < turns, -1.0, 1.0)
    return np.concatenate([start, start * np.cumprod(flips, axis=1)], axis=1)


def _measures(positions: NDArray, asset: NDArray, rate: float, per_year: int, confidence: float) -> dict[str, float]:
    returns = _net(positions, asset, rate)
    traded = np.abs(np.diff(positions, prepend=0.0))
    wealth = np.cumprod(1 + returns)
    sharpe = _sharpe(returns, per_year)
    half = ndtri(0.5 + confidence / 2) * _sharpe_error(returns) * math.sqrt(per_year)
    moved = positions != 0
    return {
        "total_return": float(wealth[-1] - 1),
        "annual_return": float(np.sign(wealth[-1]) * np.abs(wealth[-1]) ** (per_year / len(returns)) - 1),
        "annual_volatility": float(returns.std(ddof=1) * math.sqrt(per_year)),
        "sharpe": sharpe,
        "sharpe_low": sharpe - half,
        "sharpe_high": sharpe + half,
        "max_drawdown": float(1 - (wealth / np.maximum(np.maximum.accumulate(wealth), 1.0)).min()),
        "turnover": float(traded.mean()),
        "costs": float(rate * traded.sum()),
        "exposure": float(np.abs(positions).mean()),
        "hit_rate": float((positions * asset > 0)[moved].mean()) if moved.any() else float("nan"),
    }


def _sharpe(returns: NDArray, per_year: int) -> float:
    spread = returns.std(ddof=1)
    return float(returns.mean() / spread * math.sqrt(per_year)) if spread > 0 else float("nan")


def _sharpe_error(returns: NDArray) -> float:
    """Return the standard error of the Sharpe ratio per bar (Mertens 2002): skewness g, kurtosis k, ratio s.

    sqrt((1 - g s + (k - 1) / 4 s^2) / n)
    """
    spread = returns.std()
    if spread == 0:
        return float("nan")
    z = (returns - returns.mean()) / spread
    ratio = returns.mean() / spread
    return math.sqrt(max(1 - (z**3).mean() * ratio + ((z**4).mean() - 1) / 4 * ratio**2, 0.0) / len(returns))
