"""The forecaster as a user meets it: values, not only shapes. sktime's own contract is in test_sktime_contract.py."""

import copy
import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from xlstm_ts.datasets import load_dataset
from xlstm_ts.errors import BackendError, DataError, DataTypeError, ParameterError, TrainingError
from xlstm_ts.forecaster import ShortSeriesWarning, XLSTMForecaster

SMALL = {
    "horizon": 4,
    "backbone": "patch",
    "context_length": 12,
    "hidden_size": 8,
    "num_heads": 2,
    "patch_length": 4,
    "max_epochs": 2,
    "steps_per_epoch": 5,
    "validation_fraction": 0,
    "random_state": 0,
}


def small(**changes):
    return XLSTMForecaster(**(SMALL | changes))


def hourly(rows=120, columns=1, seed=0):
    rng = np.random.default_rng(seed)
    index = pd.date_range("2024-01-01", periods=rows, freq="h")
    time = np.arange(rows)[:, None]
    values = 10 + 3 * np.sin(time * 2 * np.pi / 24 + np.arange(columns)) + rng.normal(size=(rows, columns)) * 0.3
    return pd.DataFrame(values, index=index, columns=[f"station {j}" for j in range(columns)])


@pytest.fixture(scope="module")
def fitted():
    return small().fit(hourly())


@pytest.fixture(scope="module")
def goog():
    return load_dataset("goog")["close"]


# Any horizon


@settings(max_examples=25, deadline=None)
@given(steps=st.lists(st.integers(-100, 14), min_size=1, max_size=6, unique=True))
def test_the_value_at_a_step_is_the_same_whichever_steps_are_asked_for(steps):
    model = _model_for_horizons()
    whole = model.predict(fh=range(-118, 15))
    quantiles = model.predict_quantiles(fh=range(-118, 15), alpha=[0.03, 0.5, 0.8])
    cutoff = model.cutoff[0]

    for asked in (sorted(steps), [steps[0]]):
        got = model.predict(fh=asked)
        expected = whole.loc[[cutoff + pd.Timedelta(hours=k) for k in asked]]
        np.testing.assert_allclose(got, expected, rtol=1e-6)
        assert got.index.equals(expected.index)
        absolute = model.predict(fh=expected.index)
        np.testing.assert_allclose(absolute, expected, rtol=1e-6)
        bands = model.predict_quantiles(fh=asked, alpha=[0.03, 0.5, 0.8])
        np.testing.assert_allclose(bands, quantiles.loc[expected.index], rtol=1e-6)


_CACHE = {}


def _model_for_horizons():
    if "model" not in _CACHE:
        _CACHE["model"] = small().fit(hourly())
    return _CACHE["model"]


def test_in_sample_values_are_forecasts_from_the_data_before(fitted):
    y = hourly()
    before = fitted.predict(fh=[-30, -20])
    changed = copy.deepcopy(fitted)
    later = y.iloc[-31:].copy() + 100.0  # step -30 itself is the first row that changes
    changed.update(later, update_params=False)

    after = changed.predict(fh=[-30, -20])

    assert after.iloc[0, 0] == before.iloc[0, 0]
    assert abs(after.iloc[1, 0] - before.iloc[1, 0]) > 10


def test_the_first_in_sample_value_is_the_training_level(fitted):
    y = hourly()

    got = fitted.predict(fh=[-119])
    interval = fitted.predict_interval(fh=[-119], coverage=0.8)

    assert got.iloc[0, 0] == pytest.approx(y.mean().iloc[0])
    half = (interval.iloc[0, 1] - interval.iloc[0, 0]) / 2
    assert half == pytest.approx(1.2816 * y.std(ddof=0).iloc[0], rel=1e-4)


def test_a_step_before_the_series_is_an_error(fitted):
    with pytest.raises(DataError, match="lies before the first observation"):
        fitted.predict(fh=[-120])


def test_quantiles_increase_and_the_point_forecast_is_the_median(fitted):
    levels = [0.001, 0.01, 0.05, 0.37, 0.5, 0.9, 0.999]
    bands = fitted.predict_quantiles(fh=range(-5, 13), alpha=levels)

    assert (np.diff(bands.to_numpy(), axis=1) > 0).all()
    np.testing.assert_allclose(bands["station 0"][0.5], fitted.predict(fh=range(-5, 13))["station 0"])
    assert bands.columns.tolist() == [("station 0", level) for level in levels]


@pytest.mark.parametrize("loss", ["mae", "mse", "huber"])
def test_a_point_loss_gets_its_spread_from_residuals(loss):
    y = hourly(600)
    model = small(loss=loss, validation_fraction=0.3, max_epochs=4, steps_per_epoch=20).fit(y[:-60])

    interval = model.predict_interval(fh=range(1, 5), coverage=0.8)["station 0"][0.8]
    inside = model.predict_origins(y, origins=y.index[-60:-4], fh=range(1, 5), quantile_levels=[0.1, 0.9])
    actual = y["station 0"].reindex(inside["time"]).to_numpy()
    share = ((actual >= inside[0.1]) & (actual <= inside[0.9])).mean()

    assert ((interval["upper"] - interval["lower"]) > 0.3).all()
    assert 0.65 <= share <= 0.95


def test_multivariate_columns_keep_their_order_and_names():
    y = hourly(columns=3)[["station 2", "station 0", "station 1"]]
    y["station 0"] += 1000
    y["station 1"] -= 1000
    for backbone in ("patch", "stacked"):
        got = small(backbone=backbone).fit(y).predict(fh=[1, 2])
        assert got.columns.tolist() == y.columns.tolist()
        np.testing.assert_allclose(got.to_numpy(), y.iloc[-1:].to_numpy().repeat(2, 0), atol=8)


