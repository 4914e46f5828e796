"""What holds for the package as a whole: light imports, public names, docstrings, examples, pages that stay true."""

import doctest
import importlib
import inspect
import re
import shutil
import subprocess
import sys
import warnings
from dataclasses import is_dataclass
from pathlib import Path

import pytest

import xlstm_ts

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "xlstm_ts"
PUBLIC_MODULES = ["xlstm_ts", "xlstm_ts.kernels", "xlstm_ts.nn", "xlstm_ts.datasets"]
# A state is a tuple of tensors: its docstring names them with their shapes, and there is nothing else to say.
STATES = ("MLSTMState", "SLSTMState")


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("xlstm_ts", ["sktime", "matplotlib", "torch", "pandas", "sklearn"]),
        ("xlstm_ts.kernels", ["sktime", "matplotlib", "pandas", "sklearn"]),
        ("xlstm_ts.nn", ["sktime", "matplotlib", "pandas", "sklearn"]),
        ("xlstm_ts.datasets", ["sktime", "matplotlib", "torch"]),
    ],
)
def test_an_import_brings_only_what_it_needs(module, heavy):
    code = f"import sys, {module}; print(*sorted(set({heavy}) & set(sys.modules)))"

    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)

    assert run.stdout.split() == []


def test_every_public_name_resolves_and_is_listed():
    for name in xlstm_ts.__all__:
        assert getattr(xlstm_ts, name).__name__ == name
        assert name in dir(xlstm_ts)


def test_an_unknown_name_raises_what_python_expects():
    with pytest.raises(AttributeError, match="module 'xlstm_ts' has no attribute 'XLSTMForcaster'"):
        xlstm_ts.XLSTMForcaster  # noqa: B018

    assert not hasattr(xlstm_ts, "forecast_everything")


def public_objects():
    for module in PUBLIC_MODULES:
        for name in importlib.import_module(module).__all__:
            thing = getattr(importlib.import_module(module), name)
            if callable(thing) and name not in STATES:
                yield f"{module}.{name}", thing


def test_every_public_object_documents_its_parameters_and_its_result():
    lacking = []
    for name, thing in public_objects():
        lacking += [f"{name}: {what}" for what in missing_from_docstring(thing)]

    assert lacking == []


def test_every_public_method_says_what_it_does():
    silent = [
        f"{name}.{attribute}"
        for name, thing in public_objects()
        if inspect.isclass(thing)
        for attribute, member in vars(thing).items()
        if not attribute.startswith("_") and (inspect.isfunction(member) or isinstance(member, property))
        if not inspect.getdoc(member)
    ]

    assert silent == []


def missing_from_docstring(thing) -> list[str]:
    """Return the sections and parameters that the numpydoc docstring of a public function or class lacks."""
    text = inspect.getdoc(thing) or ""
    sections = dict.fromkeys(re.findall(r"^(\w[\w ]*)\n-+$", text, flags=re.MULTILINE))
    signature = inspect.signature(thing)
    parameters = [name for name in signature.parameters if name != "self"]
    if is_dataclass(thing) and "Attributes" in sections:  # a result that is read, not made
        wanted, listed = ["Attributes"], entries_of(text, "Attributes")
    else:
        wanted, listed = ["Parameters"] if parameters else [], entries_of(text, "Parameters")
    if inspect.isfunction(thing) and signature.return_annotation not in (None, "None", inspect.Signature.empty):
        wanted.append("Returns")
    lacking = [f"no section {section}" for section in wanted if section not in sections]
    return lacking + [f"nothing on {name}" for name in parameters if name not in listed]


def entries_of(text: str, section: str) -> set[str]:
    """Return the names that a section explains; one line may explain several."""
    body = re.search(rf"^{section}\n-+\n(.*?)(?=^\w[\w ]*\n-+$|\Z)", text, flags=re.MULTILINE | re.DOTALL)
    lines = re.findall(r"^(\w[\w, ]*?)(?: :.*)?$", body[1], flags=re.MULTILINE) if body else []
    return {name.strip() for line in lines for name in line.split(",")}


def test_the_docstring_check_sees_what_is_missing():
    def undocumented(x) -> int:
        """Return one.

        Parameters
        ----------
        y : int
            Not the one.
        """

    assert missing_from_docstring(undocumented) == ["no section Returns", "nothing on x"]


def modules_with_examples() -> list[str]:
    paths = [path for path in sorted(PACKAGE.rglob("*.py")) if ">>> " in path.read_text(encoding="utf-8")]
    return [".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in paths]


@pytest.mark.parametrize("name", modules_with_examples())
def test_the_examples_of_a_module_give_what_they_show(name):
    module = importlib.import_module(name)

    with warnings.catch_warnings():
        if name == "xlstm_ts.forecaster":  # the airline series is too short to calibrate on, and says so
            warnings.simplefilter("ignore", module.ShortSeriesWarning)
        result = doctest.testmod(module)

    assert result.attempted > 0
    assert result.failed == 0


def test_the_architecture_page_names_every_file_and_no_other():
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`([\w/]+\.py)`", text))
    files = {path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py")}
    folders = {name for name in files if name.endswith("/__init__.py")}  # they only pass names on: one sentence for all

    assert sorted(files - named - folders) == []
    assert sorted(named - files - {"tests/test_layers.py"}) == []


def test_pages_that_docstrings_point_to_have_the_section():
    for path in PACKAGE.rglob("*.py"):
        for page, title in re.findall(r'(docs/[\w/]+\.md), "([^"]+)"', path.read_text(encoding="utf-8")):
            headings = re.findall(r"^#+ (.+)$", (ROOT / page).read_text(encoding="utf-8"), flags=re.MULTILINE)
            assert title in headings, f"{path.name} points to {page}, {title!r}"


def test_no_file_mentions_a_path_of_one_machine():
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not a checkout")
    listed = subprocess.run(["git", "ls-files", "-z"], capture_output=True, text=True, cwd=ROOT, check=True).stdout
    machine_path = re.compile(r"(?<![\w.~$}/-])/(?:home|root|Users|work|tmp)/\w")
    found = []
    for name in filter(None, listed.split("\0")):
        path = ROOT / name
        if path.is_file() and path.suffix in {".py", ".md", ".toml", ".txt", ".cfg", ".yml", ".yaml", ""}:
            lines = path.read_text(encoding="utf-8").splitlines()
            found += [f"{name}:{number}" for number, line in enumerate(lines, 1) if machine_path.search(line)]

    assert found == []
