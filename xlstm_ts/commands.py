"""What ``xlstm-ts fit``, ``forecast`` and ``backtest`` do: a user's own tables in; a model, forecasts and scores out.

Whatever can be found wrong with names, tables and outputs is found before anything is trained.
"""

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pandas.tseries.frequencies import to_offset

from xlstm_ts.checks import is_whole, require
from xlstm_ts.data.entry import check_coverage
from xlstm_ts.data.panel import repair, take_apart
from xlstm_ts.data.time_axis import check_order, make_axis
from xlstm_ts.errors import DataError, ParameterError
from xlstm_ts.evaluation import plots
from xlstm_ts.evaluation.backtest import BacktestResult, backtest
from xlstm_ts.fitted_panel import FittedPanel
from xlstm_ts.forecaster import XLSTMForecaster
from xlstm_ts.tables import (
    TableForm,
    check_columns,
    check_table_file,
    check_writable,
    read_table,
    to_csv,
    to_numbers,
    write_table,
)

OWN_OPTIONS = {
    "horizon": "--horizon",
    "past_covariates": "--past-covariates",
    "static_covariates": "--static-covariates",
}
"""Parameters of the forecaster that have an option of their own."""

SETTINGS = {"random_state": 0, "verbose": True}
"""What is set where nothing else is said: the same command gives the same numbers, and shows its progress."""

PLAIN = TableForm()
SHOWN_SCORES = ("MAE", "RMSE", "MASE", "CRPS", "coverage_80", "coverage_90", "skill", "DM_p")
PICTURES = (".png", ".svg", ".pdf")
MOST_PANELS = 8  # of a picture

Say = Callable[[str], object]


@dataclass(frozen=True)
class Columns:
    """What the columns of a table are to the forecaster.

    Parameters
    ----------
    target : sequence of str
        To be forecast.
    known, past, static : sequence of str
        Covariates: known ahead, measured, and one value per series.
    """

    target: Sequence[str]
    known: Sequence[str] = ()
    past: Sequence[str] = ()
    static: Sequence[str] = ()

    @property
    def covariates(self) -> list[str]:
        """Columns of X."""
        return [*self.known, *self.past, *self.static]


def run_fit(
    data: str,
    columns: Columns,
    form: TableForm,
    *,
    model: str,
    horizon: int | None = None,
    settings: Mapping[str, Any] = {},
    say: Say = lambda text: None,
) -> XLSTMForecaster:
    """Fit a forecaster to a table and write it to a model file.

    Parameters
    ----------
    data : str
        The table; see `xlstm_ts.tables.read_table`.
    columns, form
        What its columns are.
    model : str
        File to write.
    horizon : int, optional
        Default: that of `XLSTMForecaster`.
    settings : mapping
        Other parameters of `XLSTMForecaster`.
    say : callable
        Receives the account, line by line.

    Raises
    ------
    DataError, ParameterError
        The table, a column, a setting or the name of the model file is impossible; found before any training.
    KeyboardInterrupt
        The user stopped it. If training had begun, the model has its best weights so far, and is written.
    """
    forecaster = _make_forecaster(horizon, columns, settings)
    check_writable(model, "--model")
    y, X = _read_series(data, columns, form, forecaster, say)
    try:
        forecaster.fit(y, X=X)
    except KeyboardInterrupt:
        if forecaster.is_fitted:
            forecaster.save_model(model)
            say(f"Stopped early: {model} has the best weights so far.")
        raise
    forecaster.verbose = settings.get("verbose", False)  # who loads the model did not ask for a progress bar
    forecaster.save_model(model)
    say(_account(forecaster))
    say(f"The model is {model}.")
    return forecaster


