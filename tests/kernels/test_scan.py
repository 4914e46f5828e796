"""The parallel prefix against a loop, and the memory of the mLSTM as its special case."""

import pytest
import torch
from helpers import normal, relative_rms
from hypothesis import given, settings
from hypothesis import strategies as st

from xlstm_ts.errors import ParameterError, ShapeError
from xlstm_ts.kernels import MLSTMState, linear_scan, mlstm, mlstm_states
from xlstm_ts.kernels._mlstm import reference

TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5}
LENGTHS = [1, 2, 3, 63, 64, 65, 200]
SHAPES = {"numbers": ((), ()), "full": ((3, 5), (3, 5)), "per head": ((3, 1), (3, 5)), "mixed": ((1, 5), (3, 5))}


def loop(decay, update, initial):
    memory, outputs = initial, []
    for t in range(update.shape[1]):
        memory = decay[:, t] * memory + update[:, t]
        outputs.append(memory)
    return torch.stack(outputs, dim=1)


def case(steps, shape, dtype=torch.float64):
    decay, update = SHAPES[shape]
    inputs = normal(2, steps, *decay, seed=1).tanh(), normal(2, steps, *update, seed=2), normal(2, *update, seed=3)
    return [tensor.to(dtype).requires_grad_() for tensor in inputs]


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("steps", LENGTHS)
def test_the_scan_equals_the_loop_in_outputs_and_gradients(steps, shape, dtype):
    inputs = case(steps, shape, dtype)
    doubles = [tensor.detach().double().requires_grad_() for tensor in inputs]
    expected = loop(*doubles)
    cotangent = normal(*expected.shape, seed=4, dtype=dtype)
    expected_gradients = torch.autograd.grad(expected, doubles, cotangent.double())

    got = linear_scan(*inputs)
    gradients = torch.autograd.grad(got, inputs, cotangent)

    assert got.dtype == dtype
    for a, b in zip((got, *gradients), (expected, *expected_gradients), strict=True):
        assert a.shape == b.shape
        assert relative_rms(a.detach(), b.detach()) <= TOLERANCE[dtype]


def test_four_steps_by_hand():
    decay = torch.tensor([[0.5, 2.0, 0.0, -1.0]], dtype=torch.float64)
    update = torch.tensor([[1.0, 1.0, 5.0, 2.0]], dtype=torch.float64)

    got = linear_scan(decay, update, torch.tensor([4.0], dtype=torch.float64))

    assert got.tolist() == [[3.0, 7.0, 5.0, -3.0]]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("steps", [1, 2, 5])
def test_gradcheck_of_first_and_second_derivatives(steps, shape):
    inputs = case(steps, shape)

    assert torch.autograd.gradcheck(linear_scan, inputs)
    assert torch.autograd.gradgradcheck(linear_scan, inputs)


def test_without_an_initial_memory_it_starts_at_zero():
    decay, update, initial = case(7, "per head")

    assert torch.equal(linear_scan(decay, update), linear_scan(decay, update, torch.zeros_like(initial)))


@settings(max_examples=25, deadline=None)
@given(steps=st.integers(2, 70), data=st.data())
def test_two_pieces_joined_by_the_last_memory_equal_one(steps, data):
    cut = data.draw(st.integers(1, steps - 1))
    decay, update, initial = case(steps, "per head")

    first = linear_scan(decay[:, :cut], update[:, :cut], initial)
    second = linear_scan(decay[:, cut:], update[:, cut:], first[:, -1])

    torch.testing.assert_close(torch.cat([first, second], 1), linear_scan(decay, update, initial))


def test_a_decay_of_zero_forgets_a_memory_of_any_size():
    decay = torch.ones(1, 9)
    decay[0, 4] = 0.0
    update = torch.zeros(1, 9)

    got = linear_scan(decay, update, torch.tensor([1e38]))

    assert torch.equal(got, torch.tensor([[1e38] * 4 + [0.0] * 5]))


def test_inputs_are_never_changed():
    for steps in (1, 2, 9):
        inputs = [tensor.detach() for tensor in case(steps, "full")]
        copies = [tensor.clone() for tensor in inputs]

        linear_scan(*inputs).zero_()

        assert all(torch.equal(a, b) for a, b in zip(inputs, copies, strict=True))


def mlstm_case(steps, dtype, cold, spread):
    batch, heads, width, value_width = 2, 3, 5, 7
    inputs = {
        "q": 0.2 + normal(batch, steps, heads, width, seed=1).abs(),
        "k": 0.2 + normal(batch, steps, heads, width, seed=2).abs(),
        "v": normal(batch, steps, heads, value_width, seed=3),
        "i": normal(batch, steps, heads, seed=4) * spread,
        "f": normal(batch, steps, heads, seed=5) * spread,
        "c": normal(batch, heads, width, value_width, seed=6),
        "n": 0.2 + normal(batch, heads, width, seed=7).abs(),
    }
    m = torch.linspace(-2, 2, batch * heads, dtype=torch.float64).view(batch, heads)
    if cold:
        empty = MLSTMState.empty(batch, heads, width, value_width)
        inputs |= {"c": empty.c, "n": empty.n}
        m = empty.m
    return {name: tensor.to(dtype) for name, tensor in inputs.items()}, m


