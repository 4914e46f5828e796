"""Every form of both cells against the float64 reference: outputs, final states and every gradient."""

import pytest
import torch
from helpers import generator, normal, relative_rms
from hypothesis import given, settings
from hypothesis import strategies as st

from xlstm_ts.errors import BackendError, ParameterError, ShapeError
from xlstm_ts.kernels import BACKENDS, MLSTMState, SLSTMState, mlstm, resolve, slstm
from xlstm_ts.kernels._mlstm import reference as mlstm_reference
from xlstm_ts.kernels.dispatch import load

# Every line of the table that can run on tensors of the CPU: the native kernels need a compiler once, or a wheel that
# carries them; those for a GPU have their own cases in gpu_cases.py.
SLSTM_BACKENDS, MLSTM_BACKENDS = (
    [name for name in BACKENDS[cell] if load(cell, name).unsupported(torch.ones(1)) is None]
    for cell in ("slstm", "mlstm")
)
LENGTHS = [1, 2, 63, 64, 65, 200]
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-5}
B, H, K, V = 2, 3, 5, 7  # all different, all odd widths


def draw_gates(shape, kind, seed):
    if kind == "normal":
        return normal(*shape, seed=seed)
    uniform = torch.rand(shape, generator=generator(seed), dtype=torch.float64)
    return (uniform * 120 - 60) if kind == "uniform60" else torch.where(uniform < 0.5, -60.0, 60.0).double()


def slstm_case(steps, kind, cold):
    inputs = {
        "gates": draw_gates((B, steps, 4, H, K), kind, 1),
        "recurrent_weights": normal(4, H, K, K, seed=2) * 0.3,
    }
    if not cold:
        inputs |= {"h0": normal(B, H, K, seed=3).tanh(), "c0": normal(B, H, K, seed=4)}
        inputs["n0"] = 1 + normal(B, H, K, seed=5).abs()
    return inputs


def run_slstm(inputs, **options):
    state = None
    if "h0" in inputs:
        m = torch.linspace(-2, 2, B * H * K, dtype=torch.float64).view(B, H, K)
        state = SLSTMState(inputs["h0"], inputs["c0"], inputs["n0"], m)
    return slstm(inputs["gates"], inputs["recurrent_weights"], state, **options)


def mlstm_case(steps, kind, cold):
    # Keys in one orthant, queries in it or in the opposite one: n.q has either sign but stays away from 0,
    # where h = C.q / n.q is a quotient of cancelled sums, and no form could be told from another in float32.
    sign = torch.where(normal(B, steps, H, 1, seed=8) < 0, -1.0, 1.0)
    inputs = {
        "q": (0.2 + normal(B, steps, H, K, seed=1).abs()) * sign,
        "k": 0.2 + normal(B, steps, H, K, seed=2).abs(),
        "v": normal(B, steps, H, V, seed=3),
        "i": draw_gates((B, steps, H), kind, 4),
        "f": draw_gates((B, steps, H), kind, 5),
    }
    if not cold:
        inputs |= {"c0": normal(B, H, K, V, seed=6), "n0": 0.2 + normal(B, H, K, seed=7).abs()}
    return inputs


def run_mlstm(inputs, form=None, **options):
    state = MLSTMState.empty(B, H, K, V, dtype=inputs["q"].dtype)
    if "c0" in inputs:
        m = torch.linspace(-2, 2, B * H, dtype=torch.float64).view(B, H)
        state = MLSTMState(inputs["c0"], inputs["n0"], m)
    arguments = [inputs[name] for name in "qkvif"]
    if form is not None:
        return form(*arguments, state, options.get("forget_gate", "sigmoid"))
    return mlstm(*arguments, state, **options)


