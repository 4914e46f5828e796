"""Covariates in the network: zero at the start, carried in pieces, blind to neighbours."""

from dataclasses import replace

import pytest
import torch
from helpers import SMALL_NETWORK, generator, normal

from xlstm_ts.nn import ForecastNetwork

KNOWN = (True, False, True)
CONFIGS = {
    name: replace(SMALL_NETWORK, channels=2, known=KNOWN, **changes)
    for name, changes in {
        "patch": {},
        "stacked": {"backbone": "stacked"},
        "mixer": {"backbone": "mixer"},
        "decomposed": {"backbone": "mixer", "decomposition": 3},
        "student_t": {"loss": "student_t"},
        "point": {"loss": "mse", "layout": "m"},
    }.items()
}
every_config = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)


def make(config, spread=0.2):
    network = ForecastNetwork.create(config, generator=generator(), device=torch.device("cpu")).double().eval()
    draw = generator(1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += torch.randn(parameter.shape, generator=draw, dtype=torch.float64) * spread
    return network


def draw(config, batch=3, seed=0):
    steps = config.context_length
    return {
        "values": normal(batch, steps, 2, seed=seed),
        "observed": torch.rand(batch, steps, 2, generator=generator(seed)) < 0.8,
        "covariates": normal(batch, steps, len(KNOWN), seed=seed + 1),
        "future": normal(batch, config.horizon, sum(KNOWN), seed=seed + 2),
    }


@every_config
def test_at_the_start_the_future_changes_nothing(config):
    network = ForecastNetwork.create(config, generator=generator(), device=torch.device("cpu")).double().eval()
    inputs = draw(config)

    expected, _ = network(**inputs)
    got, _ = network(**inputs | {"future": 100 * inputs["future"]})

    assert torch.equal(got, expected)


@every_config
@pytest.mark.parametrize("name", ["covariates", "future"])
def test_every_covariate_is_read(config, name):
    network, inputs = make(config), draw(config)
    expected, _ = network(**inputs)

    for feature in range(inputs[name].shape[-1]):
        changed = inputs[name].clone()
        changed[..., feature] += 1.0
        got, _ = network(**inputs | {name: changed})
        assert (got - expected).abs().amax((1, 2, 3)).min() > 1e-6


@every_config
def test_a_step_reads_no_covariate_of_another_step(config):
    network, inputs = make(config), draw(config)
    changed = inputs["future"].clone()
    changed[:, 1] += 5.0

    expected, _ = network(**inputs)
    got, _ = network(**inputs | {"future": changed})

    assert torch.equal(got[:, 0], expected[:, 0])
    assert not torch.equal(got[:, 1], expected[:, 1])


@every_config
@pytest.mark.parametrize("cut", [1, 4, 5])
def test_pieces_with_carried_state_equal_one_piece(config, cut):
    network, inputs = make(config), draw(config)
    whole, _ = network(**inputs)
    first = {name: inputs[name][:, :cut] for name in ("values", "observed", "covariates")}
    rest = {name: inputs[name][:, cut:] for name in ("values", "observed", "covariates")}
    _, state = network(**inputs)  # the scale of the whole window, as a stream would keep it

    _, before = network(**first, future=inputs["future"], scale=state.scale)
    got, _ = network(**rest, future=inputs["future"], state=before)

    torch.testing.assert_close(got, whole, rtol=1e-9, atol=1e-9)


@every_config
def test_a_batch_row_never_changes_when_its_neighbours_do(config):
    network, inputs, other = make(config), draw(config), draw(config, seed=9)
    mixed = {name: torch.cat([inputs[name][:1], other[name][1:]]) for name in inputs}

    expected, _ = network(**inputs)
    got, _ = network(**mixed)

    torch.testing.assert_close(got[:1], expected[:1], rtol=1e-12, atol=1e-12)


@every_config
def test_gradients_reach_every_parameter(config):
    network = make(config)

    forecast, _ = network(**draw(config))
    forecast.sin().sum().backward()

    assert [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


def test_quantiles_never_cross_whatever_the_covariates():
    config = CONFIGS["patch"]
    network, inputs = make(config, spread=1.0), draw(config)

    forecast, _ = network(**inputs | {"future": 1e3 * inputs["future"]})

    assert (forecast.diff(dim=-1) >= 0).all()
