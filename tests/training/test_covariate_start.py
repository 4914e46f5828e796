"""The regression of targets on covariates, beside that on the context, against one joint least squares."""

from dataclasses import replace

import numpy as np
import torch
from helpers import SMALL_NETWORK, generator

from xlstm_ts.data.windows import Windows
from xlstm_ts.nn import ForecastNetwork
from xlstm_ts.nn.covariates import horizon_features
from xlstm_ts.nn.linear import from_last_value
from xlstm_ts.training import covariate_start
from xlstm_ts.training import warm_start as warm_start_module
from xlstm_ts.training.covariate_start import start_effect
from xlstm_ts.training.warm_start import warm_start

CPU, ROWS, TRAIN = torch.device("cpu"), 400, 300
CONFIG = replace(SMALL_NETWORK, channels=2, known=(True, False))


def make_windows(noise=0.1):
    draw = np.random.default_rng(0)
    features = draw.normal(size=(ROWS + 2, 2)).astype(np.float32)
    walk = draw.normal(size=(ROWS, 2)).cumsum(0)
    values = noise * walk + features[:ROWS, :1] * [2.0, -1.0]
    windows, _ = Windows.of_many([values], 8, 2, CPU, ahead=2, features=[features], known=np.array([True, False]))
    return windows


def make_network(**changes):
    return ForecastNetwork.create(replace(CONFIG, **changes), generator=generator(), device=CPU)


def test_the_weights_are_those_of_a_joint_regression_on_context_and_covariates(monkeypatch):
    monkeypatch.setattr(covariate_start, "PENALTIES", (1e-9,))
    monkeypatch.setattr(covariate_start, "CONTEXT_PENALTY", 1e-9)
    windows, network = make_windows(), make_network()
    origins, valid = np.arange(8, TRAIN - 1), np.arange(TRAIN, ROWS - 1)

    start_effect(network, windows, origins, TRAIN, valid)

    batch = windows.batch(origins, TRAIN)
    inputs, anchor = from_last_value(batch.context, batch.context_observed)
    read = horizon_features(batch.covariates, batch.future)
    for channel in range(2):
        for step in range(2):
            joint = torch.cat([inputs[..., channel], read[:, step]], dim=1).double()
            target = (batch.target - anchor)[:, step, channel].double()
            expected = torch.linalg.lstsq(joint, target[:, None], driver="gelsd").solution[-3:, 0]
            got = network.effect.covariate_weight[step, channel].double()
            torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-3)


def test_the_effect_is_found_with_its_sign_and_size():
    network = make_network()

    start_effect(network, make_windows(), np.arange(8, TRAIN - 1), TRAIN, np.arange(TRAIN, ROWS - 1))

    future = network.effect.covariate_weight[:, :, 0]
    np.testing.assert_allclose(future.detach(), [[2, -1], [2, -1]], atol=0.1)
    assert network.effect.covariate_weight[:, :, 2].abs().max() < 0.1  # the second feature says nothing


def test_covariates_that_say_nothing_get_no_weights():
    draw = np.random.default_rng(1)
    features = draw.normal(size=(ROWS + 2, 2)).astype(np.float32)
    values = draw.normal(size=(ROWS, 2)).cumsum(0)
    windows, _ = Windows.of_many([values], 8, 2, CPU, ahead=2, features=[features], known=np.array([True, False]))
    network = make_network()

    start_effect(network, windows, np.arange(8, 60), 60, np.arange(60, ROWS - 1))

    assert network.effect.covariate_weight.abs().max() < 0.3


def test_without_held_out_windows_there_is_no_effect():
    network = make_network()

    start_effect(network, make_windows(), np.arange(8, TRAIN - 1), TRAIN, np.arange(0))

    assert not network.effect.covariate_weight.any()


def test_a_network_without_covariates_is_left_alone():
    network = make_network(known=())
    before = {name: value.clone() for name, value in network.state_dict().items()}

    start_effect(network, make_windows(), np.arange(8, TRAIN - 1), TRAIN, np.arange(TRAIN, ROWS - 1))

    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def test_an_effect_that_does_worse_beside_the_map_of_the_context_is_dropped(monkeypatch):
    def mislead(network, *_):
        network.effect.covariate_weight.fill_(5.0)

    windows, origins, valid = make_windows(), np.arange(8, TRAIN - 1), np.arange(TRAIN, ROWS - 1)
    kept, dropped, blind = make_network(), make_network(), make_network()
    warm_start(kept, windows, origins, stop=TRAIN, valid_origins=valid)
    monkeypatch.setattr(warm_start_module, "start_effect", lambda *_: None)
    warm_start(blind, windows, origins, stop=TRAIN, valid_origins=valid)
    monkeypatch.setattr(warm_start_module, "start_effect", mislead)
    warm_start(dropped, windows, origins, stop=TRAIN, valid_origins=valid)

    np.testing.assert_allclose(kept.effect.covariate_weight[:, :, 0].detach(), [[2, -1], [2, -1]], atol=0.1)
    assert not dropped.effect.covariate_weight.any()
    torch.testing.assert_close(dropped.skip_weight, blind.skip_weight, rtol=0, atol=0)
    torch.testing.assert_close(dropped.head.head_bias, blind.head.head_bias, rtol=0, atol=0)


def test_very_many_rows_are_thinned(monkeypatch):
    monkeypatch.setattr(covariate_start, "LARGEST_TABLE", 600)
    network = make_network()

    start_effect(network, make_windows(), np.arange(8, TRAIN - 1), TRAIN, np.arange(TRAIN, ROWS - 1))

    np.testing.assert_allclose(network.effect.covariate_weight[:, :, 0].detach(), [[2, -1], [2, -1]], atol=0.2)