def forward_and_gradients(run, case, dtype):
    """Return outputs and gradients by name, under fixed random cotangents of h and of every state."""
    inputs = {name: tensor.to(dtype).requires_grad_() for name, tensor in case.items()}
    h, state = run(inputs)
    named = {"h": h} | {f"final {name}": part for name, part in zip(state._fields, state, strict=True)}
    differentiable = [named[name] for name in named if name != "final m"]
    cotangents = [normal(*part.shape, seed=50 + j, dtype=dtype) for j, part in enumerate(differentiable)]
    gradients = torch.autograd.grad(differentiable, list(inputs.values()), cotangents, materialize_grads=True)
    return {name: part.detach() for name, part in named.items()} | {
        f"gradient of {name}": gradient for name, gradient in zip(inputs, gradients, strict=True)
    }


def assert_agree(got, expected, tolerance):
    shift = torch.exp(got["final m"].double() - expected["final m"].double())  # compare states at equal m
    for name in ("final c", "final n"):
        got[name] = got[name] * shift.view(*shift.shape, *[1] * (got[name].dim() - shift.dim()))
    for name in expected:
        # Of 288 cases nine have a gradient that vanishes (h does not depend on q while one step outweighs all others),
        # which has no relative error. The cotangents are of order 1, so float32 rounds at 1e-7: 1e-5 of the floor.
        floor = 1e-2 if name.startswith("gradient") else 0.0
        error = relative_rms(got[name], expected[name], floor)
        assert error <= tolerance, f"{name}: relative rms error {error:.2e}"


