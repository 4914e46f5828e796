"""A panel of many series: seconds and memory of a fit, a prediction and an update.

python tests/benchmarks/bench_panel.py [--series 300]

Lengths are drawn between 100 and 10,000 rows, levels over six orders of magnitude; two epochs, one thread.
"""

import argparse
import resource
import time

import numpy as np
import pandas as pd
import torch

from xlstm_ts import XLSTMForecaster


def make_panel(count: int) -> pd.DataFrame:
    draw = np.random.default_rng(0)
    parts = {}
    for number in range(count):
        rows = int(np.exp(draw.uniform(np.log(100), np.log(10_000))))
        wave = 5 + np.sin(np.arange(rows) * 2 * np.pi / 24) + 0.1 * draw.normal(size=rows)
        index = pd.date_range("2024-01-01", periods=rows, freq="h")
        parts[f"series {number}"] = pd.DataFrame({"y": 10 ** draw.uniform(-2, 4) * wave}, index=index)
    return pd.concat(parts, names=["series", "time"])


def peak_memory() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--series", type=int, default=300)
    count = parser.parse_args().series
    torch.set_num_threads(1)
    panel = make_panel(count)
    first = panel.index[0][0]
    one = panel.loc[[first]]
    after = one.index[-1][1] + pd.Timedelta("1h") * np.arange(1, 25)
    new = pd.DataFrame({"y": 1.0}, index=pd.MultiIndex.from_product([[first], after], names=panel.index.names))
    model = XLSTMForecaster(horizon=24, context_length=96, backbone="patch", max_epochs=2, random_state=0)
    print(f"{count} series, {len(panel)} rows; {peak_memory():.0f} MiB before the fit")
    for name, call in {
        "fit": lambda: model.fit(panel),
        "predict 24 steps of each": lambda: model.predict(fh=range(1, 25)),
        "update one series by a day": lambda: model.update(new, update_params=False),
    }.items():
        start = time.perf_counter()
        call()
        print(f"{name}: {time.perf_counter() - start:.3f} s, peak {peak_memory():.0f} MiB", flush=True)
    training = model.history_["seconds"].sum()
    print(f"of the fit, {training:.3f} s were training steps")


if __name__ == "__main__":
    main()
