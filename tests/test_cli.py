import io
import re
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from html.parser import HTMLParser
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from xlstm_ts import cli, datasets, demo
from xlstm_ts.bench import kernels
from xlstm_ts.nn import SLSTM


class Page(HTMLParser):
    """What a page loads or points to, its headings and the cells of its tables."""

    def __init__(self, html):
        super().__init__()
        self.links, self.headings, self.cells = [], [], []
        self._open = ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.links += [value for name, value in attrs if name in {"src", "href", "srcset", "action", "data"}]
        self._open = tag

    def handle_endtag(self, tag):
        self._open = ""

    def handle_data(self, data):
        if self._open == "h2":
            self.headings.append(data)
        elif self._open in {"td", "th", "strong"}:
            self.cells.append(data)


@pytest.fixture(scope="module")
def quick_run(tmp_path_factory):
    """Run ``xlstm-ts demo --quick`` once where no data file is to be found, nor may be fetched."""
    folder = tmp_path_factory.mktemp("demo")
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.delenv("XLSTM_TS_DATA", raising=False)
        patch.setattr(datasets, "_cache_folder", lambda: folder / "empty")
        patch.setattr(datasets, "_read_address", lambda info: pytest.fail(f"went to fetch {info.name}"))
        code = cli.main(
            ["demo", "--quick", "--output", str(folder / "report.html"), "--images", str(folder / "images")]
        )
    assert code == 0, err.getvalue()
    return SimpleNamespace(folder=folder, page=folder / "report.html", out=out.getvalue(), err=err.getvalue())


def tables(printed):
    """Rows of numbers by model, in the order in which they were printed."""
    rows = re.findall(r"^(xLSTM|last_value|seasonal_naive)((?: +[\d.,\u2013]+){6})$", printed, flags=re.MULTILINE)
    return [(model, numbers.split()) for model, numbers in rows]


def test_demo_writes_a_page_that_loads_nothing_from_elsewhere(quick_run):
    html = quick_run.page.read_text(encoding="utf-8")

    links = Page(html).links
    assert len(links) == 6
    assert all(link.startswith("data:image/png;base64,") for link in links)
    assert not re.search(r"url\(|@import|<script|<link", html)


def test_demo_prints_the_tables_of_the_page(quick_run):
    page = Page(quick_run.page.read_text(encoding="utf-8"))

    printed = tables(quick_run.out)
    assert [model for model, _ in printed] == ["xLSTM", "last_value", "seasonal_naive"] * 3
    text = " ".join(page.cells)
    assert all(" ".join([model, *numbers]) in text for model, numbers in printed)


def test_demo_names_simulated_series_as_simulated_and_says_where_the_report_is(quick_run):
    headings = Page(quick_run.page.read_text(encoding="utf-8")).headings

    assert headings == [
        "A stock: Google's closing price",
        "Weather: temperature (simulated)",
        "A sensor: temperature of a machine (simulated)",
        "How to read the tables",
    ]
    assert f"The report is {quick_run.page.resolve()}" in quick_run.out.splitlines()[-1]


def test_demo_shows_progress_beside_its_account(quick_run):
    assert "training" in quick_run.err
    assert "training" not in quick_run.out


def test_demo_writes_one_picture_per_series(quick_run):
    pictures = sorted((quick_run.folder / "images").iterdir())

    assert [picture.name for picture in pictures] == ["demo-sensor.png", "demo-stock.png", "demo-weather.png"]
    assert all(picture.read_bytes().startswith(b"\x89PNG") for picture in pictures)
    assert all(picture.stat().st_size < 150_000 for picture in pictures)


