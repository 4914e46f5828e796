"""What every parameter starts from, and that nothing starts from anything else."""

import math

import pytest
import torch
from helpers import generator

from xlstm_ts.nn import MLSTM, SLSTM, BlockStack, initialise
from xlstm_ts.nn.layers import CausalConv, HeadwiseLinear


def test_a_parameter_without_a_rule_is_a_mistake_of_ours_and_named():
    module = torch.nn.Module()
    module.inner = torch.nn.Module()
    module.inner.mystery = torch.nn.Parameter(torch.ones(2))

    with pytest.raises(AssertionError, match=r"no rule for parameter 'inner\.mystery'"):
        initialise(module)


@pytest.mark.parametrize("hidden_size", [4, 6, 20])
def test_slstm_forgets_at_a_spread_of_time_scales_from_about_150_steps_to_one(hidden_size):
    bias = SLSTM(3, hidden_size, num_heads=2).gate_bias.detach()

    forget = torch.sigmoid(bias[1])
    scales = 1 / (1 - forget)

    assert scales[:, 0].tolist() == pytest.approx([149.4, 149.4], rel=1e-3)
    assert scales[:, -1].tolist() == pytest.approx([1.368, 1.368], rel=1e-3)
    assert (scales.diff(dim=1) < 0).all()
    assert torch.equal(bias[[0, 2, 3]], torch.zeros(3, 2, hidden_size // 2))


def test_mlstm_forget_biases_rise_from_3_to_6_over_the_heads_and_its_input_biases_are_small():
    memory = MLSTM(3, 16, num_heads=4).memory

    assert memory.memory_gate_bias[1].tolist() == [3.0, 4.0, 5.0, 6.0]
    assert 0 < memory.memory_gate_bias[0].abs().max() < 0.6
    assert not memory.memory_gate_weight.any()


def test_recurrent_weights_and_biases_start_at_zero_and_norms_at_one():
    stack = BlockStack("sml", None, width=8, num_heads=2, conv_width=4, dropout=0.0)
    for parameter in stack.parameters():
        torch.nn.init.constant_(parameter, math.nan)

    initialise(stack, generator())

    for path, parameter in stack.named_parameters():
        name = path.rpartition(".")[2]
        assert torch.isfinite(parameter).all(), path
        if name == "recurrent_weights" or name.startswith("bias"):
            assert not parameter.any(), path
        if "norm" in path and name in ("weight", "norm_weight"):
            assert (parameter == 1).all(), path
        if name == "residual_weight":
            assert (parameter == 1).all(), path


@pytest.mark.parametrize(
    ("module", "name", "fan_in"),
    [
        (torch.nn.Linear(400, 300), "weight", 400),
        (HeadwiseLinear(400, 1200, 2), "headwise_weight", 200),
        (CausalConv(30_000, 4), "conv_weight", 4),
        (torch.nn.LSTM(200, 200), "weight_hh_l0", 200),
    ],
    ids=["linear", "headwise", "convolution", "lstm"],
)
def test_projections_start_at_a_spread_that_their_inputs_set(module, name, fan_in):
    initialise(module, generator())

    spread = module.get_parameter(name).std().item()

    assert spread == pytest.approx(math.sqrt(2 / (5 * fan_in)), rel=0.02)


def test_the_draw_depends_on_the_generator_alone():
    first, second, third = (BlockStack("sm", None, width=8, num_heads=2, conv_width=4, dropout=0.0) for _ in range(3))
    before = torch.get_rng_state()

    initialise(first, generator(1))
    initialise(second, generator(1))
    initialise(third, generator(2))

    assert torch.equal(torch.get_rng_state(), before)
    pairs = list(zip(first.parameters(), second.parameters(), third.parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b, _ in pairs)
    assert any(not torch.equal(a, c) for a, _, c in pairs)
