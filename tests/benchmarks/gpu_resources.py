"""Compile every launch of the Triton kernels for GPUs that need not be there, and print what it takes of them.

    python tests/benchmarks/gpu_resources.py [--cells slstm mlstm] [--widths 64] [--dtypes float32] [--targets 80 90]

The launches are recorded from the cells themselves, run on tensors without data, so that what is compiled is what
would be launched. Triton brings the assembler. Columns: registers per thread, warps, shared memory, bytes of local
memory per thread (registers that did not fit) and how many instructions read or write it, all instructions, seconds
to compile. `--json` prints one object per launch instead.
"""

import argparse
import json
import re
import subprocess
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime.jit import JITFunction

from xlstm_ts.kernels import MLSTMState, SLSTMState
from xlstm_ts.kernels._mlstm import gpu as mlstm_gpu
from xlstm_ts.kernels._slstm import gpu as slstm_gpu
from xlstm_ts.kernels.states import compute_dtype

POINTERS = {torch.float32: "*fp32", torch.float64: "*fp64", torch.bfloat16: "*bf16"}
TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
INSTRUCTION = re.compile(r"^\s+/\*[0-9a-f]{4,5}\*/\s+(?:@!?U?P\w+ )?([A-Z0-9]+)[. ;]", re.MULTILINE)


def launches(cell, width, dtype, batch=2, steps=3, heads=2):
    """Return the kernels that a forward and a backward of a cell launch, with their arguments."""
    recorded = []

    def record(kernel, *args, grid, warmup, **options):
        recorded.append((kernel, dict(zip(kernel.arg_names, args, strict=False)) | options))

    def empty(*shape):
        return torch.empty(shape, dtype=dtype, device="meta", requires_grad=True)

    state = {"dtype": compute_dtype(dtype), "device": "meta"}
    launch, JITFunction.run = JITFunction.run, record
    try:
        if cell == "slstm":
            inputs = empty(batch, steps, 4, heads, width), empty(4, heads, width, width)
            h, _ = slstm_gpu.run(*inputs, SLSTMState.empty(batch, heads, width, **state), "sigmoid")
        else:
            inputs = [empty(batch, steps, heads, width) for _ in "qkv"] + [empty(batch, steps, heads) for _ in "if"]
            h, _ = mlstm_gpu.run(*inputs, MLSTMState.empty(batch, heads, width, width, **state), "sigmoid", None)
        h.sum().backward()
    finally:
        JITFunction.run = launch
    return recorded


def compile_for(kernel, arguments, capability):
    """Return what a launch takes of a GPU."""
    signature, constants, aligned = {}, {}, {}
    for place, parameter in enumerate(kernel.params):
        value = arguments.pop(parameter.name)
        if parameter.is_constexpr:
            signature[parameter.name], constants[parameter.name] = "constexpr", value
        elif isinstance(value, torch.Tensor):
            signature[parameter.name] = POINTERS[value.dtype]
            aligned[(place,)] = [["tt.divisibility", 16]]
        else:
            signature[parameter.name] = "i64" if parameter.annotation else "i32"
    source = ASTSource(kernel, signature, constants, aligned)
    start = time.perf_counter()
    built = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=arguments)
    seconds = time.perf_counter() - start
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(built.asm["cubin"])
        file.flush()
        usage = run_tool("cuobjdump", "-res-usage", file.name)
        counts = Counter(INSTRUCTION.findall(run_tool("nvdisasm", "-c", file.name)))
    registers, local = re.search(r"REG:(\d+) STACK:(\d+)", usage).groups()
    return {
        "registers": int(registers),
        "warps": arguments["num_warps"],
        "shared": built.metadata.shared,
        "local": int(local),
        "spills": counts["LDL"] + counts["STL"],
        "instructions": counts.total(),
        "seconds": round(seconds, 1),
    }


def run_tool(name, *arguments):
    return subprocess.run([TOOLS / name, *arguments], capture_output=True, text=True, check=True).stdout


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", nargs="+", default=["slstm", "mlstm"])
    parser.add_argument("--widths", nargs="+", type=int, default=[16, 32, 64, 128, 256])
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--targets", nargs="+", type=int, default=[80, 90])
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    header = [
        "cell",
        "kernel",
        "dtype",
        "K",
        "sm",
        "registers",
        "warps",
        "shared",
        "local",
        "spills",
        "instructions",
        "s",
    ]
    if not options.json:
        print(f"triton {triton.__version__}\n\n| {' | '.join(header)} |\n{'|---' * len(header)}|")
    for cell in options.cells:
        for dtype in options.dtypes:
            for width in options.widths:
                for target in options.targets:
                    for kernel, arguments in launches(cell, width, getattr(torch, dtype)):
                        name = kernel.fn.__name__
                        row = {"cell": cell, "kernel": name, "dtype": dtype, "width": width, "target": target}
                        row |= compile_for(kernel, arguments, target)
                        line = json.dumps(row) if options.json else f"| {' | '.join(map(str, row.values()))} |"
                        print(line, flush=True)


if __name__ == "__main__":
    main()
