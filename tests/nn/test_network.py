"""The whole network: carried state, masking, independence of rows, equivariance, and how it is made."""

import itertools
import math
import re
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from helpers import SMALL_NETWORK, generator, normal
from hypothesis import given, settings
from hypothesis import strategies as st

from xlstm_ts.errors import ParameterError
from xlstm_ts.nn import ForecastNetwork, NetworkConfig
from xlstm_ts.nn.scaling import LocScale, instance_scale

LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)
BASE = replace(
    SMALL_NETWORK, channels=2, horizon=3, context_length=12, layout="sml", conv_width=3, quantile_levels=LEVELS
)
VARIANTS = {
    f"{backbone}, {'skip' if skip else 'no skip'}, {loss}": replace(
        BASE, backbone=backbone, linear_skip=skip, loss=loss
    )
    for backbone, skip, loss in itertools.product(["patch", "stacked", "mixer"], [True, False], ["quantile", "mse"])
} | {
    f"{backbone}, decomposed, student_t": replace(BASE, backbone=backbone, decomposition=2, loss="student_t")
    for backbone in ["patch", "stacked", "mixer"]
}
OUTPUTS = {"quantile": len(LEVELS), "student_t": 3, "mse": 1}
every_variant = pytest.mark.parametrize("config", VARIANTS.values(), ids=VARIANTS)
CPU = torch.device("cpu")


def make_network(config, seed=0, dtype=torch.float64, spread=0.4):
    """A network whose weights are all random, those that start at zero too."""
    network = ForecastNetwork.create(config, generator=generator(seed), device=CPU).to(dtype).eval()
    draw = generator(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=draw, dtype=torch.float64) * spread)
    return network


def draw_context(steps=12, batch=3, channels=2, dtype=torch.float64, seed=0):
    values = normal(batch, steps, channels, seed=seed, dtype=dtype)
    observed = torch.rand(values.shape, generator=generator(seed + 1)) < 0.8
    return values, observed


def untrained(config, seed=0):
    return ForecastNetwork.create(config, generator=generator(seed), device=CPU).eval()


@every_variant
def test_the_forecast_has_a_value_per_window_step_channel_and_level(config):
    forecast, _ = make_network(config)(*draw_context())

    assert forecast.shape == (3, 3, 2, OUTPUTS[config.loss])


