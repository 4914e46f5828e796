"""Build hook: a wheel built where a C compiler is found carries the native kernel; any other wheel is pure.

An editable install builds nothing: the kernel is built at first use into the user's cache.
"""

import re
import runpy
import shutil
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FOLDER = "xlstm_ts/kernels/native"


class NativeKernelHook(BuildHookInterface):
    """Compile the C files into the wheel, and tag the wheel with the platform that it is for."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build the library and force it into the wheel."""
        self.folder = None
        if self.target_name != "wheel" or version == "editable":
            return
        loader = runpy.run_path(str(Path(self.root, FOLDER, "loader.py")))
        self.folder = tempfile.mkdtemp(prefix="xlstm_ts-")
        library = Path(self.folder, loader["file_name"]())
        try:
            loader["build"](library)
        except loader["BuildFailedError"] as error:
            self.app.display_warning(f"The wheel carries no native kernel: it {error}")
            return
        library.chmod(0o755)
        platform = re.sub(r"[^A-Za-z0-9]", "_", sysconfig.get_platform())
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{platform}"
        build_data["force_include"][str(library)] = f"{FOLDER}/{library.name}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove what was built."""
        if self.folder:
            shutil.rmtree(self.folder, ignore_errors=True)