def run_forecast(
    model: str,
    *,
    data: str | None = None,
    form: TableForm = PLAIN,
    steps: int | None = None,
    coverage: Sequence[float] = (0.5, 0.9),
    output: str | None = None,
    plot: str | None = None,
    device: str = "cpu",
    say: Say = lambda text: None,
    show: Say = lambda text: None,
) -> pd.DataFrame:
    """Forecast with a model file, from its end or from that of newer data; the model file stays as it is.

    Parameters
    ----------
    model : str
        The file.
    data : str, optional
        Newer rows of the same series, which may begin anywhere; a forecast starts after the last row with a target.
        Rows after it say what is known ahead.
    form : TableForm
        What its columns are, where they are not called as at fit.
    steps : int, optional
        Default: the horizon of the model.
    coverage : sequence of float
        Of the intervals.
    output : str, optional
        CSV or Parquet file to write. Default: the table is shown.
    plot : str, optional
        Picture to write: PNG, SVG or PDF.
    device : str
        Torch device.
    say, show : callable
        Receive the account, and the table where no `output` is given.

    Returns
    -------
    DataFrame
        A row per series, time and variable: columns of the series (of a panel), the time, "variable", "point", and
        "lower_90" and "upper_90", or another coverage in per cent.
    """
    coverage = list(dict.fromkeys(coverage))
    check_coverage(coverage, "--coverage")
    require(steps is None or is_whole(steps), "--steps", steps, "a whole number, 1 or above")
    if output is not None:
        check_table_file(output, "--output")
    if plot is not None:
        _check_picture(plot)
    forecaster = XLSTMForecaster.load_model(model, device=device)
    X = None if data is None else _take_in(forecaster, data, form, say)
    fh = range(1, (steps or forecaster.horizon) + 1)
    _check_known(forecaster, X, model)
    points = forecaster.predict(fh=fh, X=X)
    levels = [0.5, *(level for share in coverage for level in _bounds(share))]
    quantiles = forecaster.predict_quantiles(fh=fh, X=X, alpha=levels)
    fitted = forecaster._fitted_panel()
    table = _forecast_table(pd.DataFrame(points), quantiles, coverage, fitted)
    if output is None:
        show(to_csv(table).rstrip("\n"))
    else:
        write_table(table, output)
        say(f"The forecast is {output}: {len(fh)} steps after {plots.time_label(forecaster.cutoff[-1])}.")
    if plot is not None:
        _draw(fitted, quantiles, plot, say)
    return table


def run_backtest(
    data: str,
    columns: Columns,
    form: TableForm,
    *,
    horizon: int | None = None,
    origins: int | None = None,
    refit: int | None = None,
    settings: Mapping[str, Any] = {},
    output: str | None = None,
    html: str | None = None,
    store: str | None = None,
    say: Say = lambda text: None,
) -> BacktestResult:
    """Backtest a forecaster on a table beside naive forecasts; see `xlstm_ts.backtest`.

    Parameters
    ----------
    data, columns, form, horizon, settings
        As for `run_fit`.
    origins : int, optional
        Past moments to forecast from.
    refit : int, optional
        Origins after which the forecaster is fitted anew. Default: it is fitted once, before the first.
    output : str, optional
        CSV or Parquet file for the scores.
    html : str, optional
        Page to write.
    store : str, optional
        File for the forecasts, written while they come; the same command goes on from there.
    say : callable
        Receives the account and the scores.
    """
    forecaster = _make_forecaster(horizon, columns, settings)
    if output is not None:
        check_table_file(output, "--output")
    if html is not None:
        check_writable(html, "--html")
    y, X = _read_series(data, columns, form, forecaster, say)
    # On the grid that the forecaster is asked for, so that origins and naive forecasts are on it, too.
    y, X = (
        None if part is None else repair(part, data, resample=forecaster.resample, on_gap=forecaster.on_gap)
        for part in (y, X)
    )
    result = backtest(
        forecaster,
        y,
        X=X,
        horizon=forecaster.horizon,
        origins=origins,
        refit=False if refit is None else refit,
        store=store,
    )
    summary = result.summary()
    shown = summary[[name for name in SHOWN_SCORES if name in summary]]
    say("\n" + shown.to_string(float_format=lambda value: f"{value:.4g}") + "\n")
    say("\n".join(result.describe()))
    if output is not None:
        write_table(summary.reset_index(), output)
        say(f"The scores are {output}.")
    if html is not None:
        result.to_html(html, title=f"Backtest of {', '.join(columns.target)} in {Path(data).name}")
        say(f"The report is {html}.")
    return result


# Forecasters and tables


