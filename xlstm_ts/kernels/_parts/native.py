"""The parts of blocks on CPU through native/parts.h: each forward and backward a few calls that pass over memory once.

Dimensions: B batch, T steps, D width, H heads, M rows (batch and steps).
"""

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import pad

from xlstm_ts.kernels._parts import eager
from xlstm_ts.kernels._parts.eager import Product, Weights
from xlstm_ts.kernels.native import call as native
from xlstm_ts.kernels.native.call import Call, execute, integers, pointers
from xlstm_ts.kernels.native.products import multiply, weight_gradient

GATE_ROWS = 128  # as in cells.h
FEED_FORWARD_SLAB = 1024  # rows whose gradients of the weights are summed by themselves
WHOLE = 16  # numbers of the longest vector


def unsupported(*tensors: Tensor) -> str | None:
    """Return why the kernels cannot run these tensors here, or None."""
    for tensor in tensors:
        if tensor.dtype not in (torch.float32, torch.float64) or tensor.dtype != tensors[0].dtype:
            return f"needs float32 or float64 throughout, got {tensor.dtype}"
    if torch.is_autocast_enabled("cpu"):
        return "leaves autocasting to torch"
    return native.unsupported(*tensors)


def project(products: tuple[Product, ...], joined: bool) -> tuple[Tensor, ...]:
    """See `xlstm_ts.kernels.parts.project`."""
    inputs: list[Tensor] = []
    places: list[int] = []
    for x, _, _ in products:  # an input that several products read gets its gradient in one piece
        place = next((j for j, known in enumerate(inputs) if known is x), len(inputs))
        inputs += [x] if place == len(inputs) else []
        places.append(place)
    weights = [weight for _, weight, _ in products]
    biases = [bias for _, _, bias in products]
    return _Project.apply(tuple(places), joined, *inputs, *weights, *biases)


def causal_conv(x: Tensor, tail: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """See `xlstm_ts.kernels.parts.causal_conv`."""
    return _CausalConv.apply(x, tail, weight, bias)


def gelu_gate(x: Tensor) -> Tensor:
    """See `xlstm_ts.kernels.parts.gelu_gate`."""
    return _GeluGate.apply(x)


def feed_forward(x: Tensor, norm: Weights, up: Weights, down: Weights) -> Tensor:
    """See `xlstm_ts.kernels.parts.feed_forward`."""
    if x.shape[-1] % WHOLE:
        (wide,) = project(((eager.norm(x, norm), *up),), False)
        return project(((gelu_gate(wide), *down),), False)[0]
    inputs = (x, *norm, *up, *down)
    keep = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in inputs)
    return _FeedForward.apply(keep, *inputs)


def head_norm(x: Tensor, weight: Tensor) -> Tensor:
    """See `xlstm_ts.kernels.parts.head_norm`."""
    return _NormGate.apply(x, weight, None, None, None)


def norm_gate(x: Tensor, weight: Tensor, skip: Tensor, residual: Tensor, gate: Tensor) -> Tensor:
    """See `xlstm_ts.kernels.parts.norm_gate`."""
    return _NormGate.apply(x, weight, skip, residual, gate)


def read_last(q: Tensor, keys: Tensor, values: Tensor, gates: Tensor, forget_gate: str) -> Tensor:
    """See `xlstm_ts.kernels.parts.read_last`; where gradients are wanted, in plain torch."""
    inputs = (q, keys, values, gates)
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in inputs):
        return eager.read_last(q, keys, values, gates, forget_gate)
    q, keys, values, gates = (tensor.contiguous() for tensor in inputs)
    batch, steps, heads, width = keys.shape
    value_width = values.shape[-1]
    y = q.new_empty(batch, heads, value_width)
    call = _ReadLast(batch=batch, steps=steps, heads=heads, width=width, value_width=value_width)
    call.exp_forget = forget_gate == "exp"
    call.point(q=q, keys=keys, values=values, gates=gates, y=y)
    execute("xlstm_read_last", call, q, 2 * keys.numel() + 2 * values.numel() + 16 * gates.numel())
    return y


class _Linear(Call):
    """`struct linear` of cells.h."""

    _fields_ = (
        *integers("rows", "groups", "inner", "columns", "is_double", "add", "level", "threads"),
        *pointers("parallel"),
        *integers("x_row", "x_group", "y_row", "y_group", "w_group", "w_inner", "w_column"),
        *pointers("x", "w", "bias", "y", "packed"),
    )


