"""The protocol of the long-horizon tables, on a small series with borders of its own."""

import csv
import json
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from xlstm_ts.bench import long_horizon as module
from xlstm_ts.bench.long_horizon import Setting, Table, Task, fit, fit_linear, run_long_horizon, score, score_naive
from xlstm_ts.cli import main
from xlstm_ts.errors import DataError, ParameterError

CPU = torch.device("cpu")
SMALL = {
    "context_length": 12,
    "hidden_size": 4,
    "num_heads": 1,
    "max_epochs": 2,
    "steps_per_epoch": 3,
    "batch_size": 8,
}
ROWS = (100, 40, 50)
TIMES = pd.date_range("2020-02-28", periods=200, freq="2h")  # a season of the series is a day


def series(rows=200, seed=0):
    draw = np.random.default_rng(seed)
    t = np.arange(rows)[:, None]
    return 5 + 3 * np.sin(2 * np.pi * t / 12 + [0.0, 1.0]) + draw.normal(size=(rows, 2))


@pytest.fixture(autouse=True)
def small_data(monkeypatch):
    frame = pd.DataFrame(series(), columns=["a", "b"])
    frame.insert(0, "date", TIMES.astype(str))
    monkeypatch.setattr(module, "load_dataset", lambda name, raw: frame)
    monkeypatch.setitem(module.ROWS, "etth1", ROWS)
    monkeypatch.setitem(module.SEASON, "etth1", 12)
    monkeypatch.setattr(module, "LINEAR_LOOKBACKS", (6, 12, 24))
    monkeypatch.setattr(module, "SEARCH", {"context_length": (8, 12), "learning_rate": (3e-4, 1e-2)})
    monkeypatch.setattr(module, "POOL", {"loss": ("mae", "quantile"), "context_length": (6, 12)})


