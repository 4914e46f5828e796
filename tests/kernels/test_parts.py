"""The parts of blocks in C against the same in plain torch: outputs and every gradient."""

import pytest
import torch
from helpers import normal, relative_rms

from xlstm_ts.errors import ShapeError
from xlstm_ts.kernels import SLSTMState, layers, mlstm, parts, slstm
from xlstm_ts.kernels._parts import eager, native
from xlstm_ts.kernels.native import products

WHY_NOT = native.unsupported()
pytestmark = pytest.mark.skipif(WHY_NOT is not None, reason=f"the native kernels {WHY_NOT}")
TOLERANCE = {torch.float64: 1e-12, torch.float32: 2e-6}
B, T, H = 3, 37, 3  # 111 rows: no multiple of any block


def both(function, inputs, dtype):
    """Outputs and gradients of the eager one in float64 and of the native one in `dtype`, by name."""
    results = []
    for module, to in ((eager, torch.float64), (native, dtype)):
        leaves = {name: tensor.to(dtype).to(to).requires_grad_() for name, tensor in inputs.items()}
        outputs = function(module, **leaves)
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        cotangents = [normal(*y.shape, seed=90 + j, dtype=to) for j, y in enumerate(outputs)]
        gradients = torch.autograd.grad(outputs, list(leaves.values()), cotangents)
        results.append(
            {f"output {j}": y.detach() for j, y in enumerate(outputs)} | dict(zip(leaves, gradients, strict=True))
        )
    return results


def assert_agree(function, inputs, dtype):
    expected, got = both(function, inputs, dtype)
    for name in expected:
        assert got[name].dtype == dtype
        assert got[name].shape == expected[name].shape, name
        assert relative_rms(got[name], expected[name]) <= TOLERANCE[dtype], name


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize(("inner", "columns"), [(1, 1), (5, 7), (16, 33), (64, 96), (70, 32)])
@pytest.mark.parametrize("heads", [None, H], ids=["dense", "headwise"])
def test_linear_maps(heads, inner, columns, dtype):
    shape = (columns, inner) if heads is None else (H, inner, columns)
    inputs = {
        "x": normal(B, T, inner * (heads or 1), seed=1),
        "weight": normal(*shape, seed=2),
        "bias": normal(*((columns,) if heads is None else (H, columns)), seed=3),
    }

    assert_agree(lambda module, x, weight, bias: module.project(((x, weight, bias),), False), inputs, dtype)
    inputs.pop("bias")
    assert_agree(lambda module, x, weight: module.project(((x, weight, None),), False), inputs, dtype)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_several_linear_maps_of_two_inputs(dtype):
    inputs = {
        "x": normal(B, T, H * 8, seed=1),
        "other": normal(B, T, H * 8, seed=2),
        "headwise": normal(H, 8, 5, seed=3),
        "dense": normal(4, H * 8, seed=4),
        "bias": normal(4, seed=5),
        "last": normal(H, 8, 16, seed=6),
    }

    def function(module, x, other, headwise, dense, bias, last):
        return module.project(((x, headwise, None), (other, last, None), (x, dense, bias)), False)

    assert_agree(function, inputs, dtype)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("heads", [None, H], ids=["dense", "headwise"])
def test_joined_outputs_lie_side_by_side(heads, dtype):
    widths = (16, 9)
    inputs = {"x": normal(B, T, H * 8, seed=1), "other": normal(B, T, H * 8, seed=2)}
    for name, width in zip("ab", widths, strict=True):
        inputs[name] = normal(*((width, H * 8) if heads is None else (H, 8, width)), seed=3 + width)
    inputs["bias"] = normal(*((9,) if heads is None else (H, 9)), seed=4)

    def function(module, x, other, a, b, bias):
        return module.project(((x, a, None), (other, b, bias)), True)

    assert_agree(function, inputs, dtype)


def test_many_rows_are_summed_in_slabs():
    inputs = {"x": normal(5, 1000, 6, seed=1), "weight": normal(4, 6, seed=2), "bias": normal(4, seed=3)}
    assert inputs["x"].numel() // 6 > 2 * products.SLAB_ROWS

    assert_agree(lambda module, **x: module.project((tuple(x.values()),), False), inputs, torch.float32)


def test_inputs_of_linear_maps_may_lie_in_memory_in_any_order():
    x, weight = normal(T, B, 24, seed=1).transpose(0, 1), normal(H, 8, 10, seed=2)[:, :, ::2]

    (got,) = native.project(((x, weight, None),), False)
    (expected,) = eager.project(((x, weight, None),), False)

    torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize(("batch", "width", "inner"), [(B, 32, 48), (B, 48, 40), (50, 16, 24), (B, 20, 24)], ids=str)
