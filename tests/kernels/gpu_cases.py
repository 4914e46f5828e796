"""The Triton kernels against the float64 reference, in Triton's interpreter or on a GPU.

    TRITON_INTERPRET=1 python -m pytest tests/kernels/gpu_cases.py     # on any machine
    python -m pytest tests/kernels/gpu_cases.py                        # on one with a GPU

test_gpu.py runs this file in a process of its own: whether Triton interprets is decided when it is imported.
"""

import os

import pytest
import torch
from helpers import normal, relative_rms

from xlstm_ts.kernels import MLSTMState, SLSTMState, mlstm, resolve, slstm

DEVICE = "cpu" if os.environ.get("TRITON_INTERPRET") == "1" else "cuda"
# bfloat16: both sides read the same rounded inputs and the state is float32. What remains is one rounding of outputs,
# and of hidden values and gate gradients before their product: 2^-7, the spacing of bfloat16, for each of two factors
# (the interpreter cuts digits off). On a GPU one factor of a product is rounded to TF32 besides, 2^-12.
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-5, torch.bfloat16: 2**-6}
# Gates, forget gate, whether the history is empty, and in which dtypes.
SETTINGS = [
    ("normal", "sigmoid", True, tuple(TOLERANCE)),
    ("wide", "exp", False, (torch.float64, torch.float32)),
    ("exactly60", "sigmoid", False, (torch.float64, torch.float32)),
]
SETTINGS = [(*setting, dtype) for *setting, dtypes in SETTINGS for dtype in dtypes]
NAMES = [f"{kind}-{gate}-{'empty' if cold else 'carried'}-{dtype}" for kind, gate, cold, dtype in SETTINGS]


def gates_like(kind, *shape, seed):
    x = normal(*shape, seed=seed)
    return {"normal": x, "wide": 60 * x.tanh(), "exactly60": 60 * x.sign()}[kind]


def slstm_case(batch, steps, heads, width, kind, cold):
    inputs = {
        "gates": gates_like(kind, batch, steps, 4, heads, width, seed=1),
        "weights": normal(4, heads, width, width, seed=2) / width**0.5,
    }
    state = SLSTMState.empty(batch, heads, width, dtype=torch.float64)
    if not cold:
        shape = (batch, heads, width)
        m = normal(*shape, seed=6)
        state = SLSTMState(normal(*shape, seed=3).tanh(), normal(*shape, seed=4), 1 + normal(*shape, seed=5).abs(), m)
    return inputs, state


def rounded(inputs, state, dtype):
    """Return the inputs in `dtype` (states in at least float32) on the device, and the same numbers in float64."""
    state_dtype = torch.float64 if dtype == torch.float64 else torch.float32
    inputs = {name: tensor.to(dtype) for name, tensor in inputs.items()}
    inputs |= {f"{name}0": getattr(state, name).to(state_dtype) for name in state._fields if name != "m"}
    return {name: tensor.to(DEVICE) for name, tensor in inputs.items()}, {
        name: tensor.double() for name, tensor in inputs.items()
    }


def run_slstm(inputs, m, backend, forget_gate):
    state = SLSTMState(inputs["h0"], inputs["c0"], inputs["n0"], m.to(inputs["gates"].device))
    return slstm(inputs["gates"], inputs["weights"], state, backend=backend, forget_gate=forget_gate)


def outputs_and_gradients(run, inputs):
    inputs = {name: tensor.detach().requires_grad_() for name, tensor in inputs.items()}
    h, state = run(inputs)
    named = {"h": h} | {f"final {name}": part for name, part in zip(state._fields, state, strict=True)}
    outputs = [part for name, part in named.items() if name != "final m"]
    cotangents = [normal(*part.shape, seed=20 + j).to(part) for j, part in enumerate(outputs)]
    gradients = torch.autograd.grad(outputs, list(inputs.values()), cotangents)
    named |= {f"gradient of {name}": part for name, part in zip(inputs, gradients, strict=True)}
    return {name: part.detach().cpu() for name, part in named.items()}


