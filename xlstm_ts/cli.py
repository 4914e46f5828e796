"""The command line: ``xlstm-ts fit``, ``forecast``, ``backtest``, ``demo``, ``datasets`` and ``bench``.

Only the command that runs is imported, so that ``xlstm-ts --help`` answers at once.
"""

import argparse
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from xlstm_ts import __version__
from xlstm_ts.checks import read_settings
from xlstm_ts.errors import XLSTMError
from xlstm_ts.memory import keep_freed_memory

EXIT_ERROR = 2
EXIT_INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments after the name of the program. Default: those of the process.

    Returns
    -------
    int
        Exit code: 0, or 2 after an error, which is told in one line on the standard error output, or 130
        after Ctrl-C. Wrong usage and ``--help`` leave through argparse, with 2 and 0.
    """
    arguments = _parser().parse_args(argv)
    keep_freed_memory()
    try:
        arguments.run(arguments)
    except (XLSTMError, OSError) as error:
        print("xlstm-ts:", " ".join(str(error).split()), file=sys.stderr)
        return EXIT_ERROR
    except KeyboardInterrupt:
        print("xlstm-ts: interrupted.", file=sys.stderr)
        return EXIT_INTERRUPTED
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="xlstm-ts", description="Time-series forecasting with xLSTM networks.", allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"xlstm-ts {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    _add_fit(commands)
    _add_forecast(commands)
    _add_backtest(commands)

    demo = commands.add_parser(
        "demo",
        help="forecast a stock, a weather and a sensor series, and write a report",
        description="Fit, backtest and plot three series, and write one page about them. Needs no network.",
        allow_abbrev=False,
    )
    demo.add_argument("--output", default="report.html", metavar="FILE", help="page to write (default: %(default)s)")
    demo.add_argument("--images", metavar="DIR", help="also write the forecast pictures, as PNG files, to this folder")
    demo.add_argument("--quick", action="store_true", help="tiny networks: to see that it works, in seconds")
    demo.set_defaults(run=_demo)

    datasets = commands.add_parser(
        "datasets",
        help="list the data sets and where each of them is",
        description="List the data sets that load_dataset knows, and where each of them is.",
        allow_abbrev=False,
    )
    datasets.set_defaults(run=_datasets)
    _add_bench(commands)
    return parser


def _add_fit(commands: Any) -> None:
    fit = commands.add_parser(
        "fit",
        help="fit a forecaster to a table and write it to a model file",
        description="Fit a forecaster to a table and write it to a model file.",
        allow_abbrev=False,
    )
    _add_table(fit)
    _add_columns(fit)
    fit.add_argument("--model", required=True, metavar="FILE", help="model file to write, as weather.xlstm")
    _add_settings(fit)
    fit.set_defaults(run=_fit)


def _add_forecast(commands: Any) -> None:
    forecast = commands.add_parser(
        "forecast",
        help="forecast with a model file",
        description="Forecast what follows the data of a model file, or newer ones. The model file stays as it is.",
        allow_abbrev=False,
    )
    forecast.add_argument("model", metavar="MODEL", help="file that xlstm-ts fit or save_model wrote")
    forecast.add_argument(
        "--data",
        metavar="TABLE",
        help="newer rows of the same series, in CSV or Parquet; the forecast starts after the last one with a target, "
        "and later ones say what is known ahead",
    )
    _add_form(forecast)
    forecast.add_argument("--steps", type=int, metavar="N", help="steps ahead (default: the horizon of the model)")
    forecast.add_argument(
        "--coverage",
        nargs="+",
        type=float,
        default=[0.5, 0.9],
        metavar="SHARE",
        help="of the intervals (default: 0.5 0.9)",
    )
    forecast.add_argument(
        "--output", metavar="FILE", help="table to write, CSV or Parquet (default: CSV to the standard output)"
    )
    forecast.add_argument("--plot", metavar="FILE", help="picture to write, PNG, SVG or PDF")
    forecast.add_argument("--device", default="cpu", metavar="D", help="torch device, or auto (default: %(default)s)")
    forecast.set_defaults(run=_forecast)


def _add_backtest(commands: Any) -> None:
    backtest = commands.add_parser(
        "backtest",
        help="score a forecaster on a table from many past moments, beside naive forecasts",
        description="Fit a forecaster to the first part of a table, forecast from many later moments, and score it "
        "beside the last value and the seasonal naive forecast.",
        allow_abbrev=False,
    )
    _add_table(backtest)
    _add_columns(backtest)
    backtest.add_argument("--origins", type=int, metavar="N", help="moments to forecast from (default: 50)")
    backtest.add_argument(
        "--refit", type=int, metavar="N", help="fit anew after so many origins (default: fit once, before the first)"
    )
    backtest.add_argument("--output", metavar="FILE", help="table of scores to write, CSV or Parquet")
    backtest.add_argument("--html", metavar="FILE", help="page to write, with scores, tests and pictures")
    backtest.add_argument(
        "--store", metavar="FILE", help="keep all forecasts in this CSV or Parquet file; go on from it if interrupted"
    )
    _add_settings(backtest)
    backtest.set_defaults(run=_backtest)


def _add_table(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", metavar="TABLE", help="CSV or Parquet file, or a name that xlstm-ts datasets lists")
    parser.add_argument("--target", required=True, nargs="+", metavar="COLUMN", help="what is to be forecast")
    parser.add_argument("--horizon", type=int, metavar="N", help="steps ahead to forecast at once (default: 24)")
    _add_form(parser)


def _add_form(parser: argparse.ArgumentParser) -> None:
    """Add what says how to read a table."""
    parser.add_argument("--time", metavar="COLUMN", help="of the times (default: the one that holds times)")
    parser.add_argument("--time-format", metavar="FORMAT", help="how times are written, as %%d.%%m.%%Y %%H:%%M")
    parser.add_argument(
        "--series", nargs="+", default=[], metavar="COLUMN", help="which series a row belongs to, where there are many"
    )
    parser.add_argument("--missing", nargs="+", default=[], metavar="VALUE", help="what stands for missing, as -9999")


def _add_columns(parser: argparse.ArgumentParser) -> None:
    """Add what says which columns stand beside the target; the others are not read."""
    kinds = {"known": "known ahead", "past": "measured: read up to the start of a forecast", "static": "one per series"}
    for kind, words in kinds.items():
        parser.add_argument(
            f"--{kind}-covariates", nargs="+", default=[], metavar="COLUMN", help=f"columns to learn from, {words}"
        )


def _add_settings(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--set",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=VALUE",
        dest="settings",
        help="parameters of XLSTMForecaster, as max_epochs=10 resample=1h (default: its own, but random_state=0)",
    )


def _add_bench(commands: Any) -> None:
    bench = commands.add_parser(
        "bench", help="measure speed", description="Measure, and print tables in Markdown.", allow_abbrev=False
    )
    benches = bench.add_subparsers(title="what to measure", metavar="WHAT", required=True)
    kernels = benches.add_parser(
        "kernels",
        help="time cells, layers and training steps against those of torch",
        description="Time cells, layers and training steps against those of torch (and of the xlstm package, where it "
        "is installed): same shapes, same process, in turns, medians.",
        allow_abbrev=False,
    )
    kernels.add_argument("--threads", type=int, default=1, metavar="N", help="threads of torch (default: %(default)s)")
    kernels.add_argument("--repeats", type=int, default=7, metavar="N", help="turns of each (default: %(default)s)")
    kernels.add_argument(
        "--tables",
        nargs="+",
        default=[],
        metavar="NAME",
        help="some of layers, length, stream, step, official (default: all)",
    )
    kernels.set_defaults(run=_bench_kernels)

    tables = benches.add_parser(
        "long-horizon",
        help="fill a cell of the long-horizon tables",
        description="Train, choose on the validation part, read the test part once, and add rows to a CSV file. What "
        "is in the file already is not computed again.",
        allow_abbrev=False,
    )
    tables.add_argument("--data", required=True, metavar="NAME", help="etth1, etth2, ettm1, ettm2, weather, ...")
    tables.add_argument("--horizon", required=True, type=int, metavar="N", help="96, 192, 336 or 720")
    tables.add_argument(
        "--protocol", default="tuned", metavar="P", help="96, tuned or default settings (default: %(default)s)"
    )
    tables.add_argument(
        "--seeds", type=int, default=3, metavar="N", help="networks of each kind (default: %(default)s)"
    )
    tables.add_argument(
        "--models",
        nargs="+",
        metavar="M",
        help="xlstm, xlstm_average, lstm, linear, seasonal_naive (default: all)",
    )
    tables.add_argument("--device", default="auto", metavar="D", help="torch device (default: %(default)s)")
    tables.add_argument(
        "--config", nargs="+", default=[], metavar="KEY=VALUE", help="where the search starts, as hidden_size=64"
    )
    tables.add_argument(
        "--output",
        default="docs/benchmarks/long_horizon.csv",
        metavar="FILE",
        help="file to add to (default: %(default)s)",
    )
    tables.set_defaults(run=_bench_long_horizon)

    ablation = benches.add_parser(
        "ablation",
        help="change one thing at a time in a cell of the long-horizon tables",
        description="Train the same network with one thing changed at a time, and add rows to a CSV file.",
        allow_abbrev=False,
    )
    ablation.add_argument("--data", required=True, metavar="NAME", help="etth1, etth2, ettm1, ettm2, weather, ...")
    ablation.add_argument("--horizon", required=True, type=int, metavar="N", help="96, 192, 336 or 720")
    ablation.add_argument("--seeds", type=int, default=1, metavar="N", help="networks of each (default: %(default)s)")
    ablation.add_argument("--device", default="auto", metavar="D", help="torch device (default: %(default)s)")
    ablation.add_argument(
        "--output", default="docs/benchmarks/ablation.csv", metavar="FILE", help="default: %(default)s"
    )
    ablation.set_defaults(run=_bench_ablation)

    intervals = benches.add_parser(
        "intervals",
        help="measure what 90 %% intervals hold",
        description="Measure 90 % intervals of the forecaster with default settings, as fitted and as they go on "
        "learning, of its network before calibration and of the seasonal naive forecast, and add rows to a CSV file.",
        allow_abbrev=False,
    )
    intervals.add_argument("--data", required=True, metavar="NAME", help="etth1, etth2, ettm1, ettm2, weather, ...")
    intervals.add_argument("--horizon", required=True, type=int, metavar="N", help="steps ahead")
    intervals.add_argument("--part", default="test", metavar="P", help="test, validation or blocks (default: test)")
    intervals.add_argument(
        "--output", default="docs/benchmarks/intervals.csv", metavar="FILE", help="default: %(default)s"
    )
    intervals.set_defaults(run=_bench_intervals)

    page = benches.add_parser(
        "tables",
        help="write the long-horizon tables from their CSV file",
        description="Write a page and a figure from the rows of long-horizon, beside published ones.",
        allow_abbrev=False,
    )
    files = {
        "results": "long_horizon.csv",
        "published": "published.csv",
        "ablation": "ablation.csv",
        "intervals": "intervals.csv",
        "page": "long_horizon.md",
        "figure": "long_horizon.png",
    }
    for name, file in files.items():
        page.add_argument(f"--{name}", default=f"docs/benchmarks/{file}", metavar="FILE", help="default: %(default)s")
    page.set_defaults(run=_bench_tables)


# Flushed, so that the account and the progress bars, which go to the other stream, keep their order.
_say = partial(print, flush=True)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Let torch use one thread.

    It is a little slower on an idle computer and several times faster on a busy one, where threads wait for each other
    at every small step; and the numbers do not depend on the number of cores.
    """
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextmanager
def _warnings_in_words() -> Iterator[None]:
    """Show warnings as lines of the account, without the place in the code."""

    def show(message: Any, category: type[Warning], *place: Any, **more: Any) -> None:
        print("xlstm-ts: warning:", " ".join(str(message).split()), file=sys.stderr, flush=True)

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield


def _fit(arguments: argparse.Namespace) -> None:
    from xlstm_ts.commands import run_fit

    with _one_thread(), _warnings_in_words():
        run_fit(
            arguments.data,
            _columns(arguments),
            _form(arguments),
            model=arguments.model,
            horizon=arguments.horizon,
            settings=read_settings(arguments.settings, "--set"),
            say=_say,
        )


def _forecast(arguments: argparse.Namespace) -> None:
    from xlstm_ts.commands import run_forecast

    with _one_thread(), _warnings_in_words():
        run_forecast(
            arguments.model,
            data=arguments.data,
            form=_form(arguments),
            steps=arguments.steps,
            coverage=arguments.coverage,
            output=arguments.output,
            plot=arguments.plot,
            device=arguments.device,
            say=partial(_say, file=sys.stderr),  # the table may go to the other stream
            show=_say,
        )


def _backtest(arguments: argparse.Namespace) -> None:
    from xlstm_ts.commands import run_backtest

    with _one_thread(), _warnings_in_words():
        run_backtest(
            arguments.data,
            _columns(arguments),
            _form(arguments),
            horizon=arguments.horizon,
            origins=arguments.origins,
            refit=arguments.refit,
            settings=read_settings(arguments.settings, "--set"),
            output=arguments.output,
            html=arguments.html,
            store=arguments.store,
            say=_say,
        )