@pytest.mark.parametrize("output", ["missing/report.html", "."], ids=["no such folder", "a folder"])
def test_an_output_that_cannot_be_written_is_one_line_before_any_training(output, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(demo, "demo_series", lambda: pytest.fail("went on"))

    code = cli.main(["demo", "--output", str(tmp_path / output)])

    printed = capsys.readouterr()
    assert code == 2
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    assert "--output" in printed.err
    assert "Traceback" not in printed.err


def test_a_folder_for_pictures_that_cannot_be_made_is_one_line_before_any_training(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(demo, "demo_series", lambda: pytest.fail("went on"))
    (tmp_path / "file").touch()

    code = cli.main(["demo", "--output", str(tmp_path / "r.html"), "--images", str(tmp_path / "file")])

    assert code == 2
    assert "--images" in capsys.readouterr().err
    assert not (tmp_path / "r.html").exists()


def test_errors_of_ours_are_one_line_and_code_2(monkeypatch, capsys):
    def fail(*arguments, **keywords):
        raise datasets.DatasetError("first line\n  second line")

    monkeypatch.setattr(demo, "run_demo", fail)

    assert cli.main(["demo"]) == 2
    assert capsys.readouterr().err == "xlstm-ts: first line second line\n"


def test_an_interrupt_ends_without_a_traceback_and_restores_the_threads(monkeypatch, capsys):
    def interrupt(*arguments, **keywords):
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, "run_demo", interrupt)
    before = torch.get_num_threads()

    assert cli.main(["demo"]) == 130
    assert "interrupted" in capsys.readouterr().err
    assert torch.get_num_threads() == before


def test_errors_that_are_not_ours_are_shown_in_full(monkeypatch):
    def fail(*arguments, **keywords):
        raise ZeroDivisionError

    monkeypatch.setattr(demo, "run_demo", fail)

    with pytest.raises(ZeroDivisionError):
        cli.main(["demo"])


def test_datasets_prints_every_name_and_where_it_is(capsys):
    assert cli.main(["datasets"]) == 0

    printed = capsys.readouterr().out
    names = [line.split()[0] for line in printed.splitlines()[1:]]
    assert names == list(datasets.list_datasets().index)
    assert "simulated" in printed


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--help"], 0),
        (["demo", "--help"], 0),
        (["bench", "--help"], 0),
        (["--version"], 0),
        ([], 2),
        (["nonsense"], 2),
        (["demo", "--nope"], 2),
    ],
    ids=str,
)
def test_usage_is_argparses(arguments, code, capsys):
    with pytest.raises(SystemExit) as left:
        cli.main(arguments)

    printed = capsys.readouterr()
    assert left.value.code == code
    assert "xlstm-ts" in (printed.err if code else printed.out)


def test_bench_kernels_prints_every_table(monkeypatch, capsys):
    monkeypatch.setattr(kernels, "SHAPES", [(1, 2, 8), (2, 3, 8)])
    monkeypatch.setattr(kernels, "LENGTHS", [5, 9])
    monkeypatch.setattr(kernels, "SERIES", [1, 3])
    monkeypatch.setattr(kernels, "STEPS", [(2, 6, 8)])
    monkeypatch.setattr(kernels, "OFFICIAL", [])  # seconds even for a few steps, where it is installed

    assert cli.main(["bench", "kernels", "--repeats", "1"]) == 0

    printed = capsys.readouterr().out
    firsts = re.findall(r"^\| ([\d, ]+) \|", printed, flags=re.MULTILINE)
    layers, lengths, series, steps = ["1, 2, 8", "2, 3, 8"], ["5", "9"], ["1", "3"], ["2, 6, 8"]
    assert firsts == 3 * layers + 3 * lengths + 3 * series + 3 * steps  # time, share of the peak, memory
    assert printed.count("Share of the peak of products") == printed.count("Peak memory, MB") >= 4


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (nn.LSTM(8, 8), 16 * 8 * 8),
        (SLSTM(8, 8, 2), 8 * 8 * 8 + 8 * 8 * 4),
        (SLSTM(8, 8, 2, projection="headwise"), 16 * 8 * 4),
        (nn.TransformerEncoderLayer(8, 2, 16), 16 * 8 * 8 + 2 * 100 * 8),
    ],
    ids=["nn.LSTM", "sLSTM dense", "sLSTM head-wise", "TransformerEncoderLayer"],
)
def test_the_work_of_a_layer_is_that_of_its_products(layer, expected):
    assert kernels._work(layer, steps=100) == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--repeats", "0"], "repeats=0"), (["--tables", "layer"], "no table 'layer'; there are layers, length")],
)
def test_bench_kernels_refuses_what_it_cannot_measure(arguments, message, capsys):
    assert cli.main(["bench", "kernels", *arguments]) == 2

    assert message in capsys.readouterr().err


def test_help_imports_none_of_the_heavy_packages():
    program = (
        "import sys\n"
        "from xlstm_ts.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'sktime', 'matplotlib', 'pandas', 'numpy', 'sklearn', 'scipy'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )

    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)

    assert run.returncode == 0, run.stderr
    assert "demo" in run.stdout
