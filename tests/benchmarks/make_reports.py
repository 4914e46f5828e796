"""Write the report pages of docs/reports: four measured series, forecast and judged.

    XLSTM_TS_DATA=... python tests/benchmarks/make_reports.py [etth1 brent goog machine_temperature]

The settings were fixed before any score was seen, by reasoning: a horizon that one would ask for, a context of several
seasons, all else as the forecaster has it. Every origin lies in the test part, which is read once.
"""

import argparse
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from xlstm_ts import XLSTMForecaster, backtest, load_dataset
from xlstm_ts.evaluation.events import exceedance, flag_outside
from xlstm_ts.evaluation.markets import direction, evaluate_trading, in_returns, trading_positions
from xlstm_ts.evaluation.plots import figure_png
from xlstm_ts.evaluation.report import ReportFigure, Section

PAGES = Path(__file__).parents[2] / "docs" / "reports"
LEVELS = (0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99)
MODEL = "xLSTM"
BASELINES = ("last_value", "seasonal_naive", "climatology")


def run(y, *, horizon, context, baselines=BASELINES[:2], **arguments):
    model = XLSTMForecaster(horizon=horizon, context_length=context, random_state=0)
    return backtest({MODEL: model}, y, horizon=horizon, quantile_levels=LEVELS, baselines=baselines, **arguments)


def etth1():
    y = load_dataset("etth1")["OT"].iloc[:14_400]
    result = run(y, horizon=24, context=336, initial=11_520, stride=1, baselines=BASELINES)
    cold = exceedance(result, float(y.iloc[:11_520].quantile(0.1)), above=False)
    hours = result.by_time("hour", ["MAE", "CRPS", "coverage_80"]).loc[MODEL].drop(columns="scored")
    sections = [
        Section(
            "By hour of the day",
            [
                "Skill is 1 less the MAE over that of the seasonal naive forecast, for targets at this hour (every "
                "third)."
            ],
            hours[hours.index % 3 == 0].round(3),
            lower_is_better=(),
        ),
        Section("By season", [], result.by_time("season", ["MAE", "MASE", "CRPS"]), lower_is_better=()),
        Section(
            f"At {cold.threshold:.1f} degrees or below",
            [
                "The threshold is the lower tenth of the training part. The Brier score is the mean squared error "
                "of the probability; skill is against always saying how often it happened, which nobody knows in "
                "advance.",
            ],
            cold.summary().round(4),
            [
                ReportFigure(
                    figure_png(cold.plot(), dpi=80), "How often it was so cold, by how probable that was said to be."
                )
            ],
            lower_is_better=("brier",),
        ),
    ]
    return (
        result,
        "Oil temperature of a transformer (ETTh1)",
        sections,
        [
            "Hourly oil temperature of an electricity transformer in China, July 2016 to February 2018 (the first "
            "14,400 rows of ETTh1, column OT). One fit on the first 11,520 hours, then a day ahead from every hour of "
            "the last 2,880. The climatology knows the training part's values at the same hour and within 15 days of "
            "the same day of the year.",
        ],
    )


def market(name, column, title, about, *, initial, context, refit, window="expanding"):
    y = load_dataset(name)[column]
    result = run(y, horizon=10, context=context, initial=initial, stride=1, refit=refit, window=window)
    returns = in_returns(result, log=False)
    steps = [1, 2, 5, 10]
    signs = direction(result).loc[[MODEL]].reset_index(level=0, drop=True).loc[steps]
    signs = signs.drop(columns="scored")
    signs[["share", "low", "high"]] = (100 * signs[["share", "low", "high"]]).round(1)
    trade = evaluate_trading(y, trading_positions(result), random_strategies=1000)
    shown = ["annual_return", "annual_volatility", "sharpe", "sharpe_low", "sharpe_high", "max_drawdown", "turnover"]
    measures = ["MAE", "CRPS", "coverage_80", "coverage_90"]
    sections = [
        Section(
            "As returns since the origin",
            ["The same forecasts, exactly transformed, so that high prices do not weigh more than low ones."],
            returns.summary(measures)[measures].round(4),
        ),
        Section(
            "Did it know the direction?",
            [
                "Share of right signs of the change since the origin, in per cent, with 95 % limits as wide as those "
                "origins leave them whose changes do not overlap ('trials'), and the p-value of the test of Pesaran "
                "and Timmermann from these origins alone. 50 is a coin.",
            ],
            signs.rename(columns={"low": "from", "high": "to", "p_value": "p"}).round(4),
            lower_is_better=(),
        ),
        Section(
            "What would trading on it have earned?",
            [
                "Long or short by the sign of the forecast change, traded one session after the forecast, at 0.05 % "
                "cost and 0.05 % slippage per amount traded. Beside it: holding all the time, and the median of a "
                "thousand strategies with random signs that turn as often. The limits of the Sharpe ratio are 95 %. "
                f"{100 * trade.p_value:.0f} % of the random strategies did at least as well as the forecasts.",
            ],
            trade.table[shown].round(3),
            [ReportFigure(figure_png(trade.plot(), dpi=80), "Wealth after costs, and how far it was below its peak.")],
            lower_is_better=(),
        ),
    ]
    return result, title, sections, [about]


