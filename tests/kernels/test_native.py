"""The native kernels: threads, forks, odd inputs, and what happens where they cannot be built or carried."""

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

from xlstm_ts.errors import BackendError, ParameterError, ShapeError
from xlstm_ts.kernels import MLSTMState, SLSTMState, layers, mlstm, resolve, slstm
from xlstm_ts.kernels._slstm import native as slstm_native
from xlstm_ts.kernels.native import call, loader


def has_compiler():
    try:
        return bool(loader._compiler())
    except loader.BuildFailedError:
        return False


ROOT = Path(__file__).parents[2]
WHY_NOT = call.unsupported()
needs_kernel = pytest.mark.skipif(WHY_NOT is not None, reason=f"the native kernels {WHY_NOT}")
needs_compiler = pytest.mark.skipif(not has_compiler(), reason="no C compiler")
LEVELS = range(1 if WHY_NOT else call.level(False) + 1)
LEVEL_NAMES = ["baseline", "AVX2", "AVX-512"][: len(LEVELS)]
CELLS = ["slstm", "mlstm"]
LAYERS = ["dense", "headwise"]  # sLSTM with its projections
SHARED = ("weights", "w_if", "w_zo", "bias")  # by all rows
# (B, T, H, K, V); sLSTM has no V; of a layer V is what a head has of the input.
SHAPES = [
    (1, 1, 1, 1, 1),
    (1, 7, 2, 32, 16),
    (13, 1, 3, 5, 7),
    (9, 70, 2, 16, 40),
    (35, 11, 1, 20, 20),
    (3, 12, 2, 72, 9),
]


def case(cell, batch, steps, heads, width, value_width=None, dtype=torch.float32):
    """Inputs by name: those of the cell in their order, the state, and m last."""

    def draw(*shape, seed):
        return normal(*shape, seed=seed, dtype=dtype)

    m = normal(batch, heads, width, seed=6)
    if cell in ("slstm", *LAYERS):
        inner = value_width or width
        shape = (2 * heads * width, heads * inner) if cell == "dense" else (heads, inner, 2 * width)
        gates = {"gates": 2 * draw(batch, steps, 4, heads, width, seed=1)}
        source = {
            "gate_input": draw(batch, steps, heads * inner, seed=11),
            "x": draw(batch, steps, heads * inner, seed=12),
            "w_if": 2 * draw(*shape, seed=13) / inner**0.5,
            "w_zo": draw(*shape, seed=14) / inner**0.5,
            "bias": draw(4, heads, width, seed=15),
        }
        return (gates if cell == "slstm" else source) | {
            "weights": draw(4, heads, width, width, seed=2) / width**0.5,
            "h0": draw(batch, heads, width, seed=3).tanh(),
            "c0": draw(batch, heads, width, seed=4),
            "n0": 1 + draw(batch, heads, width, seed=5).abs(),
            "m0": m,
        }
    # Keys and queries in one orthant: n.q stays away from 0, where h is a quotient of cancelled sums.
    value_width = value_width or width
    return {
        "q": 0.2 + draw(batch, steps, heads, width, seed=1).abs(),
        "k": 0.2 + draw(batch, steps, heads, width, seed=2).abs(),
        "v": draw(batch, steps, heads, value_width, seed=3),
        "i": 2 * draw(batch, steps, heads, seed=4),
        "f": 2 * draw(batch, steps, heads, seed=5),
        "c0": draw(batch, heads, width, value_width, seed=7),
        "n0": 0.2 + draw(batch, heads, width, seed=8).abs(),
        "m0": m[..., 0],
    }


def apply(cell, tensors, backend="native", **options):
    """Call the cell on a list of tensors in the order of `case`."""
    if cell == "slstm":
        return slstm(*tensors[:2], SLSTMState(*tensors[2:]), backend=backend, **options)
    if cell in LAYERS:
        if backend == "native":
            return slstm_native.run_layer(*tensors[:6], SLSTMState(*tensors[6:]), options.get("forget_gate", "sigmoid"))
        gates = layers._gates(*tensors[:5])
        return slstm(gates, tensors[5], SLSTMState(*tensors[6:]), backend=backend, **options)
    return mlstm(*tensors[:5], MLSTMState(*tensors[5:]), backend=backend, **options)