def test_a_patch_network_forecasts_every_column_as_if_it_stood_alone():
    y = hourly(columns=2)
    both = small().fit(y)
    alone = small().fit(y[["station 1"]])
    alone.network_.load_state_dict(both.network_.state_dict())

    np.testing.assert_allclose(both.predict(fh=[1, 4])["station 1"], alone.predict(fh=[1, 4])["station 1"], rtol=1e-5)


# Updating


def test_update_without_training_moves_the_forecast_and_keeps_the_weights(fitted):
    model = copy.deepcopy(fitted)
    y = hourly(126)

    before = model.predict(fh=[1])
    model.update(y.iloc[120:], update_params=False)
    after = model.predict(fh=[1])

    assert after.index[0] == before.index[0] + pd.Timedelta(hours=6)
    assert after.iloc[0, 0] != before.iloc[0, 0]
    for name, value in fitted.network_.state_dict().items():
        assert torch.equal(value, model.network_.state_dict()[name])


def test_update_with_training_starts_from_the_present_weights(fitted):
    models = [copy.deepcopy(fitted) for _ in range(2)]
    for model in models:
        model.update(hourly(126).iloc[120:], update_params=True)

    weights, start = models[0].network_.state_dict(), fitted.network_.state_dict()
    moved = max(float((weights[name] - start[name]).abs().max()) for name in weights)
    assert 0 < moved < 0.02  # 20 steps at a rate of 1e-4
    assert all(torch.equal(weights[name], value) for name, value in models[1].network_.state_dict().items())
    assert np.array_equal(models[0]._scaler.level, fitted._scaler.level)


def test_update_on_a_hole_counts_it_as_missing(fitted):
    model = copy.deepcopy(fitted)
    y = hourly(130)
    model.update(y.iloc[125:], update_params=False)

    y.iloc[120:125] = np.nan
    refitted = small().fit(y)
    refitted.network_.load_state_dict(model.network_.state_dict())
    refitted._scaler = model._scaler
    np.testing.assert_allclose(model.predict(fh=[1, 4]), refitted.predict(fh=[1, 4]), rtol=1e-6)


def test_predict_origins_equals_update_then_predict(fitted):
    y = hourly(150)
    y.iloc[[100, 130, 131]] = np.nan
    origins = y.index[[119, 125, 133, 149]]

    table = fitted.predict_origins(y, origins=origins, fh=[1, 3, 6], quantile_levels=[0.2, 0.5])

    for origin in origins:
        model = small().fit(y.iloc[:120])
        model.network_.load_state_dict(fitted.network_.state_dict())
        model._scaler = fitted._scaler
        model.update(y.loc[:origin], update_params=False)
        expected = model.predict(fh=[1, 3, 6])["station 0"]
        got = table[table["origin"] == origin]
        np.testing.assert_allclose(got["point"], expected, rtol=1e-6)
        assert got["time"].tolist() == expected.index.tolist()
        bands = model.predict_quantiles(fh=[1, 3, 6], alpha=[0.2])["station 0"][0.2]
        np.testing.assert_allclose(got[0.2], bands, rtol=1e-6)


ADAPTIVE = {"calibrate": "adaptive", "validation_fraction": 0.4}


@pytest.fixture(scope="module")
def learning():
    return small(**ADAPTIVE).fit(hourly(200))


def test_adaptive_intervals_are_the_same_from_many_origins_and_by_updates(learning):
    y = hourly(300)
    y.iloc[200:] *= 3
    y.iloc[[230, 260]] = np.nan
    origins, model = y.index[[199, 201, 203, 240, 299]], copy.deepcopy(learning)

    table = learning.predict_origins(y, origins=origins, fh=[1, 4, 6], quantile_levels=[0.1, 0.5, 0.9])
    one = learning.predict_origins(y[:241], origins=origins[[3]], fh=[4], quantile_levels=[0.1])

    last = y.index[199]
    for origin in origins:
        if origin > last:
            model.update(y[(y.index > last) & (y.index <= origin)], update_params=False)
            last = origin
        expected = model.predict_quantiles(fh=[1, 4, 6], alpha=[0.1, 0.5, 0.9])
        got = table[table["origin"] == origin]
        np.testing.assert_allclose(got[[0.1, 0.5, 0.9]], expected, rtol=1e-6)
    chosen = table[(table["origin"] == origins[3]) & (table["step"] == 4)]
    np.testing.assert_allclose(one[0.1], chosen[0.1], rtol=1e-9)


def test_adaptive_intervals_widen_where_targets_lie_outside_and_read_nothing_after_an_origin(learning):
    y = hourly(300)
    wild, changed = y.copy(), y.copy()
    wild.iloc[200:260] += np.where(np.arange(60) % 2, 20.0, -20.0)[:, None]
    changed.iloc[290:] = 1e6
    fixed = copy.copy(learning)
    fixed._factors = None
    asked = {"origins": y.index[[289]], "fh": [1, 2, 3, 4], "quantile_levels": [0.05, 0.5, 0.95]}

    calm, after, plain = (m.predict_origins(v, **asked) for m, v in ((learning, y), (learning, changed), (fixed, y)))
    wider, narrower = learning.predict_origins(wild, **asked), fixed.predict_origins(wild, **asked)

    pd.testing.assert_frame_equal(calm, after)
    np.testing.assert_allclose(calm[0.5], plain[0.5], rtol=1e-9)
    assert ((wider[0.95] - wider[0.05]) > (narrower[0.95] - narrower[0.05])).all()


