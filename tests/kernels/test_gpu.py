"""The Triton kernels: their cases in the interpreter and on a GPU, their compilation, and when they are refused.

Whether Triton interprets is decided when it is imported, which other tests may have done before; so the cases of
gpu_cases.py run in processes of their own.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from xlstm_ts.errors import BackendError
from xlstm_ts.kernels import BACKENDS, resolve
from xlstm_ts.kernels.gpu import device

ROOT = Path(__file__).parents[2]
CASES = "tests/kernels/gpu_cases.py"
SHARED_MEMORY = 163 * 1024  # what a block of threads may have on an A100; an H100 has more
LOCAL_MEMORY = 256  # bytes per thread: a few registers may not fit


def python(*arguments, interpret, **environment):
    """Run Python in the root of the project, with its package and without the options of this run of the tests."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "TRITON"))}
    if interpret:
        kept["TRITON_INTERPRET"] = "1"
    kept |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), **environment}
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=600, env=kept, cwd=ROOT)


def run_cases(which, interpret):
    done = python("-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-k", which, CASES, interpret=interpret)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("which", ["slstm_equals", "mlstm_equals", "not equals"])
def test_the_kernels_give_the_reference_in_the_interpreter(which):
    pytest.importorskip("triton")

    run_cases(which, interpret=True)


@pytest.mark.gpu
@pytest.mark.skipif(device.unsupported(()) is not None, reason="no NVIDIA GPU")
def test_the_kernels_give_the_reference_on_a_gpu():
    run_cases("", interpret=False)


def test_the_kernels_compile_for_a_gpu_that_is_not_there_and_fit_on_it(tmp_path):
    triton = pytest.importorskip("triton")
    if not (Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "ptxas").exists():
        pytest.skip("Triton comes without an assembler here")
    script = ("tests/benchmarks/gpu_resources.py", "--widths", "64", "--dtypes", "float32", "--targets", "80", "--json")

    done = python(*script, interpret=False, TRITON_CACHE_DIR=str(tmp_path))

    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(row["cell"], row["kernel"]) for row in rows] == [
        ("slstm", "forward"),
        ("slstm", "backward"),
        ("mlstm", "forward_memory"),
        ("mlstm", "forward_read"),
        ("mlstm", "backward_dot"),
        ("mlstm", "backward_memory"),
        ("mlstm", "backward_inputs"),
    ]
    for row in rows:
        assert row["shared"] <= SHARED_MEMORY, row
        assert row["local"] <= LOCAL_MEMORY, row


COMPILED_ONCE = """
import torch
from gpu_resources import launches
for cell in ("slstm", "mlstm"):
    for width in (5, 64):
        keys = []
        for sizes in ((1, 1, 1), (33, 100, 3), (16, 256, 16)):
            recorded = launches(cell, width, torch.float32, *sizes)
            for kernel, arguments in recorded:
                for parameter in kernel.params:
                    plain_number = isinstance(arguments[parameter.name], int) and not parameter.is_constexpr
                    assert parameter.do_not_specialize or not plain_number, (kernel.fn.__name__, parameter.name)
                    if plain_number:
                        del arguments[parameter.name]
            keys.append([
                {name: x.dtype if isinstance(x, torch.Tensor) else x for name, x in arguments.items()}
                for _, arguments in recorded
            ])
        assert keys[0] == keys[1] == keys[2], (cell, width)
"""


def test_kernels_are_compiled_once_for_all_lengths_batches_and_numbers_of_heads():
    pytest.importorskip("triton")

    done = python("-c", COMPILED_ONCE, interpret=False, PYTHONPATH=f"{ROOT}{os.pathsep}{ROOT / 'tests' / 'benchmarks'}")

    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("cell", ["slstm", "mlstm"])
def test_tensors_of_another_device_are_refused_by_name(cell, monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    message = rf'kernels\.{cell}: backend="triton" needs CUDA tensors, got cpu\. Use backend="auto"'

    with pytest.raises(BackendError, match=message):
        resolve(cell, (torch.ones(1),), "triton")


@pytest.mark.parametrize("cell", ["slstm", "mlstm"])
def test_a_gpu_is_preferred_to_plain_torch(cell):
    order = list(BACKENDS[cell])

    assert order.index("triton") < order.index("eager")


def test_what_the_kernels_cannot_run_is_said(monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    pytest.importorskip("triton")
    gates = torch.ones(1, 1, 4, 1, 300)
    with pytest.raises(BackendError, match='backend="triton" takes heads up to 256 wide, got 300'):
        resolve("slstm", (gates, torch.ones(4, 1, 300, 300)), "triton")
    queries, values, gate = torch.ones(1, 1, 1, 8), torch.ones(1, 1, 1, 257), torch.ones(1, 1, 1)
    with pytest.raises(BackendError, match='backend="triton" takes heads up to 256 wide, got 257'):
        resolve("mlstm", (queries, queries, values, gate, gate), "triton")
    assert device.unsupported((torch.ones(1),), 256) is None
    monkeypatch.setattr(device, "find_spec", lambda name: None)
    assert device.unsupported((torch.ones(1),), 256) == "needs the package triton"


def test_an_old_gpu_is_refused_with_its_number(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: (7, 5))
    monkeypatch.setattr(torch.version, "hip", None)

    why = device._why_not_device.__wrapped__(0)

    assert why == "needs compute capability 8.0 or higher, this GPU has 7.5"


NEVER_IMPORTED = """
import sys, torch
from xlstm_ts.kernels import mlstm, slstm
slstm(torch.zeros(1, 2, 4, 1, 3), torch.zeros(4, 1, 3, 3))
x, gate = torch.zeros(1, 2, 1, 3), torch.zeros(1, 2, 1)
mlstm(x, x, x, gate, gate)
assert "triton" not in sys.modules
"""


def test_on_a_cpu_triton_is_never_imported():
    done = python("-c", NEVER_IMPORTED, interpret=False)

    assert done.returncode == 0, done.stderr