def by_scan(q, k, v, i, f, state, forget_gate):
    """The mLSTM with its memory after every step written out."""
    states = mlstm_states(k, v, i, f, state, forget_gate=forget_gate)
    numerator = torch.einsum("bthk,bthkv->bthv", q, states.c)
    h = numerator / reference.denominator((q * states.n).sum(-1), states.m)[..., None]
    return h, MLSTMState(*(part[:, -1] for part in states))


def outputs_and_gradients(form, case, m, forget_gate):
    inputs = {name: tensor.detach().requires_grad_() for name, tensor in case.items()}
    h, last = form(*(inputs[name] for name in "qkvif"), MLSTMState(inputs["c"], inputs["n"], m), forget_gate)
    outputs = [h, last.c, last.n]
    cotangents = [normal(*part.shape, seed=20 + j, dtype=part.dtype) for j, part in enumerate(outputs)]
    gradients = torch.autograd.grad(outputs, list(inputs.values()), cotangents)
    names = ["h", "final c", "final n", "final m", *(f"gradient of {name}" for name in inputs)]
    return dict(zip(names, [part.detach() for part in (*outputs, last.m)] + list(gradients), strict=True))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("cold", [True, False], ids=["empty history", "carried state"])
@pytest.mark.parametrize("spread", [1.0, 30.0], ids=["normal gates", "wide gates"])
@pytest.mark.parametrize("forget_gate", ["sigmoid", "exp"])
@pytest.mark.parametrize("steps", [1, 2, 65])
def test_memory_and_normaliser_of_the_mlstm_are_a_special_case(steps, forget_gate, spread, cold, dtype):
    case, m = mlstm_case(steps, dtype, cold, spread)
    doubles = {name: tensor.double() for name, tensor in case.items()}
    expected = outputs_and_gradients(reference.recurrent, doubles, m, forget_gate)

    got = outputs_and_gradients(by_scan, case, m, forget_gate)

    for name in expected:
        error = relative_rms(got[name], expected[name], 1e-2 if name.startswith("gradient") else 0.0)
        assert error <= {torch.float64: 1e-9, torch.float32: 1e-5}[dtype], f"{name}: {error:.2e}"


def test_every_state_is_that_of_the_cell_stopped_there():
    case, m = mlstm_case(6, torch.float64, False, 1.0)
    start = MLSTMState(case["c"], case["n"], m)
    states = mlstm_states(*(case[name] for name in "kvif"), start)

    for t in range(6):
        _, stopped = mlstm(*(case[name][:, : t + 1] for name in "qkvif"), start)

        for part, expected in zip(states, stopped, strict=True):
            torch.testing.assert_close(part[:, t], expected)


def test_wrong_arguments_get_an_error_that_names_them():
    decay, update = torch.ones(2, 4, 3), torch.ones(2, 4, 3)
    with pytest.raises(ShapeError, match=r"decay has shape \(2, 1, 3\); expected \(2, 4, 3\)"):
        linear_scan(decay[:, :1], update)
    with pytest.raises(ShapeError, match=r"decay has shape \(2, 4\)"):
        linear_scan(decay[..., 0], update)
    with pytest.raises(ShapeError, match=r"update has shape \(2, 0, 3\); expected .* T >= 1"):
        linear_scan(decay[:, :0], update[:, :0])
    with pytest.raises(ShapeError, match=r"initial has shape \(2, 1\); expected \(2, 3\)"):
        linear_scan(decay, update, torch.ones(2, 1))
    with pytest.raises(ShapeError, match=r"decay is torch.float64 on cpu, update torch.float32"):
        linear_scan(decay.double(), update)
    with pytest.raises(ShapeError, match=r"update is torch.int64"):
        linear_scan(decay.long(), update.long())


def test_what_no_mlstm_is_given_is_refused_for_its_states_too():
    k, gate, state = torch.ones(2, 3, 2, 5), torch.ones(2, 3, 2), MLSTMState.empty(2, 2, 5, 5)
    with pytest.raises(ParameterError, match=r"kernels\.mlstm_states: forget_gate='tanh' is unknown"):
        mlstm_states(k, k, gate, gate, state, forget_gate="tanh")
    with pytest.raises(ShapeError, match=r"i has shape \(2, 3, 1\); expected \(2, 3, 2\)"):
        mlstm_states(k, k, gate[..., :1], gate, state)
    with pytest.raises(ShapeError, match=r"v has shape \(2, 3, 1, 5\); expected \(2, 3, 2, 5\)"):
        mlstm_states(k, k[:, :, :1], gate, gate, state)
    with pytest.raises(ShapeError, match=r"state\.c is .* expected floating point, \(2, 2, 5, 5\)"):
        mlstm_states(k, k, gate, gate, MLSTMState.empty(1, 2, 5, 5))
    with pytest.raises(ParameterError, match="state is of type tuple; expected an MLSTMState"):
        mlstm_states(k, k, gate, gate, tuple(state))
