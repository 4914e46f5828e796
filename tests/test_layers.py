"""The arrows between the files of the package run down: an import that runs up, or around, fails here."""

import ast
import sys
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = "xlstm_ts"
ROOT = Path(__file__).parents[1]

# From the bottom up. A module belongs to the longest name here that it equals or lies in, and imports only from its
# own line and from lines above it (so a folder's own name, its __init__, comes after the folder's files).
# Whoever adds a file at the top level adds its line; docs/architecture.md shows the same picture.
ORDER = [
    "errors",
    "checks",
    "quantiles",
    "piecewise_normal",
    "memory",
    "archive",
    # tensors in, tensors out
    "kernels.states",
    "kernels.arguments",
    "kernels.dispatch",  # names the backends as strings, imports none
    "kernels.native",
    "kernels.gpu",
    "kernels._slstm",
    "kernels._mlstm",
    "kernels._parts",
    "kernels.cells",
    "kernels.parts",
    "kernels.layers",
    "kernels.scan",
    "kernels",
    # modules
    "nn.init",
    "nn.norms",
    "nn.layers",
    "nn.blocks",
    "nn.scaling",
    "nn.heads",
    "nn.losses",
    "nn.linear",
    "nn.covariates",
    "nn.backbones",
    "nn.decomposition",
    "nn.network",
    "nn.regression",
    "nn",
    # frames and arrays
    "data.calendar",
    "data.time_axis",
    "data.scaler",
    "data.windows",
    "data.time_features",
    "data.covariates",
    "data.repair",
    "data.series",
    "data.entry",
    "data.panel",
    "data.rows",
    "data.transformers",
    "data.causal",
    "data",
    # where networks and data meet
    "training.device",
    "training.seeds",
    "training.defaults",
    "training.callbacks",
    "training.checkpoint",
    "training.loop",
    "training.covariate_start",
    "training.warm_start",
    "training.calibration",
    "training.fitting",
    "training",
    "inference",
    "persistence",
    "fitted_panel",
    "streaming",
    "datasets",
    "evaluation.metrics",
    "evaluation.significance",
    "evaluation.series",
    "evaluation.baselines",
    "evaluation.folds",
    "evaluation.plots",
    "evaluation.report",
    "evaluation.scores",
    "evaluation.sktime_form",
    "evaluation.result_plots",
    "evaluation.findings",
    "evaluation.result_page",
    "evaluation.results",
    "evaluation.runner",
    "evaluation.store",
    "evaluation.backtest",
    "evaluation.markets",
    "evaluation.events",
    "evaluation.leakage",
    "evaluation",
    "tables",
    "distribution",
    "forecaster",
    "regressor",
    "demo",
    "commands",
    "bench",
    "cli",
    "",  # xlstm_ts/__init__.py: lazy names only
]

# What a folder may use beyond the order: the only parts of ours, the only packages of others.
ONLY_OURS = {
    "kernels": ("kernels", "errors"),
    "evaluation": ("evaluation", "errors", "data.calendar"),
    "datasets": ("errors",),
}
ONLY_FOREIGN = {"kernels": ("torch", "triton")}
# The two halves that meet in training, and not before.
NEVER = {"data": ("nn", "kernels"), "nn": ("data", "pandas")}
# Heavy packages: where they may be imported at all, and where at module level.
# (data.causal holds sktime transformers; nothing else of data or above imports it.)
ANYWHERE_IN = {
    "sktime": ("data.causal", "forecaster", "evaluation", "demo", "cli"),
    "matplotlib": ("evaluation", "bench"),
    "skpro": ("distribution",),  # an extra: whoever imports this file does it inside a function
}
AT_MODULE_LEVEL_IN = {
    "sktime": ("data.causal", "forecaster", "evaluation"),
    "matplotlib": (),
    "skpro": ("distribution",),
}


@dataclass(frozen=True)
class Import:
    """One import statement: who imports what, and when it takes effect."""

    importer: str  # without the package's name: "nn.layers"
    target: str  # likewise for ours; "torch.nn" for others
    ours: bool
    line: int
    deferred: bool  # inside a function
    typing_only: bool  # under `if TYPE_CHECKING`

    def __str__(self) -> str:
        return f"{self.importer or PACKAGE} (line {self.line}) imports {self.target or PACKAGE}"


def test_the_package_keeps_its_layers():
    assert find_violations(ROOT) == []


def test_every_line_of_the_order_stands_for_a_file_or_folder():
    known = set(module_files(ROOT))

    assert [name for name in ORDER if name not in known] == []