def run(cell, inputs, backend="native", **options):
    """Return by name: h, the final state, and the gradients of all but m under fixed cotangents."""
    leaves = [tensor.detach().requires_grad_(name != "m0") for name, tensor in inputs.items()]
    h, last = apply(cell, leaves, backend, **options)
    outputs = {"h": h} | {f"final {name}": part for name, part in zip(last._fields, last, strict=True)}
    smooth = [part for name, part in outputs.items() if name != "final m"]
    cotangents = [
        normal(1, *part.shape[1:], seed=20 + j, dtype=part.dtype).expand_as(part) for j, part in enumerate(smooth)
    ]
    gradients = torch.autograd.grad(smooth, leaves[:-1], cotangents)
    return {name: part.detach() for name, part in outputs.items()} | dict(zip(inputs, gradients, strict=False))


def assert_same_bits(got, expected):
    for name in expected:
        assert torch.equal(got[name], expected[name]), name


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def every_level(tmp_path_factory):
    """The library as a wheel carries it, with every instruction set; one that is built at first use has one."""
    path = tmp_path_factory.mktemp("library") / loader.file_name()
    loader.build(path)
    return loader._load(path)


@pytest.fixture
def at_level(every_level, monkeypatch):
    """A function that makes the native cells use one instruction set."""
    monkeypatch.setattr(call, "library", lambda double=False: every_level)
    return lambda level: monkeypatch.setattr(call, "level", lambda double: level)


def copy_sources(folder):
    for path in loader.SOURCES[0].parent.glob("*.[ch]"):
        shutil.copy(path, folder)
    return [folder / path.name for path in loader.SOURCES]


def python(code, *, timeout=120, **environment):
    """Run a script in a fresh process, which is killed if it hangs."""
    environment = {**os.environ, "PYTHONWARNINGS": "ignore", "PYTHONPATH": str(ROOT), **environment}
    environment.pop("CC", None)
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=timeout, env=environment, cwd="/"
    )


