"""The demonstration: a stock, a weather and a sensor series forecast, backtested and written up in one page.

Nothing is downloaded. The weather and the sensor series are measured ones where their files are already here;
otherwise simulated ones stand in and are named so. The settings of the forecasters were chosen by reasoning
(a day ahead from a week of hours, two weeks ahead from a quarter of sessions), not by looking at the scores.
"""

import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import pandas as pd

from xlstm_ts.datasets import list_datasets, load_dataset, simulate_sensors, simulate_weather
from xlstm_ts.errors import ParameterError
from xlstm_ts.evaluation import metrics, plots
from xlstm_ts.evaluation.backtest import BacktestResult, backtest
from xlstm_ts.evaluation.report import ReportFigure, Section, number_texts, write_report
from xlstm_ts.forecaster import XLSTMForecaster
from xlstm_ts.tables import check_writable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["DemoSeries", "demo_series", "run_demo"]

MODEL = "xLSTM"
BASELINES = {"last_value": "the last value", "seasonal_naive": "seasonal naive"}
FAN_LEVELS = (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95)
COVERAGE = "80 % coverage"
ORIGINS = 100
# Forecasts from neighbouring origins overlap, so a hundred of them are fewer trials: this little is no finding.
TIE = 0.02
# Percentage points: how far the coverage of an 80 % interval may be from 80, and of a median from 50.
COVERAGE_SLACK, MEDIAN_SLACK = 5, 10
# Small enough for tests, and far too small for a useful forecast.
_QUICK_ROWS, _QUICK_ORIGINS = 240, 5
_QUICK_SETTINGS = {
    "horizon": 5,
    "context_length": 16,
    "layout": "s",
    "hidden_size": 8,
    "num_heads": 1,
    "max_epochs": 1,
    "steps_per_epoch": 2,
    "validation_fraction": 0,
}


@dataclass(frozen=True, eq=False)
class DemoSeries:
    """A series of the demonstration and how it is forecast.

    Attributes
    ----------
    key : str
        "stock", "weather" or "sensor"; also the name of its picture.
    title : str
        What it is; "simulated" is part of it where that is so.
    unit : str
        Unit of its values.
    rows : str
        What a row is, in the plural: "hours" or "sessions".
    source : str
        A sentence on where the values come from.
    y : Series
        The values, NaN where missing.
    settings : dict of str to Any
        Parameters of `XLSTMForecaster`.
    season : str
        What the seasonal naive forecast repeats.
    """

    key: str
    title: str
    unit: str
    rows: str
    source: str
    y: pd.Series
    settings: Mapping[str, Any]
    season: str


def demo_series() -> list[DemoSeries]:
    """Return the three series; measured ones where their files are here, and never a download.

    Returns
    -------
    list of DemoSeries
        Stock, weather, sensor.

    Raises
    ------
    DatasetError
        A file of a series is here and is not the published one.
    """
    found = list_datasets()["found"] != "not here"
    return [
        _stock(),
        _measured_weather() if found["weather"] else _simulated_weather(),
        _measured_sensor() if found["ambient_temperature"] else _simulated_sensor(),
    ]


def run_demo(
    output: str | Path = "report.html",
    *,
    quick: bool = False,
    images: str | Path | None = None,
    say: Callable[[str], object] = lambda text: None,
) -> Path:
    """Fit, backtest and plot three series, and write one page about them.

    Parameters
    ----------
    output : str or Path
        HTML file to write; an existing one is replaced. Its folder must exist.
    quick : bool
        Whether to run with tiny networks on short series, in seconds: to see that it works, not what it can do.
    images : str or Path, optional
        Folder for the forecast pictures as PNG files, ``demo-stock.png`` and so on; made if it is not there.
    say : callable
        Receives each piece of the running account, as text of one or more lines. Default: nothing is said.

    Returns
    -------
    Path
        The page.

    Raises
    ------
    ParameterError
        `output` or `images` cannot be written; found out before any training.
    DatasetError
        A file of a series is here and is not the published one.
    """
    started = perf_counter()
    output = check_writable(output, "--output")
    folder = None if images is None else _folder(Path(images))
    chosen = [_shortened(series) for series in demo_series()] if quick else demo_series()
    sections = []
    for series in chosen:
        section, picture = _study(series, _QUICK_ORIGINS if quick else ORIGINS, say)
        sections.append(section)
        if folder is not None:
            (folder / f"demo-{series.key}.png").write_bytes(plots.figure_png(picture))
    introduction = [_QUICK_NOTE, *_INTRODUCTION] if quick else _INTRODUCTION
    write_report(output, "Three series, forecast by an xLSTM", [*sections, _READING], introduction=introduction)
    pictures = "" if folder is None else f" The pictures are in {folder.resolve()}."
    say(f"Done in {perf_counter() - started:.0f} s. The report is {output.resolve()}.{pictures}")
    return output