@every_variant
@pytest.mark.parametrize("steps", [12, 17, 3], ids=["one context", "longer than the context", "shorter"])
def test_a_forecast_after_which_nothing_is_read_is_the_same(config, steps):
    network = make_network(config)
    values, observed = draw_context(steps)
    expected, before = network(values, observed)

    got, after = network(values, observed, carry=False)
    with torch.no_grad():
        without_gradients, _ = network(values, observed, carry=False)

    torch.testing.assert_close(got, expected, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(without_gradients, expected, rtol=1e-11, atol=1e-11)
    assert torch.equal(after.scale.scale, before.scale.scale)
    assert after.backbone is None


@every_variant
def test_a_state_that_is_given_is_read_even_if_none_is_wanted(config):
    network = make_network(config)
    values, observed = draw_context(12)
    _, state = network(values[:, :7], observed[:, :7])
    expected, _ = network(values[:, 7:], observed[:, 7:], state)

    got, _ = network(values[:, 7:], observed[:, 7:], state, carry=False)

    assert torch.equal(got, expected)


@every_variant
@pytest.mark.parametrize("steps", [12, 17], ids=["one context", "longer than the context"])
@pytest.mark.parametrize("cuts", [(4,), (8,), (1,), (6,), (11,), (1, 2, 3), (5, 6, 10)], ids=str)
def test_pieces_with_carried_state_equal_one_piece(config, steps, cuts):
    network = make_network(config)
    values, observed = draw_context(steps)
    scale = instance_scale(values, observed)
    whole, _ = network(values, observed, scale=scale)

    state = None
    pieces = zip(torch.tensor_split(values, cuts, 1), torch.tensor_split(observed, cuts, 1), strict=True)
    for piece, seen in pieces:
        forecast, state = network(piece, seen, state, scale=scale)

    torch.testing.assert_close(forecast, whole, rtol=1e-11, atol=1e-11)


@every_variant
def test_reading_an_unfinished_patch_does_not_move_the_state(config):
    """The forecast after each single step equals that of one piece which ends there."""
    network = make_network(config)
    values, observed = draw_context(12)
    scale = instance_scale(values, observed)

    state = None
    for t in range(12):
        forecast, state = network(values[:, t : t + 1], observed[:, t : t + 1], state, scale=scale)
        expected, _ = network(values[:, : t + 1], observed[:, : t + 1], scale=scale)
        torch.testing.assert_close(forecast, expected, rtol=1e-11, atol=1e-11)


@every_variant
@pytest.mark.parametrize("junk", [1.0, -3e38, 1e-40], ids=str)
def test_unobserved_values_never_matter(config, junk):
    network = make_network(config, dtype=torch.float32)
    values, observed = draw_context(dtype=torch.float32)
    forecast, _ = network(torch.where(observed, values, 0.0), observed)

    got, _ = network(torch.where(observed, values, junk), observed)

    assert torch.isfinite(forecast).all()
    assert torch.equal(got, forecast)


@every_variant
def test_whether_a_value_was_observed_does_matter(config):
    network = make_network(config)
    values, observed = draw_context()
    values = torch.where(observed, values, 0.0)
    scale = instance_scale(values, observed)

    got, _ = network(values, torch.ones_like(observed), scale=scale)

    assert not torch.allclose(got, network(values, observed, scale=scale)[0])


@every_variant
def test_a_batch_row_never_changes_when_its_neighbours_do(config):
    network = make_network(config, dtype=torch.float32)
    values, observed = draw_context(dtype=torch.float32)
    together, _ = network(values, observed)
    changed, hidden = values.clone(), observed.clone()
    changed[[0, 2]], hidden[0] = values[[2, 0]] * 1e4, False

    beside_others, _ = network(changed, hidden)
    alone, _ = network(values[1:2], observed[1:2])

    assert torch.equal(beside_others[1], together[1])
    torch.testing.assert_close(alone[0], together[1], rtol=1e-4, atol=1e-4)


def test_channels_of_the_patch_backbone_never_touch():
    network = make_network(replace(BASE, channels=3))
    values, observed = draw_context(channels=3)
    changed = values.clone()
    changed[..., 1] += 5 * normal(3, 12, seed=7)

    before, after = network(values, observed)[0], network(changed, observed)[0]

    torch.testing.assert_close(after[:, :, [0, 2]], before[:, :, [0, 2]], rtol=1e-13, atol=1e-13)
    assert not torch.allclose(after[:, :, 1], before[:, :, 1])


def test_channels_of_the_stacked_backbone_read_each_other():
    network = make_network(replace(BASE, backbone="stacked"))
    values, observed = draw_context()
    changed = values.clone()
    changed[..., 1] += normal(3, 12, seed=7)

    assert not torch.allclose(network(values, observed)[0][:, :, 0], network(changed, observed)[0][:, :, 0])


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    spread=st.sampled_from([0.1, 1.0, 10.0]),
    size=st.sampled_from([1e-3, 1.0, 1e4]),
    backbone=st.sampled_from(["patch", "stacked", "mixer"]),
    loss=st.sampled_from(["quantile", "student_t"]),
)
def test_quantiles_never_cross_for_any_weights(seed, spread, size, backbone, loss):
    network = make_network(replace(BASE, backbone=backbone, loss=loss), seed, torch.float32, spread)
    values, observed = draw_context(dtype=torch.float32, seed=seed)

    quantiles = network.quantiles(network(values * size, observed)[0])

    assert torch.isfinite(quantiles).all()
    assert (quantiles.diff(dim=-1) >= 0).all()


@every_variant
@settings(max_examples=20, deadline=None)
@given(a=st.floats(0.1, 1e5), b=st.floats(-1e5, 1e5))
def test_an_affine_map_of_the_context_maps_the_forecast_likewise(config, a, b):
    network = make_network(config)
    values, observed = draw_context()
    forecast = network.quantiles(network(values, observed)[0])

    mapped = network.quantiles(network(a * values + b, observed)[0])

    torch.testing.assert_close(mapped, a * forecast + b, rtol=1e-9, atol=1e-9 * (a + abs(b)))


@every_variant
@pytest.mark.parametrize("size", [1e4, -1e4])
def test_inputs_of_ten_thousand_give_finite_forecasts_and_gradients(config, size):
    network = make_network(config, dtype=torch.float32)
    values, observed = draw_context(dtype=torch.float32)
    for context in (values * size, torch.full_like(values, size)):
        network.zero_grad()

        forecast, _ = network(context, observed)
        forecast.square().mean().backward()

        assert torch.isfinite(forecast).all()
        assert all(torch.isfinite(p.grad).all() for p in network.parameters())


@every_variant
def test_a_context_with_nothing_observed_gives_a_finite_forecast(config):
    network = make_network(config, dtype=torch.float32)
    values, observed = draw_context(dtype=torch.float32)

    forecast, state = network(values, torch.zeros_like(observed))

    assert torch.isfinite(forecast).all()
    assert torch.equal(state.scale.scale, torch.ones(3, 1, 2))


