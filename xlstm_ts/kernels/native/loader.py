"""Find the library built from cells.c, or build it, once per process; explain why where neither succeeds.

Looked for in this order: beside the source, where a wheel carries it; in the user's cache; else it is built into the
cache, or, where that cannot be written, into a folder that is gone once the library is loaded. Its name holds a hash
of source, flags and machine, so that it is never stale. The build hook of the wheel uses `build` from here, so this
file needs nothing but the standard library.
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
from contextlib import suppress
from pathlib import Path

SOURCE = Path(__file__).with_name("cells.c")
# No -ffast-math: it breaks the rounding inside exp, and the handling of -inf.
FLAGS = [
    *("-std=gnu11", "-O2", "-ftree-vectorize", "-fPIC", "-shared", "-fvisibility=hidden"),
    *("-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast"),
]
COMPILERS = ("cc", "gcc", "clang")
TIME_LIMIT = 120  # seconds; a build takes one or two

_found: ctypes.CDLL | str | None = None
_lock = threading.Lock()


class BuildFailedError(Exception):
    """The library cannot be built here; the message is a verb phrase that says why."""


def library() -> ctypes.CDLL | str:
    """Return the library, or why there is none as a verb phrase; the answer is kept for the process."""
    global _found
    if _found is None:
        with _lock:
            if _found is None:
                _found = _find()
    return _found


def file_name() -> str:
    """Return the name of the library that belongs to this source on this kind of machine."""
    digest = hashlib.sha256(SOURCE.read_bytes())
    digest.update(" ".join([*FLAGS, sys.platform, platform.machine()]).encode())
    suffix = {"win32": ".dll", "darwin": ".dylib"}.get(sys.platform, ".so")
    return f"cells-{digest.hexdigest()[:16]}{suffix}"


def build(target: Path) -> None:
    """Compile the source to `target`, which appears complete or not at all.

    Raises
    ------
    BuildFailedError
        There is no compiler, or it fails.
    OSError
        `target` cannot be written.
    """
    compiler = _compiler()
    handle, draft = tempfile.mkstemp(prefix="cells-", suffix=".tmp", dir=target.parent)
    os.close(handle)
    try:
        command = [*compiler, *FLAGS, str(SOURCE), "-o", draft, "-lm"]
        try:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=TIME_LIMIT
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise BuildFailedError(f"could not be built: {compiler[0]} did not run ({error})") from error
        if done.returncode:
            lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
            said = next((line for line in lines if "error" in line.lower()), "it gave no message")
            raise BuildFailedError(f"could not be built: {compiler[0]} failed ({said[:200]})")
        os.replace(draft, target)
    finally:
        with suppress(OSError):
            os.unlink(draft)


def _find() -> ctypes.CDLL | str:
    try:
        name = file_name()
    except OSError as error:
        return f"cannot read its source ({error})"
    places = [SOURCE.parent, *_cache()]
    for folder in places:
        with suppress(OSError, AttributeError):  # absent, unreadable or made for another system: build it
            return _load(folder / name)
    try:
        for folder in places[1:]:
            with suppress(OSError, AttributeError):
                folder.mkdir(parents=True, exist_ok=True)
                build(folder / name)
                return _load(folder / name)
        with tempfile.TemporaryDirectory(prefix="xlstm_ts-", ignore_cleanup_errors=True) as passing:
            build(Path(passing, name))
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
    loaded.xlstm_slstm_saved.restype = ctypes.c_int64
    for function in (loaded.xlstm_slstm_saved, loaded.xlstm_slstm_forward, loaded.xlstm_slstm_backward):
        function.argtypes = [ctypes.c_void_p]
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
