"""Blocks and stacks: carried state, causality, independence of rows, and the layout string."""

import pytest
import torch
from helpers import generator, normal, relative_rms

from xlstm_ts.errors import ParameterError
from xlstm_ts.nn import BlockStack, parse_layout
from xlstm_ts.nn.layers import Dropout

D, HEADS = 8, 2
KINDS = ["s", "m", "l", "smls"]
CONV_WIDTHS = [0, 1, 4]


def make_stack(layout, conv_width, dtype=torch.float64, dropout=0.0, seed=0):
    """A stack whose weights are all random."""
    stack = BlockStack(layout, None, width=D, num_heads=HEADS, conv_width=conv_width, dropout=dropout).to(dtype)
    draw = generator(seed)
    with torch.no_grad():
        for parameter in stack.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=draw, dtype=torch.float64) * 0.4)
    return stack


def tensors_of(state):
    if isinstance(state, torch.Tensor):
        return [state]
    return [] if state is None else [tensor for part in state for tensor in tensors_of(part)]


def rescaled(state):
    """The tensors of a state with mLSTM memories brought to m = 0, where states may be compared."""
    parts = []
    for block in state:
        if type(block.cell).__name__ == "MLSTMState":
            c, n, m = block.cell
            parts += [c * m.exp()[..., None, None], n * m.exp()[..., None]]
        else:
            parts += tensors_of(block.cell)
        parts += tensors_of(block.conv)
    return parts


