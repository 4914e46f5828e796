"""What calibrated intervals hold on stretches after the fit, cut by cut: the table of docs/benchmarks.md, "Intervals".

    XLSTM_TS_DATA=... python tests/benchmarks/bench_calibration.py [goog jena ...]
    python tests/benchmarks/bench_calibration.py simulated

Every fit reads the rows before a cut, every origin lies between it and the next. No stretch touches a published test
part, so that rules may be compared here. Prints the coverage of the 90 and 80 % intervals of the network alone,
calibrated, and going on learning, and the Winkler scores of the latter two 90 % intervals relative to that of the
network alone. "simulated" does the same on series whose stretches are exchangeable.
"""

import argparse
import copy
import itertools
import warnings

import numpy as np
import pandas as pd
import torch

from xlstm_ts import XLSTMForecaster, load_dataset
from xlstm_ts.evaluation.metrics import winkler_terms

LEVELS = [0.05, 0.1, 0.9, 0.95]
MOST_ORIGINS = 400


def jena():
    return load_dataset("weather")[["T (degC)"]].resample("h", closed="right", label="right").mean()


def office():
    return load_dataset("ambient_temperature").resample("h").mean()


def etth1_oil():
    return load_dataset("etth1")[["OT"]]


def etth2_oil():
    return load_dataset("etth2")[["OT"]]


def google():
    return load_dataset("goog")[["close"]]


def vix():
    return load_dataset("vix")[["close"]]


SERIES = {  # what, horizon, context, cuts and the end of the last stretch
    "brent": ("brent", 10, 128, [2000, 3000, 4000, 5000, 6000, 7200]),
    "etth1": ("etth1", 96, "auto", [6000, 7680, 9600, 11520]),
    "etth2_oil": (etth2_oil, 24, "auto", [6000, 7680, 9600, 11520]),
    "ettm2": ("ettm2", 96, "auto", [24000, 30720, 38400, 46080]),
    "goog": (google, 10, 64, [420, 540, 700]),
    "jena": (jena, 24, 168, [1500, 2500, 3500, 4500, 5500, 6500]),
    "nyc_taxi": ("nyc_taxi", 48, "auto", [4000, 6000, 8000, 10320]),
    "weather": ("weather", 96, "auto", [16000, 24000, 32000, 38400, 42157]),
    "etth1_oil": (etth1_oil, 24, 336, [6000, 7680, 9600, 11520]),
    "etth2": ("etth2", 96, "auto", [6000, 7680, 9600, 11520]),
    "ettm1": ("ettm1", 96, "auto", [24000, 30720, 38400, 46080]),
    "exchange_rate": ("exchange_rate", 96, "auto", [2500, 3500, 4700, 6071]),
    "machine_temperature": ("machine_temperature", 24, 288, [5000, 7500, 10000, 13617]),
    "national_illness": ("national_illness", 24, "auto", [600, 773]),
    "office": (office, 24, 168, [3000, 4000, 5000, 6310]),
    "vix": (vix, 10, "auto", [2000, 4000, 6000, 7500, 9235]),
    "wti": ("wti", 10, "auto", [2000, 4000, 6000, 8000, 9000, 10226]),
}
KINDS = ("noise", "heavy tails", "autoregression", "daily cycle")


def simulate(kind, rows, seed):
    """Return an hourly series of noise, of noise with heavy tails, an autoregression, or a daily cycle with noise."""
    draw = np.random.default_rng(1000 + seed)
    values = draw.standard_t(3, size=rows) if kind == "heavy tails" else draw.normal(size=rows)
    if kind == "autoregression":
        for row in range(1, rows):
            values[row] += 0.8 * values[row - 1]
    if kind == "daily cycle":
        values += 2 * np.sin(2 * np.pi * np.arange(rows) / 24)
    return pd.DataFrame({"value": values}, index=pd.date_range("2020", periods=rows, freq="h"))


def measure(model, y, origins, scale):
    """Return the coverage of the 90 and the 80 % interval, and the Winkler score of the first in units of `scale`."""
    horizon = model.horizon
    table = model.predict_origins(y, origins=y.index[origins - 1], fh=range(1, horizon + 1), quantile_levels=LEVELS)
    shape = (len(origins), horizon, y.shape[1])
    actual = y.to_numpy()[origins[:, None] + np.arange(horizon)] / scale
    low, inner_low, inner_high, high = (table[level].to_numpy().reshape(shape) / scale for level in LEVELS)
    seen = ~np.isnan(actual)
    inside = ((low <= actual) & (actual <= high))[seen].mean()
    inner = ((inner_low <= actual) & (actual <= inner_high))[seen].mean()
    return inside, inner, np.nanmean(winkler_terms(actual, low, high, 0.9))


def compare(name, y, cut, end, model):
    """Fit to the rows before the cut, measure those up to the end, and print."""
    adaptive = model.fit(y[:cut])
    fixed = copy.copy(adaptive)
    fixed._factors = None
    alone = copy.copy(fixed)
    alone._calibration = None
    origins = np.arange(cut, end - model.horizon + 1)
    origins = origins[:: -(-len(origins) // MOST_ORIGINS)]
    scale = y[:cut].std().to_numpy()
    raw, fixed, moving = (measure(one, y[:end], origins, scale) for one in (alone, fixed, adaptive))
    shares = " ".join(f"{100 * share:.1f}" for share in (*raw[:2], *fixed[:2], *moving[:2]))
    print(f"{name} {cut}: {shares}, {fixed[2] / raw[2]:.3f} {moving[2] / raw[2]:.3f}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("series", nargs="*", choices=[[], "simulated", *SERIES], default=[])
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore", category=FutureWarning)
    torch.set_num_threads(1)
    if "simulated" in arguments.series:
        for rows, kind, seed in itertools.product((800, 3000), KINDS, range(3)):
            model = XLSTMForecaster(
                12, 48, calibrate="adaptive", max_epochs=10, steps_per_epoch=50, random_state=arguments.seed + seed
            )
            compare(kind, simulate(kind, rows + 2000, seed), rows, rows + 2000, model)
        return
    for name in arguments.series or SERIES:
        what, horizon, context, cuts = SERIES[name]
        y = load_dataset(what) if isinstance(what, str) else what()
        for cut, end in itertools.pairwise(cuts):
            model = XLSTMForecaster(horizon, context, calibrate="adaptive", random_state=arguments.seed)
            compare(name, y, cut, end, model)


if __name__ == "__main__":
    main()