def _study(series: DemoSeries, origins: int, say: Callable[[str], object]) -> tuple[Section, "Figure"]:
    """Backtest and forecast one series, and write its section."""
    forecaster = XLSTMForecaster(**series.settings, random_state=0)
    noisy = forecaster.clone().set_params(verbose=True)
    say(textwrap.fill(f"{series.title}. {series.source} {_extent(series)}", 90) + "\n")
    say("Backtest: one fit on the data up to the first origin, then forecasts from all origins")
    result = backtest({MODEL: noisy}, series.y, horizon=forecaster.horizon, origins=origins, quantile_levels=FAN_LEVELS)
    say(f"Picture: one fit on all but the last {forecaster.horizon} {series.rows}")
    picture = _picture(series, noisy)
    table = _table(result)
    findings = _findings(series, result, table)
    say("\n" + _texts(table).rename_axis(None).to_string() + "\n\n" + textwrap.fill(" ".join(findings), 90) + "\n")
    section = Section(
        series.title,
        [f"{series.source} {_extent(series)}", " ".join(findings)],
        table,
        [ReportFigure(result.plot(), _backtest_caption(result, series), f"Backtest of {series.title}")],
        lead=ReportFigure(picture, _picture_caption(forecaster, series), f"Forecast of {series.title}"),
    )
    return section, picture


def _picture(series: DemoSeries, forecaster: XLSTMForecaster) -> "Figure":
    """Forecast the last stretch with a forecaster that has not seen it."""
    known = series.y.iloc[: -forecaster.horizon]
    steps = list(range(1, forecaster.horizon + 1))
    quantiles = forecaster.fit(known).predict_quantiles(fh=steps, alpha=list(FAN_LEVELS))
    figure = plots.new_figure(9, 3.6)
    ax = figure.subplots()
    plots.plot_forecast(series.y, quantiles, history=5 * forecaster.horizon, ax=ax, title=series.title)
    ax.set_ylabel(series.unit, color=plots.QUIET_COLOUR)
    return figure


def _table(result: BacktestResult) -> pd.DataFrame:
    summary = result.summary()
    table = summary[["MAE", "RMSE", "MASE", "pinball"]].copy()
    # In whole numbers: more digits than the number of origins supports would be noise.
    table[COVERAGE] = (100 * summary["coverage_80"]).round()
    table["seconds"] = (summary["fit_seconds"] + summary["predict_seconds"]).round()
    return table.rename_axis("model")


def _texts(table: pd.DataFrame) -> pd.DataFrame:
    """Write the numbers of a table as the report does."""
    return pd.DataFrame({name: number_texts(table[name].to_numpy()) for name in table}, index=table.index)


def _findings(series: DemoSeries, result: BacktestResult, table: pd.DataFrame) -> list[str]:
    """Say in sentences what the table says, whatever it says."""
    texts = _texts(table)
    origins = result.frame["origin"].nunique()
    covered = [f"that of {label} {texts.loc[name, COVERAGE]} %" for name, label in BASELINES.items()]
    sentences = [
        f"Over {origins} origins and {result.horizon} steps the forecaster is off by {texts.loc[MODEL, 'MAE']} "
        f"{series.unit} on average.",
        f"In MASE ({texts.loc[MODEL, 'MASE']}) it {_comparison(table['MASE'], texts['MASE'])}.",
        f"In pinball loss ({texts.loc[MODEL, 'pinball']}), which judges the whole fan, it "
        f"{_comparison(table['pinball'], texts['pinball'])}.",
        f"Its 80 % interval held {texts.loc[MODEL, COVERAGE]} % of the actual values, "
        f"{_judgement(table.loc[MODEL, COVERAGE])}; {_listed(covered)}.",
    ]
    return [*sentences, *_about_median(result), *([_about_stocks(table)] if series.key == "stock" else [])]