def test_norm_and_feed_forward(batch, width, inner, dtype):
    inputs = {
        "x": normal(batch, T, width, seed=1),
        "norm_weight": 1 + normal(width, seed=2) / 3,
        "norm_bias": normal(width, seed=3),
        "up": normal(2 * inner, width, seed=4) / width**0.5,
        "up_bias": normal(2 * inner, seed=5),
        "down": normal(width, inner, seed=6) / inner**0.5,
        "down_bias": normal(width, seed=7),
    }

    def function(module, x, norm_weight, norm_bias, up, up_bias, down, down_bias):
        return module.feed_forward(x, (norm_weight, norm_bias), (up, up_bias), (down, down_bias))

    assert_agree(function, inputs, dtype)


def test_the_feed_forward_gives_the_same_bits_with_two_threads():
    shapes = {"x": (60, T, 32), "norm": (32,), "up": (96, 32), "up_bias": (96,), "down": (32, 48), "bias": (32,)}
    inputs = {name: normal(*shape, seed=j, dtype=torch.float32) for j, (name, shape) in enumerate(shapes.items())}
    before = torch.get_num_threads()
    results = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        x, norm, up, up_bias, down, bias = leaves = [tensor.clone().requires_grad_() for tensor in inputs.values()]
        y = parts.feed_forward(x, (norm, bias), (up, up_bias), (down, bias))
        results.append([y.detach(), *torch.autograd.grad(y.sum(), leaves)])
    torch.set_num_threads(before)

    assert all(map(torch.equal, *results))


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("size", [1, 2, 4, 7])
@pytest.mark.parametrize(("steps", "width"), [(1, 1), (3, 20), (T, 33)])
def test_causal_convolution(size, steps, width, dtype):
    inputs = {
        "x": normal(B, steps, width, seed=1),
        "tail": normal(B, size - 1, width, seed=2),
        "weight": normal(width, size, seed=3),
        "bias": normal(width, seed=4),
    }

    def function(module, x, tail, weight, bias):
        return module.causal_conv(x, tail, weight, bias)

    if size == 1:  # the tail is empty, and its gradient too
        tail = inputs.pop("tail")
        assert_agree(lambda module, x, **rest: function(module, x, tail.to(x.dtype), **rest), inputs, dtype)
    else:
        assert_agree(function, inputs, dtype)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("scale", [0.1, 1, 8])
def test_gelu_gate(scale, dtype):
    assert_agree(lambda module, x: module.gelu_gate(x), {"x": scale * normal(B, T, 2 * 21, seed=1)}, dtype)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("width", [5, 16, 21])
def test_head_norm_and_norm_gate(width, dtype):
    inputs = {"x": normal(B, T, H, width, seed=1), "weight": normal(H * width, seed=2)}
    assert_agree(lambda module, x, weight: module.head_norm(x, weight), inputs, dtype)

    inputs |= {
        "skip": normal(B, T, H * width, seed=3),
        "residual": normal(H * width, seed=4),
        "gate": 3 * normal(B, T, H * width, seed=5),
    }
    assert_agree(lambda module, **x: module.norm_gate(*x.values()), inputs, dtype)


def test_a_gate_may_be_part_of_a_wider_tensor():
    x, weight = normal(B, T, H, 5, seed=1), normal(15, seed=2)
    skip, gate = normal(B, T, 30, seed=3).chunk(2, dim=-1)

    got = native.norm_gate(x, weight, skip, weight, gate)

    torch.testing.assert_close(got, eager.norm_gate(x, weight, skip, weight, gate))


def test_a_rows_values_do_not_depend_on_its_neighbours():
    x, weight = normal(200, 4, 24, seed=1, dtype=torch.float32), normal(40, 24, seed=2, dtype=torch.float32)
    (whole,) = native.project(((x, weight, None),), False)

    (part,) = native.project(((x[61:130], weight, None),), False)

    assert torch.equal(part, whole[61:130])


def test_two_threads_give_the_same_bits_as_one():
    x = normal(64, 100, 48, seed=1, dtype=torch.float32)
    inputs = [x, normal(64, 48, seed=2, dtype=torch.float32), normal(64, seed=3, dtype=torch.float32)]
    before, results = torch.get_num_threads(), []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        leaves = [tensor.clone().requires_grad_() for tensor in inputs]
        (y,) = native.project((tuple(leaves),), False)
        results.append([y, *torch.autograd.grad(y.square().sum(), leaves)])
    torch.set_num_threads(before)

    for one, two in zip(*results, strict=True):
        assert torch.equal(one, two)