def _make_forecaster(horizon: int | None, columns: Columns, settings: Mapping[str, Any]) -> XLSTMForecaster:
    known = XLSTMForecaster.get_param_names()
    for name in settings:
        if name in OWN_OPTIONS:
            raise ParameterError(f"--set {name}: this has an option of its own. Use {OWN_OPTIONS[name]}.")
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else f" There are {', '.join(sorted(known))}."
            raise ParameterError(f"--set {name}: XLSTMForecaster has no such parameter.{hint}")
    parameters = SETTINGS | dict(settings)
    if horizon is not None:
        parameters["horizon"] = horizon
    if columns.past:
        parameters["past_covariates"] = list(columns.past)
    if columns.static:
        parameters["static_covariates"] = list(columns.static)
    return XLSTMForecaster(**parameters)


def _read_series(
    data: str, columns: Columns, form: TableForm, forecaster: XLSTMForecaster, say: Say
) -> tuple[pd.DataFrame, pd.DataFrame | None]:
    """Return y and X up to the last row that has a target."""
    frame = read_table(data, form, say)
    for names, option in (
        (columns.target, "--target"),
        (columns.known, "--known-covariates"),
        (columns.past, "--past-covariates"),
        (columns.static, "--static-covariates"),
    ):
        check_columns(frame, names, data, option)
    every = [*columns.target, *columns.covariates]
    if twice := [name for name in every if every.count(name) > 1]:
        raise ParameterError(f"the column {twice[0]!r} stands in two options. Say once what it is.")
    y = _up_to_last(to_numbers(frame, columns.target, data), data)
    if forecaster.resample is None:
        _check_regular(y, forecaster, data)
    X = frame[columns.covariates]
    if len(X) > len(y):
        X = X[X.index.isin(y.index)]
    return y, (X if columns.covariates else None)


def _up_to_last(y: pd.DataFrame, data: str) -> pd.DataFrame:
    """Leave out rows at the end of a series that have no value in any target."""
    observed = y.notna().any(axis=1).to_numpy()
    if not observed.any():
        raise DataError(f"{data}: the columns {', '.join(y.columns)} have no value. Name others with --target.")
    if not isinstance(y.index, pd.MultiIndex):
        return y.iloc[: int(np.flatnonzero(observed)[-1]) + 1]
    later = pd.Series(observed, index=y.index)[::-1]
    levels = list(range(y.index.nlevels - 1))
    return y[later.groupby(level=levels, sort=False).cummax()[::-1].to_numpy()]


def _check_regular(y: pd.DataFrame, forecaster: XLSTMForecaster, data: str) -> None:
    """Raise where times are irregular or repeated, and say what to do about it on the command line."""
    for key, part in take_apart(y, data):
        where = data if key == 0 else f"{data}: series {key!r}"
        try:
            if forecaster.on_gap == "raise":
                make_axis(part.index, calendar=forecaster.calendar, where=where)
            else:
                check_order(part.index, where)
        except DataError as error:
            fact = str(error).partition(". ")[0]  # what comes after it is for Python
            step = _usual_step(part.index)
            remedy = f"With --set resample={step} the rows of every such step are averaged"
            if part.index.is_unique:
                remedy += "; with --set on_gap=mask what a regular table leaves out is missing"
            raise DataError(f"{fact}. {remedy}.") from error


def _usual_step(index: pd.Index) -> str:
    """Return the step that most times are apart, as `resample` takes it."""
    if not isinstance(index, pd.DatetimeIndex):
        return "1h"
    steps = pd.Series(index.sort_values()).diff()
    usual = steps[steps > pd.Timedelta(0)].mode()
    return to_offset(usual.iloc[0]).freqstr if len(usual) else "1h"


def _account(forecaster: XLSTMForecaster) -> str:
    """Say how a training went."""
    epochs, best = int(forecaster.history_["epoch"].max()), forecaster.best_epoch_
    said = [f"Trained for {epochs} epoch{'s' if epochs > 1 else ''}."]
    if isinstance(best, list):
        linear = f"; {best.count(0)} of them stayed at the linear forecast that training starts from"
        said.append(f"{len(best)} networks are averaged{linear if 0 in best else ''}.")
    elif forecaster.validation_fraction and best == 0:
        said.append(
            "On held-out rows none was better than the linear forecast that training starts from, which is kept."
        )
    elif forecaster.validation_fraction and best < epochs:
        said.append(f"On held-out rows epoch {best} was the best, and its weights are kept.")
    if forecaster.calibration_coverage_ is not None:
        table = forecaster.calibration_coverage_["calibrated"].dropna()
        held = [
            f"{100 * share:.0f} % in those of {100 * nominal:g} %" for nominal, share in table.items() if nominal > 0.7
        ]
        if held:
            said.append(f"In intervals calibrated without them lay, of held-out values, {', '.join(held)}.")
    elif not forecaster.calibrated_:
        said.append("The intervals are not calibrated.")
    return " ".join(said)