class _LinearWeight(Call):
    """`struct linear_weight` of cells.h."""

    _fields_ = (
        *integers("rows", "groups", "left_width", "right_width", "slabs", "is_double", "sum_right", "level", "threads"),
        *pointers("parallel"),
        *integers("left_row", "left_group", "right_row", "right_group"),
        *pointers("left", "right", "out", "sums"),
    )


class _Conv(Call):
    """`struct conv` of cells.h."""

    _fields_ = (
        *integers("batch", "steps", "width", "size", "is_double", "level", "threads"),
        *pointers("parallel"),
        *integers("x_batch", "x_step", "d_y_batch", "d_y_step"),
        *pointers("x", "tail", "w", "bias", "y", "d_y", "d_x", "d_tail", "d_w"),
    )


class _Gelu(Call):
    """`struct gelu_gate` of cells.h."""

    _fields_ = (
        *integers("rows", "width", "is_double", "level", "threads"),
        *pointers("parallel", "x", "y", "d_y", "d_x"),
    )


class _FeedForwardCall(Call):
    """`struct feed_forward` of cells.h."""

    _fields_ = (
        *integers("rows", "width", "inner", "slabs", "is_double", "level", "threads"),
        *pointers("parallel"),
        *integers("d_y_row"),
        *pointers("x", "norm_weight", "norm_bias", "up", "up_bias", "down", "down_bias", "wide", "y", "packed"),
        *pointers("d_y", "d_x", "d_norm_weight", "d_norm_bias", "d_up", "d_up_bias", "d_down", "d_down_bias"),
    )


class _Norm(Call):
    """`struct norm_gate` of cells.h."""

    _fields_ = (
        *integers("rows", "heads", "width", "is_double", "level", "threads"),
        *pointers("parallel"),
        *integers("gate_row", "d_y_row"),
        *pointers("x", "weight", "skip", "residual", "gate", "y"),
        *pointers("d_y", "d_x", "d_weight", "d_skip", "d_residual", "d_gate"),
    )


class _ReadLast(Call):
    """`struct read_last` of cells.h."""

    _fields_ = (
        *integers("batch", "steps", "heads", "width", "value_width"),
        *integers("is_double", "exp_forget", "level", "threads"),
        *pointers("parallel", "q", "keys", "values", "gates", "y"),
    )


class _Project(torch.autograd.Function):
    @staticmethod
    def forward(ctx, places, joined, *tensors):
        ctx.set_materialize_grads(False)
        count = len(places)
        inputs, weights, biases = tensors[: -2 * count], tensors[-2 * count : -count], tensors[-count:]
        inputs = tuple(native.rows(x) for x in inputs)
        ctx.save_for_backward(*inputs, *weights)
        ctx.how, ctx.biased = (places, joined), [bias is not None for bias in biases]
        widths = [weight.shape[-1] if weight.dim() == 3 else weight.shape[0] for weight in weights]
        bounds = _bounds(widths)
        whole = None
        outputs = []
        for place, weight, bias, (start, stop) in zip(places, weights, biases, bounds, strict=True):
            x, heads = inputs[place], weight.shape[:1] if weight.dim() == 3 else ()
            if joined:
                whole = x.new_empty(*x.shape[:-1], *heads, sum(widths)) if whole is None else whole
                y = whole[..., start:stop]
            else:
                y = x.new_empty(*x.shape[:-1], *heads, stop - start)
                outputs.append(y)
            multiply(_of_input(x, weight), _as_groups(weight), _of_output(y, weight), bias)
        return (whole,) if joined else tuple(outputs)

    @staticmethod
    @once_differentiable
    def backward(ctx, *d_outputs):
        (places, joined), count = ctx.how, len(ctx.how[0])
        inputs, weights = ctx.saved_tensors[:-count], ctx.saved_tensors[-count:]
        d_inputs: list = [None] * len(inputs)
        d_weights: list = [None] * count
        d_biases: list = [None] * count
        if joined and d_outputs[0] is not None:
            widths = [weight.shape[-1] if weight.dim() == 3 else weight.shape[0] for weight in weights]
            d_outputs = tuple(d_outputs[0][..., start:stop] for start, stop in _bounds(widths))
        needs = ctx.needs_input_grad[2:]
        for j, (place, weight, d_y) in enumerate(zip(places, weights, d_outputs, strict=True)):
            if d_y is None:
                continue
            x, d_y = inputs[place], _of_output(native.rows(d_y), weight)
            if needs[place]:
                add = d_inputs[place] is not None
                d_inputs[place] = d_inputs[place] if add else torch.empty(x.shape, dtype=x.dtype)
                multiply(d_y, _as_groups(weight).transpose(1, 2), _of_input(d_inputs[place], weight), add=add)
            if needs[len(inputs) + j] or ctx.biased[j]:
                d_weights[j], d_biases[j] = weight_gradient(_of_input(x, weight), d_y, weight, ctx.biased[j])
        return None, None, *d_inputs, *d_weights, *d_biases


