"""What `calendar_features="auto"` is worth: the loss on the stopping windows, with and without, beside each other.

XLSTM_TS_DATA=... python tests/benchmarks/bench_calendar.py [--seeds 2]

Only the first four fifths of each series are used (the last 9,000 rows of them), so the test parts stay unread.
"""

import argparse
import warnings

import torch

from xlstm_ts import XLSTMForecaster, load_dataset

SERIES = {  # name: column (None for all), horizon, context
    "etth1": ("OT", 24, 96),
    "nyc_taxi": (None, 48, 96),
    "ambient_temperature": (None, 24, 96),
    "weather": ("T (degC)", 24, 96),
    "machine_temperature": (None, 24, 96),
    "brent": (None, 10, 64),
    "ettm1": ("OT", 24, 96),
    "etth2": (None, 24, 96),
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=2)
    seeds = parser.parse_args().seeds
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    print("| series | none | auto | ratio |\n|---|---|---|---|")
    for name, (column, horizon, context_length) in SERIES.items():
        data = load_dataset(name)
        y = (data if column is None else data[column]).iloc[: int(len(data) * 0.8)].iloc[-9000:]
        losses = [
            sum(
                XLSTMForecaster(
                    horizon=horizon,
                    context_length=context_length,
                    backbone="patch",
                    patch_length=8,
                    layout="sm",
                    max_epochs=12,
                    calendar_features=features,
                    on_gap="mask",
                    random_state=seed,
                )
                .fit(y)
                .history_["valid_loss"]
                .min()
                for seed in range(seeds)
            )
            / seeds
            for features in (None, "auto")
        ]
        print(f"| {name} | {losses[0]:.4f} | {losses[1]:.4f} | {losses[1] / losses[0]:.3f} |", flush=True)


if __name__ == "__main__":
    main()
