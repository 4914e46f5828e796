"""The starting point: the ridge regression that numpy finds, and the quantiles of what it leaves over."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import SMALL_NETWORK, generator

from xlstm_ts.data.windows import Windows
from xlstm_ts.nn import ForecastNetwork
from xlstm_ts.nn.scaling import SCALE_FLOOR, instance_scale
from xlstm_ts.training import warm_start as module
from xlstm_ts.training.loop import evaluate
from xlstm_ts.training.warm_start import PENALTIES, warm_start

CPU = torch.device("cpu")
LEVELS = (0.1, 0.25, 0.5, 0.75, 0.9)
BASE = replace(SMALL_NETWORK, horizon=3, quantile_levels=LEVELS)
NONE = np.arange(0)


def make_network(**changes):
    return ForecastNetwork.create(replace(BASE, **changes), generator=generator(), device=CPU).eval()


def windows_of(series, network):
    series = series if series.ndim == 2 else series[:, None]
    return Windows.of((series - np.nanmean(series, 0)) / np.nanstd(series, 0), 8, network.config.horizon, CPU)


def autoregression(rows, seed=0):
    """A noiseless series that is linear in its past: two sines."""
    phases = np.random.default_rng(seed).uniform(0, 6, 2)
    t = np.arange(rows)
    return np.sin(2 * np.pi * t / 9.3 + phases[0]) + 0.5 * np.sin(2 * np.pi * t / 4.1 + phases[1])


def random_walk(rows, seed=0, channels=1):
    return np.random.default_rng(seed).normal(size=(rows, channels)).cumsum(0)


def regression_rows(windows, origins, stop, power=0.5):
    """What the regression sees, computed the slow way: windows seen from their last value, divided by a power
    of their scale.
    """
    inputs, targets = [], []
    for origin in origins:
        batch = windows.batch(np.array([origin]), stop)
        context, target = batch.context[0, :, 0].double().numpy(), batch.target[0, :, 0].double().numpy()
        scale = instance_scale(batch.context, batch.context_observed).scale.item()
        inputs.append(np.where(batch.context_observed[0, :, 0], (context - context[-1]) / scale**power, 0))
        targets.append((target - context[-1]) / scale**power)
    return np.array(inputs), np.array(targets)


def test_with_hardly_any_penalty_the_skip_is_the_least_squares_solution():
    network = make_network()
    windows = windows_of(autoregression(150) + 0.3 * np.random.default_rng(1).normal(size=150), network)
    origins = np.arange(8, 100)

    used = warm_start(network, windows, origins, stop=150, valid_origins=NONE, penalty=1e-10)

    inputs, targets = regression_rows(windows, origins, 150)
    expected, *_ = np.linalg.lstsq(inputs, targets, rcond=None)
    assert used == 1e-10
    # The last column of the inputs is 0 by construction: both give it no weight.
    np.testing.assert_allclose(network.skip_weight.detach(), expected.T, atol=2e-4)


def test_a_noiseless_autoregression_is_continued_exactly():
    network = make_network()
    series = autoregression(200)
    windows = windows_of(series, network)

    warm_start(network, windows, np.arange(8, 130), stop=132, valid_origins=np.arange(132, 190), penalty=1e-9)

    batch = windows.batch(np.arange(150, 190), 200)
    with torch.no_grad():
        forecast, _ = network(batch.context, batch.context_observed)
    torch.testing.assert_close(forecast[..., 2], batch.target, rtol=0, atol=1e-2)


@pytest.mark.parametrize("penalty", [0.01, 1.0, 100.0])
def test_the_penalty_is_relative_to_the_mean_variance_of_the_inputs(penalty):
    network = make_network()
    windows = windows_of(random_walk(150), network)
    origins = np.arange(8, 100)

    warm_start(network, windows, origins, stop=150, valid_origins=NONE, penalty=penalty)

    inputs, targets = regression_rows(windows, origins, 150)
    moment = inputs.T @ inputs / len(inputs)
    ridge = moment + penalty * np.trace(moment) / 8 * np.eye(8)
    expected = np.linalg.solve(ridge, inputs.T @ targets / len(inputs))
    np.testing.assert_allclose(network.skip_weight.detach(), expected.T, atol=1e-5)


def test_a_learnable_series_gets_a_small_penalty():
    network = make_network()

    used = warm_start(
        network,
        windows_of(autoregression(200), network),
        np.arange(1, 130),
        stop=132,
        valid_origins=np.arange(132, 190),
    )

    assert used == min(PENALTIES)
    assert network.skip_weight.abs().max() > 0.1


@pytest.mark.parametrize("seed", range(5))
def test_on_a_random_walk_the_start_is_no_worse_than_the_last_value(seed):
    network = make_network(loss="mae")
    windows = windows_of(random_walk(400, seed), network)
    valid = np.arange(300, 397)

    warm_start(network, windows, np.arange(1, 298), stop=300, valid_origins=valid)

    batch = windows.batch(valid, 400)
    with torch.no_grad():
        forecast, _ = network(batch.context, batch.context_observed)
    ours = (forecast[..., 0] - batch.target).abs().mean()
    last_value = (batch.context[:, -1:] - batch.target).abs().mean()
    assert ours <= last_value * (1 + 1e-6)


def test_a_walk_whose_past_misleads_gets_no_weights_at_all():
    """In training a rise is followed by a rise, in validation by a fall: the last value is the best there is."""
    draw = np.random.default_rng(0).normal(size=400)
    steps = np.empty(400)
    steps[0] = draw[0]
    for t in range(1, 400):
        steps[t] = (0.8 if t < 300 else -0.8) * steps[t - 1] + draw[t]
    network = make_network()

    used = warm_start(
        network,
        windows_of(steps.cumsum(), network),
        np.arange(1, 298),
        stop=300,
        valid_origins=np.arange(310, 397),
    )

    assert used == float("inf")
    assert not network.skip_weight.any()


def test_without_held_out_windows_and_penalty_there_are_no_weights():
    network = make_network()

    used = warm_start(network, windows_of(autoregression(100), network), np.arange(1, 97), stop=100, valid_origins=NONE)

    assert used == float("inf")
    assert not network.skip_weight.any()


@pytest.mark.parametrize("backbone", ["patch", "stacked"])
@pytest.mark.parametrize("penalty", [float("inf"), 0.1], ids=["last value", "ridge"])
@pytest.mark.parametrize("scale", [1.0, 1000.0], ids=["walk", "jumps"])
def test_the_head_starts_at_the_empirical_quantiles_of_the_residuals(backbone, penalty, scale):
    series = random_walk(200)
    series[150:] += scale  # a jump that flat windows before it see as thousands of their own units
    series[100:150] = series[100]
    network = make_network(backbone=backbone)
    windows, origins = windows_of(series, network), np.arange(8, 150)

    warm_start(network, windows, origins, stop=160, valid_origins=NONE, penalty=penalty)

    inputs, targets = regression_rows(windows, origins, 160, power=1)
    residuals = targets - inputs @ network.skip_weight.detach().double().numpy().T
    moving = instance_scale(*windows.contexts(origins)).scale.flatten() > 1.5 * SCALE_FLOOR  # flat windows do not count
    residuals = residuals[moving.numpy()] if moving.any() else residuals
    expected = np.quantile(residuals, LEVELS, axis=0).T  # [L, Q]
    with torch.no_grad():
        said = network.head(torch.randn(1, 1, 8, generator=generator()))[0, :, 0].double().numpy()
    assert np.isfinite(said).all()
    size = np.abs(expected).max()
    np.testing.assert_allclose(said, expected, rtol=1e-4, atol=2e-3 + 1e-4 * size)  # equal ones start 1e-3 apart


def test_the_share_of_training_targets_below_each_starting_quantile_is_its_level():
    network = make_network()
    windows, origins = windows_of(random_walk(600), network), np.arange(8, 590)

    warm_start(network, windows, origins, stop=600, valid_origins=np.arange(400, 590))

    batch = windows.batch(origins, 600)
    with torch.no_grad():
        quantiles, _ = network(batch.context, batch.context_observed)
    below = (batch.target[..., None] < quantiles).double().mean(0)[:, 0]
    np.testing.assert_allclose(below, np.broadcast_to(LEVELS, (3, 5)), atol=0.005)


def test_channels_share_quantiles_in_the_patch_backbone_and_have_their_own_in_the_stacked_one():
    series = random_walk(300, channels=2)
    series[:, 1] = np.random.default_rng(1).normal(size=300)  # noise jumps further from its last value than a walk
    spreads = {}
    for backbone in ("patch", "stacked"):
        network = make_network(backbone=backbone, channels=2)
        warm_start(network, windows_of(series, network), np.arange(8, 290), stop=300, valid_origins=NONE)
        with torch.no_grad():
            said = network.head(torch.zeros(1, network.backbone.groups, 8))[0, 0]  # [C, Q]
        spreads[backbone] = said[:, -1] - said[:, 0]

    assert torch.equal(spreads["patch"][0], spreads["patch"][1])
    assert spreads["stacked"][1] > 1.3 * spreads["stacked"][0]
    assert spreads["stacked"][0] < spreads["patch"][0] < spreads["stacked"][1]


def test_the_start_is_better_than_the_untrained_network():
    network = make_network()
    windows = windows_of(autoregression(300) + 0.1 * np.random.default_rng(1).normal(size=300), network)
    valid = np.arange(200, 297)
    untrained = evaluate(network, windows, valid)

    warm_start(network, windows, np.arange(1, 198), stop=200, valid_origins=valid)

    assert evaluate(network, windows, valid) < 0.5 * untrained


def test_a_point_network_gets_the_skip_and_keeps_its_head():
    network = make_network(loss="mae")

    warm_start(
        network,
        windows_of(autoregression(200), network),
        np.arange(1, 130),
        stop=132,
        valid_origins=np.arange(132, 190),
    )

    assert network.skip_weight.any()
    assert not network.head.head_bias.any()


def test_without_the_skip_the_head_gets_the_quantiles_of_the_scaled_targets():
    network = make_network(linear_skip=False)
    windows, origins = windows_of(random_walk(200), network), np.arange(8, 190)

    used = warm_start(network, windows, origins, stop=200, valid_origins=np.arange(150, 190))

    batch = windows.batch(origins, 200)
    scale = instance_scale(batch.context, batch.context_observed)
    targets = ((batch.target - scale.loc) / scale.scale)[..., 0].double().numpy()
    with torch.no_grad():
        said = network.head(torch.zeros(1, 1, 8))[0, :, 0].numpy()
    assert used == float("inf")
    np.testing.assert_allclose(said, np.quantile(targets, LEVELS, axis=0).T, atol=1e-4)


def test_missing_targets_and_targets_after_stop_are_left_out():
    series = random_walk(200)
    network, shorter = make_network(), make_network()
    windows = windows_of(series, network)
    changed = windows.values.clone()
    changed[150:] = 1e6
    masked = replace(windows, observed=windows.observed & (torch.arange(200) < 150)[:, None])

    warm_start(network, replace(windows, values=changed), np.arange(8, 150), stop=150, valid_origins=NONE, penalty=1.0)
    warm_start(shorter, masked, np.arange(8, 150), stop=200, valid_origins=NONE, penalty=1.0)

    assert torch.equal(network.skip_weight, shorter.skip_weight)
    assert torch.equal(network.head.head_bias, shorter.head.head_bias)
    assert network.head.head_bias.abs().max() < 100


def test_a_series_with_hardly_any_window_leaves_a_finite_network():
    network = make_network()
    windows = windows_of(np.array([1.0, 2.0, np.nan, 4.0]), network)

    warm_start(network, windows, np.array([1, 2, 3]), stop=4, valid_origins=NONE)

    assert all(torch.isfinite(parameter).all() for parameter in network.parameters())


def test_very_many_windows_are_thinned(monkeypatch):
    network, thinned = make_network(), make_network()
    windows = windows_of(random_walk(300), network)
    monkeypatch.setattr(module, "MAX_ROWS", 100)

    warm_start(network, windows, np.arange(1, 251), stop=300, valid_origins=NONE, penalty=0.1)
    warm_start(thinned, windows, np.arange(1, 251)[::3], stop=300, valid_origins=NONE, penalty=0.1)

    assert torch.equal(network.skip_weight, thinned.skip_weight)


@pytest.mark.parametrize("decomposition", [None, 3])
def test_the_linear_maps_inside_a_mixer_start_at_the_same_weights_as_the_skip(decomposition):
    network = make_network(backbone="mixer", decomposition=decomposition)
    windows = windows_of(random_walk(150), network)

    warm_start(network, windows, np.arange(8, 100), stop=150, valid_origins=NONE, penalty=0.1)

    assert len(network.linear_weights) == (2 if decomposition is None else 3)
    assert network.skip_weight.abs().max() > 1e-3
    assert all(torch.equal(weight, network.skip_weight) for weight in network.linear_weights)


def test_a_mixer_without_skip_starts_its_inner_map_at_the_same_weights_and_its_head_at_the_targets_themselves():
    windows = windows_of(random_walk(150), make_network())
    with_skip, without = (make_network(backbone="mixer", linear_skip=skip) for skip in (True, False))

    for network in (with_skip, without):
        warm_start(network, windows, np.arange(8, 100), stop=150, valid_origins=NONE, penalty=0.1)

    assert torch.equal(without.backbone.forecast_weight, with_skip.backbone.forecast_weight)
    targets = []
    for origin in range(8, 100):
        batch = windows.batch(np.array([origin]), 150)
        scale = instance_scale(batch.context, batch.context_observed)
        targets.append(((batch.target - scale.loc) / scale.scale)[0, :, 0].numpy())
    expected = np.quantile(np.array(targets), LEVELS, axis=0).T  # [L, Q]
    np.testing.assert_allclose(without.head(torch.zeros(1, 1, 16))[0, :, 0].detach(), expected, atol=1e-4)