def test_the_root_imports_nothing_of_ours_before_it_is_asked():
    imports = read_imports(ROOT / PACKAGE / "__init__.py", "", True, set(module_files(ROOT)))

    assert [str(item) for item in imports if item.ours and not (item.typing_only or item.deferred)] == []


CLEAN = {
    "__init__": "",
    "errors": "import enum\n",
    "kernels/__init__": "from xlstm_ts.kernels.cells import slstm\n",
    "kernels/cells": "import torch\nfrom xlstm_ts.errors import ShapeError\nfrom . import dispatch\n",
    "kernels/dispatch": "",
    "nn/__init__": "",
    "nn/layers": "from xlstm_ts.kernels import slstm\n",
    "data/__init__": "",
    "data/windows": "import pandas\n",
    "training/__init__": "",
    "training/callbacks": (
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from xlstm_ts.training.loop import Run\n"
    ),
    "training/loop": "from xlstm_ts.training.callbacks import Callback\nfrom xlstm_ts.nn.layers import SLSTM\n",
    "evaluation/__init__": "",
    "evaluation/plots": "def draw():\n    import matplotlib.pyplot\n",
    "forecaster": "import sktime\nfrom xlstm_ts.training import loop\n",
    "cli": "from xlstm_ts import __version__\ndef main():\n    from sktime.utils import plotting\n",
}
PLANTED = {
    "upward": ("kernels/cells", "from xlstm_ts.nn.layers import SLSTM", "kernels.cells (line 1) imports nn.layers"),
    "upward in a function": ("errors", "def f():\n    import xlstm_ts.kernels", "errors (line 2) imports kernels"),
    "upward and relative": ("kernels/dispatch", "from .cells import slstm", "dispatch (line 1) imports kernels.cells"),
    "upward inside a folder": ("nn/layers", "from xlstm_ts.nn import x", "nn.layers (line 1) imports nn"),
    "upward for typing, outside training": (
        "errors",
        "import typing\nif typing.TYPE_CHECKING:\n    import xlstm_ts.cli",
        "errors (line 3) imports cli",
    ),
    "through the root": ("cli", "from xlstm_ts import XLSTMForecaster", "cli (line 1) imports xlstm_ts"),
    "a cycle in one line of the order": (
        "nn/backbones/a",
        "from xlstm_ts.nn.backbones import b",
        "a cycle: nn.backbones.",
    ),
    "a package that kernels must not know": ("kernels/cells", "import numpy", "imports numpy; kernels may use only"),
    "a folder that kernels must not know": ("kernels/cells", "from xlstm_ts import quantiles", "kernels may use only"),
    "pandas in nn": ("nn/layers", "from pandas import Series", "imports pandas.Series; nn never may"),
    "nn in data": ("data/windows", "from xlstm_ts.nn import layers", "imports nn.layers; data never may"),
    "the estimator in evaluation": ("evaluation/plots", "import xlstm_ts.training.loop", "evaluation may use only"),
    "sktime below the forecaster": ("data/windows", "def f():\n    import sktime", "imports sktime; only data.causal"),
    "sktime in the command line, at once": ("cli", "import sktime", "imports sktime outside a function"),
    "matplotlib at once": ("evaluation/plots", "import matplotlib.figure", "outside a function"),
    "a file without a place": ("novelty", "", "novelty has no line in ORDER"),
}


def test_a_tree_in_order_passes(tmp_path):
    write_tree(tmp_path, CLEAN)

    assert find_violations(tmp_path) == []


@pytest.mark.parametrize(("file", "source", "message"), PLANTED.values(), ids=PLANTED)
def test_a_planted_import_is_found(tmp_path, file, source, message):
    other_half = {"nn/backbones/__init__": "", "nn/backbones/b": "from xlstm_ts.nn.backbones import a\n"}
    write_tree(tmp_path, CLEAN | (other_half if "backbones" in file else {}) | {"quantiles": ""} | {file: source})

    found = find_violations(tmp_path)

    assert any(message in violation for violation in found), found


def write_tree(root: Path, sources: dict[str, str]) -> None:
    for name, source in sources.items():
        path = root / PACKAGE / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)


def find_violations(root: Path) -> list[str]:
    """Return every import below `root` that breaks a rule, in words."""
    files = module_files(root)
    names = set(files)
    found = [f"{name} has no line in ORDER" for name in names if home(name) is None]
    imports = [
        item
        for name, path in sorted(files.items())
        if home(name) is not None
        for item in read_imports(path, name, path.stem == "__init__", names)
    ]
    for item in imports:
        found += check_ours(item) if item.ours else check_foreign(item)
    return found + find_cycle(imports)