def _bounds(widths: list[int]) -> list[tuple[int, int]]:
    """Return where pieces of these widths start and stop, one after the other."""
    stops = [sum(widths[: j + 1]) for j in range(len(widths))]
    return [(stop - width, stop) for width, stop in zip(widths, stops, strict=True)]


def _as_groups(weight: Tensor) -> Tensor:
    """Return a weight as (groups, inner, columns)."""
    return weight if weight.dim() == 3 else weight.t()[None]


def _of_input(x: Tensor, weight: Tensor) -> Tensor:
    """Return (..., D) as rows and groups of the weight: (M, groups, inner)."""
    return x.flatten(0, -2).unflatten(-1, (weight.shape[0] if weight.dim() == 3 else 1, -1))


def _of_output(y: Tensor, weight: Tensor) -> Tensor:
    """Return (..., E), or (..., H, E / H) for a head-wise weight, likewise: (M, groups, columns)."""
    return y.flatten(0, -3) if weight.dim() == 3 else y.flatten(0, -2)[:, None]


class _CausalConv(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, tail, weight, bias):
        x = native.rows(x)
        tail, weight, bias = (tensor.contiguous() for tensor in (tail, weight, bias))
        ctx.save_for_backward(x, tail, weight, bias)
        y = torch.empty(x.shape, dtype=x.dtype)
        call = _conv_call(x, tail, weight, bias)
        call.point(y=y)
        execute("xlstm_conv", call, x, 8 * x.numel() * weight.shape[1])
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, d_y):
        x, tail, weight, bias = ctx.saved_tensors
        d_y = native.rows(d_y)
        d_x, d_tail = torch.empty(x.shape, dtype=x.dtype), torch.empty_like(tail)
        width, size = weight.shape
        d_w = x.new_empty(x.shape[0], size + 1, width)
        call = _conv_call(x, tail, weight, bias)
        call.d_y_batch, call.d_y_step = d_y.stride()[:2]
        call.point(d_y=d_y, d_x=d_x, d_tail=d_tail, d_w=d_w)
        execute("xlstm_conv_back", call, x, 16 * x.numel() * size)
        d_w = d_w.sum(0)
        return d_x, d_tail, d_w[:-1].t(), d_w[-1]


def _conv_call(x: Tensor, tail: Tensor, weight: Tensor, bias: Tensor) -> _Conv:
    batch, steps, width = x.shape
    call = _Conv(batch=batch, steps=steps, width=width, size=weight.shape[1])
    call.x_batch, call.x_step = x.stride()[:2]
    call.point(x=x, tail=tail, w=weight, bias=bias)
    return call