FORMS = {name: {"backend": name} for name in MLSTM_BACKENDS} | {
    "chunks of 1": {"backend": "eager", "chunk": 1},
    "chunks of 16": {"backend": "eager", "chunk": 16},
    "one chunk": {"backend": "eager", "chunk": 1000},
    "native chunks of 1": {"backend": "native", "chunk": 1},
    "native chunks of 100": {"backend": "native", "chunk": 100},
    "parallel": {"form": mlstm_reference.parallel},
}
FORMS = {name: form for name, form in FORMS.items() if form.get("backend", "eager") in MLSTM_BACKENDS}


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("cold", [True, False], ids=["empty history", "carried state"])
@pytest.mark.parametrize("kind", ["normal", "uniform60", "exactly60"])
@pytest.mark.parametrize("forget_gate", ["sigmoid", "exp"])
@pytest.mark.parametrize("steps", LENGTHS)
def test_slstm_backends_agree_with_the_float64_reference(steps, forget_gate, kind, cold, dtype):
    case = {name: tensor.to(dtype).double() for name, tensor in slstm_case(steps, kind, cold).items()}
    expected = forward_and_gradients(
        lambda x: run_slstm(x, backend="reference", forget_gate=forget_gate), case, torch.float64
    )
    for backend in SLSTM_BACKENDS:
        got = forward_and_gradients(lambda x, b=backend: run_slstm(x, backend=b, forget_gate=forget_gate), case, dtype)
        assert_agree(got, expected, TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("cold", [True, False], ids=["empty history", "carried state"])
@pytest.mark.parametrize("kind", ["normal", "uniform60", "exactly60"])
@pytest.mark.parametrize("forget_gate", ["sigmoid", "exp"])
@pytest.mark.parametrize("steps", LENGTHS)
def test_mlstm_forms_agree_with_the_float64_reference(steps, forget_gate, kind, cold, dtype):
    case = {name: tensor.to(dtype).double() for name, tensor in mlstm_case(steps, kind, cold).items()}
    expected = forward_and_gradients(
        lambda x: run_mlstm(x, backend="reference", forget_gate=forget_gate), case, torch.float64
    )
    for options in FORMS.values():
        got = forward_and_gradients(lambda x, o=options: run_mlstm(x, forget_gate=forget_gate, **o), case, dtype)
        assert_agree(got, expected, TOLERANCE[dtype])


def test_slstm_first_step_by_hand():
    gates = torch.tensor([0.7, -0.3, 0.5, 0.2], dtype=torch.float64).view(1, 1, 4, 1, 1)
    weights = torch.zeros(4, 1, 1, 1, dtype=torch.float64)

    h, state = slstm(gates, weights)

    z, o = (
        torch.tanh(torch.tensor(0.5, dtype=torch.float64)),
        torch.sigmoid(torch.tensor(0.2, dtype=torch.float64)),
    )
    torch.testing.assert_close(h.flatten(), (o * z).view(1))  # one value: c / n = z whatever i is
    torch.testing.assert_close(state.m.flatten(), torch.tensor([0.7], dtype=torch.float64))
    torch.testing.assert_close(state.n.flatten(), torch.tensor([1.0], dtype=torch.float64))


def test_mlstm_computes_the_unstabilised_equations():
    case = mlstm_case(6, "normal", cold=True)
    q, k, v, i, f = (case[name] for name in "qkvif")
    c = torch.zeros(B, H, K, V, dtype=torch.float64)
    n = torch.zeros(B, H, K, dtype=torch.float64)
    expected = []
    for t in range(6):
        weight, kept = torch.exp(i[:, t])[..., None], torch.sigmoid(f[:, t])[..., None]
        c = kept[..., None] * c + (weight * k[:, t] / K**0.5)[..., None] * v[:, t, :, None, :]
        n = kept * n + weight * k[:, t] / K**0.5
        dot = (n * q[:, t]).sum(-1).abs().clamp_min(1.0)[..., None]
        expected.append(torch.einsum("bhk,bhkv->bhv", q[:, t], c) / dot)

    h, state = run_mlstm(case)

    torch.testing.assert_close(h, torch.stack(expected, 1))
    torch.testing.assert_close(state.c * torch.exp(state.m)[..., None, None], c)


@pytest.mark.parametrize("backend", SLSTM_BACKENDS)
@pytest.mark.parametrize("forget_gate", ["sigmoid", "exp"])
def test_slstm_gradcheck_of_h_over_two_joined_pieces(backend, forget_gate):
    inputs = [
        normal(2, 5, 4, 2, 3, seed=1).requires_grad_(),
        (normal(4, 2, 3, 3, seed=2) * 0.4).requires_grad_(),
    ]
    options = {"backend": backend, "forget_gate": forget_gate}

    def whole(gates, weights):
        return slstm(gates, weights, **options)[0]

    def two_pieces(gates, weights):
        first, state = slstm(gates[:, :2], weights, **options)
        return torch.cat([first, slstm(gates[:, 2:], weights, state, **options)[0]], 1)

    assert torch.autograd.gradcheck(whole, inputs)
    assert torch.autograd.gradcheck(two_pieces, inputs)


@pytest.mark.parametrize("options", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("forget_gate", ["sigmoid", "exp"])
def test_mlstm_gradcheck_of_h_over_two_joined_pieces(options, forget_gate):
    if "form" in options:
        form = options["form"]

        def cell(*inputs, state=None):
            state = state or MLSTMState.empty(2, 2, 3, 2, dtype=torch.float64)
            return form(*inputs, state, forget_gate)
    else:

        def cell(*inputs, state=None):
            return mlstm(*inputs, state, forget_gate=forget_gate, **options)

    shapes = [(2, 5, 2, 3), (2, 5, 2, 3), (2, 5, 2, 2), (2, 5, 2), (2, 5, 2)]
    inputs = [normal(*shape, seed=j).requires_grad_() for j, shape in enumerate(shapes)]

    def two_pieces(*inputs):
        first, state = cell(*(x[:, :2] for x in inputs))
        return torch.cat([first, cell(*(x[:, 2:] for x in inputs), state=state)[0]], 1)

    assert torch.autograd.gradcheck(lambda *inputs: cell(*inputs)[0], inputs)
    assert torch.autograd.gradcheck(two_pieces, inputs)


@settings(max_examples=25, deadline=None)
@given(steps=st.integers(2, 90), data=st.data(), cold=st.booleans())
def test_two_pieces_with_carried_state_equal_one(steps, data, cold):
    cut = data.draw(st.integers(1, steps - 1))
    case = slstm_case(steps, "normal", cold)
    h, state = run_slstm(case)
    first, middle = run_slstm(case | {"gates": case["gates"][:, :cut]})
    second, last = slstm(case["gates"][:, cut:], case["recurrent_weights"], middle)
    torch.testing.assert_close(torch.cat([first, second], 1), h)
    for got, expected in zip(last, state, strict=True):
        torch.testing.assert_close(got, expected)

    case = mlstm_case(steps, "normal", cold)
    h, state = run_mlstm(case)
    first, middle = run_mlstm(case | {name: case[name][:, :cut] for name in "qkvif"})
    second, last = mlstm(*(case[name][:, cut:] for name in "qkvif"), middle)
    torch.testing.assert_close(torch.cat([first, second], 1), h)
    for got, expected in zip(last, state, strict=True):
        torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("backend", SLSTM_BACKENDS)
def test_a_batch_row_never_depends_on_its_neighbours(backend):
    # A cold row with a closed input gate beside a warm one: where implementations that look at the whole batch break.
    case = slstm_case(30, "normal", cold=True)
    gates = case["gates"].float()
    gates[1, :, 0] = -120.0
    weights = case["recurrent_weights"].float()
    alone, _ = slstm(gates[1:], weights, backend=backend)

    together, _ = slstm(gates, weights, backend=backend)
    gates[0] = 7.0
    changed, _ = slstm(gates, weights, backend=backend)

    assert torch.isfinite(together).all()
    torch.testing.assert_close(together[1:], alone, rtol=1e-5, atol=1e-6)
    assert torch.equal(together[1], changed[1])


@pytest.mark.parametrize("backend", MLSTM_BACKENDS)
def test_an_mlstm_batch_row_never_depends_on_its_neighbours(backend):
    case = {name: tensor.float() for name, tensor in mlstm_case(30, "normal", cold=True).items()}
    case["i"][1] = -120.0
    h, _ = run_mlstm(case, backend=backend)
    for tensor in case.values():
        tensor[0] = 7.0
    changed, _ = run_mlstm(case, backend=backend)
    assert torch.isfinite(h).all()
    assert torch.equal(h[1], changed[1])


@pytest.mark.parametrize("forget_gate", ["sigmoid", "exp"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_inputs_of_ten_thousand_give_finite_values_and_gradients(dtype, forget_gate):
    for backend in SLSTM_BACKENDS:
        gates = (normal(2, 40, 4, 2, 4, seed=3) * 1e4).to(dtype).requires_grad_()
        weights = normal(4, 2, 4, 4, seed=4).to(dtype).requires_grad_()
        h, state = slstm(gates, weights, forget_gate=forget_gate, backend=backend)
        assert h.dtype == dtype
        gradients = torch.autograd.grad(h.float().sum(), [gates, weights])
        assert all(torch.isfinite(part).all() for part in (h, *state, *gradients))

    for backend in MLSTM_BACKENDS:
        shapes = [(2, 40, 2, 4)] * 3 + [(2, 40, 2)] * 2
        inputs = [(normal(*s, seed=j) * 1e4).to(dtype).requires_grad_() for j, s in enumerate(shapes)]
        h, state = mlstm(*inputs, forget_gate=forget_gate, backend=backend)
        assert h.dtype == dtype
        gradients = torch.autograd.grad(h.float().sum(), inputs)
        assert all(torch.isfinite(part).all() for part in (h, *state, *gradients))


def test_a_query_of_zero_reads_zero_under_any_input_gate():
    case = mlstm_case(3, "normal", cold=True)
    case["q"] = torch.zeros_like(case["q"])
    case["i"] = torch.full_like(case["i"], 1e4)

    h, _ = run_mlstm(case)

    assert torch.equal(h, torch.zeros_like(h))


def test_inputs_are_never_changed():
    for steps, batch in [(1, 1), (1, 2), (70, 1)]:
        inputs = [normal(batch, steps, 4, 2, 3, seed=1), normal(4, 2, 3, 3, seed=2)]
        copies = [tensor.clone() for tensor in inputs]
        slstm(*inputs)
        assert all(torch.equal(a, b) for a, b in zip(inputs, copies, strict=True))
        shapes = [(batch, steps, 2, 3)] * 3 + [(batch, steps, 2)] * 2
        inputs = [normal(*shape, seed=j) for j, shape in enumerate(shapes)]
        copies = [tensor.clone() for tensor in inputs]
        mlstm(*inputs)
        assert all(torch.equal(a, b) for a, b in zip(inputs, copies, strict=True))


def test_resolve_names_a_backend_and_says_why():
    assert resolve("slstm")[0] in ("native", "eager")
    assert resolve("mlstm", backend="reference") == ("reference", "asked for by name")
    with pytest.raises(BackendError, match=r'kernels.mlstm: backend="fast" is unknown'):
        resolve("mlstm", backend="fast")


def test_wrong_arguments_get_an_error_that_names_them():
    gates, weights = normal(2, 3, 4, 2, 5), normal(4, 2, 5, 5)
    with pytest.raises(ShapeError, match=r"recurrent_weights has shape \(4, 2, 5, 4\); expected \(4, 2, 5, 5\)"):
        slstm(gates, weights[..., :4])
    with pytest.raises(ShapeError, match=r"gates has shape \(2, 3, 2, 5\); expected \(B, T, 4, H, K\)"):
        slstm(gates[:, :, 0], weights)
    with pytest.raises(ShapeError, match=r"recurrent_weights is torch.float32"):
        slstm(gates, weights.float())
    with pytest.raises(ShapeError, match=r"state.h|state.c"):
        slstm(gates, weights, SLSTMState.empty(3, 2, 5, dtype=torch.float64)._replace(h=torch.zeros(2, 2, 5)))
    with pytest.raises(ParameterError, match="forget_gate='tanh'"):
        slstm(gates, weights, forget_gate="tanh")
    with pytest.raises(ShapeError, match=r"gates has shape \(2, 3, 3, 2, 5\); expected \(B, T, 4, H, K\)"):
        slstm(gates[:, :, :3], weights)
    for empty in (gates[:0], gates[:, :0], gates[:, :, :, :0], gates[..., :0]):
        with pytest.raises(ShapeError, match=r"expected \(B, T, 4, H, K\), every letter 1 or above"):
            slstm(empty, weights)
    with pytest.raises(ShapeError, match=r"recurrent_weights has shape \(4, 1, 5, 5\); expected \(4, 2, 5, 5\)"):
        slstm(gates, weights[:, :1])
    with pytest.raises(ShapeError, match=r"recurrent_weights is torch.float64 on meta, the first input .* on cpu"):
        slstm(gates, weights.to("meta"))
    with pytest.raises(ParameterError, match=r"kernels.slstm: state is of type tuple; expected an SLSTMState"):
        slstm(gates, weights, tuple(torch.zeros(4, 2, 2, 5)))
    q = normal(2, 3, 2, 5)
    with pytest.raises(ShapeError, match=r"i has shape \(2, 3, 2, 5\); expected \(2, 3, 2\)"):
        mlstm(q, q, q, q, q)
    with pytest.raises(ParameterError, match="chunk=0"):
        mlstm(q, q, q, q[..., 0], q[..., 0], chunk=0)
    with pytest.raises(ShapeError, match=r"torch\.int64"):
        mlstm(q.long(), q, q, q[..., 0], q[..., 0])
    with pytest.raises(ShapeError, match=r"k has shape \(2, 3, 1, 5\); expected \(2, 3, 2, 5\)"):
        mlstm(q, q[:, :, :1], q, q[..., 0], q[..., 0])
    with pytest.raises(
        ShapeError, match=r"v has shape \(2, 3, 2, 0\); expected \(B, T, H, V\), every letter 1 or above"
    ):
        mlstm(q, q, q[..., :0], q[..., 0], q[..., 0])
    with pytest.raises(ParameterError, match=r"chunk=1\.5; expected a whole number"):
        mlstm(q, q, q, q[..., 0], q[..., 0], chunk=1.5)
    with pytest.raises(ParameterError, match="state is of type SLSTMState; expected an MLSTMState"):
        mlstm(q, q, q, q[..., 0], q[..., 0], SLSTMState.empty(2, 2, 5))