def test_an_update_with_training_teaches_adaptive_intervals_before_the_weights_move(learning):
    y = hourly(240)
    one, other = copy.deepcopy(learning), copy.deepcopy(learning)

    one.update(y[200:], update_params=True)
    other.update(y[200:], update_params=False)

    np.testing.assert_array_equal(one._factors, other._factors)
    assert not np.allclose(one._factors, learning._factors)
    assert not np.allclose(one.predict(fh=[1]), other.predict(fh=[1]), rtol=1e-6)


def test_adaptive_intervals_are_kept_in_files_and_fixed_where_nothing_was_calibrated(learning):
    model = copy.deepcopy(learning)
    model.update(hourly(240)[200:], update_params=False)
    loaded = pickle.loads(pickle.dumps(model))
    pd.testing.assert_frame_equal(loaded.predict_interval(fh=[1, 2]), model.predict_interval(fh=[1, 2]))

    bare = small(calibrate="adaptive").fit(hourly(100))
    assert not bare.calibrated_
    plain = small(calibrate=False).fit(hourly(100))
    pd.testing.assert_frame_equal(bare.predict_interval(fh=[1, 2]), plain.predict_interval(fh=[1, 2]))


def test_adaptive_intervals_need_quantiles_of_the_network():
    with pytest.raises(ParameterError, match=r"calibrate=\"adaptive\" .* loss='mse' has none"):
        small(calibrate="adaptive", loss="mse").fit(hourly(100))


def test_predict_origins_reads_nothing_after_an_origin(fitted):
    y = hourly(150)
    changed = y.copy()
    changed.iloc[130:] = 1e6

    before, after = (fitted.predict_origins(v, origins=y.index[[120, 129]], fh=range(1, 7)) for v in (y, changed))

    pd.testing.assert_frame_equal(before, after)


def test_predict_origins_refuses_what_it_cannot_serve(fitted):
    y = hourly(150)
    with pytest.raises(DataError, match="is not a time of y"):
        fitted.predict_origins(y, origins=[pd.Timestamp("2030-01-01")], fh=[1])
    with pytest.raises(ParameterError, match="steps ahead"):
        fitted.predict_origins(y, origins=y.index[[120]], fh=[0, 1])
    with pytest.raises(ParameterError, match="0 < level < 1"):
        fitted.predict_origins(y, origins=y.index[[120]], fh=[1], quantile_levels=[0, 0.5])


def test_prediction_changes_nothing(fitted):
    before = copy.deepcopy(vars(fitted))
    fitted.predict_quantiles(fh=[-3, 1, 9], alpha=[0.1])

    assert vars(fitted).keys() == before.keys()
    assert not fitted.network_.training
    for name, value in fitted.network_.state_dict().items():
        assert torch.equal(value, before["network_"].state_dict()[name])
    assert np.array_equal(fitted._panel.series[0].values, before["_panel"].series[0].values)
    pd.testing.assert_frame_equal(fitted.history_, before["history_"])


# Randomness


def test_the_same_random_state_gives_the_same_bits_and_touches_no_global_seed():
    y = hourly()
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002
    states = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002

    first = small(random_state=3).fit(y).predict(fh=[1, 2, 3, 9])
    assert torch.equal(states[0], torch.get_rng_state())
    assert np.array_equal(states[1], np.random.get_state()[1])  # noqa: NPY002
    torch.manual_seed(2)
    second = small(random_state=3).fit(y).predict(fh=[1, 2, 3, 9])
    third = small(random_state=4).fit(y).predict(fh=[1, 2, 3, 9])

    pd.testing.assert_frame_equal(first, second, check_exact=True)
    assert not np.array_equal(first, third)


def test_copies_and_files_predict_the_same(fitted, tmp_path):
    expected = fitted.predict(fh=[1, 5])
    pd.testing.assert_frame_equal(pickle.loads(pickle.dumps(fitted)).predict(fh=[1, 5]), expected)
    fitted.save(tmp_path / "model")
    from sktime.base import load

    pd.testing.assert_frame_equal(load(tmp_path / "model.zip").predict(fh=[1, 5]), expected)


# Scale


@settings(max_examples=20, deadline=None)
@given(log_a=st.floats(-6, 6), shift=st.floats(-9, 9), backbone=st.sampled_from(["patch", "stacked"]))
def test_mapping_the_series_by_a_line_maps_the_forecast(log_a, shift, backbone):
    y = hourly()
    key = ("line", backbone)
    if key not in _CACHE:
        _CACHE[key] = small(backbone=backbone).fit(y)
    model = _CACHE[key]
    a = 10.0**log_a
    spread = a * float(y.std(ddof=0).iloc[0])
    b = np.sign(shift) * 10 ** abs(shift) * spread
    mapped = small(backbone=backbone, max_epochs=1, steps_per_epoch=1).fit(a * y + b)
    mapped.network_.load_state_dict(model.network_.state_dict())  # the same weights

    got = mapped.predict_quantiles(fh=[-50, 1, 3, 7], alpha=[0.1, 0.5, 0.9])
    expected = a * model.predict_quantiles(fh=[-50, 1, 3, 7], alpha=[0.1, 0.5, 0.9]) + b

    tolerance = 1e-5 + 8 * 2.0**-52 * abs(b) / spread
    assert np.abs(got.to_numpy() - expected.to_numpy()).max() / spread <= tolerance


@pytest.mark.parametrize("value", [0.0, 0.1, -7.3, 1e9 + 0.1, 1e300, 1e-300])
def test_a_constant_series_forecasts_itself_exactly(value):
    y = pd.Series(value, index=pd.period_range("2020-01", periods=40, freq="M"))

    model = small().fit(y)

    assert (model.predict(fh=range(-39, 10)) == value).all()
    assert (model.predict_interval(fh=range(-39, 10), coverage=0.9) == value).all(axis=None)