@needs_compiler
@pytest.mark.parametrize("cell", CELLS + LAYERS)
@pytest.mark.parametrize("level", LEVELS, ids=LEVEL_NAMES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("forget_gate", ["sigmoid", "exp"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_instruction_set_agrees_with_the_reference(cell, shape, forget_gate, dtype, level, at_level):
    at_level(level)
    inputs = case(cell, *shape, dtype=dtype)
    double = {name: tensor.double() for name, tensor in inputs.items()}
    expected = run(cell, double, backend="reference", forget_gate=forget_gate)

    got = run(cell, inputs, forget_gate=forget_gate)

    for name in expected:
        assert relative_rms(got[name], expected[name], 1e-3) <= (1e-9 if dtype == torch.float64 else 1e-5), name


@needs_compiler
@pytest.mark.parametrize("cell", CELLS + LAYERS)
@pytest.mark.parametrize("level", LEVELS, ids=LEVEL_NAMES)
@pytest.mark.parametrize("width", [5, 16, 24])
def test_a_row_has_the_same_bits_alone_and_in_any_batch(cell, width, level, at_level):
    at_level(level)
    inputs = case(cell, 23, 9, 2, width)
    whole = run(cell, inputs)

    for rows in (slice(0, 1), slice(22, 23), slice(3, 9), slice(5, 22)):
        part = run(cell, {name: tensor if name in SHARED else tensor[rows] for name, tensor in inputs.items()})
        for name in whole:
            assert name in SHARED or torch.equal(part[name], whole[name][rows]), name


@needs_kernel
@pytest.mark.parametrize("cell", CELLS + LAYERS)
def test_two_threads_give_the_same_bits_as_one(cell, two_threads):
    inputs = case(cell, 40, 50, 4, 16)
    assert call.threads(40 * 50 * 4 * 16 * 16 * 2) == 2  # enough work for a second thread
    assert sys.platform != "linux" or call.region() is not None
    together = [run(cell, inputs) for _ in range(3)]
    torch.set_num_threads(1)

    alone = run(cell, inputs)

    for got in together:
        assert_same_bits(got, alone)


@needs_kernel
@pytest.mark.parametrize("cell", CELLS + LAYERS)
def test_calls_from_several_python_threads_give_the_same_bits(cell, two_threads):
    inputs = case(cell, 24, 40, 4, 16)
    alone = run(cell, inputs)

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: run(cell, inputs), range(12)))

    for got in results:
        assert_same_bits(got, alone)


FORK = """
import os, sys, time, torch
from xlstm_ts.kernels import mlstm, slstm
torch.set_num_threads(2)
# Much work for the kernels, in tensors so small that torch itself uses one thread for them.
gates = torch.randn(32, 4, 4, 2, 64, requires_grad=True)
weights = (torch.randn(4, 2, 64, 64) / 8).requires_grad_()
q, k, v = torch.randn(3, 16, 40, 2, 16, requires_grad=True).unbind()
i, f = torch.randn(2, 16, 40, 2).unbind()
def run():
    h = slstm(gates, weights, backend="native")[0]
    torch.autograd.grad(h, (gates, weights), torch.ones(32, 4, 2, 64))
    return h, mlstm(q, k, v, i, f, backend="native")[0]
before = run()
with torch.no_grad():
    torch.randn(1000, 1000) @ torch.randn(1000, 1000)  # torch's own threads exist now, if not before
child = os.fork()
if child == 0:
    with torch.no_grad():
        alone = slstm(gates, weights, backend="native")[0], mlstm(q, k, v, i, f, backend="native")[0]
    os._exit(0 if all(map(torch.equal, alone, before)) else 3)
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


LOKY = """
import torch
from joblib import Parallel, delayed
from xlstm_ts.kernels import mlstm
def run():
    q, k, v = torch.ones(3, 2, 70, 2, 8).unbind()
    return mlstm(q, k, v, torch.zeros(2, 70, 2), torch.ones(2, 70, 2), backend="native")[0]
here = run()
for there in Parallel(n_jobs=2)(delayed(run)() for _ in range(2)):
    assert torch.equal(there, here)
"""


@needs_kernel
def test_joblibs_workers_give_the_same_bits():
    pytest.importorskip("joblib")

    done = python(LOKY)

    assert done.returncode == 0, done.stderr


@needs_kernel
@pytest.mark.parametrize("cell", CELLS + LAYERS)
def test_inputs_may_lie_in_memory_in_any_order(cell):
    inputs = case(cell, 6, 8, 3, 16)
    expected = run(cell, inputs)

    for axes in ((0, 1), (-1, -2)):
        moved = {name: x.transpose(*axes).contiguous().transpose(*axes) for name, x in inputs.items()}
        assert_same_bits(run(cell, moved), expected)


@needs_kernel
def test_gates_may_come_time_first():
    inputs = case("slstm", 6, 8, 3, 16)
    expected = run("slstm", inputs)
    inputs["gates"] = inputs["gates"].permute(1, 3, 0, 2, 4).contiguous().permute(2, 0, 3, 1, 4)

    assert_same_bits(run("slstm", inputs), expected)


@needs_kernel
@pytest.mark.parametrize("cell", CELLS)
def test_a_gradient_of_one_output_alone_equals_the_reference(cell):
    inputs = case(cell, 3, 5, 2, 4, dtype=torch.float64)
    for index in range(len(apply(cell, list(inputs.values()))[1])):
        gradients = []
        for backend in ("native", "reference"):
            tensors = [tensor.clone() for tensor in inputs.values()]
            # Keys for mLSTM: its state does not read the queries.
            leaf = tensors[0 if cell == "slstm" else 1].requires_grad_()
            h, last = apply(cell, tensors, backend)
            gradients += torch.autograd.grad((h, *last)[index].sum(), leaf)
        torch.testing.assert_close(*gradients)


@needs_kernel
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, nullcontext])
def test_nothing_is_saved_when_no_gradient_is_wanted(cell, mode, monkeypatch):
    tensors = list(case(cell, 2, 5, 2, 8).values())
    tensors[0].requires_grad_(mode is not nullcontext)
    kept = []
    point = call.Call.point
    monkeypatch.setattr(call.Call, "point", lambda self, **given: kept.append(given) or point(self, **given))

    with mode():
        h, _ = apply(cell, tensors)

    assert h.grad_fn is None
    assert [given[name] for given in kept for name in ("saved", "memories") if name in given] == [None]


@needs_kernel
@pytest.mark.parametrize("cell", CELLS + LAYERS)
def test_a_backward_may_be_repeated(cell):
    tensors = list(case(cell, 5, 6, 2, 8).values())
    tensors[0].requires_grad_()
    h, _ = apply(cell, tensors)

    first, second = (torch.autograd.grad(h.sum(), tensors[0], retain_graph=True)[0] for _ in range(2))

    assert torch.equal(first, second)


@needs_kernel
@pytest.mark.parametrize(("cell", "name"), [("slstm", "gates"), *(("mlstm", name) for name in "qkvif")])
def test_a_nan_stays_in_its_own_row(cell, name):
    inputs = case(cell, 4, 6, 1, 8)
    inputs[name][1, 2] = torch.nan

    h, _ = apply(cell, list(inputs.values()))

    assert h[1, 2 if name == "q" else slice(2, None)].isnan().all()
    assert torch.isfinite(h[[0, 2, 3]]).all()
    # A value is multiplied by weights of 0 in the earlier steps of its chunk, and 0 * NaN is NaN.
    assert name == "v" or torch.isfinite(h[1, :2]).all()


@needs_kernel
@pytest.mark.parametrize("cell", CELLS)
def test_one_step_equals_one_step_of_a_sequence(cell):
    inputs = case(cell, 5, 1, 2, 32)
    longer = case(cell, 5, 2, 2, 32)
    names = ["gates"] if cell == "slstm" else list("qkvif")
    longer |= {name: torch.cat([inputs[name], longer[name][:, 1:]], 1) for name in names}

    h, _ = apply(cell, list(inputs.values()))
    both, _ = apply(cell, list(longer.values()))

    torch.testing.assert_close(h[:, 0], both[:, 0])


@needs_kernel
@pytest.mark.parametrize("cell", LAYERS)
def test_an_input_of_both_pairs_of_gates_gets_one_gradient(cell):
    inputs = case(cell, 20, 19, 2, 5, 7)
    two = run(cell, inputs | {"x": inputs["gate_input"]})
    x = inputs["gate_input"].requires_grad_()

    h, last = apply(cell, [x, x, *list(inputs.values())[2:]])
    smooth = [h, *last[:3]]
    cotangents = [normal(1, *y.shape[1:], seed=20 + j, dtype=y.dtype).expand_as(y) for j, y in enumerate(smooth)]
    (got,) = torch.autograd.grad(smooth, x, cotangents)

    assert torch.equal(h, two["h"])
    assert relative_rms(got, two["gate_input"] + two["x"]) <= 1e-6


@needs_kernel
def test_a_layer_without_gradient_keeps_nothing_and_one_with_few_rows_goes_through_torch():
    inputs = list(case("headwise", 4, 8, 2, 5).values())

    many, _ = layers.slstm_layer(*(tensor.requires_grad_() for tensor in inputs[:6]))
    few, _ = layers.slstm_layer(*(tensor[:3] for tensor in inputs[:2]), *inputs[2:6])

    assert type(many.grad_fn).__name__ == "_LayerBackward"
    assert type(few.grad_fn).__name__ == "_RecurrenceBackward"
    torch.testing.assert_close(few, many[:3])
    with torch.no_grad():
        assert torch.equal(layers.slstm_layer(*inputs[:6])[0], many)


@needs_kernel
def test_a_layer_says_what_is_wrong_with_its_inputs_state_and_options():
    inputs = list(case("headwise", 4, 8, 2, 5).values())

    with pytest.raises(ShapeError, match=r"state\.h is .* expected floating point, \(4, 2, 5\)"):
        layers.slstm_layer(*inputs[:6], SLSTMState(*(tensor[:3] for tensor in inputs[6:])))
    with pytest.raises(ShapeError, match=r"gate_input has shape \(3, 8, 10\); expected \(4, 8, 10\)"):
        layers.slstm_layer(inputs[0][:3], *inputs[1:6])
    with pytest.raises(ShapeError, match=r"weight_if has shape \(2, 5, 10\); expected \(2, 4, 10\)"):
        layers.slstm_layer(inputs[0][..., :8], inputs[1][..., :8], *inputs[2:6])
    for at, wrong, message in [
        (1, inputs[1][0], r"x has shape \(8, 10\); expected \(B, T, D\)"),
        (4, inputs[4][:3], r"bias has shape \(3, 2, 5\); expected \(4, H, K\)"),
        (4, inputs[4].flatten(), r"bias has shape \(40,\); expected \(4, H, K\)"),
        (5, inputs[5][:, :1], r"recurrent_weights has shape \(4, 1, 5, 5\); expected \(4, 2, 5, 5\)"),
        (2, inputs[2].double(), "weight_if is torch.float64 on cpu, x torch.float32 on cpu. Bring them together"),
        (3, inputs[3].to("meta"), "weight_zo is torch.float32 on meta, x torch.float32 on cpu"),
        (1, inputs[1].long(), "x is torch.int64; expected a floating-point tensor"),
    ]:
        with pytest.raises(ShapeError, match=message):
            layers.slstm_layer(*inputs[:at], wrong, *inputs[at + 1 : 6])
    with pytest.raises(ParameterError, match="state is of type tuple; expected an SLSTMState"):
        layers.slstm_layer(*inputs[:6], tuple(inputs[6:]))
    with pytest.raises(ParameterError, match="forget_gate='open' is unknown"):
        layers.slstm_layer(*inputs[:6], forget_gate="open")
    with pytest.raises(BackendError, match='backend="fast" is unknown'):
        layers.slstm_layer(*inputs[:6], backend="fast")


def test_other_devices_and_tensor_classes_are_refused_by_name():
    meta = torch.empty(1, 1, 4, 1, 1, device="meta")
    with pytest.raises(BackendError, match=r'backend="native" needs CPU tensors, got meta\. Use backend="auto"'):
        resolve("slstm", (meta,), "native")
    assert resolve("slstm", (meta,))[0] == "eager"


WITHOUT = """
import torch
from xlstm_ts.errors import BackendError, ParameterError, ShapeError
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
    if (loader.SOURCES[0].parent / loader.file_name()).exists():
        pytest.skip("the kernel is carried in the package")

    done = python(WITHOUT, PATH=str(tmp_path), XDG_CACHE_HOME=str(tmp_path), LOCALAPPDATA=str(tmp_path))

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_compiler_that_fails_is_named(tmp_path, monkeypatch):
    failing = tmp_path / "failing"
    failing.write_text("#!/bin/sh\necho 'slstm.c:1: error: no such thing' >&2\nexit 1\n")
    failing.chmod(0o755)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(loader, "SOURCES", copy_sources(tmp_path))
    monkeypatch.setenv("CC", str(failing))

    found = loader._find()

    assert isinstance(found, str)
    assert "could not be built" in found
    assert os.name != "posix" or "no such thing" in found
    assert not list(tmp_path.rglob("*.tmp"))


@needs_compiler
def test_a_broken_file_in_the_cache_is_replaced_and_then_found_without_a_compiler(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(loader, "SOURCES", copy_sources(tmp_path))
    (folder,) = loader._cache()
    folder.mkdir(parents=True)
    (folder / loader.file_name(loader.options(False))).write_bytes(b"not a library")

    built = loader._find()
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", "")
    found = loader._find()

    assert isinstance(built, ctypes.CDLL)
    assert isinstance(found, ctypes.CDLL)
    assert [path.name for path in folder.iterdir()] == [loader.file_name(loader.options(False))]


@needs_compiler
def test_a_cache_that_cannot_be_written_does_no_harm(tmp_path, monkeypatch):
    (tmp_path / "xlstm_ts").write_text("a file where the folder should be")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(loader, "SOURCES", copy_sources(tmp_path))

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
