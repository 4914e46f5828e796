"""The code of README.md and of the guides runs as it stands, page by page, from top to bottom and without a warning.

So every name, call, parameter and file in it is tried. Networks are trained for one step, which leaves the calls as
they are: what the pages say of numbers is checked elsewhere.
"""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from helpers import ignores_remember_data

from xlstm_ts.forecaster import XLSTMForecaster
from xlstm_ts.regressor import XLSTMRegressor

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PAGES = [
    path
    for path in [ROOT / "README.md", *sorted((ROOT / "docs" / "guides").glob("*.md"))]
    if BLOCK.search(path.read_text(encoding="utf-8"))
]


@pytest.fixture
def one_step(monkeypatch):
    """Train every network for one step, whatever its parameters say."""
    for kind in (XLSTMForecaster, XLSTMRegressor):

        def shortened(self, whole=kind._training_config):
            return replace(whole(self), max_epochs=1, steps_per_epoch=1)

        monkeypatch.setattr(kind, "_training_config", shortened)


@ignores_remember_data
@pytest.mark.usefixtures("one_step")
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_code_of_a_page_runs(page, tmp_path, monkeypatch):
    pytest.importorskip("skpro")
    text = page.read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)  # pages write files

    names = {"__name__": "__main__"}
    for block in BLOCK.finditer(text):
        before = text[: block.start(1)].count("\n")  # so that an error names the line of the page
        exec(compile("\n" * before + block[1], str(page), "exec"), names)