def test_one_constant_column_beside_a_moving_one():
    y = hourly(columns=2)
    y["station 1"] = 0.1

    forecast = small().fit(y).predict(fh=range(1, 9))

    assert (forecast["station 1"] == 0.1).all()
    assert forecast["station 0"].std() > 0


def test_a_level_of_a_thousand_million_costs_no_accuracy():
    rng = np.random.default_rng(0)
    settings_ = {"context_length": 8, "max_epochs": 1, "steps_per_epoch": 3, "horizon": 2}
    errors = {0.0: [], 1e9: []}
    for seed in range(100):
        walk = pd.Series(np.cumsum(rng.normal(size=60)))
        for level, collected in errors.items():
            y = walk + level
            forecast = small(**settings_, random_state=seed).fit(y[:-2]).predict(fh=[1, 2])
            collected.append(np.abs(forecast - y[-2:]).mean())

    assert np.mean(errors[1e9]) == pytest.approx(np.mean(errors[0.0]), rel=0.01)


def test_values_near_the_largest_float_give_finite_forecasts():
    y = pd.Series(np.sin(np.arange(60)) * 1.5e308)

    assert np.isfinite(small().fit(y).predict(fh=[1, 2, 3, 4])).all()


def test_a_flat_window_in_a_moving_series_keeps_an_interval():
    y = hourly()
    model = small().fit(y)
    flat = pd.DataFrame(12.0, index=pd.date_range(y.index[-1], periods=31, freq="h")[1:], columns=y.columns)

    interval = model.update(flat, update_params=False).predict_interval(fh=[1], coverage=0.8)

    width = float(interval.iloc[0, 1] - interval.iloc[0, 0])
    assert width > 1e-3 * float(y.std().iloc[0])


def test_the_interval_of_a_random_walk_does_not_shrink_from_block_to_block():
    rng = np.random.default_rng(5)
    y = pd.Series(np.cumsum(rng.normal(size=1500)))
    model = small(horizon=8, context_length=32, validation_fraction=0.3, max_epochs=5, steps_per_epoch=40).fit(y)

    interval = model.predict_interval(fh=range(1, 41), coverage=0.8)
    widths = (interval.iloc[:, 1] - interval.iloc[:, 0]).to_numpy().reshape(5, 8)

    assert (np.diff(widths.mean(1)) > 0).all()
    assert (np.diff(widths[:, -1]) > 0).all()
    # A random walk's 80 % interval is 2 * 1.28 * sqrt(step) wide.
    np.testing.assert_allclose(widths[:, -1], 2.563 * np.sqrt(8 * np.arange(1, 6)), rtol=0.35)


def test_intervals_cover_what_they_say_on_series_of_the_same_kind():
    y = hourly(2500)
    model = small(validation_fraction=0.3, max_epochs=4, steps_per_epoch=50).fit(y[:2000])

    table = model.predict_origins(y, origins=y.index[2000:-4], fh=range(1, 5), quantile_levels=[0.05, 0.1, 0.9, 0.95])

    actual = y["station 0"].reindex(table["time"]).to_numpy()
    assert model.calibrated_
    assert model.calibration_coverage_["calibrated"].between(0, 1).all()
    assert model.calibration_coverage_.index[-1] == pytest.approx(0.98)
    assert ((actual >= table[0.1]) & (actual <= table[0.9])).mean() == pytest.approx(0.8, abs=0.05)
    assert ((actual >= table[0.05]) & (actual <= table[0.95])).mean() == pytest.approx(0.9, abs=0.04)


def test_a_learnable_series_is_learned():
    rng = np.random.default_rng(0)
    time = np.arange(900)
    y = pd.Series(
        np.sin(time * 2 * np.pi / 12) * (1 + 0.5 * np.sin(time * 2 * np.pi / 90)) + rng.normal(size=900) * 0.05
    )
    model = small(context_length=48, horizon=6, validation_fraction=0.2, max_epochs=6, steps_per_epoch=60).fit(y[:-200])

    table = model.predict_origins(y, origins=y.index[-200:-6:7], fh=range(1, 7))

    error = np.abs(table["point"].to_numpy() - y.reindex(table["time"]).to_numpy()).mean()
    naive = np.abs(y.shift(12) - y)[-200:].mean()
    assert error < 0.6 * naive


# Missing values and short series


@pytest.mark.parametrize("where", ["single", "block", "leading", "trailing", "most"])
def test_missing_values_are_served(where):
    y = hourly()
    gaps = {
        "single": [50],
        "block": range(40, 70),
        "leading": range(60),
        "trailing": range(100, 120),
        "most": [k for k in range(120) if k % 10],
    }
    y.iloc[list(gaps[where])] = np.nan

    model = small().fit(y)

    assert np.isfinite(model.predict(fh=range(-119, 9)).to_numpy()).all()
    assert np.isfinite(model.predict_interval(fh=range(-119, 9), coverage=0.9).to_numpy()).all()


@pytest.mark.parametrize("rows", range(2, 20))
def test_two_or_more_values_are_served(rows):
    y = hourly(rows)

    forecast = small().fit(y).predict(fh=[1, 4, 6])

    assert np.isfinite(forecast.to_numpy()).all()
    assert forecast.index[0] == y.index[-1] + pd.Timedelta(hours=1)


def test_a_short_series_says_that_validation_is_off():
    with pytest.warns(ShortSeriesWarning, match="early stopping and interval calibration are off"):
        model = small(validation_fraction=0.2).fit(hourly(30))

    assert not model.calibrated_
    assert model.calibration_coverage_ is None
    assert model.best_epoch_ == 2
    assert model.history_["valid_loss"].isna().all()


# Training