def assert_agree(got, expected, tolerance):
    for name in expected:
        # Some gradients vanish, as sums of terms of order 1; in float32 these leave 3e-7, in the reference too.
        floor = 5e-2 if name.startswith("gradient") else 0.0
        if name == "final m":
            torch.testing.assert_close(got[name], expected[name], rtol=tolerance, atol=tolerance)
            continue
        error = relative_rms(got[name], expected[name], floor)
        assert error <= tolerance, f"{name}: relative rms error {error:.2e}"


SLSTM_SHAPES = [  # B, T, H, K
    (1, 1, 1, 1),
    (17, 3, 2, 16),  # one more than a tile of rows
    (3, 12, 3, 5),
    (2, 4, 1, 33),  # padded to 64: weights stay on chip, in float64 they are streamed
    (2, 2, 1, 70),  # padded to 128: streamed
]
if DEVICE == "cuda":
    SLSTM_SHAPES += [(33, 65, 3, 16), (5, 200, 2, 32), (17, 64, 2, 64), (3, 63, 1, 128), (18, 40, 2, 256)]


@pytest.mark.parametrize(("kind", "forget_gate", "cold", "dtype"), SETTINGS, ids=NAMES)
@pytest.mark.parametrize("shape", SLSTM_SHAPES, ids=str)
def test_slstm_equals_the_reference(shape, kind, forget_gate, cold, dtype):
    case, state = slstm_case(*shape, kind, cold)
    inputs, doubles = rounded(case, state, dtype)
    expected = outputs_and_gradients(lambda x: run_slstm(x, state.m, "reference", forget_gate), doubles)

    got = outputs_and_gradients(lambda x: run_slstm(x, state.m, "triton", forget_gate), inputs)

    assert got["h"].dtype == dtype
    assert_agree(got, expected, TOLERANCE[dtype])


def mlstm_case(batch, steps, heads, width, value_width, kind, cold):
    # Keys in one orthant, queries in it or in the opposite one: n.q has either sign but stays away from 0.
    sign = torch.where(normal(batch, steps, heads, 1, seed=8) < 0, -1.0, 1.0)
    inputs = {
        "q": (0.2 + normal(batch, steps, heads, width, seed=1).abs()) * sign,
        "k": 0.2 + normal(batch, steps, heads, width, seed=2).abs(),
        "v": normal(batch, steps, heads, value_width, seed=3),
        "i": gates_like(kind, batch, steps, heads, seed=4),
        "f": gates_like(kind, batch, steps, heads, seed=5),
    }
    state = MLSTMState.empty(batch, heads, width, value_width, dtype=torch.float64)
    if not cold:
        c, n = normal(batch, heads, width, value_width, seed=6), 0.2 + normal(batch, heads, width, seed=7).abs()
        state = MLSTMState(c, n, normal(batch, heads, seed=9))
    return inputs, state


def run_mlstm(inputs, m, backend, forget_gate, chunk=None):
    state = MLSTMState(inputs["c0"], inputs["n0"], m.to(inputs["q"].device))
    return mlstm(*(inputs[name] for name in "qkvif"), state, backend=backend, forget_gate=forget_gate, chunk=chunk)


MLSTM_SHAPES = [  # B, T, H, K, V, chunk
    (1, 1, 1, 1, 1, None),
    (1, 16, 2, 16, 32, 16),  # one whole chunk
    (1, 33, 1, 5, 7, 16),  # one more than two chunks
    (2, 35, 1, 20, 9, None),
    (1, 17, 1, 40, 36, 16),  # several tiles of the memory
]
if DEVICE == "cuda":
    MLSTM_SHAPES += [
        (3, 63, 2, 32, 32, None),
        (2, 200, 3, 64, 64, None),
        (2, 64, 1, 128, 128, 64),
        (1, 65, 2, 256, 256, None),
        (1, 1000, 1, 24, 200, None),
    ]