def _comparison(scores: pd.Series, texts: pd.Series) -> str:
    """Say which baselines are beaten, which are level and which are not beaten."""
    groups: dict[str, list[str]] = {"beats": [], "is level with": [], "does not beat": []}
    for name, label in BASELINES.items():
        ratio = scores[MODEL] / scores[name]
        verdict = "beats" if ratio < 1 - TIE else "is level with" if ratio <= 1 + TIE else "does not beat"
        groups[verdict].append(f"{label} ({texts[name]})")
    return _listed([f"{verdict} {_listed(labels)}" for verdict, labels in groups.items() if labels])


def _judgement(coverage: float) -> str:
    if abs(coverage - 80) <= COVERAGE_SLACK:
        return "close to its promise"
    return "too few: it was too narrow" if coverage < 80 else "more than promised: it was wider than need be"


def _about_median(result: BacktestResult) -> list[str]:
    """Say so where the median was mostly on one side of the actual values."""
    own = result.frame[result.frame["model"] == MODEL]
    below = 100 * metrics.quantile_coverage(own["y"], own[[0.5]])[0]
    if abs(below - 50) <= MEDIAN_SLACK:
        return []
    side = "high" if below > 50 else "low"
    return [f"{below:.0f} % of the actual values lay below its median; here it forecast too {side}."]


def _about_stocks(table: pd.DataFrame) -> str:
    sentence = (
        "The level of a share is close to a random walk: its last value is hard to beat, and a forecast that "
        "seems to beat it by far should be doubted."
    )
    miss = (table[COVERAGE] - 80).abs()
    if miss[MODEL] < miss["last_value"]:
        return sentence + " What a model can add is an honest interval, and here its interval is the more honest one."
    return sentence + " What a model can add is an honest interval; here its interval is not the more honest one."


def _listed(parts: list[str]) -> str:
    return " and ".join(parts) if len(parts) < 3 else ", ".join(parts[:-1]) + " and " + parts[-1]


def _extent(series: DemoSeries) -> str:
    y = series.y
    missing = int(y.isna().sum())
    gaps = f", {missing:,} of them missing" if missing else ""
    return f"{len(y):,} {series.rows} from {plots.time_label(y.index[0])} to {plots.time_label(y.index[-1])}{gaps}."


def _picture_caption(forecaster: XLSTMForecaster, series: DemoSeries) -> str:
    settings = " ".join(repr(forecaster).split())
    return (
        f"The last {forecaster.horizon} {series.rows}, forecast without having been seen. Each band of the fan "
        f"should hold as large a share of the actual values as its name says. Forecaster: {settings}"
    )


def _backtest_caption(result: BacktestResult, series: DemoSeries) -> str:
    return (
        "Above: forecasts from three of the origins. Below, left: how the error grows with the steps ahead. Below, "
        "right: the share of actual values at or below each quantile; on the dotted line the quantiles are honest. "
        f"The seasonal naive forecast repeats {series.season} ({result.seasonal_period} {series.rows})."
    )


def _stock() -> DemoSeries:
    return DemoSeries(
        key="stock",
        title="A stock: Google's closing price",
        unit="US dollars",
        rows="sessions",
        source="Daily closing prices that matplotlib carries as sample data, with no rows on weekends and holidays.",
        y=load_dataset("goog")["close"],
        settings={"horizon": 10, "context_length": 64},
        season="the same weekday of the week before",
    )


_DAY_FROM_A_WEEK = {"horizon": 24, "context_length": 168}