@every_variant
def test_gradients_reach_every_parameter(config):
    network = make_network(config)

    forecast, _ = network(*draw_context())
    (forecast * normal(*forecast.shape, seed=3)).sum().backward()

    assert [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


@pytest.mark.parametrize("backbone", ["patch", "stacked", "mixer"])
@pytest.mark.parametrize("loss", ["quantile", "mae", "student_t"])
def test_an_untrained_network_repeats_the_last_observed_value(backbone, loss):
    config = replace(BASE, backbone=backbone, loss=loss)
    network = untrained(config)
    values, observed = draw_context(dtype=torch.float32)
    observed[1, -3:, 0] = False
    observed[1, -4, 0] = True
    last = torch.stack(
        [torch.stack([values[b, observed[b, :, c], c][-1] for c in range(2)]) for b in range(3)]
    )  # [B, C]

    forecast, state = network(values, observed)

    middle = forecast[..., LEVELS.index(0.5)] if config.loss == "quantile" else forecast[..., 0]
    torch.testing.assert_close(middle, last[:, None].expand(3, 3, 2), rtol=0, atol=1e-5)
    if config.loss == "quantile":
        widths = (forecast[..., -1] - forecast[..., 0]) / state.scale.scale
        torch.testing.assert_close(widths, torch.full_like(widths, 2 * 1.6448536), rtol=1e-5, atol=0)


def test_without_the_skip_an_untrained_network_says_the_level_of_the_window():
    network = untrained(replace(BASE, linear_skip=False, loss="mae"))
    values, observed = draw_context(dtype=torch.float32)

    forecast, state = network(values, observed)

    torch.testing.assert_close(forecast[..., 0], state.scale.loc.expand(3, 3, 2))


def test_the_linear_skip_weighs_the_context_as_seen_from_its_last_observed_value():
    config = replace(BASE, channels=1, loss="mae", horizon=2, context_length=4)
    network = untrained(config).double()
    with torch.no_grad():
        network.skip_weight.copy_(torch.tensor([[1.0, 10.0, 100.0, 1000.0], [0.0, 0.0, 0.0, 0.0]]))
    values = torch.tensor([3.0, 9.0, 5.0, 99.0], dtype=torch.float64).view(1, 4, 1)
    observed = torch.tensor([True, True, True, False]).view(1, 4, 1)

    forecast, _ = network(values, observed)

    # Relative to the last observed value, 5: -2, 4, 0 and nothing.
    assert forecast.flatten().tolist() == pytest.approx([5 + 1 * -2 + 10 * 4, 5])


def test_the_scale_that_is_given_is_used_and_a_state_keeps_its_own():
    network = make_network(BASE)
    values, observed = draw_context()
    given_scale = LocScale(torch.full((3, 1, 2), 5.0).double(), torch.full((3, 1, 2), 2.0).double())

    _, state = network(values[:, :6], observed[:, :6], scale=given_scale)
    _, later = network(values[:, 6:] * 100, observed[:, 6:], state)

    assert torch.equal(later.scale.loc, given_scale.loc)
    assert torch.equal(later.scale.scale, given_scale.scale)


@every_variant
def test_create_is_a_function_of_the_generator_alone(config):
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()  # noqa: NPY002
    first = ForecastNetwork.create(config, generator=generator(4), device=CPU)
    polluted = [torch.full((size,), math.nan) for size in (3, 64, 500, 4096) for _ in range(20)]
    del polluted  # freed memory that the next network may be given

    second = ForecastNetwork.create(config, generator=generator(4), device=CPU)
    other = ForecastNetwork.create(config, generator=generator(5), device=CPU)

    assert torch.equal(torch.get_rng_state(), torch_state)
    after = np.random.get_state()  # noqa: NPY002
    assert all(np.array_equal(a, b) for a, b in zip(after, numpy_state, strict=True))
    weights, again = first.state_dict(), second.state_dict()
    assert weights.keys() == again.keys()
    assert all(torch.isfinite(value).all() for value in weights.values())
    assert all(torch.equal(again[name], value) for name, value in weights.items())
    assert any(not torch.equal(other.state_dict()[name], value) for name, value in weights.items())


@every_variant
def test_create_sets_every_parameter(config, monkeypatch):
    """Memory full of NaN, as `to_empty` may find it: not one NaN is left."""
    to_empty = torch.nn.Module.to_empty

    def to_nan(self, **options):
        module = to_empty(self, **options)
        with torch.no_grad():
            for tensor in itertools.chain(module.parameters(), module.buffers()):
                tensor.fill_(math.nan)
        return module

    monkeypatch.setattr(torch.nn.Module, "to_empty", to_nan)

    network = ForecastNetwork.create(config, generator=generator(), device=CPU)

    assert all(torch.isfinite(value).all() for value in network.state_dict().values())


def test_a_network_made_directly_has_the_same_parts_as_one_that_was_created():
    direct, created = ForecastNetwork(BASE), untrained(BASE)

    shapes = {name: value.shape for name, value in direct.state_dict().items()}
    assert shapes == {name: value.shape for name, value in created.state_dict().items()}
    assert all(torch.isfinite(value).all() for value in direct.state_dict().values())
    assert all(not p.is_meta for p in created.parameters())


def test_a_config_is_made_again_from_its_plain_values():
    assert NetworkConfig(**asdict(BASE)) == BASE


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("channels", 0, "a whole number, 1 or above"),
        ("horizon", 0, "a whole number, 1 or above"),
        ("context_length", 0, "a whole number, 1 or above"),
        ("patch_length", -1, "a whole number, 1 or above"),
        ("num_heads", 0, "a whole number, 1 or above"),
        ("hidden_size", 8.0, "a whole number, 1 or above"),
        ("backbone", "mixed", "one of ('patch', 'stacked', 'mixer')"),
        ("loss", "hubert", "one of ('quantile', 'student_t', 'mae', 'mse', 'huber')"),
        ("decomposition", 1, "a whole number of steps, 2 or above, or None"),
        ("dropout", 1.0, "a number from 0 to below 1"),
        ("dropout", -0.1, "a number from 0 to below 1"),
        ("dropout", math.nan, "a number from 0 to below 1"),
        ("conv_width", -1, "a whole number, or 0 for no convolution"),
        ("quantile_levels", (), "increasing numbers between 0 and 1"),
        ("quantile_levels", (0.0, 0.5), "increasing numbers between 0 and 1"),
        ("quantile_levels", (0.5, 1.0), "increasing numbers between 0 and 1"),
        ("quantile_levels", (0.5, 0.5), "increasing numbers between 0 and 1"),
        ("quantile_levels", (0.9, 0.1), "increasing numbers between 0 and 1"),
        ("quantile_levels", (0.1, math.nan, 0.9), "increasing numbers between 0 and 1"),
        ("context_length", 13, "a multiple of patch_length=4"),
    ],
)
def test_an_impossible_value_is_named_with_what_is_expected(field, value, expected):
    with pytest.raises(ParameterError, match=re.escape(f"{field}={value!r} is impossible; expected {expected}")):
        replace(BASE, **{field: value})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layout": "xyz"}, "layout='xyz' is not a layout"),
        ({"num_blocks": 0}, "num_blocks=0; expected a positive number"),
        ({"hidden_size": 9}, "hidden_size: a width of 9 cannot be split over num_heads=2"),
    ],
    ids=str,
)
def test_an_impossible_stack_is_refused_before_anything_is_built(changes, message):
    with pytest.raises(ParameterError, match=re.escape(message)):
        replace(BASE, **changes)


