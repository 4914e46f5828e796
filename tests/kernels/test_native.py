"""The native sLSTM kernel: threads, forks, odd inputs, and what happens where it cannot be built or carried."""

import ctypes
import os
import shutil
import subprocess
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from helpers import normal, relative_rms

from xlstm_ts.errors import BackendError
from xlstm_ts.kernels import SLSTMState, resolve, slstm
from xlstm_ts.kernels._slstm import native
from xlstm_ts.kernels.native import loader


def has_compiler():
    try:
        return bool(loader._compiler())
    except loader.BuildFailedError:
        return False


ROOT = Path(__file__).parents[2]
WHY_NOT = native.unsupported()
needs_kernel = pytest.mark.skipif(WHY_NOT is not None, reason=f"the native kernel {WHY_NOT}")
needs_compiler = pytest.mark.skipif(not has_compiler(), reason="no C compiler")
LEVELS = range(1 if WHY_NOT else native._level() + 1)
LEVEL_NAMES = ["baseline", "AVX2", "AVX-512"][: len(LEVELS)]
NAMES = ["h", "final h", "final c", "final n", "final m", "gates", "weights", "h0", "c0", "n0"]


def case(batch, steps, heads, width, dtype=torch.float32):
    gates = 2 * normal(batch, steps, 4, heads, width, seed=1, dtype=dtype)
    weights = normal(4, heads, width, width, seed=2, dtype=dtype) / width**0.5
    state = [normal(batch, heads, width, seed=seed, dtype=dtype) for seed in (3, 4, 5)]
    m = normal(batch, heads, width, seed=6)
    return gates, weights, state[0].tanh(), state[1], 1 + state[2].abs(), m


def run(gates, weights, h, c, n, m, backend="native", **options):
    """Return h, the final state, and the gradients of all but m under fixed cotangents."""
    inputs = [tensor.detach().requires_grad_() for tensor in (gates, weights, h, c, n)]
    out, last = slstm(*inputs[:2], SLSTMState(*inputs[2:], m), backend=backend, **options)
    outputs = [out, *last[:3]]
    cotangents = [
        normal(1, *part.shape[1:], seed=20 + j, dtype=part.dtype).expand_as(part) for j, part in enumerate(outputs)
    ]
    return [part.detach() for part in (out, *last)] + list(torch.autograd.grad(outputs, inputs, cotangents))


def assert_same_bits(got, expected):
    for name, a, b in zip(NAMES, got, expected, strict=True):
        assert torch.equal(a, b), name


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def python(code, *, timeout=120, **environment):
    """Run a script in a fresh process, which is killed if it hangs."""
    environment = {**os.environ, "PYTHONWARNINGS": "ignore", **environment}
    environment.pop("CC", None)
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=timeout, env=environment, cwd="/"
    )


@needs_kernel
@pytest.mark.parametrize("level", LEVELS, ids=LEVEL_NAMES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("forget_gate", ["sigmoid", "exp"])
@pytest.mark.parametrize(
    "shape", [(1, 1, 1, 1), (1, 7, 2, 32), (13, 1, 3, 5), (9, 30, 2, 16), (35, 11, 1, 20), (3, 12, 2, 72)], ids=str
)
def test_every_instruction_set_agrees_with_the_reference(shape, forget_gate, dtype, level, monkeypatch):
    monkeypatch.setattr(native, "_level", lambda: level)
    inputs = case(*shape, dtype=dtype)
    expected = run(*(x.double() for x in inputs), backend="reference", forget_gate=forget_gate)

    got = run(*inputs, forget_gate=forget_gate)

    for name, a, b in zip(NAMES, got, expected, strict=True):
        assert relative_rms(a, b, 1e-3) <= (1e-9 if dtype == torch.float64 else 1e-5), name


@needs_kernel
@pytest.mark.parametrize("level", LEVELS, ids=LEVEL_NAMES)
@pytest.mark.parametrize("width", [5, 16, 24])
def test_a_row_has_the_same_bits_alone_and_in_any_batch(width, level, monkeypatch):
    monkeypatch.setattr(native, "_level", lambda: level)
    gates, weights, *state = case(23, 9, 2, width)
    whole = run(gates, weights, *state)

    for rows in (slice(0, 1), slice(22, 23), slice(3, 9), slice(5, 22)):
        part = run(gates[rows], weights, *(tensor[rows] for tensor in state))
        for name, a, b in zip(NAMES, part, whole, strict=True):
            assert name == "weights" or torch.equal(a, b[rows]), name


@needs_kernel
def test_two_threads_give_the_same_bits_as_one(two_threads):
    inputs = case(40, 50, 4, 16)
    assert inputs[0].numel() * 16 > native.WORTH_A_REGION  # enough work for a second thread
    assert sys.platform != "linux" or native._region() is not None
    together = [run(*inputs) for _ in range(3)]
    torch.set_num_threads(1)

    alone = run(*inputs)

    for got in together:
        assert_same_bits(got, alone)


@needs_kernel
def test_calls_from_several_python_threads_give_the_same_bits(two_threads):
    inputs = case(24, 40, 4, 16)
    alone = run(*inputs)

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: run(*inputs), range(12)))

    for got in results:
        assert_same_bits(got, alone)