def test_history_tells_the_run_and_the_best_epoch_is_kept():
    model = small(validation_fraction=0.3, max_epochs=5).fit(hourly(400))

    history = model.history_.set_index("epoch")
    assert history.columns.tolist() == ["train_loss", "valid_loss", "learning_rate", "seconds"]
    assert history["valid_loss"].idxmin() == model.best_epoch_
    assert history.index[0] == 0


def test_refit_on_all_uses_the_whole_period():
    y = hourly(400)
    once = small(validation_fraction=0.3).fit(y)
    twice = small(validation_fraction=0.3, refit_on_all=True).fit(y)

    assert twice.best_epoch_ == once.best_epoch_
    assert twice.calibrated_
    assert not np.array_equal(once.predict(fh=[1]), twice.predict(fh=[1]))


def test_divergence_is_an_error_and_leaves_the_estimator_unfitted():
    model = small(learning_rate=1e30, max_epochs=5)
    with pytest.raises(TrainingError, match="Lower learning_rate"):
        model.fit(hourly())
    assert not model.is_fitted


def test_weights_that_break_in_the_last_step_are_noticed():
    with pytest.raises(TrainingError, match="Lower learning_rate"):
        small(learning_rate=1e36, max_epochs=1, steps_per_epoch=1).fit(hourly())

    model = small().fit(hourly())
    expected = model.predict(fh=[1, 9])
    model.update_steps, model.learning_rate = 1, 1e36  # set_params would reset the fit
    with pytest.raises(TrainingError, match="fine-tuning loss"):
        model.update(hourly(126).iloc[120:])
    pd.testing.assert_frame_equal(model.predict(fh=[1, 9]), expected)


@pytest.mark.parametrize(("epochs_before", "is_fitted"), [(0, False), (2, True)])
def test_an_interrupt_leaves_the_best_weights_or_an_unfitted_estimator(monkeypatch, epochs_before, is_fitted):
    from xlstm_ts.training import loop

    calls = []

    def interrupted(*arguments, **options):
        calls.append(1)
        if len(calls) > epochs_before * 5 + 2:
            raise KeyboardInterrupt
        return original(*arguments, **options)

    original = loop.step
    monkeypatch.setattr(loop, "step", interrupted)
    model = small(validation_fraction=0.3, max_epochs=5)
    with pytest.raises(KeyboardInterrupt):
        model.fit(hourly(400))

    assert model.is_fitted == is_fitted
    if is_fitted:
        assert len(model.history_) == 3
        assert np.isfinite(model.predict(fh=[1, 2])).all(axis=None)


def test_verbose_shows_a_progress_bar(capsys):
    small(verbose=True).fit(hourly())
    assert "training" in capsys.readouterr().err


# Sessions: daily prices with holidays and no freq


def test_daily_prices_with_holidays_are_forecast_at_the_next_sessions(goog):
    model = small().fit(goog[:"2006"])

    forecast = model.predict(fh=range(1, 253))
    real = goog["2007"].index

    assert set(forecast.index[:252]) ^ set(real) <= {pd.Timestamp("2007-01-02"), forecast.index[251]}
    assert "Thursday of November" in str(model.calendar_)
    absolute = model.predict(fh=real[1:4])
    np.testing.assert_array_equal(absolute, forecast.loc[real[1:4]])
    with pytest.raises(DataError, match=r"2007-01-06.*not a trading session"):
        model.predict(fh=pd.DatetimeIndex(["2007-01-06"]))


def test_update_predict_works_on_prices_with_holidays(goog):
    from sktime.split import ExpandingWindowSplitter

    model = small().fit(goog[:"2006"])
    new = goog["2007-01":"2007-02"]
    cv = ExpandingWindowSplitter(fh=[1], initial_window=5, step_length=5)

    got = model.update_predict(new, cv=cv, update_params=False)

    loop = copy.deepcopy(model)
    for rows, _ in cv.split(new):
        expected = loop.update(new.iloc[rows], update_params=False).predict(fh=[1])
        assert got.loc[expected.index[0]] == pytest.approx(expected.iloc[0], rel=1e-6)
        assert expected.index[0] == new.index[rows[-1] + 1]


def test_a_calendar_given_by_the_user_wins(goog):
    model = small(calendar="B").fit(goog[:"2006"])

    assert model.predict(fh=[1]).index[0] == pd.Timestamp("2007-01-01")


def test_sessions_keep_their_time_zone(goog):
    y = goog[:"2006"].tz_localize("America/New_York")

    forecast = small().fit(y).predict(fh=[1, 60])

    assert str(forecast.index.tz) == "America/New_York"
    assert forecast.index[1].strftime("%H:%M") == "00:00"


# What bad input gets


def bad_frames():
    y = hourly(40)
    unsorted = pd.concat([y.iloc[20:], y.iloc[:20]])
    infinite, alone = y.copy(), y * np.nan
    infinite.iloc[7], alone.iloc[3] = np.inf, 1.0
    return {
        "infinite": (infinite, DataError, r"'station 0' is infinite at 2024-01-01 07"),
        "text": (y.astype(str), DataTypeError, "expected real numbers"),
        "complex": (y.astype(complex), DataTypeError, "complex128"),
        "duplicate times": (pd.concat([y, y.iloc[[3]]]).sort_index(), DataError, "2024-01-01 03:00:00 stands twice"),
        "unsorted": (unsorted, DataError, "2024-01-01 00:00:00 comes after a later one"),
        "gap": (y.drop(y.index[9]), DataError, "2024-01-01 08:00:00 is followed by 2024-01-01 10:00:00"),
        "all missing": (y * np.nan, DataError, r"observed values in series 'station 0': 0; at least 2"),
        "one value": (alone, DataError, r"observed values in series 'station 0': 1"),
        "one row": (y.iloc[:1], DataError, "at least 2"),
        "empty": (y.iloc[:0], DataError, "empty"),
    }


