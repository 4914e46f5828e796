"""Forecasts of many origins: equal to one by one, blind to what comes later, and pooled beyond the horizon."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import SMALL_NETWORK, generator
from scipy.stats import norm

from xlstm_ts.data.scaler import SeriesScaler
from xlstm_ts.data.windows import Windows
from xlstm_ts.inference import Predictor
from xlstm_ts.nn import ForecastNetwork
from xlstm_ts.training.calibration import ResidualQuantiles, WidthFactors

LEVELS = np.array([0.05, 0.25, 0.5, 0.75, 0.95])
ROWS = 60
BASE = replace(SMALL_NETWORK, channels=2, horizon=3, layout="sm", dropout=0.3, quantile_levels=tuple(LEVELS))
CASES = {
    "patch": (BASE, None),
    "stacked, calibrated": (replace(BASE, backbone="stacked"), WidthFactors(np.full((3, 2, 5), 1.5), np.ones((1, 2)))),
    "point": (replace(BASE, loss="mse"), ResidualQuantiles(np.broadcast_to(norm.ppf(LEVELS), (3, 2, 5)))),
}
every_case = pytest.mark.parametrize(("config", "calibration"), CASES.values(), ids=CASES)


def draw_series(missing=0.1, seed=0):
    draw = np.random.default_rng(seed)
    values = draw.normal(size=(ROWS, 2)).cumsum(0) * [1.0, 50.0] + [0.0, 1e6]
    values[draw.random(values.shape) < missing] = np.nan
    return values


def make_network(config, spread=0.15):
    """A network with random weights everywhere."""
    network = ForecastNetwork.create(config, generator=generator(), device=torch.device("cpu")).eval()
    draw = generator(1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=draw) * spread)
    return network


def make_predictor(config, calibration, series, **options):
    return OneSeries(Predictor(make_network(config, **options), LEVELS, calibration), SeriesScaler.fit(series))


class OneSeries:
    """A predictor for a single series in its own units."""

    def __init__(self, predictor, scaler):
        self.predictor, self.scaler, self.network = predictor, scaler, predictor.network

    def forecast(self, values, origins, steps, **options):
        config = self.network.config
        windows = Windows.of(self.scaler.forward(values), config.context_length, config.horizon, torch.device("cpu"))
        return self.predictor.forecast(windows, origins, steps, self.scaler, **options)


def assert_close(got, expected, scaler):
    """Points (S, C) and quantiles (S, C, Q) equal to 1e-6 of the spread of each channel."""
    for ours, theirs in zip(got, expected, strict=True):
        level, scale = (part if ours.ndim == 2 else part[:, None] for part in (scaler.level, scaler.scale))
        np.testing.assert_allclose((ours - level) / scale, (theirs - level) / scale, rtol=1e-6, atol=1e-6)


@every_case
@pytest.mark.parametrize("steps", [1, 3, 7])
def test_many_origins_at_once_equal_one_by_one(config, calibration, steps):
    series = draw_series()
    predictor = make_predictor(config, calibration, series)
    origins = np.array([0, 1, 5, 30, 58, ROWS])

    together = predictor.forecast(series, origins, steps)

    assert together.point.shape == (6, steps, 2)
    assert together.quantiles.shape == (6, steps, 2, 5)
    for j, origin in enumerate(origins):
        alone = predictor.forecast(series, np.array([origin]), steps)
        assert_close([part[j] for part in together], [part[0] for part in alone], predictor.scaler)


def test_more_origins_than_a_batch_equal_one_by_one():
    series = np.tile(draw_series(), (8, 1))
    predictor = make_predictor(BASE, None, series)
    origins = np.arange(len(series) + 1)

    together = predictor.forecast(series, origins, 4)

    for origin in (0, 41, 42, 43, 256, 300, len(series)):
        alone = predictor.forecast(series, np.array([origin]), 4)
        assert_close([part[origin] for part in together], [part[0] for part in alone], predictor.scaler)


@every_case
@pytest.mark.parametrize("steps", [3, 8])
def test_nothing_at_or_after_the_origin_is_read(config, calibration, steps):
    series = draw_series()
    predictor = make_predictor(config, calibration, series)
    origins = np.array([10, 20, 30])
    expected = predictor.forecast(series, origins, steps)
    for change in (np.nan, 1e12, -7.0):
        changed = series.copy()
        changed[30:] = change

        got = predictor.forecast(changed, origins, steps)

        np.testing.assert_array_equal(got.point, expected.point)
        np.testing.assert_array_equal(got.quantiles, expected.quantiles)


def test_the_last_value_before_the_origin_is_read():
    series = draw_series(missing=0.0)
    predictor = make_predictor(BASE, None, series)
    changed = series.copy()
    changed[29] += predictor.scaler.scale

    before, after = (predictor.forecast(values, np.array([30]), 1).point for values in (series, changed))

    assert (np.abs(after - before) > 0.01 * predictor.scaler.scale).all()


@every_case
def test_the_value_at_a_step_is_the_same_whatever_steps_are_asked_for(config, calibration):
    series = draw_series()
    predictor = make_predictor(config, calibration, series)
    origin = np.array([ROWS])
    longest = predictor.forecast(series, origin, 11)

    for steps in range(1, 11):
        got = predictor.forecast(series, origin, steps)
        np.testing.assert_array_equal(got.point, longest.point[:, :steps])
        np.testing.assert_array_equal(got.quantiles, longest.quantiles[:, :steps])


@every_case
def test_quantiles_never_cross_on_any_block(config, calibration):
    series = draw_series()

    forecast = make_predictor(config, calibration, series).forecast(series, np.arange(0, ROWS + 1, 7), 10)

    assert np.isfinite(forecast.quantiles).all()
    assert (np.diff(forecast.quantiles) >= 0).all()


def test_the_point_forecast_is_the_median_of_the_quantiles():
    series = draw_series()

    forecast = make_predictor(BASE, None, series).forecast(series, np.array([20, ROWS]), 7)

    np.testing.assert_array_equal(forecast.point, forecast.quantiles[..., 2])


def test_a_point_network_forecasts_its_points_and_rolls_along_them():
    config, calibration = CASES["point"]
    series = draw_series()
    lopsided = ResidualQuantiles(calibration.offsets + 5.0)

    plain, shifted = (
        make_predictor(config, offsets, series).forecast(series, np.array([ROWS]), 7)
        for offsets in (calibration, lopsided)
    )

    np.testing.assert_array_equal(plain.point, shifted.point)
    assert (shifted.quantiles[:, :3] > plain.quantiles[:, :3]).all()


@every_case
def test_a_context_with_nothing_observed_gives_the_training_distribution(config, calibration):
    series = draw_series()
    predictor = make_predictor(config, calibration, series)
    unseen = series.copy()
    unseen[20:28, 0] = np.nan

    forecast = predictor.forecast(unseen, np.array([0, 28]), 3)

    scaler = predictor.scaler
    expected = scaler.level[:, None] + scaler.scale[:, None] * norm.ppf(LEVELS)
    np.testing.assert_allclose(forecast.point[0], np.broadcast_to(scaler.level, (3, 2)), rtol=1e-12)
    np.testing.assert_allclose(forecast.quantiles[0], np.broadcast_to(expected, (3, 2, 5)), rtol=1e-12)
    np.testing.assert_allclose(forecast.quantiles[1, :, 0], np.broadcast_to(expected[0], (3, 5)), rtol=1e-12)
    assert not np.allclose(forecast.quantiles[1, :, 1], expected[1])


def test_calibration_widens_every_block():
    series = draw_series()
    narrow, wide = (
        make_predictor(BASE, WidthFactors(np.full((3, 2, 5), factor), np.ones((1, 2))), series)
        .forecast(series, np.array([ROWS]), 7)
        .quantiles
        for factor in (1.0, 2.0)
    )

    ratio = np.ptp(wide, axis=-1) / np.ptp(narrow, axis=-1)
    np.testing.assert_allclose(ratio[:, :3], 2.0, rtol=1e-6)
    assert (ratio[:, 3:] > 1.3).all()


@pytest.mark.parametrize("steps", [3, 7])
def test_factors_of_each_origin_equal_a_calibration_with_them(steps):
    series, origins = draw_series(), np.array([20, 25, ROWS])
    factors = np.random.default_rng(0).uniform(0.5, 2, (3, 3, 2, 5))
    predictor = make_predictor(BASE, WidthFactors(np.ones((3, 2, 5)), np.ones((1, 2))), series)

    together = predictor.forecast(series, origins, steps, factors=factors)

    for j, origin in enumerate(origins):
        alone = make_predictor(BASE, WidthFactors(factors[j], np.ones((1, 2))), series)
        expected = alone.forecast(series, np.array([origin]), steps).quantiles[0]
        np.testing.assert_allclose(together.quantiles[j], expected, rtol=1e-5)


def test_intervals_of_an_untrained_network_grow_from_block_to_block_as_of_a_random_walk():
    config = replace(BASE, horizon=1, context_length=200, patch_length=8, channels=1)
    network = ForecastNetwork.create(config, generator=generator(), device=torch.device("cpu")).eval()
    series = np.random.default_rng(0).normal(size=(200, 1))
    predictor = OneSeries(Predictor(network, LEVELS, None), SeriesScaler.fit(series))

    forecast = predictor.forecast(series, np.array([200]), 4)

    # Repeats the last value with the spread of its window, which a few more steps hardly move.
    spread = np.ptp(forecast.quantiles[0, :, 0], axis=-1)
    np.testing.assert_allclose(spread / spread[0], np.sqrt([1, 2, 3, 4]), rtol=0.1)
    np.testing.assert_allclose(forecast.point[0, :, 0], series[-1, 0], atol=0.15)


def test_a_constant_channel_is_forecast_exactly():
    series = draw_series(missing=0.0)
    series[:, 1] = 0.1

    forecast = make_predictor(BASE, None, series).forecast(series, np.array([0, 9, ROWS]), 7)

    assert (forecast.point[..., 1] == 0.1).all()
    assert (forecast.quantiles[..., 1, :] == 0.1).all()


def test_forecasting_changes_nothing():
    series = draw_series()
    predictor = make_predictor(BASE, None, series)
    weights = {name: value.clone() for name, value in predictor.network.state_dict().items()}
    copy, generator_before = series.copy(), torch.get_rng_state()

    expected = predictor.forecast(series, np.array([ROWS]), 7)
    got = predictor.forecast(series, np.array([ROWS]), 7)

    assert not predictor.network.training
    assert all(torch.equal(weights[name], value) for name, value in predictor.network.state_dict().items())
    assert all(parameter.grad is None for parameter in predictor.network.parameters())
    assert torch.equal(torch.get_rng_state(), generator_before)
    np.testing.assert_array_equal(series, copy)
    np.testing.assert_array_equal(got.quantiles, expected.quantiles)