def _columns(arguments: argparse.Namespace) -> Any:
    from xlstm_ts.commands import Columns

    return Columns(arguments.target, arguments.known_covariates, arguments.past_covariates, arguments.static_covariates)


def _form(arguments: argparse.Namespace) -> Any:
    from xlstm_ts.tables import TableForm

    return TableForm(arguments.time, arguments.time_format, arguments.series, arguments.missing)


def _demo(arguments: argparse.Namespace) -> None:
    from xlstm_ts.demo import run_demo

    with _one_thread():
        run_demo(arguments.output, quick=arguments.quick, images=arguments.images, say=_say)


def _bench_kernels(arguments: argparse.Namespace) -> None:
    from xlstm_ts.bench.kernels import run_kernels

    run_kernels(threads=arguments.threads, repeats=arguments.repeats, tables=arguments.tables, say=_say)


def _bench_long_horizon(arguments: argparse.Namespace) -> None:
    from xlstm_ts.bench.long_horizon import MODELS, run_long_horizon

    run_long_horizon(
        arguments.data,
        arguments.horizon,
        arguments.protocol,
        seeds=arguments.seeds,
        models=arguments.models or MODELS,
        device=arguments.device,
        changes=read_settings(arguments.config, "bench long-horizon: config"),
        output=arguments.output,
        say=_say,
    )


def _bench_ablation(arguments: argparse.Namespace) -> None:
    from xlstm_ts.bench.long_horizon import run_ablation

    run_ablation(
        arguments.data,
        arguments.horizon,
        seeds=arguments.seeds,
        device=arguments.device,
        output=arguments.output,
        say=_say,
    )


def _bench_intervals(arguments: argparse.Namespace) -> None:
    from xlstm_ts.bench.intervals import run_intervals

    run_intervals(arguments.data, arguments.horizon, arguments.part, output=arguments.output, say=_say)


def _bench_tables(arguments: argparse.Namespace) -> None:
    from xlstm_ts.bench.tables import write_tables

    write_tables(
        arguments.results,
        arguments.published,
        arguments.ablation,
        arguments.intervals,
        arguments.page,
        arguments.figure,
    )


def _datasets(arguments: argparse.Namespace) -> None:
    from xlstm_ts.datasets import list_datasets

    table = list_datasets()
    print(table.drop(columns=["licence", "needs_download"]).rename_axis(None).to_string())


if __name__ == "__main__":
    sys.exit(main())
