"""One self-contained HTML page from headings, text, tables and figures.

The page loads nothing: its style sheet and its figures are inside the file, and a content security policy
forbids anything else. All text, names and numbers are escaped, so that a column called ``<script>`` is
shown and not run. It reads on a phone and prints on paper.
"""

import base64
import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from xlstm_ts.evaluation.plots import figure_png


@dataclass(frozen=True, eq=False)
class ReportFigure:
    """A figure of a report.

    Parameters
    ----------
    figure : matplotlib Figure, or bytes of a PNG file
        Drawn when the report is written; it stays open and unchanged.
    caption : str
        Text below the figure.
    alt : str, optional
        What the figure shows, for those who cannot see it. Default: the caption.
    """

    figure: Any
    caption: str = ""
    alt: str | None = None


@dataclass(frozen=True, eq=False)
class Section:
    """A section of a report: heading, a leading figure, then paragraphs, a table and more figures.

    Parameters
    ----------
    heading : str
        Heading of the section.
    paragraphs : sequence of str
        Plain text; HTML in it is shown as it is written.
    table : DataFrame, optional
        Shown with its index. Numbers are right-aligned, in each column with the same decimals.
    figures : sequence of ReportFigure
        Figures below the table.
    lower_is_better : sequence of str
        Columns of the table in which the smallest value is set in bold.
    lead : ReportFigure, optional
        Figure right below the heading: what the section is about.
    """

    heading: str
    paragraphs: Sequence[str] = ()
    table: pd.DataFrame | None = None
    figures: Sequence[ReportFigure] = ()
    lower_is_better: Sequence[str] = ("MAE", "RMSE", "MASE", "pinball", "CRPS")
    lead: ReportFigure | None = None


def write_report(
    path: str | Path, title: str, sections: Sequence[Section], *, introduction: Sequence[str] = ()
) -> Path:
    """Write one HTML page that needs no other file.

    Parameters
    ----------
    path : str or Path
        File to write; an existing one is replaced, in UTF-8.
    title : str
        Title of the page.
    sections : sequence of Section
        Content, in order.
    introduction : sequence of str
        Paragraphs between the title and the first section.

    Returns
    -------
    Path
        The file. The same content gives the same bytes: no date is written.
    """
    path = Path(path)
    body = [f"<h1>{escape(title)}</h1>", *_paragraphs(introduction), *map(_section, sections)]
    path.write_text(_PAGE.format(title=escape(title), style=_STYLE, body="\n".join(body)), encoding="utf-8")
    return path


def _section(section: Section) -> str:
    parts = [f"<h2>{escape(section.heading)}</h2>"]
    if section.lead is not None:
        parts.append(_figure(section.lead))
    parts.extend(_paragraphs(section.paragraphs))
    if section.table is not None:
        parts.append(_table(section.table, section.lower_is_better))
    parts.extend(map(_figure, section.figures))
    return "<section>\n" + "\n".join(parts) + "\n</section>"


def _paragraphs(texts: Sequence[str]) -> list[str]:
    return [f"<p>{escape(text)}</p>" for text in texts]


def _figure(item: ReportFigure) -> str:
    png = item.figure if isinstance(item.figure, bytes) else figure_png(item.figure, dpi=150)
    source = base64.b64encode(png).decode("ascii")
    alt = escape(item.caption if item.alt is None else item.alt)
    caption = f"<figcaption>{escape(item.caption)}</figcaption>" if item.caption else ""
    return f'<figure><div class="wide"><img src="data:image/png;base64,{source}" alt="{alt}"></div>{caption}</figure>'


def _table(table: pd.DataFrame, lower_is_better: Sequence[str]) -> str:
    columns = [_column_cells(table.iloc[:, place], lower_is_better) for place in range(table.shape[1])]
    numeric = [_is_number(table.dtypes.iloc[place]) for place in range(table.shape[1])]
    head = "".join(f"<th>{_heading(name)}</th>" for name in table.index.names)
    head += "".join(
        f'<th class="number">{_heading(name)}</th>' if is_number else f"<th>{_heading(name)}</th>"
        for name, is_number in zip(table.columns, numeric, strict=True)
    )
    rows = []
    for row, key in enumerate(table.index):
        keys = key if isinstance(key, tuple) else (key,)
        cells = "".join(f'<th scope="row">{_label(part)}</th>' for part in keys)
        rows.append(f"<tr>{cells}{''.join(column[row] for column in columns)}</tr>")
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'