@pytest.mark.parametrize(("kind", "forget_gate", "cold", "dtype"), SETTINGS, ids=NAMES)
@pytest.mark.parametrize("shape", MLSTM_SHAPES, ids=str)
def test_mlstm_equals_the_reference(shape, kind, forget_gate, cold, dtype):
    *shape, chunk = shape
    case, state = mlstm_case(*shape, kind, cold)
    inputs, doubles = rounded(case, state, dtype)
    expected = outputs_and_gradients(lambda x: run_mlstm(x, state.m, "reference", forget_gate), doubles)

    got = outputs_and_gradients(lambda x: run_mlstm(x, state.m, "triton", forget_gate, chunk), inputs)

    assert got["h"].dtype == dtype
    assert_agree(got, expected, TOLERANCE[dtype])


@pytest.mark.skipif(DEVICE == "cpu", reason="needs a GPU")
def test_auto_takes_the_kernels_for_tensors_of_a_gpu():
    tensor = torch.ones(1, device=DEVICE)

    assert [resolve(cell, (tensor,))[0] for cell in ("slstm", "mlstm")] == ["triton", "triton"]


def test_inputs_may_lie_in_memory_in_any_order():
    case, state = slstm_case(2, 3, 2, 5, "normal", False)
    inputs = {name: tensor.to(DEVICE) for name, tensor in rounded(case, state, torch.float32)[0].items()}
    expected = outputs_and_gradients(lambda x: run_slstm(x, state.m, "triton", "sigmoid"), inputs)
    time_first = inputs["gates"].permute(1, 3, 0, 2, 4).contiguous().permute(2, 0, 3, 1, 4)
    units_first = inputs["gates"].permute(4, 0, 1, 2, 3).contiguous().permute(1, 2, 3, 4, 0)
    spaced = torch.zeros(2, 3, 4, 2, 9, device=DEVICE)[..., 2:7].copy_(inputs["gates"])
    for gates in (time_first, units_first, spaced):
        leaf = gates.requires_grad_()
        got = run_slstm(inputs | {"gates": leaf}, state.m, "triton", "sigmoid")
        gradient = torch.autograd.grad(got[0], leaf, torch.ones_like(got[0]))[0]
        plain = inputs["gates"].clone().requires_grad_()
        h = run_slstm(inputs | {"gates": plain}, state.m, "triton", "sigmoid")[0]

        assert torch.equal(got[0].detach().cpu(), expected["h"])
        assert torch.equal(gradient, torch.autograd.grad(h, plain, torch.ones_like(h))[0])

    case, state = mlstm_case(2, 3, 2, 5, 4, "normal", False)
    inputs = rounded(case, state, torch.float32)[0]
    expected, _ = run_mlstm(inputs, state.m, "triton", "exp")
    reordered = {name: x.transpose(0, 1).contiguous().transpose(0, 1) for name, x in inputs.items()}
    assert torch.equal(run_mlstm(reordered, state.m, "triton", "exp")[0], expected)


def test_a_row_has_the_same_bits_alone_and_in_any_batch():
    case, state = slstm_case(18, 2, 1, 5, "normal", False)
    inputs = rounded(case, state, torch.float32)[0]
    whole, _ = run_slstm(inputs, state.m, "triton", "sigmoid")
    rows = {name: x if name == "weights" else x[16:] for name, x in inputs.items()}
    assert torch.equal(run_slstm(rows, state.m[16:], "triton", "sigmoid")[0], whole[16:])

    case, state = mlstm_case(3, 20, 1, 5, 4, "normal", False)
    inputs = rounded(case, state, torch.float32)[0]
    whole, _ = run_mlstm(inputs, state.m, "triton", "sigmoid")
    rows = {name: x[1:2] for name, x in inputs.items()}
    assert torch.equal(run_mlstm(rows, state.m[1:2], "triton", "sigmoid")[0], whole[1:2])