@pytest.mark.parametrize("kind", bad_frames())
def test_bad_series_get_one_typed_error_before_training(kind, monkeypatch):
    from xlstm_ts.training import fitting

    monkeypatch.setattr(fitting, "train", lambda *a, **k: pytest.fail("training had begun"))
    y, error, message = bad_frames()[kind]
    with pytest.raises(error, match=message) as caught:
        small().fit(y)
    assert str(caught.value).startswith("XLSTMForecaster.fit:")


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"horizon": 0}, ParameterError, "horizon=0"),
        ({"context_length": 0}, ParameterError, "context_length=0"),
        ({"context_length": 2.5}, ParameterError, "context_length=2.5"),
        ({"backbone": "lstm"}, ParameterError, "backbone='lstm'"),
        ({"layout": "xyz"}, ParameterError, "layout='xyz'"),
        ({"hidden_size": 9}, ParameterError, "num_heads=2"),
        ({"loss": "huberr"}, ParameterError, "loss='huberr'"),
        ({"dropout": 1.5}, ParameterError, "dropout=1.5"),
        ({"quantile_levels": (0.1, 0.5)}, ParameterError, "symmetric around 0.5"),
        ({"quantile_levels": (0.0, 0.5, 1.0)}, ParameterError, "0 < level < 1"),
        ({"learning_rate": -1}, ParameterError, "learning_rate=-1"),
        ({"max_epochs": 0}, ParameterError, "max_epochs=0"),
        ({"batch_size": 0}, ParameterError, "batch_size=0"),
        ({"validation_fraction": 1.0}, ParameterError, r"validation_fraction=1\.0"),
        ({"patience": 0}, ParameterError, "patience=0"),
        ({"device": "tpu9"}, BackendError, "device='tpu9'"),
        ({"calendar": 3}, (ParameterError, DataError), "calendar"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_impossible_parameters_are_named_before_training(changes, error, message, monkeypatch):
    from xlstm_ts.training import fitting

    monkeypatch.setattr(fitting, "train", lambda *a, **k: pytest.fail("training had begun"))
    with pytest.raises(error, match=message):
        small(**changes).fit(hourly())


def test_new_data_must_fit_the_series(fitted):
    model = copy.deepcopy(fitted)
    y = hourly(126).iloc[120:]
    with pytest.raises(DataError, match="is not a step of the fitted series"):
        model.update(y.set_axis(y.index + pd.Timedelta(minutes=7)))
    with pytest.raises(DataError, match=r"fitted on \['station 0'\]"):
        copy.deepcopy(fitted).update(y.assign(other=1.0))


def test_an_outlier_beyond_float32_leaves_forecasts_finite(fitted):
    model = copy.deepcopy(fitted)
    new = hourly(126).iloc[120:].copy()
    new.iloc[2] = 1e40

    forecast = model.update(new, update_params=False).predict_interval(fh=[1, 9], coverage=0.9)

    assert np.isfinite(forecast.to_numpy()).all()


# Faults that were found, and stay mended


@pytest.mark.parametrize("loss", ["quantile", "mse", "student_t"])
@pytest.mark.parametrize("rows", [*range(2, 14), 20, 40])
def test_short_series_get_sane_forecasts(rows, loss):
    rng = np.random.default_rng(rows)
    y = pd.Series(10 + 0.3 * rng.normal(size=rows))

    model = small(loss=loss, max_epochs=3).fit(y)
    forecast = model.predict(fh=[1, 4, 8])
    interval = model.predict_interval(fh=[1, 4, 8], coverage=0.9)

    assert (forecast - y.mean()).abs().max() < 10 * 0.3
    assert (interval.iloc[:, 1] - interval.iloc[:, 0]).max() < 20 * 0.3
    point, lower, upper = (values.to_numpy()[:2] for values in (forecast, interval.iloc[:, 0], interval.iloc[:, 1]))
    assert ((lower <= point) & (point <= upper)).all()


def test_a_sparse_series_gets_a_sane_interval():
    y = pd.Series(10 + 0.3 * np.random.default_rng(0).normal(size=300))
    y[y.index % 10 != 0] = np.nan

    interval = small().fit(y).predict_interval(fh=[1, 8], coverage=0.9)

    assert interval.to_numpy().min() > 4
    assert interval.to_numpy().max() < 16


def test_values_that_all_lie_in_the_held_out_part_are_learned_from_all_the_same():
    y = pd.Series(10 + np.random.default_rng(0).normal(size=150))
    y[:130] = np.nan

    with pytest.warns(ShortSeriesWarning):
        forecast = small(validation_fraction=0.2).fit(y).predict(fh=[1])

    assert forecast.iloc[0] == pytest.approx(10, abs=3)


@pytest.mark.parametrize("loss", ["quantile", "mae", "student_t"])
def test_a_series_that_begins_to_move_in_its_held_out_end_gets_intervals_of_that_end(loss):
    rng = np.random.default_rng(0)
    y = pd.Series(0.0, index=range(300))
    y[240:] = rng.integers(0, 6, size=60)  # zeros, then rain

    with pytest.warns(ShortSeriesWarning, match="only a constant.*all 300 rows"):
        model = small(validation_fraction=0.2, loss=loss).fit(y)

    interval = model.predict_interval(fh=[1, 4], coverage=0.8).to_numpy()
    assert not model.calibrated_
    assert (interval[:, 1] - interval[:, 0] > 2).all(), "that of the values is 4 to 5"
    assert (interval[:, 1] - interval[:, 0] < 10).all()


def test_a_constant_beginning_of_one_series_of_many_changes_nothing_in_what_is_held_out():
    rng = np.random.default_rng(0)
    y = pd.DataFrame({"rain": np.r_[np.zeros(320), rng.integers(0, 6, size=80)], "load": rng.normal(size=400)})

    with pytest.warns(ShortSeriesWarning, match="'rain': all values but one at most are the same"):
        model = small(validation_fraction=0.2, max_epochs=1).fit(y)

    assert model.history_["valid_loss"].notna().all()


def test_values_too_far_apart_to_learn_from_are_an_error():
    y = pd.Series(np.nan, index=range(150))
    y.iloc[[0, -1]] = 1.0, 2.0
    with pytest.raises(DataError, match="nothing to learn from"):
        small().fit(y)


def test_time_spans_as_horizon_count_steps(fitted):
    got = fitted.predict(fh=pd.to_timedelta([1, 3], unit="h"))

    pd.testing.assert_frame_equal(got, fitted.predict(fh=[1, 3]))


def test_an_interrupt_while_training_on_all_keeps_the_first_network(monkeypatch):
    from xlstm_ts.training import loop

    y = hourly(400)
    expected = small(validation_fraction=0.3).fit(y).predict(fh=[1, 4])
    original, calls = loop.step, []

    def interrupted(*arguments, **options):
        calls.append(1)
        if len(calls) > 12:  # ten steps of the first training, then two of the second
            raise KeyboardInterrupt
        return original(*arguments, **options)

    monkeypatch.setattr(loop, "step", interrupted)
    model = small(validation_fraction=0.3, refit_on_all=True)
    with pytest.raises(KeyboardInterrupt):
        model.fit(y)

    assert model.is_fitted
    pd.testing.assert_frame_equal(model.predict(fh=[1, 4]), expected)


def test_an_update_that_fails_leaves_the_forecaster_as_it_was(fitted):
    model = copy.deepcopy(fitted)
    expected, new = model.predict(fh=[1]), hourly(126).iloc[120:]

    model.learning_rate = 1e35
    with pytest.raises(TrainingError):
        model.update(new)
    pd.testing.assert_frame_equal(model.predict(fh=[1]), expected)

    with pytest.raises(DataError):
        model.update(new.set_axis(new.index + pd.Timedelta(minutes=7)))
    assert model.cutoff[0] == hourly().index[-1]


def test_outliers_stay_finite_beyond_the_horizon_too():
    y = np.random.default_rng(0).normal(size=400)
    y[-1] = 1e30

    bands = small(validation_fraction=0.2).fit(pd.Series(y)).predict_quantiles(fh=range(1, 13), alpha=[0.01, 0.5, 0.99])

    assert np.isfinite(bands.to_numpy()).all()


def test_the_largest_floats_have_finite_quantiles_and_variance():
    y = pd.Series(np.random.default_rng(0).uniform(-1, 1, 100) * 1.7e308)
    model = small().fit(y)

    assert np.isfinite(model.predict_quantiles(fh=[1, 8], alpha=[0.001, 0.5, 0.999]).to_numpy()).all()
    assert np.isfinite(model.predict_var(fh=[1, 8]).to_numpy()).all()


def test_a_long_hole_between_sessions_counts_as_missing(goog):
    y = goog["2005":"2006"]
    model = small().fit(y[:-100])
    whole = copy.deepcopy(model)
    holed = y.copy()
    holed.iloc[-100:-5] = np.nan

    model.update(y[-5:], update_params=False)
    whole.update(holed[-100:], update_params=False)

    assert model.predict(fh=[1]).iloc[0] == pytest.approx(whole.predict(fh=[1]).iloc[0], rel=1e-6)
    with pytest.raises(DataError, match="another time of day"):
        model.update(pd.Series([1.0], index=[y.index[-1] + pd.Timedelta(hours=9)], name="close"))


def test_a_constant_series_that_moves_later_says_so():
    y = pd.Series(5.0, index=range(40))
    model = small().fit(y)
    with pytest.warns(UserWarning, match="was constant in training and now moves"):
        model.update(pd.Series([6.0, 7.0], index=[40, 41]), update_params=False)
    assert (model.predict(fh=[1, 2]) == 5.0).all()


def test_days_at_one_utc_hour_shown_in_a_zone_with_summer_time():
    y = pd.Series(np.sin(np.arange(200.0)), index=pd.date_range("2021-01-01", periods=200, freq="D", tz="UTC"))
    shown = y.tz_convert("Europe/Berlin").set_axis(pd.DatetimeIndex(y.tz_convert("Europe/Berlin").index, freq=None))

    expected, got = small().fit(y).predict(fh=[1, 120]), small().fit(shown).predict(fh=[1, 120])

    np.testing.assert_allclose(got, expected)
    assert (got.index == expected.index).all()
    assert str(got.index.tz) == "Europe/Berlin"


def test_residuals_of_the_training_series_need_no_data(fitted):
    residuals = fitted.predict_residuals()

    pd.testing.assert_frame_equal(residuals, fitted.predict_residuals(hourly()))
    assert len(residuals) == 120


@pytest.mark.parametrize(
    "index",
    [
        pd.date_range("2024-03-29", periods=40, freq="h", tz="Europe/Berlin"),
        pd.bdate_range("2024-01-01", periods=41).delete(20),
        pd.Index(range(0, 160, 4)),
    ],
    ids=["zone", "sessions", "steps of four"],
)
def test_residuals_do_not_depend_on_an_earlier_horizon(index):
    y = pd.Series(np.arange(40.0) % 7, index)
    model = small().fit(y)
    before = model.predict_residuals()
    in_sample = model.predict(fh=range(-39, 1))

    pd.testing.assert_series_equal(model.predict_residuals(), before)
    np.testing.assert_allclose(before, y - in_sample)


def test_update_predict_single_returns_the_kind_that_it_was_given():
    y = hourly(126)["station 0"]
    model = small().fit(y[:120])

    got = model.update_predict_single(y[120:], fh=[1, 2], update_params=False)

    assert isinstance(got, pd.Series)
    pd.testing.assert_series_equal(got, model.predict(fh=[1, 2]))


@pytest.mark.parametrize(
    ("moves", "warns"), [((100,), True), ((290,), True), ((100, 101), False), ((), False)], ids=str
)
def test_a_column_that_hardly_moves_where_it_is_learned_from_is_named(moves, warns):
    y = hourly(300, 2)
    y["station 1"] = 5.0
    y.iloc[list(moves), 1] = 6.0

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ShortSeriesWarning)
        small(validation_fraction=0.3, steps_per_epoch=1, max_epochs=1).fit(y)

    assert [str(one.message).startswith("XLSTMForecaster.fit: 'station 1': all values but one") for one in caught] == (
        [True] if warns else []
    )


