"""The allocator's setting: made when asked for, and by nothing else."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# A large buffer is freed: with the setting the process keeps its pages, without it the system has them back.
PROGRAM = """
import ctypes, sys
from xlstm_ts.memory import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
def megabytes():
    return int(next(x for x in open("/proc/self/status") if x.startswith("VmRSS")).split()[1]) // 1024
before = megabytes()
buffer = libc.malloc(200 << 20)
ctypes.memset(buffer, 1, 200 << 20)
libc.free(buffer)
print(megabytes() - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc is Linux's")
@pytest.mark.parametrize(("setting", "kept"), [("keep", True), ("leave", False)])
def test_freed_memory_is_kept_only_when_asked_for(setting, kept):
    done = subprocess.run([sys.executable, "-c", PROGRAM, setting], capture_output=True, text=True, cwd=ROOT)
    if setting == "keep" and "AssertionError" in done.stderr:
        pytest.skip("the C library has no such setting")

    assert done.returncode == 0, done.stderr
    assert (int(done.stdout) > 150) is kept