def test_the_length_of_a_chunk_changes_nothing_but_speed():
    case, state = mlstm_case(1, 40, 1, 5, 4, "normal", False)
    inputs, _ = rounded(case, state, torch.float64)
    results = [run_mlstm(inputs, state.m, "triton", "sigmoid", chunk) for chunk in (1, 17, 1000, None)]

    for h, last in results[1:]:
        torch.testing.assert_close((h, *last), (results[0][0], *results[0][1]), rtol=1e-11, atol=1e-12)


def test_without_a_gradient_the_same_bits_come_out_and_nothing_is_kept():
    case, state = slstm_case(2, 3, 1, 5, "normal", True)
    inputs = rounded(case, state, torch.float32)[0]
    kept, _ = run_slstm(inputs | {"gates": inputs["gates"].clone().requires_grad_()}, state.m, "triton", "sigmoid")
    assert torch.equal(kept.detach(), run_slstm(inputs, state.m, "triton", "sigmoid")[0])
    with torch.no_grad():
        assert run_slstm(inputs, state.m, "triton", "sigmoid")[0].grad_fn is None

    case, state = mlstm_case(2, 3, 1, 5, 4, "normal", True)
    inputs = rounded(case, state, torch.float32)[0]
    kept, _ = run_mlstm(inputs | {"q": inputs["q"].clone().requires_grad_()}, state.m, "triton", "sigmoid")
    assert torch.equal(kept.detach(), run_mlstm(inputs, state.m, "triton", "sigmoid")[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_inputs_of_ten_thousand_give_finite_values_and_gradients(dtype):
    case, state = slstm_case(2, 5, 1, 4, "normal", True)
    inputs = {name: x * 1e4 if name == "gates" else x for name, x in rounded(case, state, dtype)[0].items()}
    got = outputs_and_gradients(lambda x: run_slstm(x, state.m, "triton", "exp"), inputs)
    assert all(torch.isfinite(part).all() for part in got.values())

    case, state = mlstm_case(2, 20, 1, 4, 4, "normal", True)
    inputs = {name: x * 1e4 if name in "qkvif" else x for name, x in rounded(case, state, dtype)[0].items()}
    got = outputs_and_gradients(lambda x: run_mlstm(x, state.m, "triton", "exp"), inputs)
    assert all(torch.isfinite(part).all() for part in got.values())


def test_a_query_of_zero_reads_zero_under_any_input_gate():
    case, state = mlstm_case(1, 3, 1, 5, 4, "normal", True)
    inputs, _ = rounded(case, state, torch.float32)
    inputs |= {"q": torch.zeros_like(inputs["q"]), "i": torch.full_like(inputs["i"], 1e4)}

    h, _ = run_mlstm(inputs, state.m, "triton", "sigmoid")

    assert torch.equal(h, torch.zeros_like(h))


def test_what_a_nearly_open_gate_forgets_is_right_to_many_digits():
    # log sigmoid(18) is -1.5e-8: in float32, 1 + exp(-18) would be 1, and nothing would ever be forgotten.
    steps, once = 20, -torch.log1p(torch.exp(torch.tensor(-18.0, dtype=torch.float64)))
    case, state = slstm_case(1, steps, 1, 3, "normal", False)
    case["gates"][:, :, 0], case["gates"][:, :, 1] = -100.0, 18.0
    case["weights"].zero_()
    m = torch.zeros_like(state.m)
    _, last = run_slstm(rounded(case, state, torch.float32)[0], m, "triton", "sigmoid")
    torch.testing.assert_close(last.m.cpu(), (steps * once).expand_as(m), rtol=1e-6, atol=0.0)

    case, state = mlstm_case(1, steps, 1, 3, 3, "normal", False)
    case["i"], case["f"] = torch.full_like(case["i"], -100.0), torch.full_like(case["f"], 18.0)
    m = torch.zeros_like(state.m)
    _, last = run_mlstm(rounded(case, state, torch.float32)[0], m, "triton", "sigmoid")
    torch.testing.assert_close(last.m.cpu(), (steps * once).expand_as(m), rtol=1e-6, atol=0.0)
