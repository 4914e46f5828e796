"""Which implementation runs a cell: one table, and one function that picks from it.

A backend is a module with two functions: ``run(...)``, with the arguments of the public cell, and
``unsupported(*tensors)``, which returns why it cannot run these tensors here, or None. Modules are named,
not imported, so that a backend's own needs (a compiler, Triton) are met only when it is used. The tests run
every cell through every line of the table: to list a backend is to test it.
"""

from importlib import import_module
from types import ModuleType

from torch import Tensor

from xlstm_ts.errors import BackendError

# In the order in which "auto" prefers them.
BACKENDS: dict[str, dict[str, str]] = {
    "slstm": {
        "native": "xlstm_ts.kernels._slstm.native",
        "triton": "xlstm_ts.kernels._slstm.gpu",
        "eager": "xlstm_ts.kernels._slstm.eager",
        "reference": "xlstm_ts.kernels._slstm.reference",
    },
    "mlstm": {
        "native": "xlstm_ts.kernels._mlstm.native",
        "triton": "xlstm_ts.kernels._mlstm.gpu",
        "eager": "xlstm_ts.kernels._mlstm.eager",
        "reference": "xlstm_ts.kernels._mlstm.reference",
    },
    "parts": {
        "native": "xlstm_ts.kernels._parts.native",
        "eager": "xlstm_ts.kernels._parts.eager",
    },
}


def resolve(cell: str, tensors: tuple[Tensor, ...] = (), backend: str = "auto") -> tuple[str, str]:
    """Name the backend that will run a cell, and say why.

    Parameters
    ----------
    cell : {"slstm", "mlstm"}
        The cell.
    tensors : tuple of Tensor
        Tensors like those that the cell will get; their device and dtype matter.
    backend : str
        "auto" picks the fastest that can run these tensors; only "auto" falls back.

    Returns
    -------
    name : str
        The backend.
    reason : str
        Why this one, in words.

    Raises
    ------
    BackendError
        `cell` or `backend` is unknown, or cannot run these tensors here; the message names the reason.
    """
    if cell not in BACKENDS:
        raise BackendError(f"kernels.resolve: the cell {cell!r} is unknown; there are {', '.join(BACKENDS)}.")
    table = BACKENDS[cell]
    if backend != "auto":
        if backend not in table:
            known = ", ".join(f'"{name}"' for name in table)
            raise BackendError(f'kernels.{cell}: backend="{backend}" is unknown; this version has "auto", {known}.')
        if why := load(cell, backend).unsupported(*tensors):
            raise BackendError(f'kernels.{cell}: backend="{backend}" {why}. Use backend="auto".')
        return backend, "asked for by name"
    passed_over: list[str] = []
    for name in table:
        why = load(cell, name).unsupported(*tensors)
        if why is None:
            return name, "; ".join([*passed_over, "the fastest that can run here"])
        passed_over.append(f"{name} {why}")
    raise BackendError(f"kernels.{cell}: no backend can run here: {'; '.join(passed_over)}.")


def load(cell: str, backend: str) -> ModuleType:
    """Return the module that implements a backend of a cell."""
    return import_module(BACKENDS[cell][backend])
