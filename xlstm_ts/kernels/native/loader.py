"""Find the library built from the C files here, or build it, once per process; explain why where neither succeeds.

Looked for in this order: beside the source, where a wheel carries it; in the user's cache; else it is built into the
cache, or, where that cannot be written, into a folder that is gone once the library is loaded. A wheel's library holds
every instruction set and number type; one that is built at first use holds this processor's, and float or double, so
that there is little to wait for. Its name holds a hash of sources, flags and machine, so that it is never stale. The
build hook of the wheel uses `build` from here, so this file needs nothing but the standard library.
"""

import ctypes
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

SOURCES = [Path(__file__).with_name(name) for name in ("parts.c", "slstm.c", "mlstm.c")]  # the longest first
# No -ffast-math: it breaks the rounding inside exp, and the handling of -inf.
FLAGS = [
    *("-std=gnu11", "-O2", "-ftree-vectorize", "-fPIC", "-fvisibility=hidden"),
    *("-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast"),
    *("-fno-tree-slp-vectorize", "-fno-gcse", "-fno-tree-vrp", "-fno-ipa-cp"),  # they take time and gain nothing here
]
COMPILERS = ("cc", "gcc", "clang")
PARTS = [
    *("linear", "linear_weight", "conv", "conv_back", "gelu_gate", "norm_gate", "norm_gate_back"),
    *("feed_forward", "feed_forward_back", "read_last"),
]
TIME_LIMIT = 120  # seconds; a build at first use takes less than one

_found: dict[bool, ctypes.CDLL | str] = {}
_lock = threading.Lock()


class BuildFailedError(Exception):
    """The library cannot be built here; the message is a verb phrase that says why."""


def library(double: bool = False) -> ctypes.CDLL | str:
    """Return the library for float or double, or why there is none as a verb phrase; kept for the process."""
    if double not in _found:
        with _lock:
            if double not in _found:
                _found[double] = _find(double)
    return _found[double]


def file_name(chosen: Sequence[str] = ()) -> str:
    """Return the name of the library that these sources and options make on this kind of machine."""
    digest = hashlib.sha256()
    for path in sorted(SOURCES[0].parent.glob("*.[ch]")):
        digest.update(path.read_bytes())
    digest.update(" ".join([*FLAGS, *chosen, sys.platform, platform.machine()]).encode())
    suffix = {"win32": ".dll", "darwin": ".dylib"}.get(sys.platform, ".so")
    return f"cells-{digest.hexdigest()[:16]}{suffix}"


def options(double: bool) -> list[str]:
    """Return what leaves out the other number type, and other instruction sets where this processor's are known."""
    real = f"-DXLSTM_REAL={64 if double else 32}"
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("flags"):
                has = set(line.split())
                if has >= {"avx2", "fma", "avx512f", "avx512bw", "avx512dq", "avx512vl"}:
                    return [real, "-DXLSTM_ONLY=2"]
                return [real, "-DXLSTM_ONLY=1"] if has >= {"avx2", "fma"} else [real]
    return [real]


def build(target: Path, chosen: Sequence[str] = ()) -> None:
    """Compile the sources side by side and link them to `target`, which appears complete or not at all.

    Raises
    ------
    BuildFailedError
        There is no compiler, or it fails.
    OSError
        `target` cannot be written.
    """
    compiler = [*_compiler(), *FLAGS, *chosen]
    with tempfile.TemporaryDirectory(prefix="cells-", dir=target.parent, ignore_cleanup_errors=True) as folder:
        objects = [str(Path(folder, f"{source.stem}.o")) for source in SOURCES]
        commands = [["-c", str(source), "-o", made] for source, made in zip(SOURCES, objects, strict=True)]
        with ThreadPoolExecutor(len(commands)) as pool:
            list(pool.map(lambda command: _run([*compiler, *command]), commands))
        _run([*compiler, "-shared", *objects, "-o", str(Path(folder, target.name)), "-lm"])
        os.replace(Path(folder, target.name), target)


def _run(command: list[str]) -> None:
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=TIME_LIMIT
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BuildFailedError(f"could not be built: {command[0]} did not run ({error})") from error
    if done.returncode:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        said = next((line for line in lines if "error" in line.lower()), "it gave no message")
        raise BuildFailedError(f"could not be built: {command[0]} failed ({said[:200]})")


def _find(double: bool = False) -> ctypes.CDLL | str:
    try:
        chosen = options(double)
        carried, name = file_name(), file_name(chosen)
    except OSError as error:
        return f"cannot read its source ({error})"
    cache = _cache()
    for path in [SOURCES[0].parent / carried, *(folder / name for folder in cache)]:
        with suppress(OSError, AttributeError):  # absent, unreadable or made for another system: build it
            return _load(path)
    try:
        for folder in cache:
            with suppress(OSError, AttributeError):
                folder.mkdir(parents=True, exist_ok=True)
                build(folder / name, chosen)
                return _load(folder / name)
        with tempfile.TemporaryDirectory(prefix="xlstm_ts-", ignore_cleanup_errors=True) as passing:
            build(Path(passing, name), chosen)
            return _load(Path(passing, name))
    except BuildFailedError as error:
        return str(error)
    except (OSError, AttributeError) as error:
        return f"could not be built or loaded ({error})"


def _load(path: Path) -> ctypes.CDLL:
    """Load the library and declare its functions."""
    loaded = ctypes.CDLL(str(path))
    loaded.xlstm_level.restype = ctypes.c_int64
    loaded.xlstm_level.argtypes = []
    if loaded.xlstm_level() < 0:
        raise OSError(f"{path} was built for another processor")
    for cell in ("slstm", "mlstm"):
        for what, result in {"saved": ctypes.c_int64, "forward": ctypes.c_int, "backward": ctypes.c_int}.items():
            function = getattr(loaded, f"xlstm_{cell}_{what}")
            function.argtypes, function.restype = [ctypes.c_void_p], result
    for name in PARTS:
        function = getattr(loaded, f"xlstm_{name}")
        function.argtypes, function.restype = [ctypes.c_void_p], ctypes.c_int
    return loaded


def _cache() -> list[Path]:
    """Return the folder of built libraries in the user's cache; nothing where there is no home."""
    try:
        if given := os.environ.get("XDG_CACHE_HOME"):
            base = Path(given)
        elif sys.platform == "win32":
            base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
        elif sys.platform == "darwin":
            base = Path.home() / "Library" / "Caches"
        else:
            base = Path.home() / ".cache"
    except RuntimeError:
        return []
    return [base / "xlstm_ts" / "kernels"] if base.is_absolute() else []


def _compiler() -> list[str]:
    """Return the command of a C compiler: $CC, else the first of `COMPILERS` on the path."""
    given = shlex.split(os.environ.get("CC", ""))
    for name in [given[0]] if given else COMPILERS:
        if path := shutil.which(name):
            if sys.platform == "darwin" and path.startswith("/usr/bin/") and not _has_developer_tools():
                continue  # a stub that would open a window to install the tools
            return [path, *given[1:]]
    looked = f"CC={given[0]}" if given else ", ".join(COMPILERS)
    raise BuildFailedError(f"needs a C compiler, or a wheel that carries the built kernel (looked for {looked})")


def _has_developer_tools() -> bool:
    with suppress(OSError, subprocess.TimeoutExpired):
        return subprocess.run(["/usr/bin/xcode-select", "-p"], capture_output=True, timeout=10).returncode == 0
    return False


def _renew_lock() -> None:
    """Give a forked child its own lock: another thread of the parent may have held the old one."""
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)
