"""What one observation of a stream costs: push and forecast, early and late, beside updating and predicting.

    python tests/benchmarks/bench_stream.py

Networks of the default size after one epoch, hourly steps, 24 ahead; medians in microseconds on one thread.
"""

import time
import warnings

import numpy as np
import pandas as pd
import torch

from xlstm_ts import XLSTMForecaster

TURNS = 60


def median_of(work, turns=TURNS):
    times = []
    for _ in range(turns):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return 1e6 * float(np.median(times))


def measure(backbone, context_length):
    index = pd.date_range("2020-01-01", periods=3000, freq="h")
    y = pd.Series(np.sin(np.arange(3000) * 2 * np.pi / 24) + np.arange(3000) % 7 / 9, index)
    options = {"max_epochs": 1, "steps_per_epoch": 2, "random_state": 0, "device": "cpu"}
    model = XLSTMForecaster(24, context_length, backbone=backbone, **options).fit(y)
    stream = model.stream()
    value = 0.0

    def follow():
        stream.push(value)
        stream.forecast()

    def update():
        model.update(pd.Series([value], model.cutoff + pd.Timedelta("1h")), update_params=False)
        model.predict(fh=range(1, 25))

    early = median_of(follow)
    push = median_of(lambda: stream.push(value))
    stream.push(pd.Series(0.5, pd.date_range(stream.cutoff + pd.Timedelta("1h"), periods=100_000, freq="h")))
    late = median_of(follow)
    beside = median_of(update, 10)
    print(f"{backbone:8} {context_length:5} {early:8.0f} {late:8.0f} {push:8.0f} {beside:8.0f}", flush=True)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    print("backbone context    early     late     push   update and predict (3,000 rows)")
    for backbone in ("patch", "stacked", "mixer"):
        for context_length in (96, 512):
            measure(backbone, context_length)
