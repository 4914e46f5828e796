"""Prediction time of a backtest against sktime's ``evaluate``, and of tens of thousands of origins.

    python tests/benchmarks/bench_backtest.py against-sktime [--backbones patch mixer stacked] [--origins 1000]
    python tests/benchmarks/bench_backtest.py many-origins [--horizon 24] [--context 512] [--batch-size 2048]

The first fits each network once and forecasts 24 hours from every origin: by `backtest`, which asks for all origins at
once, and by ``evaluate(strategy="no-update_params")``, whose fit is taken off. The forecasts must agree within 1e-5 of
the scale of the series. The second reads the column OT of ETTm1 ($XLSTM_TS_DATA or the cache must have it).
"""

import argparse
import resource
import statistics
import time
import warnings

import numpy as np
import pandas as pd
import torch

from xlstm_ts import XLSTMForecaster, backtest, load_dataset
from xlstm_ts.datasets import simulate_weather

HORIZON = 24
CONTEXTS = {"patch": 128, "mixer": 128, "stacked": 512}


def forecaster(backbone, context, **changes):
    settings = {"max_epochs": 1, "steps_per_epoch": 5, "validation_fraction": 0, "random_state": 0} | changes
    return XLSTMForecaster(horizon=HORIZON, context_length=context, backbone=backbone, **settings)


def against_sktime(options):
    from sktime.forecasting.model_evaluation import evaluate
    from sktime.performance_metrics.forecasting import MeanAbsoluteError
    from sktime.split import ExpandingWindowSplitter

    rows = 2000 + options.origins + HORIZON - 1
    y = simulate_weather(rows)["temperature"].interpolate().bfill()
    print("| backbone, context | origins | evaluate less fit, s | backtest, s | of it forecasts, s | ratios | error |")
    print("|---|---|---|---|---|---|---|")
    for backbone in options.backbones:
        model = forecaster(backbone, CONTEXTS[backbone])
        fitted = model.clone().fit(y[:2000])
        seconds, forecasting = [], []
        for _ in range(options.repeats):
            start = time.perf_counter()
            result = backtest(
                fitted,
                y,
                horizon=HORIZON,
                initial=2000,
                stride=1,
                refit=None,
                quantile_levels=[0.1, 0.9],
                baselines=False,
            )
            seconds.append(time.perf_counter() - start)
            forecasting.append(result.seconds["predict"].iloc[0])
        whole, part = statistics.median(seconds), statistics.median(forecasting)
        splitter = ExpandingWindowSplitter(fh=list(range(1, HORIZON + 1)), initial_window=2000, step_length=1)
        start = time.perf_counter()
        table = evaluate(model, splitter, y, strategy="no-update_params", scoring=MeanAbsoluteError(), return_data=True)
        theirs = time.perf_counter() - start - table["fit_time"].iloc[0]
        walked = np.concatenate([np.ravel(part) for part in table["y_pred"]])
        difference = np.abs(walked - result.frame["point"].to_numpy()).max() / y.std()
        print(
            f"| {backbone}, {CONTEXTS[backbone]} | {len(table)} | {theirs:.1f} | {whole:.3f} | {part:.3f} "
            f"| {theirs / whole:.0f}, {theirs / part:.0f} | {difference:.0e} |",
            flush=True,
        )


def many_origins(options):
    y = load_dataset("ettm1")["OT"]
    first = len(y) - options.horizon - options.origins
    fitted = forecaster("patch", options.context, hidden_size=64).fit(y[: first + 1])
    before = peak()
    start = time.perf_counter()
    result = backtest(
        fitted,
        y,
        horizon=options.horizon,
        initial=first + 1,
        stride=1,
        refit=None,
        baselines=False,
        batch_size=options.batch_size,
    )
    wall = time.perf_counter() - start
    frame = result.frame.memory_usage(deep=False).sum() / 1e6
    start = time.perf_counter()
    result.summary()
    print(
        f"{len(result.origins):,} origins, {options.horizon} steps, context {options.context}, batches of "
        f"{options.batch_size}: {wall:.1f} s, of it {result.seconds['predict'].iloc[0]:.1f} s in the forecaster; "
        f"peak memory {before:.0f} -> {peak():.0f} MB, the frame has {frame:.0f} MB; "
        f"summary {time.perf_counter() - start:.1f} s"
    )


def peak():
    """Largest memory of this process so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    commands = parser.add_subparsers(required=True)
    first = commands.add_parser("against-sktime")
    first.add_argument("--backbones", nargs="+", default=list(CONTEXTS), choices=list(CONTEXTS))
    first.add_argument("--origins", type=int, default=1000)
    first.add_argument("--repeats", type=int, default=5)
    first.set_defaults(run=against_sktime)
    second = commands.add_parser("many-origins")
    second.add_argument("--origins", type=int, default=60_000)
    second.add_argument("--horizon", type=int, default=24)
    second.add_argument("--context", type=int, default=512)
    second.add_argument("--batch-size", type=int, default=2048)
    second.set_defaults(run=many_origins)
    options = parser.parse_args()
    warnings.filterwarnings("ignore", category=FutureWarning)
    torch.set_num_threads(options.threads)
    print(f"torch {torch.__version__}, pandas {pd.__version__}, {options.threads} thread(s)\n")
    options.run(options)


if __name__ == "__main__":
    main()
