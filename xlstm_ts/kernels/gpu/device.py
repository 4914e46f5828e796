"""Whether Triton kernels can run here, and with which options they are launched.

Triton is imported by the files that hold kernels, and these only when a tensor lies on a GPU: on a CPU it costs
nothing. With TRITON_INTERPRET=1 in the environment Triton runs the same kernels on CPU tensors, slowly and without a
compiler; that is how the tests check them on machines without a GPU.
"""

import os
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

# Wider heads would need more registers for the state than a block of threads has.
WIDEST = 256
# First with bfloat16 and TF32 products and asynchronous copies (NVIDIA A100).
OLDEST = (8, 0)
# Of 32 bits, in a multiprocessor of every generation so far.
REGISTERS = 65536
# Shared memory that three tiles in flight may need, of which two are on the way; data-centre GPUs have it.
ROOMY = 160 * 1024


def unsupported(tensors: tuple[Tensor, ...], *widths: int) -> str | None:
    """Return why Triton kernels cannot run these tensors, with heads of these widths, here; None if they can."""
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    for tensor in tensors:
        if tensor.device.type != "cuda" and not (interpreted and tensor.device.type == "cpu"):
            return f"needs CUDA tensors, got {tensor.device.type}"
        if type(tensor) not in (Tensor, torch.nn.Parameter):
            return f"needs plain tensors, got {type(tensor).__name__}"
    if torch.compiler.is_compiling():
        return "cannot be traced by torch.compile"
    if find_spec("triton") is None:
        return "needs the package triton"
    if max(widths, default=0) > WIDEST:
        return f"takes heads up to {WIDEST} wide, got {max(widths)}"
    return None if interpreted else _why_not_device(tensors[0].device.index if tensors else None)


@cache
def _why_not_device(index: int | None) -> str | None:
    if torch.version.hip or not torch.cuda.is_available():
        return "needs an NVIDIA GPU"
    capability = torch.cuda.get_device_capability(index)
    if capability < OLDEST:
        return (
            f"needs compute capability {OLDEST[0]}.{OLDEST[1]} or higher, this GPU has {capability[0]}.{capability[1]}"
        )
    return None


@cache
def _is_roomy(index: int) -> bool:
    from triton.runtime import driver

    return driver.active.utils.get_device_properties(index)["max_shared_mem"] >= ROOMY


def padded(width: int) -> int:
    """Return the width of the tiles that hold a head: a power of two, at least the 16 of a matrix unit."""
    return max(16, 1 << (width - 1).bit_length())


def launch_options(like: Tensor, warps: int, streams: bool = False) -> dict[str, Any]:
    """Return how a kernel is launched whose inputs are like `like`, and whether it streams tiles through a product.

    Products of float32 are computed as such: TF32 would lose three digits. For bfloat16 inputs it is exact in their
    operands and loses less than the rounding of the outputs. The compiler is told how many registers there are; left
    to itself, it may settle for 32 and spill the rest. `enable_fp_fusion` is Triton's default up to 3.9.
    """
    stages = 1 if not streams else 3 if not like.is_cuda or _is_roomy(like.get_device()) else 2
    return {
        "PRECISION": "tf32" if like.dtype == torch.bfloat16 else "ieee",
        "num_warps": warps,
        "num_stages": stages,
        "maxnreg": min(255, REGISTERS // (32 * warps)),
        "enable_fp_fusion": True,
    }


def on(tensor: Tensor) -> AbstractContextManager:
    """Return a context in which kernels are launched on the device of a tensor."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else nullcontext()