FORK = """
import os, sys, time, torch
from xlstm_ts.kernels import slstm
torch.set_num_threads(2)
# Much work for the kernel, in tensors so small that torch itself uses one thread for them.
gates = torch.randn(32, 4, 4, 2, 64, requires_grad=True)
weights = (torch.randn(4, 2, 64, 64) / 8).requires_grad_()
def run():
    h = slstm(gates, weights, backend="native")[0]
    return h, *torch.autograd.grad(h, (gates, weights), torch.ones(32, 4, 2, 64))
before = run()
with torch.no_grad():
    torch.randn(1000, 1000) @ torch.randn(1000, 1000)  # torch's own threads exist now, if not before
child = os.fork()
if child == 0:
    with torch.no_grad():
        alone = slstm(gates, weights, backend="native")[0]
    os._exit(0 if torch.equal(alone, before[0]) else 3)
deadline = time.monotonic() + 30
while time.monotonic() < deadline:
    done, status = os.waitpid(child, os.WNOHANG)
    if done:
        sys.exit(os.waitstatus_to_exitcode(status))
    time.sleep(0.01)
os.kill(child, 9)
sys.exit("the forked child hangs")
"""


@needs_kernel
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_of_a_threaded_parent_does_not_hang():
    done = python(FORK)

    assert done.returncode == 0, done.stderr


@needs_kernel
def test_inputs_may_lie_in_memory_in_any_order():
    inputs = case(6, 8, 3, 16)
    expected = run(*inputs)
    reordered = [x.transpose(0, 1).contiguous().transpose(0, 1) for x in inputs]
    strided = [x.transpose(-1, -2).contiguous().transpose(-1, -2) for x in inputs]
    time_first = inputs[0].permute(1, 3, 0, 2, 4).contiguous().permute(2, 0, 3, 1, 4)

    assert_same_bits(run(*reordered), expected)
    assert_same_bits(run(*strided), expected)
    assert_same_bits(run(time_first, *inputs[1:]), expected)


@needs_kernel
def test_a_gradient_of_one_output_alone_equals_the_reference():
    gates, weights, *state = case(3, 5, 2, 4, torch.float64)
    for index in range(4):
        gradients = []
        for backend in ("native", "reference"):
            leaf = gates.clone().requires_grad_()
            h, last = slstm(leaf, weights, SLSTMState(*state), backend=backend)
            gradients += torch.autograd.grad((h, *last)[index].sum(), leaf)
        torch.testing.assert_close(*gradients)


@needs_kernel
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, nullcontext])
def test_nothing_is_saved_when_no_gradient_is_wanted(mode, monkeypatch):
    gates, weights, *_ = case(2, 5, 2, 8)
    gates.requires_grad_(mode is not nullcontext)
    kept = []
    point = native._Call.point
    monkeypatch.setattr(native._Call, "point", lambda call, **given: kept.append(given) or point(call, **given))

    with mode():
        h, _ = slstm(gates, weights, backend="native")

    assert h.grad_fn is None
    assert [given["saved"] for given in kept if "saved" in given] == [None]


@needs_kernel
def test_a_backward_may_be_repeated():
    gates, weights, *_ = case(5, 6, 2, 8)
    gates.requires_grad_()
    h, _ = slstm(gates, weights, backend="native")

    first, second = (torch.autograd.grad(h.sum(), gates, retain_graph=True)[0] for _ in range(2))

    assert torch.equal(first, second)


@needs_kernel
def test_a_nan_stays_in_its_own_row():
    gates, weights, *_ = case(4, 6, 1, 8)
    gates[1, 2] = torch.nan

    h, _ = slstm(gates, weights, backend="native")

    assert h[1, 2:].isnan().all()
    assert torch.isfinite(h[[0, 2, 3]]).all()
    assert torch.isfinite(h[1, :2]).all()


