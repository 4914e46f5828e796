"""What the measurement of intervals counts, with forecasters whose intervals are known."""

import csv
import re

import numpy as np
import pandas as pd
import pytest

from xlstm_ts.bench import intervals as module
from xlstm_ts.bench import long_horizon
from xlstm_ts.cli import main
from xlstm_ts.errors import ParameterError

STEPS = 4


class Constant:
    """Intervals of one width around 0; the network's own are half as wide."""

    fitted_rows = 0

    def __init__(self, horizon, random_state):
        self._calibration = 2.0

    def fit(self, frame):
        type(self).fitted_rows = len(frame)
        return self

    def predict_origins(self, frame, origins, fh, quantile_levels):
        half = np.full(len(origins) * len(fh) * 2, 0.5 * (self._calibration or 1.0))
        return pd.DataFrame({0.05: -half, 0.95: half})


@pytest.fixture(autouse=True)
def small_data(monkeypatch):
    # z-scored by its first rows, the series is -1, 1, -1, 1, ... and 0.7 times that after row 100.
    values = np.where(np.arange(200) % 2 == 0, -1.0, 1.0) * np.where(np.arange(200) < 100, 1.0, 0.7)
    frame = pd.DataFrame({"a": values, "b": -values})
    monkeypatch.setattr(long_horizon, "load_dataset", lambda name, raw: frame)
    monkeypatch.setitem(long_horizon.ROWS, "etth1", (100, 48, 50))
    monkeypatch.setitem(module.SEASON, "etth1", 2)
    monkeypatch.setattr(module, "XLSTMForecaster", Constant)
    monkeypatch.setattr(module, "AT_ONCE", 2)


@pytest.mark.parametrize(("part", "rows", "origins"), [("test", 148, 2), ("validation", 132, 1)])
def test_intervals_are_measured_after_all_rows_of_the_fit(part, rows, origins, tmp_path):
    path = tmp_path / "a.csv"

    code = main(["bench", "intervals", "--data", "etth1", "--horizon", "4", "--part", part, "--output", str(path)])

    with path.open(newline="") as file:
        calibrated, raw, naive = csv.DictReader(file)
    assert code == 0
    assert Constant.fitted_rows == rows
    assert [row["origins"] for row in (calibrated, raw, naive)] == [str(origins)] * 3
    assert (calibrated["coverage"], calibrated["winkler"]) == ("1.000", "2.000")
    assert (raw["coverage"], raw["winkler"]) == ("0.000", "5.000")  # 1 + 2 / 0.1 * (0.7 - 0.5)
    assert naive["coverage_low"] <= naive["coverage"] <= naive["coverage_high"]


def test_another_part_is_refused(tmp_path):
    with pytest.raises(ParameterError, match=re.escape("part='train' is impossible")):
        module.run_intervals("etth1", 4, "train", output=str(tmp_path / "a.csv"))