def _column_cells(column: pd.Series, lower_is_better: Sequence[str]) -> list[str]:
    if not _is_number(column.dtype):
        return [f"<td>{_label(value)}</td>" for value in column]
    values = column.to_numpy(dtype=float, na_value=np.nan)
    texts = number_texts(values)
    best = np.nanmin(values) if column.name in lower_is_better and not np.isnan(values).all() else None
    return [
        f'<td class="number"><strong>{text}</strong></td>' if value == best else f'<td class="number">{text}</td>'
        for value, text in zip(values, texts, strict=True)
    ]


def number_texts(values: np.ndarray) -> list[str]:
    """Format a column with the same decimals throughout, so that its largest value has three or four digits."""
    finite = np.abs(values[np.isfinite(values)])
    largest = finite.max(initial=0.0)
    if (finite == np.round(finite)).all():
        decimals = 0
    else:
        digits = 4 if largest >= 1 else 3
        decimals = min(max(digits - 1 - math.floor(math.log10(largest)), 0), 12)
    return ["\u2013" if math.isnan(value) else f"{value:,.{decimals}f}" for value in values]


def _is_number(dtype: Any) -> bool:
    return pd.api.types.is_numeric_dtype(dtype) and not pd.api.types.is_bool_dtype(dtype)


def _label(value: Any) -> str:
    return "" if value is None else escape(str(value))


def _heading(name: Any) -> str:
    """Label of a column, which may break after an underscore."""
    return _label(name).replace("_", "_<wbr>")


_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<main>
{body}
</main>
</body>
</html>
"""

_STYLE = """
:root { --ink: #26303a; --quiet: #6b7480; --line: #dfe3e8; --accent: #1f6f8b; }
* { box-sizing: border-box; }
body { margin: 0; background: #fff; color: var(--ink); font: 16px/1.6 system-ui, -apple-system, "Segoe UI",
  Roboto, "Helvetica Neue", Arial, sans-serif; -webkit-text-size-adjust: 100%; }
main { max-width: 68rem; margin: 0 auto; padding: 2.5rem 1.25rem 4rem; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 1rem; padding-bottom: .8rem;
  border-bottom: 3px solid var(--accent); overflow-wrap: anywhere; }
h2 { font-size: 1.25rem; line-height: 1.3; margin: 2.4rem 0 .6rem; overflow-wrap: anywhere; }
p { max-width: 44rem; margin: 0 0 .8rem; overflow-wrap: anywhere; }
.wide { overflow-x: auto; margin: 1rem 0; }
table { border-collapse: collapse; font-size: .88rem; line-height: 1.35; }
th, td { padding: .42rem .55rem; text-align: left; white-space: nowrap; border-bottom: 1px solid var(--line); }
thead th { color: var(--quiet); font-weight: 600; border-bottom: 2px solid var(--line); vertical-align: bottom;
  white-space: normal; }
tbody th { font-weight: 500; }
tbody tr:hover { background: #f6f8fa; }
.number { text-align: right; font-variant-numeric: tabular-nums; }
strong { font-weight: 700; color: var(--accent); }
figure { margin: 1.4rem 0; }
img { display: block; max-width: 100%; height: auto; }
figcaption { color: var(--quiet); font-size: .88rem; margin-top: .4rem; max-width: 44rem; }
@media (max-width: 40rem) {
  main { padding: 1.4rem .9rem 3rem; }
  h1 { font-size: 1.5rem; }
  th, td { padding: .36rem .55rem; }
  img { max-width: none; width: 44rem; }
}
@media print {
  @page { size: A4; margin: 16mm; }
  body { font-size: 10.5pt; }
  main { max-width: none; padding: 0; }
  h2 { break-after: avoid; }
  figure, tr { break-inside: avoid; }
  .wide { overflow: visible; }
  table { font-size: 7.5pt; width: 100%; }
  th, td { padding: .25rem .35rem; white-space: normal; }
  tbody tr:hover { background: none; }
}
"""
