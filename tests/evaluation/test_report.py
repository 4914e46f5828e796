import base64
import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from xlstm_ts.evaluation.plots import new_figure
from xlstm_ts.evaluation.report import ReportFigure, Section, write_report

HOSTILE = "<script>alert('x')</script> & \"quoted\""


class Page(HTMLParser):
    """Tags and text of a page, in order."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.texts = [], []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.texts.append(data)


def write(tmp_path, *sections, **arguments):
    path = write_report(tmp_path / "report.html", "A title", sections, **arguments)
    return path.read_text(encoding="utf-8")


def test_page_holds_title_text_and_headings_in_order(tmp_path):
    html = write(tmp_path, Section("First", ["one", "two"]), Section("Second"), introduction=["before"])

    text = re.sub(r"\s+", " ", " ".join(Page(html.split("<main>")[1]).texts)).strip()
    assert text == "A title before First one two Second"
    assert html.startswith("<!DOCTYPE html>")
    assert "@media print" in html


def test_nothing_is_loaded_from_elsewhere_and_nothing_can_run(tmp_path):
    html = write(tmp_path, Section("s", figures=[ReportFigure(new_figure(2, 1), "caption")]))

    tags = Page(html).tags
    sources = [attrs[name] for _, attrs in tags for name in ("src", "href") if name in attrs]
    assert sources
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    assert "script" not in {tag for tag, _ in tags}
    assert "default-src 'none'" in html


def test_hostile_names_are_shown_and_not_run(tmp_path):
    table = pd.DataFrame({HOSTILE: [HOSTILE], "n": [1.0]}, index=pd.Index([HOSTILE], name=HOSTILE))
    section = Section(HOSTILE, [HOSTILE], table, [ReportFigure(b"png", HOSTILE)])

    html = write_report(tmp_path / "r.html", HOSTILE, [section], introduction=[HOSTILE]).read_text("utf-8")

    page = Page(html)
    assert "script" not in {tag for tag, _ in page.tags}
    # Page title, title, introduction, heading, paragraph; index name, column, key, cell; caption.
    assert page.texts.count(HOSTILE) == 10
    assert next(attrs for tag, attrs in page.tags if tag == "img")["alt"] == HOSTILE


def cells(html):
    body = html.split("<tbody>")[1].split("</tbody>")[0]
    return [re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row) for row in body.split("</tr>")[:-1]]


def test_numbers_have_sensible_digits_and_the_smallest_errors_are_bold(tmp_path):
    table = pd.DataFrame(
        {
            "MAE": [12.34567, 3.2],
            "width": [0.123456, 0.2],
            "tiny": [0.00123456, np.nan],
            "count": [12345, 7],
            "level": [1234567.8, -2.0],
            "text": ["a", None],
        },
        index=pd.Index(["x", "y"], name="model"),
    )

    rows = cells(write(tmp_path, Section("s", table=table)))

    assert rows == [
        ["x", "12.35", "0.123", "0.00123", "12,345", "1,234,568", "a"],
        ["y", "<strong>3.20</strong>", "0.200", "\u2013", "7", "-2", rows[1][-1]],
    ]


def test_numbers_are_right_aligned_and_other_columns_are_not(tmp_path):
    html = write(tmp_path, Section("s", table=pd.DataFrame({"a": [1.5], "b": ["x"]})))

    assert '<td class="number">1.500</td><td>x</td>' in html
    assert '<th class="number">a</th><th>b</th>' in html


@pytest.mark.parametrize("values", [[np.nan, np.nan], [0.0, 0.0], [np.inf, 1.5], []], ids=str)
def test_unusual_columns_are_written(tmp_path, values):
    assert len(cells(write(tmp_path, Section("s", table=pd.DataFrame({"MAE": values}))))) == len(values)


def test_tables_with_two_index_levels_show_both(tmp_path):
    table = pd.DataFrame({"MAE": [1.0]}, index=pd.MultiIndex.from_tuples([("m", 3)], names=["model", "step"]))

    html = write(tmp_path, Section("s", table=table, lower_is_better=()))

    assert cells(html) == [["m", "3", "1"]]
    assert "<th>model</th><th>step</th>" in html


def test_figures_are_embedded_with_caption_and_alternative_text(tmp_path):
    figure = ReportFigure(new_figure(2, 1), "What it shows", alt="A line")

    html = write(tmp_path, Section("s", figures=[figure]))

    image = next(attrs for tag, attrs in Page(html).tags if tag == "img")
    assert base64.b64decode(image["src"].split(",")[1]).startswith(b"\x89PNG")
    assert image["alt"] == "A line"
    assert "<figcaption>What it shows</figcaption>" in html


def test_the_same_content_gives_the_same_bytes(tmp_path):
    figure = new_figure(2, 1)
    section = Section("s", ["text"], pd.DataFrame({"a": [1.0]}), [ReportFigure(figure, "caption")])

    first, second = (write_report(tmp_path / name, "t", [section]).read_bytes() for name in ("a.html", "b.html"))

    assert first == second