@pytest.mark.parametrize("layout", KINDS)
@pytest.mark.parametrize("conv_width", CONV_WIDTHS)
@pytest.mark.parametrize(
    "cuts",
    [(1,), (2,), (6,), (8,), (1, 2, 3, 4), (3, 4, 8)],
    ids=["1+8", "2+7", "6+3", "8+1", "four of length 1", "one in the middle"],
)
def test_pieces_with_carried_state_equal_one_piece(layout, conv_width, cuts):
    stack, x = make_stack(layout, conv_width), normal(3, 9, D)
    whole, last = stack(x)

    outputs, state = [], None
    for piece in torch.tensor_split(x, cuts, dim=1):
        out, state = stack(piece, state)
        outputs.append(out)

    torch.testing.assert_close(torch.cat(outputs, 1), whole, rtol=1e-11, atol=1e-12)
    for got, expected in zip(rescaled(state), rescaled(last), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("layout", [*KINDS, "sm"])
@pytest.mark.parametrize("conv_width", CONV_WIDTHS)
@pytest.mark.parametrize("steps", [1, 2, 67])
def test_the_last_step_alone_equals_the_last_of_all_with_every_gradient(layout, conv_width, steps, dtype):
    stack, x = make_stack(layout, conv_width, dtype), normal(3, steps, D, dtype=dtype).requires_grad_()
    leaves = dict(stack.named_parameters()) | {"x": x}
    cotangent = normal(3, 1, D, seed=1, dtype=dtype)

    expected, got = stack(x)[0][:, -1:], stack.last(x)
    with torch.no_grad():  # where the native kernels make the gates, and read, themselves
        alone = stack.last(x)

    tolerance = 1e-11 if dtype == torch.float64 else 1e-4
    assert relative_rms(got.detach(), expected.detach()) <= tolerance
    assert relative_rms(alone, expected.detach()) <= tolerance
    pairs = (
        torch.autograd.grad(out, list(leaves.values()), cotangent, materialize_grads=True) for out in (expected, got)
    )
    largest = torch.autograd.grad(stack.last(x).sum(), x)[0].abs().max()
    for name, full, short in zip(leaves, *pairs, strict=True):
        assert (short - full).abs().max() <= tolerance * max(full.abs().max(), largest), name


@pytest.mark.parametrize("layout", KINDS)
def test_no_state_means_the_initial_state(layout):
    stack, x = make_stack(layout, 4), normal(3, 5, D)

    assert torch.equal(stack(x)[0], stack(x, stack.initial_state(3))[0])


@pytest.mark.parametrize("layout", KINDS)
@pytest.mark.parametrize("conv_width", CONV_WIDTHS)
def test_a_future_input_never_changes_an_earlier_output(layout, conv_width):
    stack, x = make_stack(layout, conv_width, torch.float32), normal(2, 12, D, dtype=torch.float32)
    out, _ = stack(x)

    for t in (1, 5, 11):
        changed = x.clone()
        changed[:, t:] = normal(2, 12 - t, D, seed=9, dtype=torch.float32) * 10
        got, _ = stack(changed)
        torch.testing.assert_close(got[:, :t], out[:, :t], rtol=1e-5, atol=1e-6)
        assert not torch.allclose(got[:, t:], out[:, t:])


@pytest.mark.parametrize("layout", KINDS)
@pytest.mark.parametrize("conv_width", CONV_WIDTHS)
def test_a_batch_row_never_changes_when_its_neighbours_do(layout, conv_width):
    stack, x = make_stack(layout, conv_width, torch.float32), normal(4, 10, D, dtype=torch.float32)
    changed = x.clone()
    changed[[0, 1, 3]] = normal(3, 10, D, seed=9, dtype=torch.float32) * 1e3

    together, _ = stack(x)
    beside_others, _ = stack(changed)
    alone, _ = stack(x[2:3])

    assert torch.equal(beside_others[2], together[2])
    torch.testing.assert_close(alone[0], together[2], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("layout", KINDS)
@pytest.mark.parametrize("conv_width", CONV_WIDTHS)
def test_gradients_reach_every_parameter(layout, conv_width):
    stack = make_stack(layout, conv_width)

    (stack(normal(3, 9, D))[0] * normal(3, 9, D, seed=1)).sum().backward()

    assert [name for name, p in stack.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


@pytest.mark.parametrize("layout", KINDS)
def test_gradients_reach_the_first_input_through_a_carried_state(layout):
    stack, x = make_stack(layout, 4), normal(1, 6, D).requires_grad_()

    _, state = stack(x[:, :3])
    (stack(x[:, 3:], state)[0] * normal(1, 3, D, seed=1)).sum().backward()

    assert (x.grad.abs().sum(-1) > 0).all()


def test_inputs_of_ten_thousand_give_finite_outputs_and_gradients():
    stack = make_stack("sml", 4, torch.float32)
    x = (normal(2, 20, D, dtype=torch.float32) * 1e4).requires_grad_()

    out, _ = stack(x)
    out.sum().backward()

    assert torch.isfinite(out).all()
    assert torch.isfinite(x.grad).all()


def test_dropout_acts_while_training_only_and_on_every_block():
    stack, x = make_stack("sml", 4, dropout=0.5), normal(2, 6, D)

    rates = [part.rate for part in stack.modules() if isinstance(part, Dropout)]
    assert rates == [0.5, 0.5, 0.5]
    assert not torch.equal(stack.train()(x)[0], stack(x)[0])
    assert torch.equal(stack.eval()(x)[0], stack(x)[0])


@pytest.mark.parametrize(
    ("layout", "num_blocks", "expected"),
    [
        ("s", None, "s"),
        ("msm", None, "msm"),
        ("sml", None, "sml"),
        ("7:1", None, "msmmmmmm"),
        ("1:1", None, "ms"),
        ("0:1", None, "s"),
        ("2:0", None, "mm"),
        ("1:2", None, "mss"),
        ("7:1", 10, "msmmmmmmms"),
        ("7:1", 3, "msm"),
        ("sm", 5, "smsms"),
        ("msm", 1, "m"),
        ("s", 3, "sss"),
    ],
)
def test_layouts_are_spelt_out_one_letter_per_block(layout, num_blocks, expected):
    assert parse_layout(layout, num_blocks) == expected


@pytest.mark.parametrize("layout", ["", "x", "S", "s m", "7:", ":1", "0:0", "7:1:1", "-1:1", "s7:1", "ms\n"])
def test_what_is_no_layout_is_refused_with_an_example_of_each_kind(layout):
    with pytest.raises(ParameterError) as raised:
        parse_layout(layout)

    assert f"layout={layout!r} is not a layout" in str(raised.value)
    assert "'msm'" in str(raised.value)
    assert "'7:1'" in str(raised.value)


@pytest.mark.parametrize("num_blocks", [0, -1])
def test_a_stack_of_no_blocks_is_refused(num_blocks):
    with pytest.raises(ParameterError, match=rf"num_blocks={num_blocks}; expected a positive number, or None"):
        parse_layout("s", num_blocks)