# Forecasts


def _take_in(forecaster: XLSTMForecaster, data: str, form: TableForm, say: Say) -> pd.DataFrame | None:
    """Update a forecaster with a table, and return what the table says of covariates that are known ahead."""
    fitted = forecaster._fitted_panel()
    panel, plan = fitted.panel, fitted.covariates.columns
    target, every = [str(name) for name in panel.columns], [str(column.name) for column in plan]
    known = [str(column.name) for column in plan if column.kind == "known"]
    names = [None if name is None else str(name) for name in panel.names]
    form = replace(form, time=form.time or names[-1], series=form.series or [name for name in names[:-1] if name])
    frame = read_table(data, form, say)
    if not known or any(name in frame for name in target):
        check_columns(frame, target, data, "the model")
        y = to_numbers(frame, target, data).set_axis(panel.columns, axis=1)
        if y.notna().to_numpy().any():
            check_columns(frame, every, data, "the model")
            y = _up_to_last(y, data)
            X = frame[every][frame.index.isin(y.index)] if every else None
            forecaster.update(y, X=X, update_params=False)
    check_columns(frame, known, data, "the model")
    return frame[known] if known else None


def _check_known(forecaster: XLSTMForecaster, X: pd.DataFrame | None, model: str) -> None:
    known = [str(column.name) for column in forecaster._fitted_panel().covariates.columns if column.kind == "known"]
    if known and X is None:
        raise DataError(
            f"{model}: the model reads columns that are known ahead: {', '.join(known)}. Give a table with their "
            "values after the end of the series, with --data."
        )


def _bounds(share: float) -> tuple[float, float]:
    return (1 - share) / 2, (1 + share) / 2


def _forecast_table(
    points: pd.DataFrame, quantiles: pd.DataFrame, coverage: Sequence[float], fitted: FittedPanel
) -> pd.DataFrame:
    """Put points and bounds into a long table."""
    count, per_row = points.shape
    names = ["time" if name is None else name for name in fitted.panel.names]
    index = points.index.repeat(per_row).set_names(names)
    table = index.to_frame(index=False)
    table["variable"] = np.tile(fitted.panel.columns.to_numpy(), count)
    table["point"] = points.to_numpy().ravel()
    bounds = quantiles.to_numpy().reshape(count, per_row, -1)[..., 1:]  # the median comes first
    for number, share in enumerate(coverage):
        for side, name in enumerate(("lower", "upper")):
            table[f"{name}_{100 * share:g}"] = bounds[..., 2 * number + side].ravel()
    return table


def _check_picture(path: str) -> None:
    if Path(path).suffix not in PICTURES:
        raise ParameterError(f"--plot {path!r}: a file that ends in {', '.join(PICTURES)} is needed.")
    check_writable(path, "--plot")


def _draw(fitted: FittedPanel, quantiles: pd.DataFrame, path: str, say: Say) -> None:
    """Draw the end of every series and what follows it."""
    forecasts = dict(take_apart(quantiles, path))
    shown = [
        (fitted.panel.key(number), one, variable)
        for number, one in enumerate(fitted.panel.series)
        for variable in one.columns
    ]
    if len(shown) > MOST_PANELS:
        say(f"The picture shows the first {MOST_PANELS} of {len(shown)} series.")
        shown = shown[:MOST_PANELS]
    figure = plots.new_figure(9, 3.4 if len(shown) == 1 else 0.6 + 2.1 * len(shown))
    axes = figure.subplots(len(shown), 1, squeeze=False)[:, 0]
    for ax, (key, one, variable) in zip(axes, shown, strict=True):
        past = pd.DataFrame(one.values, index=one.axis.index, columns=one.columns)[[variable]]
        forecast = forecasts[key].loc[:, [column for column in quantiles.columns if column[0] == variable]]
        label = str(variable) if fitted.panel.keys is None else f"{key}: {variable}"
        plots.plot_forecast(past, forecast, ax=ax, title=label)
    figure.savefig(path, dpi=110)
    say(f"The picture is {path}.")
