"""Model files of earlier releases load, and predict what they predicted when they were written.

`golden/` holds one small file of each kind, and `golden/predictions.json` what was predicted with it. They were written
by ``python tests/test_golden.py``, in format 1, and are never written anew: a release with another format adds files of
its own beside them.
"""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers import tiny_forecaster

from xlstm_ts import XLSTMForecaster, XLSTMRegressor

GOLDEN = Path(__file__).with_name("golden")
TOLERANCE = 1e-4
"""Of the spread of the series, about 1: float32 in another order of summation, on another CPU, says 1e-6."""


def load_series(rows: int = 180) -> tuple[pd.Series, pd.DataFrame]:
    """Hours of a load, and what goes with it; by formula, so that it is the same for ever."""
    place = np.arange(rows)
    index = pd.date_range("2024-03-25", periods=rows, freq="h", tz="Europe/Berlin")
    noise = np.sin(place**2 * 0.37)
    y = pd.Series(np.sin(place / 24 * 2 * np.pi) + 0.3 * noise, index=index, name="load")
    X = pd.DataFrame({"plan": np.cos(place / 7), "kind": np.array(["a", "b"])[place % 2], "wind": noise}, index=index)
    return y.where(place % 11 != 5), X


def shops(rows: int = 100) -> pd.DataFrame:
    """Two shops by month, the second with a later start."""
    parts = {}
    for name, first in (("north", "2010-01"), ("south", "2011-01")):
        place = np.arange(rows)
        sales = 3 + np.sin(place / 12 * 2 * np.pi + len(parts)) + 0.2 * np.sin(place**2 * 0.37)
        parts[name] = pd.DataFrame({"sales": sales}, index=pd.period_range(first, periods=rows, freq="M"))
    return pd.concat(parts, names=["shop", "month"])


SERIES_OPTIONS = {"past_covariates": ["wind"], "calendar_features": ["day"], "validation_fraction": 0.5}


def predict_series(model) -> dict[str, list]:
    """Forecasts within the sample, at its end, beyond the horizon, and from an end that has moved on."""
    y, X = load_series()
    said = {
        "point": model.predict(fh=[-5, 0, 1, 2, 5], X=X),
        "interval": model.predict_interval(fh=[1, 5], X=X, coverage=[0.5, 0.8]),
        "variance": model.predict_var(fh=[2], X=X),
    }
    moved = model.update(y[-12:-6], X=X[-12:-6], update_params=False)
    return plain(said | {"moved on": moved.predict(fh=[1, 2, 3], X=X)})


def predict_shops(model) -> dict[str, list]:
    """Points and intervals of both shops, and those that have learned from more months."""
    later = shops(112)
    said = {"point": model.predict(fh=[0, 1, 4]), "interval": model.predict_interval(fh=[1, 3], coverage=0.8)}
    moved = model.update(later, update_params=False)
    return plain(said | {"moved on": moved.predict_interval(fh=[1, 3], coverage=0.8)})


def predict_rows(model) -> dict[str, list]:
    """What a regressor says of rows that continue those of its fit, and of others."""
    _, X = load_series()
    X = X.drop(columns="kind")
    return plain({"next": model.predict(X[120:126]), "alone": model.predict(X[150:152])})


def plain(said: dict) -> dict[str, list]:
    return {name: np.asarray(values, dtype=np.float64).ravel().tolist() for name, values in said.items()}


CASES = {
    "series": (XLSTMForecaster, predict_series),
    "panel": (XLSTMForecaster, predict_shops),
    "regressor": (XLSTMRegressor, predict_rows),
}


@pytest.mark.parametrize("name", CASES)
def test_a_model_file_of_format_1_predicts_what_it_did(name):
    kind, predict = CASES[name]
    expected = json.loads((GOLDEN / "predictions.json").read_text(encoding="utf-8"))[name]

    got = predict(kind.load_model(GOLDEN / f"{name}.xlstm"))

    assert list(got) == list(expected)
    for what, values in expected.items():
        np.testing.assert_allclose(got[what], values, rtol=TOLERANCE, atol=TOLERANCE, err_msg=what)


def test_the_files_hold_what_their_names_say():
    series, panel = (XLSTMForecaster.load_model(GOLDEN / f"{name}.xlstm") for name in ("series", "panel"))

    assert series.calibrated_
    assert panel.calibrated_
    assert series.get_params()["past_covariates"] == ["wind"]
    assert panel.calibrate == "adaptive"
    assert max(path.stat().st_size for path in GOLDEN.iterdir()) < 2**16


def write_golden() -> None:
    """Fit the models, and write them and what they predict."""
    y, X = load_series()
    models = {
        "series": tiny_forecaster(**SERIES_OPTIONS).fit(y[:-12], X=X[:-12]),
        "panel": tiny_forecaster(validation_fraction=0.5, calibrate="adaptive").fit(shops()),
        "regressor": XLSTMRegressor(
            context_length=4, layout="s", hidden_size=4, num_heads=1, max_epochs=1, random_state=0
        ).fit(X.drop(columns="kind")[:120], y.interpolate()[:120]),
    }
    predictions = {}
    for name, model in models.items():
        model.save_model(GOLDEN / f"{name}.xlstm")
        predictions[name] = CASES[name][1](model)
    (GOLDEN / "predictions.json").write_text(json.dumps(predictions, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    write_golden()