@pytest.mark.parametrize("backbone", ["stacked", "mixer"])
def test_other_backbones_than_patch_take_any_context_length(backbone):
    assert replace(BASE, backbone=backbone, context_length=13).context_length == 13


def test_the_mixer_reads_a_learned_token_then_the_channels_and_the_same_flipped():
    """Written out for one channel and one block."""
    network = make_network(replace(BASE, backbone="mixer", channels=1, layout="s"))
    mixer, stack = network.backbone, network.backbone.stack
    values = normal(2, 12, 1)
    observed = torch.ones_like(values, dtype=torch.bool)
    observed[0, 3] = False
    values[0, 3] = 0.0

    features, _ = mixer(values, observed)

    linear = values[:, -1:, 0] + (values[..., 0] - values[:, -1:, 0]) * observed[..., 0] @ mixer.forecast_weight.T
    token = linear @ mixer.embed.weight.T + mixer.embed.bias
    token = token + (~observed[..., 0]).double() @ mixer.embed_missing.weight.T
    first = mixer.initial_tokens[0].expand(2, -1)
    view = stack(torch.stack([first, token], 1))[0][:, 1]
    flipped = stack(torch.stack([first, token], 1).flip(2))[0][:, 1]
    torch.testing.assert_close(features[:, 0], torch.cat([view, flipped], -1))


def test_a_channel_of_the_mixer_reads_those_before_it():
    network = make_network(replace(BASE, backbone="mixer"))
    values, observed = draw_context()
    changed = values.clone()
    changed[..., 1] += normal(3, 12, seed=7)

    before, after = network(values, observed)[0], network(changed, observed)[0]

    torch.testing.assert_close(after[:, :, 0], before[:, :, 0], rtol=1e-13, atol=1e-13)
    assert not torch.allclose(after[:, :, 1], before[:, :, 1])