@pytest.mark.parametrize(
    "changes",
    [{"layout": None}, {"num_blocks": 1.5}, {"quantile_levels": 0.5}, {"random_state": -1}, {"calibrate": "no"}],
    ids=str,
)
def test_parameters_of_a_wrong_kind_are_named(changes):
    with pytest.raises(ParameterError, match=next(iter(changes))):
        small(**changes).fit(hourly())


def test_auto_reads_the_shape_off_the_series():
    auto = {"context_length": "auto", "patch_length": "auto", "backbone": "auto", "max_epochs": 1, "steps_per_epoch": 1}

    hours = hourly(480, 2)
    days = hourly(480).set_index(pd.date_range("2024-01-01", periods=480, freq="D"))
    models = [small(**auto).fit(y) for y in (hours, days)]

    chosen = [[(one.config.backbone, one.config.context_length) for one in m.network_.members] for m in models]
    assert chosen == [[("mixer", 120), ("mixer", 80), ("mixer", 40)], [("patch", 96), ("patch", 64), ("patch", 32)]]


@pytest.mark.parametrize("name", ["context_length", "patch_length", "backbone"])
def test_another_word_than_auto_is_named(name):
    with pytest.raises(ParameterError, match=f"{name}='all'"):
        small(**{name: "all"}).fit(hourly())