def module_files(root: Path) -> dict[str, Path]:
    """Return the modules of the package, named without it: "nn.layers", "nn" and "" for the package itself."""
    files = {}
    for path in sorted((root / PACKAGE).rglob("*.py")):
        parts = path.relative_to(root / PACKAGE).with_suffix("").parts
        files[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return files


def read_imports(path: Path, name: str, is_folder: bool, names: set[str]) -> list[Import]:
    """Return what a file imports; `from a import b` imports `a.b` where that is a module of ours, else `a`."""
    found = []

    def add(target: str, line: int, deferred: bool, typing_only: bool) -> None:
        if target == f"{PACKAGE}.__version__":  # a constant that needs nothing
            return
        ours = target == PACKAGE or target.startswith(PACKAGE + ".")
        target = target[len(PACKAGE) + 1 :] if ours else target
        while ours and target not in names:  # a name inside a module, not a module
            target = target.rpartition(".")[0]
        found.append(Import(name, target, ours, line, deferred, typing_only))

    def walk(node: ast.AST, deferred: bool, typing_only: bool) -> None:
        if isinstance(node, ast.Import):
            for alias in node.names:
                add(alias.name, node.lineno, deferred, typing_only)
        elif isinstance(node, ast.ImportFrom):
            base = [node.module] if node.module else []
            if node.level:
                parts = [PACKAGE, *name.split(".")] if name else [PACKAGE]
                base = parts[: len(parts) - node.level + is_folder] + base
            for alias in node.names:
                add(".".join([*base, alias.name]), node.lineno, deferred, typing_only)
        elif isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            for child in node.body:
                walk(child, deferred, True)
            for child in node.orelse:
                walk(child, deferred, typing_only)
        else:
            inside = deferred or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            for child in ast.iter_child_nodes(node):
                walk(child, inside, typing_only)

    walk(ast.parse(path.read_text(encoding="utf-8")), False, False)
    return found


def check_ours(item: Import) -> list[str]:
    """Check an arrow between two of our files."""
    found = []
    both_in_training = within(item.importer, ("training",)) and within(item.target, ("training",))
    if home(item.target) > home(item.importer) and not (item.typing_only and both_in_training):
        found.append(f"{item}, which lies above it")
    for folder, allowed in ONLY_OURS.items():
        if within(item.importer, (folder,)) and not within(item.target, allowed):
            found.append(f"{item}; {folder} may use only {', '.join(allowed)}")
    return found + check_never(item)


def check_foreign(item: Import) -> list[str]:
    """Check the import of another package."""
    found = []
    package = item.target.partition(".")[0]
    for folder, allowed in ONLY_FOREIGN.items():
        if within(item.importer, (folder,)) and package not in (*allowed, *sys.stdlib_module_names):
            found.append(f"{item}; {folder} may use only {', '.join(allowed)} and the standard library")
    if package in ANYWHERE_IN and not item.typing_only:
        if not within(item.importer, ANYWHERE_IN[package]):
            found.append(f"{item}; only {', '.join(ANYWHERE_IN[package])} may")
        elif not item.deferred and not within(item.importer, AT_MODULE_LEVEL_IN[package]):
            found.append(f"{item} outside a function")
    return found + check_never(item)


def check_never(item: Import) -> list[str]:
    return [
        f"{item}; {folder} never may"
        for folder, forbidden in NEVER.items()
        if within(item.importer, (folder,)) and within(item.target, forbidden)
    ]


def find_cycle(imports: list[Import]) -> list[str]:
    """Name one cycle among our files, if there is any; imports for typing alone close none."""
    graph: dict[str, set[str]] = {}
    for item in imports:
        if item.ours and not item.typing_only:
            graph.setdefault(item.importer, set()).add(item.target)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return [f"a cycle: {' -> '.join(error.args[1])}"]
    return []


def home(name: str) -> int | None:
    """Return the position in ORDER of a module; None for a file that has none."""
    candidate = name
    while candidate:
        if candidate in ORDER:
            return ORDER.index(candidate)
        candidate = candidate.rpartition(".")[0]
    return ORDER.index("") if name == "" else None


def within(name: str, folders: tuple[str, ...]) -> bool:
    """Whether a module is one of `folders` or lies in one."""
    return any(name == folder or name.startswith(folder + ".") for folder in folders)
