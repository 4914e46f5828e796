"""The mean of several networks: each reads its own end of the context, and quantiles are averaged."""

import re
from dataclasses import replace

import pytest
import torch
from helpers import SMALL_NETWORK, generator, normal

from xlstm_ts.errors import ParameterError
from xlstm_ts.nn import ForecastNetwork
from xlstm_ts.nn.average import NetworkAverage, members_of

KNOWN = (True, False)
SHORT = replace(SMALL_NETWORK, known=KNOWN)
LONG = replace(SHORT, context_length=12, backbone="stacked")


def make(config, seed):
    network = ForecastNetwork.create(config, generator=generator(seed), device=torch.device("cpu")).double().eval()
    draw = generator(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(0.4 * torch.randn(parameter.shape, generator=draw, dtype=torch.float64))
    return network


def context(steps=12, batch=3):
    observed = torch.rand(batch, steps, 1, generator=generator(5)) < 0.8
    return {
        "values": normal(batch, steps, 1, seed=1),
        "observed": observed,
        "covariates": normal(batch, steps, 2, seed=2),
        "future": normal(batch, 2, 1, seed=3),
    }


@pytest.mark.parametrize("loss", ["quantile", "student_t", "mae"])
def test_the_forecast_is_the_mean_of_what_each_member_says_of_its_end_of_the_context(loss):
    members = [make(replace(config, loss=loss), seed) for seed, config in enumerate((SHORT, LONG, SHORT))]
    average, given = NetworkAverage.of(members), context()

    got, state = average(**given)

    cut = given | {name: given[name][:, -8:] for name in ("values", "observed", "covariates")}
    read = [member(**part) for member, part in zip(members, (cut, given, cut), strict=True)]
    expected = sum(member.quantiles(forecast) for member, (forecast, _) in zip(members, read, strict=True)) / 3
    torch.testing.assert_close(average.quantiles(got), expected)
    assert (got.diff(dim=-1) >= 0).all()
    torch.testing.assert_close(state.scale.scale, read[1][1].scale.scale)
    assert average.config == members[1].config
    assert members_of(average) == members
    assert members_of(members[0]) == [members[0]]


def test_gradients_reach_every_member():
    average = NetworkAverage.of([make(SHORT, 0), make(LONG, 1)])

    average(**context())[0].square().sum().backward()

    assert all(parameter.grad is not None and parameter.grad.any() for parameter in average.parameters())


def test_members_have_to_forecast_the_same():
    with pytest.raises(ParameterError, match=re.escape("horizon differs, {")):
        NetworkAverage([SHORT, replace(LONG, horizon=3)])
    with pytest.raises(ParameterError, match="expected one network or more"):
        NetworkAverage([])


def test_a_state_is_refused():
    average = NetworkAverage.of([make(SHORT, 0)])

    with pytest.raises(ParameterError, match="a state cannot be carried"):
        average(**context(), carry=True)