def test_other_dtypes_and_few_rows_go_to_torch():
    x, weight = torch.ones(4, 40, 6, dtype=torch.bfloat16), torch.ones(3, 6, dtype=torch.bfloat16)

    (y,) = parts.project((x, weight, None))
    (few,) = parts.project((x[:1, :5], weight, None))

    assert y.dtype == torch.bfloat16
    assert torch.equal(y, torch.full_like(y, 6))
    assert torch.equal(few, y[:1, :5])


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("forget_gate", ["sigmoid", "exp"])
@pytest.mark.parametrize("backend", [eager, native], ids=["eager", "native"])
@pytest.mark.parametrize(
    ("steps", "heads", "width", "value_width", "gate"),
    [(1, 1, 1, 1, 1.0), (37, 3, 5, 7, 1.0), (64, 4, 16, 32, 3.0), (200, 2, 8, 33, 60.0)],
    ids=["one", "odd", "whole vectors", "steep gates"],
)
def test_the_last_read_is_that_of_the_whole_sequence(
    steps, heads, width, value_width, gate, backend, forget_gate, dtype
):
    q, keys = (normal(B, steps, heads, width, seed=seed).to(dtype) for seed in (1, 2))
    values = normal(B, steps, heads, value_width, seed=3).to(dtype)
    gates = gate * normal(B, steps, 2 * heads, seed=4).to(dtype)
    i, f = gates.double().chunk(2, dim=-1)
    everything = (tensor.double() for tensor in (q, keys, values))
    expected, _ = mlstm(*everything, i, f, forget_gate=forget_gate, backend="reference")

    got = backend.read_last(q[:, -1] / width**0.5, keys, values, gates, forget_gate)

    assert got.dtype == dtype
    assert relative_rms(got, expected[:, -1]) <= 5 * TOLERANCE[dtype]


def test_a_last_read_of_nan_is_nan_in_its_row_and_head_alone():
    q, keys, values = normal(2, 2, 4), normal(2, 9, 2, 4), normal(2, 9, 2, 4)
    gates = normal(2, 9, 4)
    gates[0, 3, 1] = torch.nan

    got = native.read_last(q, keys, values, gates, "sigmoid")

    assert torch.isnan(got).all(-1).tolist() == [[False, True], [False, False]]


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("forget_gate", ["sigmoid", "exp"])
@pytest.mark.parametrize(
    ("batch", "steps", "inner", "width"), [(3, 37, 5, 7), (33, 17, 16, 16), (17, 8, 24, 40)], ids=str
)
def test_gates_that_the_kernel_projects_are_those_that_it_is_given(batch, steps, inner, width, forget_gate, dtype):
    x, gate_input = (normal(batch, steps, H * inner, seed=seed).to(dtype) for seed in (1, 2))
    weights = [normal(H, inner, 2 * width, seed=seed).to(dtype) * 0.5 for seed in (3, 4)]
    bias, recurrent_weights = normal(4, H, width, seed=5).to(dtype), normal(4, H, width, width, seed=6).to(dtype) * 0.3
    state = SLSTMState(*(normal(batch, H, width, seed=seed).abs().to(dtype) for seed in (7, 8, 9)), None)
    state = state._replace(m=normal(batch, H, width, seed=10))
    inputs = (gate_input, x, *weights, bias, recurrent_weights, state)
    gates = layers._gates(gate_input, x, *weights, bias)

    got, last = layers.slstm_layer(*inputs, forget_gate=forget_gate)
    expected, last_expected = slstm(gates, recurrent_weights, state, forget_gate=forget_gate, backend="eager")

    assert relative_rms(got, expected) <= TOLERANCE[dtype]
    for name, part, part_expected in zip(state._fields, last, last_expected, strict=True):
        assert relative_rms(part, part_expected) <= TOLERANCE[dtype], name


def test_inputs_of_another_width_than_the_weights_are_refused():
    x, weight, row = torch.ones(2, 40, 6), torch.ones(8, 5), torch.ones(5)
    with pytest.raises(ShapeError, match=r"an input has shape \(2, 40, 6\); expected 5 on the last axis"):
        parts.project((x, weight, None))
    with pytest.raises(ShapeError, match="expected 5 on the last axis"):
        parts.feed_forward(x, (row, row), (weight, torch.ones(8)), (torch.ones(5, 4), row))