def test_other_devices_and_tensor_classes_are_refused_by_name():
    meta = torch.empty(1, 1, 4, 1, 1, device="meta")
    with pytest.raises(BackendError, match=r'backend="native" needs CPU tensors, got meta\. Use backend="auto"'):
        resolve("slstm", (meta,), "native")
    assert resolve("slstm", (meta,))[0] == "eager"


WITHOUT = """
import torch
from xlstm_ts.errors import BackendError
from xlstm_ts.kernels import resolve, slstm
name, why = resolve("slstm")
assert name == "eager" and "native needs a C compiler" in why, (name, why)
h, _ = slstm(torch.zeros(1, 2, 4, 1, 3), torch.zeros(4, 1, 3, 3))
assert h.shape == (1, 2, 1, 3)
try:
    slstm(torch.zeros(1, 2, 4, 1, 3), torch.zeros(4, 1, 3, 3), backend="native")
except BackendError as error:
    assert 'backend="native" needs a C compiler, or a wheel' in str(error), error
else:
    raise AssertionError("no error")
"""


def test_without_a_compiler_auto_falls_back_and_says_why(tmp_path):
    if (loader.SOURCE.parent / loader.file_name()).exists():
        pytest.skip("the kernel is carried in the package")

    done = python(WITHOUT, PATH=str(tmp_path), XDG_CACHE_HOME=str(tmp_path), LOCALAPPDATA=str(tmp_path))

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_compiler_that_fails_is_named(tmp_path, monkeypatch):
    failing = tmp_path / "failing"
    failing.write_text("#!/bin/sh\necho 'cells.c:1: error: no such thing' >&2\nexit 1\n")
    failing.chmod(0o755)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(loader, "SOURCE", Path(shutil.copy(loader.SOURCE, tmp_path / "cells.c")))
    monkeypatch.setenv("CC", str(failing))

    found = loader._find()

    assert isinstance(found, str)
    assert "could not be built" in found
    assert os.name != "posix" or "no such thing" in found
    assert not list(tmp_path.rglob("*.tmp"))


@needs_compiler
def test_a_broken_file_in_the_cache_is_replaced_and_then_found_without_a_compiler(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(loader, "SOURCE", Path(shutil.copy(loader.SOURCE, tmp_path / "cells.c")))
    (folder,) = loader._cache()
    folder.mkdir(parents=True)
    (folder / loader.file_name()).write_bytes(b"not a library")

    built = loader._find()
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", "")
    found = loader._find()

    assert isinstance(built, ctypes.CDLL)
    assert isinstance(found, ctypes.CDLL)
    assert [path.name for path in folder.iterdir()] == [loader.file_name()]


@needs_compiler
def test_a_cache_that_cannot_be_written_does_no_harm(tmp_path, monkeypatch):
    (tmp_path / "xlstm_ts").write_text("a file where the folder should be")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(loader, "SOURCE", Path(shutil.copy(loader.SOURCE, tmp_path / "cells.c")))

    found = loader._find()

    assert isinstance(found, ctypes.CDLL)
    assert found.xlstm_level() >= 0


CARRIED = """
import sys, torch, xlstm_ts
from xlstm_ts.kernels import resolve, slstm
assert xlstm_ts.__file__.startswith(PLACE), xlstm_ts.__file__
assert resolve("slstm")[0] == "native", resolve("slstm")
h, _ = slstm(torch.zeros(1, 2, 4, 1, 3), torch.zeros(4, 1, 3, 3), backend="native")
assert torch.equal(h, torch.zeros(1, 2, 1, 3))
"""


@needs_compiler
def test_a_wheel_carries_the_kernel_and_works_without_a_compiler(tmp_path):
    pytest.importorskip("hatchling")
    source = tmp_path / "source"
    for name in ("xlstm_ts", "datasets"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "hatch_build.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=source, check=True, capture_output=True, timeout=120)
    (wheel,) = tmp_path.glob("*.whl")
    unpacked = tmp_path / "unpacked"
    zipfile.ZipFile(wheel).extractall(unpacked)

    code = CARRIED.replace("PLACE", repr(str(unpacked)))
    done = python(code, PYTHONPATH=str(unpacked), PATH=str(tmp_path / "none"), XDG_CACHE_HOME=str(tmp_path / "cache"))

    assert "-py3-none-" in wheel.name
    assert "-any" not in wheel.name
    assert (unpacked / "xlstm_ts" / "kernels" / "native" / loader.file_name()).is_file()
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "cache").exists()