def _measured_weather() -> DemoSeries:
    # A row of ten minutes is stamped at its end; so is the hour.
    hours = load_dataset("weather")["T (degC)"].resample("h", closed="right", label="right").mean()
    return DemoSeries(
        key="weather",
        title="Weather: temperature in Jena",
        unit="°C",
        rows="hours",
        source="Measured by the Max Planck Institute for Biogeochemistry; hourly means of the data set 'weather'.",
        y=hours.rename("temperature"),
        settings=_DAY_FROM_A_WEEK,
        season="the day before",
    )


def _simulated_weather() -> DemoSeries:
    return DemoSeries(
        key="weather",
        title="Weather: temperature (simulated)",
        unit="°C",
        rows="hours",
        source="Simulated, not measured: days, seasons and sudden cold fronts, by simulate_weather().",
        y=simulate_weather()["temperature"],
        settings=_DAY_FROM_A_WEEK,
        season="the day before",
    )


def _measured_sensor() -> DemoSeries:
    return DemoSeries(
        key="sensor",
        title="A sensor: temperature in an office",
        unit="degrees",
        rows="hours",
        source=(
            "Measured; the data set 'ambient_temperature' of the Numenta Anomaly Benchmark, with its gaps. "
            "Its unit is not stated; by their size the values are degrees Fahrenheit."
        ),
        y=load_dataset("ambient_temperature")["value"].rename("temperature"),
        settings=_DAY_FROM_A_WEEK,
        season="the day before",
    )


def _simulated_sensor() -> DemoSeries:
    return DemoSeries(
        key="sensor",
        title="A sensor: temperature of a machine (simulated)",
        unit="°C",
        rows="hours",
        source=(
            "Simulated, not measured: working days, drift, level shifts, spikes and gaps, by "
            "simulate_sensors(4320, freq='h'), station_1."
        ),
        y=simulate_sensors(4320, freq="h")["station_1"],
        settings=_DAY_FROM_A_WEEK,
        season="the day before",
    )


def _shortened(series: DemoSeries) -> DemoSeries:
    return DemoSeries(**{**vars(series), "y": series.y.iloc[-_QUICK_ROWS:], "settings": _QUICK_SETTINGS})


def _folder(path: Path) -> Path:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ParameterError(
            f"demo: the folder {str(path)!r} for the pictures cannot be made ({error.strerror}). "
            "Give another one with --images."
        ) from error
    return path


_QUICK_NOTE = (
    "This page was made with --quick: tiny networks on short series, to see that everything works. "
    "Its forecasts and scores mean nothing."
)

_INTRODUCTION = (
    "A forecast is worth as much as it can be trusted. This page forecasts three series with an xLSTM, a recurrent "
    "neural network, and checks it against the two simplest forecasts there are: the last value goes on (last_value), "
    "or the last season repeats itself (seasonal_naive).",
    "Every forecast was made without the values that it is compared with. In each backtest the forecaster was fitted "
    "once, on the data up to the first of up to 100 moments, the origins; then it forecast from all of them, and read "
    "each time only what was known by then. Settings were fixed beforehand and not tuned on these scores.",
    "A simulated series stands in where a measured one is not on this computer; its title says so. "
    "load_dataset('weather') and load_dataset('ambient_temperature') fetch the measured ones, and the next run of "
    "the demonstration uses them.",
)

_READING = Section(
    "How to read the tables",
    [
        "MAE and RMSE are the mean absolute and the root mean squared error, in the unit of the series; RMSE weighs "
        "large errors more. MASE is the MAE in units of the error that the seasonal naive forecast, one season "
        "ahead, made on the training data: below 1 is better than that. It can be compared between series.",
        "Pinball is the mean loss over the quantiles from 5 % to 95 %. It is small when the fan is narrow and in the "
        "right place, and punishes a narrow fan in the wrong one. For all four of these lower is better, and the "
        "lowest is bold.",
        f"{COVERAGE} is the share of actual values, in per cent, inside the interval that should hold 80 %. Near 80 "
        "it keeps its promise; far below, it is too narrow; far above, it is wider than need be. The baselines "
        "take their intervals from their errors in training.",
        "Seconds are for fitting and forecasting from all origins. Differences within 2 % are called level in the "
        "text: the origins overlap, and so small a difference may be chance.",
    ],
)