def read(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_values_are_scored_by_the_training_rows_and_cut_at_the_end_of_the_test_part():
    task = Task.load("etth1", 6)

    known = series()[:100]
    np.testing.assert_allclose(task.values, (series()[:190] - known.mean(0)) / known.std(0))
    assert task.borders == (100, 140, 190)


def test_every_window_whose_targets_lie_in_a_part_counts():
    task = Task.load("etth1", 6)

    assert task.validation.tolist() == list(range(100, 135))
    assert task.test.tolist() == list(range(140, 185))


def test_scores_are_means_over_windows_steps_and_channels(monkeypatch):
    monkeypatch.setattr(module, "BATCH", 7)
    task = Task.load("etth1", 6)
    network = fit(task, Setting(**SMALL), seed=0, device=CPU).network
    windows = task.windows(Setting(**SMALL), CPU)

    got = score(network, windows, task.test)

    batch = windows.batch(task.test, 190)
    error = (network(batch.context, batch.context_observed)[0][..., 0] - batch.target).detach().numpy()
    assert got == pytest.approx((np.square(error).mean(), np.abs(error).mean()), rel=1e-5)


def test_a_setting_may_read_the_published_clock():
    task = Task.load("etth1", 6)
    setting = Setting(**SMALL | {"context_length": 3, "calendar": "day"})  # a quarter of the season

    clock = fit(task, setting, seed=0, device=CPU)
    blind = fit(task, replace(setting, calendar=None), seed=0, device=CPU)

    phase = 2 * np.pi * TIMES[:190].hour.to_numpy() / 24
    expected = np.stack([np.sin(phase), np.cos(phase), np.sin(2 * phase), np.cos(2 * phase)], axis=1)
    np.testing.assert_allclose(clock.windows.covariates, expected, atol=1e-6)
    assert clock.network.config.known == (True,) * 4
    assert blind.windows.covariates is None
    assert clock.validation.mse < 0.8 * blind.validation.mse


@pytest.mark.parametrize("horizon", [5, 12, 30])
def test_the_naive_forecast_is_the_last_season_again_and_again(horizon):
    task = Task.load("etth1", horizon)

    got = score_naive(task, task.test)

    errors = []
    for origin in task.test:
        last = task.values[origin - 12 : origin]
        errors.append(np.tile(last, (3, 1))[:horizon] - task.values[origin : origin + horizon])
    assert got == pytest.approx((np.square(errors).mean(), np.abs(errors).mean()))


def test_nothing_of_the_test_part_is_read_while_choosing(monkeypatch, tmp_path):
    log = Table(tmp_path / "a.csv", module.SEARCH_COLUMNS)
    task = Task.load("etth1", 6)
    other = Task(task.data, task.horizon, task.values.copy(), task.times, task.borders)
    other.values[140:] = np.nan

    first = fit(task, Setting(**SMALL), seed=0, device=CPU)
    second = fit(other, Setting(**SMALL), seed=0, device=CPU)
    chosen = [module.search(each, Setting(**SMALL), seed=0, device=CPU, log=log, say=str)[0] for each in (task, other)]

    weights, again = first.network.state_dict(), second.network.state_dict()
    assert all(torch.equal(weights[name], again[name]) for name in weights)
    assert first.validation == second.validation
    assert chosen[0] == chosen[1]
    assert np.isfinite(fit_linear(other, device=CPU).validation).all()


def test_the_search_takes_what_was_best_on_the_validation_part(tmp_path):
    log = Table(tmp_path / "a.csv", module.SEARCH_COLUMNS)
    said = []

    chosen, trained = module.search(
        Task.load("etth1", 6), Setting(**SMALL), seed=0, device=CPU, log=log, say=said.append
    )
    again = module.search(Task.load("etth1", 6), Setting(**SMALL), seed=0, device=CPU, log=log, say=said.append)

    rows = read(tmp_path / "a.csv")
    best = min(rows, key=lambda row: float(row["valid_mse"]) + float(row["valid_mae"]))
    assert len(rows) == len(said) == 3
    assert Setting(**json.loads(best["configuration"])) == chosen
    assert f"{trained[chosen].validation.mse:.4f}" == best["valid_mse"]
    assert again == (chosen, {})


def test_a_cell_gets_a_row_per_model_and_seed_and_is_not_computed_again(tmp_path, monkeypatch):
    path = tmp_path / "deep" / "results.csv"
    arguments = ["bench", "long-horizon", "--data", "etth1", "--horizon", "6", "--seeds", "2", "--output", str(path)]
    config = ["--config", *(f"{name}={value}" for name, value in SMALL.items())]

    assert main([*arguments, *config]) == 0

    rows = read(path)
    models = [(row["model"], row["seed"]) for row in rows]
    assert models == [
        ("xlstm", "0"),
        ("xlstm", "1"),
        ("xlstm_average", "0"),
        ("xlstm_average", "1"),
        ("lstm", "0"),
        ("lstm", "1"),
        ("linear", "0"),
        ("seasonal_naive", "0"),
    ]
    assert all(0 < float(row["mse"]) < 5 and 0 < float(row["mae"]) < 3 for row in rows)
    assert json.loads(rows[4]["configuration"])["layout"] == "l"
    assert rows[2]["configuration"] == rows[3]["configuration"]

    before = path.read_bytes()
    monkeypatch.setattr(module, "fit", lambda *args, **kwargs: pytest.fail("trained again"))
    assert main([*arguments, *config]) == 0
    assert path.read_bytes() == before


def test_an_average_is_of_the_networks_that_validation_finds_near_the_best(monkeypatch):
    task = Task.load("etth1", 6)
    monkeypatch.setattr(module, "NEAR", 0.05)

    average = module.fit_pool(task, Setting(**SMALL), {}, device=CPU, say=str)

    pool = [
        fit(task, replace(Setting(**SMALL), loss=loss, context_length=length), seed=0, device=CPU)
        for loss in ("mae", "quantile")
        for length in (6, 12)
    ]
    least = min(sum(one.validation) for one in pool)
    near = [one for one in pool if sum(one.validation) <= 1.05 * least]
    assert [one.setting for one in average] == [one.setting for one in near]
    assert 1 < len(near) < 4

    got = module.score_average([(one.network, one.windows) for one in average], task.test)

    forecasts = []
    for one in near:
        batch = one.windows.batch(task.test, 190)
        quantiles = one.network.quantiles(one.network(**batch.inputs)[0]).detach().numpy()
        forecasts.append(quantiles[..., quantiles.shape[-1] // 2])
    error = np.mean(forecasts, axis=0) - batch.target.numpy()
    assert got == pytest.approx((np.square(error).mean(), np.abs(error).mean()), rel=1e-5)


def test_an_ablation_has_a_row_per_variant_and_goes_on_where_it_stopped(tmp_path, monkeypatch):
    small = Setting(**SMALL)
    monkeypatch.setattr(module, "Setting", lambda: small)
    monkeypatch.setattr(module, "VARIANTS", {"base": {}, "LSTM": {"layout": "l"}})
    arguments = ["bench", "ablation", "--data", "etth1", "--horizon", "6", "--output", str(tmp_path / "a.csv")]
    main(arguments)
    monkeypatch.setitem(module.VARIANTS, "loss", {"loss": "mse"})

    assert main(arguments) == 0

    rows = read(tmp_path / "a.csv")
    assert [row["model"] for row in rows] == ["base", "LSTM", "loss"]
    assert [json.loads(row["configuration"])["layout"] for row in rows] == ["s", "l", "s"]
    assert all(float(row["mse"]) > 0 for row in rows)


def test_protocol_96_keeps_its_lookback(tmp_path, monkeypatch):
    monkeypatch.setitem(module.ROWS, "etth1", (130, 30, 30))
    changes = {name: value for name, value in SMALL.items() if name != "context_length"}

    run_long_horizon(
        "etth1",
        6,
        "96",
        seeds=1,
        models=["xlstm", "xlstm_average"],  # an average has other lookbacks, so there is none
        changes=changes,
        output=str(tmp_path / "a.csv"),
        say=str,
    )

    (row,) = read(tmp_path / "a.csv")
    assert json.loads(row["configuration"])["context_length"] == 96
    assert not (tmp_path / "a_search.csv").exists()


@pytest.mark.filterwarnings("ignore::xlstm_ts.forecaster.ShortSeriesWarning")
def test_the_default_protocol_scores_the_estimator_as_it_is(tmp_path, monkeypatch):
    class Repeats:
        """An estimator that repeats the last value."""

        def __init__(self, horizon, device, random_state):
            self.horizon = horizon

        def fit(self, frame):
            assert len(frame) == 140
            self.network_ = fit(Task.load("etth1", 6), Setting(**SMALL), seed=0, device=CPU).network
            return self

        def predict_origins(self, frame, origins, fh, quantile_levels):
            last = frame.loc[origins].to_numpy()
            return pd.DataFrame({"point": np.repeat(last[:, None], len(fh), 1).ravel()})

    monkeypatch.setattr(module, "XLSTMForecaster", Repeats)
    monkeypatch.setattr(module, "MAX_FRAME_ROWS", 6 * 2 * 4)

    run_long_horizon("etth1", 6, "default", seeds=1, output=str(tmp_path / "a.csv"), say=str)

    task = Task.load("etth1", 6)
    error = np.stack([task.values[o - 1] - task.values[o : o + 6] for o in task.test])
    (row,) = read(tmp_path / "a.csv")
    assert float(row["mse"]) == pytest.approx(np.square(error).mean(), abs=1e-4)
    assert float(row["mae"]) == pytest.approx(np.abs(error).mean(), abs=1e-4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("etth3", 6, "tuned"), "data='etth3' is unknown"),
        (("etth1", 0, "tuned"), "horizon=0 is impossible; expected from 1 to 40"),
        (("etth1", 41, "tuned"), "horizon=41 is impossible"),
        (("etth1", 6, "95"), "protocol='95' is unknown; expected one of 96, tuned, default"),
    ],
    ids=str,
)
def test_what_is_unknown_is_named_before_any_work(arguments, message, tmp_path):
    with pytest.raises(ParameterError, match=re.escape(message)):
        run_long_horizon(*arguments, output=str(tmp_path / "a.csv"))

    assert not (tmp_path / "a.csv").exists()


def test_unknown_models_and_settings_are_named(tmp_path):
    with pytest.raises(ParameterError, match="model='arima' is unknown"):
        run_long_horizon("etth1", 6, "tuned", models=["arima"], output=str(tmp_path / "a.csv"))
    with pytest.raises(ParameterError, match="config 'width' is unknown; expected some of context_length"):
        run_long_horizon("etth1", 6, "tuned", changes={"width": 3}, output=str(tmp_path / "a.csv"))


def test_a_file_of_other_columns_is_not_added_to(tmp_path):
    (tmp_path / "a.csv").write_text("x,y\n1,2\n")

    with pytest.raises(DataError, match="the columns are"):
        run_long_horizon("etth1", 6, "tuned", output=str(tmp_path / "a.csv"))