# Several networks


def test_several_context_lengths_give_the_mean_of_the_networks_of_each():
    y = hourly(300, columns=2)
    model = small(context_length=(8, 24, 16), validation_fraction=0.3, calibrate=False).fit(y)

    assert [member.config.context_length for member in model.network_.members] == [24, 16, 8]
    history = model.history_
    assert history.loc[history.groupby("network")["valid_loss"].idxmin(), "epoch"].tolist() == model.best_epoch_
    assert history.groupby("network")["context_length"].first().tolist() == [24, 16, 8]
    alone = []
    for member in model.network_.members:
        one = copy.deepcopy(model)
        one.network_ = member
        alone.append(one.predict_quantiles(fh=[1, 3], alpha=[0.1, 0.5]))
    expected = sum(alone) / 3
    pd.testing.assert_frame_equal(model.predict_quantiles(fh=[1, 3], alpha=[0.1, 0.5]), expected, rtol=1e-5)
    first = small(context_length=24, validation_fraction=0.3, calibrate=False).fit(y)
    pd.testing.assert_frame_equal(alone[0], first.predict_quantiles(fh=[1, 3], alpha=[0.1, 0.5]))


def test_networks_of_one_length_differ_in_their_seeds():
    model = small(context_length=[8, 8]).fit(hourly(100))

    one, other = (member.state_dict() for member in model.network_.members)
    assert any(not torch.equal(one[name], other[name]) for name in one)


def test_what_is_read_of_several_networks_ends_before_an_origin():
    y = hourly(140)
    model = small(context_length=(8, 16)).fit(y[:120])
    changed = y.copy()
    changed.iloc[130:] += 100

    one, other = (model.predict_origins(each, origins=y.index[[119, 124, 129]], fh=[1, 4, 9]) for each in (y, changed))

    pd.testing.assert_frame_equal(one, other)
    for origin, rows in one.groupby("origin"):
        again = copy.deepcopy(model)
        later = y[120:].loc[:origin]
        again = again.update(later, update_params=False) if len(later) else again
        np.testing.assert_allclose(rows["point"], again.predict(fh=[1, 4, 9]).iloc[:, 0], rtol=1e-5)


def test_an_update_trains_every_network():
    y = hourly(130)
    model = small(context_length=(8, 16)).fit(y[:120])
    before = copy.deepcopy(model.network_)

    model.update(y[120:])

    for one, other in zip(before.members, model.network_.members, strict=True):
        assert any(not torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_an_interrupt_keeps_the_networks_that_are_there(monkeypatch):
    from xlstm_ts.training import fitting

    train, runs = fitting.train, []

    def interrupted(*arguments, **options):
        runs.append(1)
        if len(runs) == 2:
            raise KeyboardInterrupt
        return train(*arguments, **options)

    monkeypatch.setattr(fitting, "train", interrupted)
    model = small(context_length=(8, 16), validation_fraction=0.3)
    with pytest.raises(KeyboardInterrupt):
        model.fit(hourly(300))

    assert model.is_fitted
    assert model.network_.config.context_length == 16
    assert np.isfinite(model.predict(fh=[1, 2]).to_numpy()).all()


@pytest.mark.parametrize("lengths", [(), (8, 0), (8, "all"), (8, 2.5)], ids=str)
def test_impossible_context_lengths_are_named(lengths):
    with pytest.raises(ParameterError, match="context_length"):
        small(context_length=lengths).fit(hourly())