def brent():
    y = load_dataset("brent")["price"]
    return market(
        "brent",
        "price",
        "Brent crude oil",
        "Daily spot price of Brent crude oil in US dollars per barrel, without rows on holidays. The forecaster is "
        "fitted anew after every 250 sessions, on all prices up to then; ten sessions ahead from every session since "
        "2016.",
        initial=int((y.index < "2016").sum()),
        context=128,
        refit=250,
    )


def goog():
    return market(
        "goog",
        "close",
        "Google's share",
        "Daily closing price in US dollars, August 2004 to October 2008, the sample data of matplotlib. One fit on the "
        "first 700 sessions, then ten sessions ahead from each of the rest, the crash of 2008 included.",
        initial=700,
        context=64,
        refit=False,
    )


def machine_temperature():
    y = load_dataset("machine_temperature")["value"]
    initial = int(0.6 * len(y))
    result = run(y, horizon=24, context=288, initial=initial, stride=1)
    flags = flag_outside(result, MODEL, coverage=0.98)
    known = flags[flags["outside"].notna()]
    daily = known.assign(day=pd.DatetimeIndex(known["time"]).date)
    worst = daily.groupby("day").agg(
        readings=("y", "size"), outside=("outside", lambda side: int((side != 0).sum())), farthest=("distance", "max")
    )
    worst = worst.sort_values("outside", ascending=False).head(8)
    share = 100 * (known["outside"] != 0).mean()
    by_day = (daily["outside"] != 0).groupby(daily["day"].astype(str)).sum()
    sections = [
        Section(
            "Readings that the forecast did not think possible",
            [
                "Readings outside the 98 % interval of the forecast made five minutes before. An honest interval flags "
                f"2 % of all readings although nothing is wrong; here it is {share:.1f} %. The days with most flags "
                "are below; 'farthest' is the largest distance from the interval in widths of it.",
                "The publishers of the series report a failure of the machine on 8 February 2014, after a slow onset "
                f"that they date to 28 January. On these days {by_day['2014-02-08']} and {by_day['2014-01-28']} of 288 "
                "readings are flagged. A forecast that reads the last five minutes follows a slow change instead of "
                "flagging it: these flags find jumps, and are no detector of slow failures.",
            ],
            worst.round(2).rename_axis("day"),
            lower_is_better=(),
        )
    ]
    return (
        result,
        "Temperature of a machine (NAB)",
        sections,
        [
            "Temperature of a component of a large industrial machine, every five minutes, December 2013 to February "
            "2014; the set machine_temperature_system_failure of the Numenta Anomaly Benchmark, in unknown units. One "
            "fit on the first 60 %, then two hours ahead from every reading of the rest, in which the machine fails.",
        ],
    )


SERIES = {"etth1": etth1, "brent": brent, "goog": goog, "machine_temperature": machine_temperature}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("series", nargs="*", choices=[[], *SERIES], default=[])
    names = parser.parse_args().series or list(SERIES)
    warnings.filterwarnings("ignore", category=FutureWarning)
    torch.set_num_threads(1)
    PAGES.mkdir(exist_ok=True)
    for name in names:
        start = time.perf_counter()
        result, title, sections, notes = SERIES[name]()
        path = result.to_html(PAGES / f"{name}.html", title=title, notes=notes, sections=sections)
        print(f"{path.name}: {path.stat().st_size / 1e3:.0f} kB, {time.perf_counter() - start:.0f} s")
        print(result.summary().T.to_string(float_format=lambda value: f"{value:.4g}"))
        print("\n".join(result.describe()), flush=True)
        np.testing.assert_array_less(path.stat().st_size, 1e6)


if __name__ == "__main__":
    main()
