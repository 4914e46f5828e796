"""What the measurement of intervals counts, with forecasters whose intervals are known."""

import csv
import re

import numpy as np
import pandas as pd
import pytest
from helpers import tiny_forecaster

from xlstm_ts.bench import intervals as module
from xlstm_ts.bench import long_horizon
from xlstm_ts.cli import main
from xlstm_ts.errors import ParameterError
from xlstm_ts.evaluation.metrics import winkler_terms

STEPS = 4


class Constant:
    """Intervals of one width around 0, a fifth wider where they learn; the network's own are half as wide."""

    fitted_rows = 0

    def __init__(self, horizon, calibrate, random_state):
        assert calibrate == "adaptive"
        self._calibration, self._factors = 2.0, 1.2

    def fit(self, frame):
        type(self).fitted_rows = len(frame)
        return self

    def predict_origins(self, frame, origins, fh, quantile_levels):
        half = np.full(len(origins) * len(fh) * 2, 0.5 * (self._calibration or 1.0) * (self._factors or 1.0))
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
        calibrated, adaptive, raw, naive = csv.DictReader(file)
    assert code == 0
    assert Constant.fitted_rows == rows
    assert [row["origins"] for row in (calibrated, adaptive, raw, naive)] == [str(origins)] * 4
    assert (calibrated["coverage"], calibrated["winkler"]) == ("1.000", "2.000")
    assert (adaptive["intervals"], adaptive["winkler"]) == ("calibrated, adaptive", "2.400")
    assert (raw["coverage"], raw["winkler"]) == ("0.000", "5.000")  # 1 + 2 / 0.1 * (0.7 - 0.5)
    assert naive["coverage_low"] <= naive["coverage"] <= naive["coverage_high"]


def test_blocks_are_measured_in_the_later_half_of_the_validation_part(monkeypatch, tmp_path):
    fitted = []

    def create(horizon, calibrate, random_state):
        fitted.append(tiny_forecaster(horizon=horizon, quantile_levels=(0.05, 0.5, 0.95), random_state=random_state))
        return fitted[-1]

    draw = np.random.default_rng(0).normal(size=(1300, 2))
    monkeypatch.setattr(long_horizon, "load_dataset", lambda name, raw: pd.DataFrame(draw))
    monkeypatch.setitem(long_horizon.ROWS, "etth1", (400, 800, 100))
    monkeypatch.setattr(module, "XLSTMForecaster", create)
    path = tmp_path / "a.csv"

    module.run_intervals("etth1", 4, "blocks", output=str(path), say=lambda line: None)

    with path.open(newline="") as file:
        calibrated, raw, naive = csv.DictReader(file)
    (model,), frame = fitted, long_horizon.Task.load("etth1", 4).frame
    assert model.cutoff[0] == frame.index[799]
    assert [row["origins"] for row in (calibrated, raw, naive)] == ["397"] * 3
    assert float(calibrated["coverage"]) == pytest.approx(0.9, abs=0.02)
    asked = {"origins": frame.index[799:1196], "fh": range(1, 5), "quantile_levels": [0.05, 0.95]}
    table = model.predict_origins(frame, **asked)
    actual = frame.stack().reindex(pd.MultiIndex.from_frame(table[["time", "variable"]])).to_numpy()
    assert float(raw["coverage"]) == pytest.approx(((table[0.05] <= actual) & (actual <= table[0.95])).mean(), abs=1e-3)
    assert float(raw["winkler"]) == pytest.approx(winkler_terms(actual, table[0.05], table[0.95], 0.9).mean(), abs=1e-3)


def test_another_part_is_refused(tmp_path):
    with pytest.raises(ParameterError, match=re.escape("part='train' is impossible")):
        module.run_intervals("etth1", 4, "train", output=str(tmp_path / "a.csv"))
