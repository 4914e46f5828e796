"""The sLSTM with its input projections as one operation.

A backend that makes the gates itself, a few steps at a time, never sends them through memory; for the others they are
made by `project` first. Dimensions: B batch, T steps, D width of an input, H heads, K head width.
"""

import torch
from torch import Tensor

from xlstm_ts.errors import ShapeError
from xlstm_ts.kernels.arguments import check_forget_gate, check_kind, check_rank, is_autocasting, slstm_state
from xlstm_ts.kernels.cells import slstm
from xlstm_ts.kernels.dispatch import load, resolve
from xlstm_ts.kernels.parts import FEW_ROWS, project
from xlstm_ts.kernels.states import SLSTMState

FEW_STEPS = 8  # a kernel that makes the gates takes the steps of one row at a time


def slstm_layer(
    gate_input: Tensor,
    x: Tensor,
    weight_if: Tensor,
    weight_zo: Tensor,
    bias: Tensor,
    recurrent_weights: Tensor,
    state: SLSTMState | None = None,
    *,
    forget_gate: str = "sigmoid",
    backend: str = "auto",
) -> tuple[Tensor, SLSTMState]:
    """Run an sLSTM over a sequence of inputs.

    Parameters
    ----------
    gate_input, x : Tensor of shape (B, T, D)
        What the gates i and f, and z and o, are made of. May be one tensor object.
    weight_if, weight_zo : Tensor of shape (2HK, D) or (H, D / H, 2K)
        Dense weights, whose rows go by head, gate and unit; or head-wise ones, where each head reads its own part.
    bias : Tensor of shape (4, H, K)
        Of the gates i, f, z, o.
    recurrent_weights, state, forget_gate, backend
        As in `xlstm_ts.kernels.slstm`.

    Returns
    -------
    h : Tensor of shape (B, T, H, K)
        Hidden sequence.
    state : SLSTMState
        State after the last step.

    Raises
    ------
    ShapeError
        Shapes, dtypes or devices do not fit together; dtypes may differ under autocast.
    ParameterError, BackendError
        As `xlstm_ts.kernels.slstm`.
    """
    _check(gate_input, x, weight_if, weight_zo, bias, recurrent_weights)
    tensors = (gate_input, x, weight_if, weight_zo, bias, recurrent_weights)
    check_forget_gate("slstm", forget_gate)
    # A step or a few are better projected for all rows at once; autocasting is left to torch.
    many = x.shape[1] >= FEW_STEPS and x.numel() >= FEW_ROWS * x.shape[-1]
    if many and x.dtype in (torch.float32, torch.float64) and not is_autocasting(x):
        cell = load("slstm", resolve("slstm", tensors, backend)[0])
        if hasattr(cell, "run_layer"):
            return cell.run_layer(*tensors, slstm_state(state, x, *bias.shape[1:]), forget_gate)
    # Under autocast the projections may be short; the recurrence is not.
    gates = _gates(gate_input, x, weight_if, weight_zo, bias).to(recurrent_weights.dtype)
    return slstm(gates, recurrent_weights, state, forget_gate=forget_gate, backend=backend)


def _check(gate_input, x, weight_if, weight_zo, bias, recurrent_weights) -> None:
    check_rank("slstm_layer", "x", x, "(B, T, D)", (None,) * 3)
    check_rank("slstm_layer", "bias", bias, "(4, H, K)", (4, None, None))
    _, heads, width = bias.shape
    inputs, casting = x.shape[-1], is_autocasting(x)
    dense, headwise = (2 * heads * width, inputs), (heads, inputs // heads, 2 * width)
    expected = {
        "gate_input": (gate_input, tuple(x.shape)),
        "weight_if": (weight_if, dense if weight_if.dim() == 2 else headwise),
        "weight_zo": (weight_zo, tuple(weight_if.shape)),
        "bias": (bias, (4, heads, width)),
        "recurrent_weights": (recurrent_weights, (4, heads, width, width)),
    }
    for name, (tensor, shape) in expected.items():
        if tuple(tensor.shape) != shape:
            raise ShapeError(f"kernels.slstm_layer: {name} has shape {tuple(tensor.shape)}; expected {shape}.")
        check_kind(f"kernels.slstm_layer: {name}", tensor, "x", x, casting=casting)


def _gates(gate_input: Tensor, x: Tensor, weight_if: Tensor, weight_zo: Tensor, bias: Tensor) -> Tensor:
    """Return the pre-activations (B, T, 4, H, K), written where a backend reads them."""
    _, heads, width = bias.shape
    weights, biases = [weight_if, weight_zo], bias.chunk(2)
    if weight_if.dim() == 3:  # head-wise; per head the gates side by side
        bias_if, bias_zo = (bias.transpose(0, 1).flatten(1) for bias in biases)
    else:
        weights = [weight.view(heads, 2, width, -1).transpose(0, 1).flatten(0, 2) for weight in weights]
        bias_if, bias_zo = (bias.flatten() for bias in biases)
    (gates,) = project((gate_input, weights[0], bias_if), (x, weights[1], bias_zo), joined=True)
    if gates.dim() == 4:
        return gates.unflatten(-1, (4, width)).transpose(2, 3)
    return gates.unflatten(-1, (4, heads, width))