class _GeluGate(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        x = x.contiguous()
        ctx.save_for_backward(x)
        width = x.shape[-1] // 2
        y = x.new_empty(*x.shape[:-1], width)
        call = _Gelu(rows=y.numel() // width, width=width)
        call.point(x=x, y=y)
        execute("xlstm_gelu_gate", call, x, 16 * x.numel())
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, d_y):
        (x,) = ctx.saved_tensors
        d_y, d_x = d_y.contiguous(), torch.empty_like(x)
        call = _Gelu(rows=d_y.numel() // d_y.shape[-1], width=d_y.shape[-1])
        call.point(x=x, d_y=d_y, d_x=d_x)
        execute("xlstm_gelu_gate", call, x, 16 * x.numel())
        return d_x


class _FeedForward(torch.autograd.Function):
    NAMES = ("norm_weight", "norm_bias", "up", "up_bias", "down", "down_bias")

    @staticmethod
    def forward(ctx, keep, x, *weights):
        given = weights[4].shape[1]
        x, weights = x.contiguous(), _whole(*weights)
        width, inner = weights[4].shape
        rows = x.numel() // width
        y = torch.empty_like(x)
        wide = x.new_empty(rows, 2 * inner) if keep else None
        call = _FeedForwardCall(rows=rows, width=width, inner=inner)
        call.point(x=x, y=y, wide=wide, **dict(zip(_FeedForward.NAMES, weights, strict=True)))
        execute("xlstm_feed_forward", call, x, 3 * rows * width * inner)
        ctx.save_for_backward(x, wide, *weights)
        ctx.given = given
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, d_y):
        x, wide, *weights = ctx.saved_tensors
        width, inner = weights[4].shape
        rows, slabs = len(wide), max(1, len(wide) // FEED_FORWARD_SLAB)
        d_x, d_y = torch.empty_like(x), _flat(d_y)
        gradients = [weight.new_empty(slabs, *weight.shape) for weight in weights]
        call = _FeedForwardCall(rows=rows, width=width, inner=inner, slabs=slabs, d_y_row=d_y.stride(0))
        call.point(x=x, wide=wide, d_y=d_y, d_x=d_x, **dict(zip(_FeedForward.NAMES, weights, strict=True)))
        call.point(**{f"d_{name}": d for name, d in zip(_FeedForward.NAMES, gradients, strict=True)})
        execute("xlstm_feed_forward_back", call, x, 6 * rows * width * inner)
        gradients = [d.sum(0) for d in gradients]
        for j in (2, 3):  # of both halves, without what was added
            gradients[j] = gradients[j].unflatten(0, (2, inner))[:, : ctx.given].flatten(0, 1)
        gradients[4] = gradients[4][:, : ctx.given]
        return None, d_x, *gradients


def _whole(norm_weight, norm_bias, up, up_bias, down, down_bias):
    """Return the weights with zeros for as many units more as fill whole vectors."""
    more = -down.shape[1] % WHOLE
    if more:
        down = pad(down, (0, more))
        up = pad(up.unflatten(0, (2, -1)), (0, 0, 0, more)).flatten(0, 1)
        up_bias = pad(up_bias.unflatten(0, (2, -1)), (0, more)).flatten()
    return [weight.contiguous() for weight in (norm_weight, norm_bias, up, up_bias, down, down_bias)]


class _NormGate(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, skip, residual, gate):
        x, weight = x.contiguous(), weight.contiguous()
        if gate is not None:
            skip, residual, gate = skip.contiguous(), residual.contiguous(), _flat(gate)
        ctx.save_for_backward(x, weight, skip, residual, gate)
        y = x.new_empty(*x.shape[:-2], x.shape[-2] * x.shape[-1])
        call = _norm_call(x, weight, skip, residual, gate)
        call.point(y=y)
        execute("xlstm_norm_gate", call, x, 16 * x.numel())
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, d_y):
        x, weight, skip, residual, gate = ctx.saved_tensors
        d_x, d_y = torch.empty_like(x), _flat(d_y)
        call = _norm_call(x, weight, skip, residual, gate)
        pieces = -(-call.rows // GATE_ROWS)
        d_weight = x.new_empty(pieces, weight.shape[0])
        d_skip = d_residual = d_gate = None
        if gate is not None:
            d_skip, d_residual, d_gate = torch.empty_like(skip), torch.empty_like(d_weight), torch.empty_like(skip)
        call.d_y_row = d_y.stride(0)
        call.point(d_y=d_y, d_x=d_x, d_weight=d_weight, d_skip=d_skip, d_residual=d_residual, d_gate=d_gate)
        execute("xlstm_norm_gate_back", call, x, 32 * x.numel())
        return d_x, d_weight.sum(0), d_skip, None if d_residual is None else d_residual.sum(0), d_gate


def _norm_call(x, weight, skip, residual, gate) -> _Norm:
    heads, width = x.shape[-2:]
    call = _Norm(rows=x.numel() // (heads * width), heads=heads, width=width)
    call.gate_row = 0 if gate is None else gate.stride(0)
    call.point(x=x, weight=weight, skip=skip, residual=residual, gate=gate)
    return call


def _flat(x: Tensor) -> Tensor:
    """Return (..., D) as rows (M, D)."""
    return native.rows(x).flatten(0, -2)
