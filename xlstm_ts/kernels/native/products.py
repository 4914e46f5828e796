"""Products of many rows with a matrix, and their gradients, through native/parts.h.

Dimensions: M rows.
"""

from torch import Tensor

from xlstm_ts.kernels.native.call import Call, execute, integers, pointers

SLAB_ROWS = 2048  # the gradient of a weight is summed over so many rows by itself


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


def multiply(x: Tensor, w: Tensor, y: Tensor, bias: Tensor | None = None, *, add: bool = False) -> None:
    """Write x w + bias to y, or add x w to it; x (M, groups, inner), w (groups, inner, columns)."""
    rows, groups, inner = x.shape
    columns = w.shape[-1]
    bias = None if bias is None else bias.contiguous()
    call = _Linear(rows=rows, groups=groups, inner=inner, columns=columns, add=add)
    call.x_row, call.x_group = x.stride()[:2]
    call.y_row, call.y_group = y.stride()[:2]
    call.w_group, call.w_inner, call.w_column = w.stride()
    call.point(x=x, w=w, bias=bias, y=y)
    execute("xlstm_linear", call, x, rows * groups * inner * columns)


def weight_gradient(x: Tensor, d_y: Tensor, weight: Tensor, biased: bool = False) -> tuple[Tensor, Tensor | None]:
    """Return the gradients of weight and bias; x and d_y are (M, groups, width)."""
    rows, groups, _ = x.shape
    dense = weight.dim() == 2  # (out, in), else (heads, in, out)
    left, right = (d_y, x) if dense else (x, d_y)
    slabs = max(1, rows // SLAB_ROWS)
    call = _LinearWeight(
        rows=rows,
        groups=groups,
        left_width=left.shape[-1],
        right_width=right.shape[-1],
        slabs=slabs,
        sum_right=not dense,
    )
    call.left_row, call.left_group = left.stride()[:2]
    call.right_row, call.right_group = right.stride()[:2]
    out = x.new_empty(slabs, groups, left.shape[-1], right.shape[-1])
    sums = x.new_empty(slabs, groups, d_y.shape[-1]) if biased else None
    call.point(left=left, right=right, out=out, sums=sums)
    execute("xlstm_linear_weight", call, x, rows * groups * x.shape[-1] * d_y.shape[-1])
    gradient = out.sum(0).view(weight.shape)
    return gradient, None if sums is None else (sums.sum(0)[0] if dense else sums.sum(0))
