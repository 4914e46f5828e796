"""The rows of `xlstm_ts.bench.long_horizon` beside published ones: a page of Markdown tables, and a figure."""

from pathlib import Path

import pandas as pd

HORIZONS = (96, 192, 336, 720)
OURS = ("xlstm_average", "xlstm", "lstm", "linear", "seasonal_naive")
CELL = ["protocol", "data", "horizon", "model"]
DPI = 120


def write_tables(results: str, published: str, ablation: str, intervals: str, page: str, figure: str) -> None:
    """Write the page and the figure.

    Parameters
    ----------
    results, published : str
        CSV files: of `run_long_horizon`, and of published cells with the columns data, horizon, protocol, model, mse
        and mae.
    ablation, intervals : str
        CSV files of `run_ablation` and `run_intervals`; left out where there is no such file.
    page, figure : str
        Markdown file and picture to write.
    """
    ours = _read(results)
    theirs = _read(published)
    parts = ["# Long-horizon tables", "", INTRODUCTION]
    for protocol, name in NAMES.items():
        chosen = ours[ours["protocol"] == protocol]
        if len(chosen):
            parts += [f"\n## {name}\n", _markdown(chosen, theirs[theirs["protocol"] == protocol])]
    if Path(ablation).exists():
        parts += ["\n## One thing changed at a time\n", ABLATION, "", _ablation(pd.read_csv(ablation))]
    if Path(intervals).exists():
        parts += ["\n## 90 % intervals\n", INTERVALS, "", _plain(pd.read_csv(intervals).drop(columns="seed"))]
    Path(page).write_text("\n".join(parts).rstrip() + "\n", encoding="utf-8")
    _draw(ours[ours["protocol"] == "tuned"], theirs[theirs["protocol"] == "tuned"], figure)


NAMES = {"tuned": "Tuned lookback", "96": "Lookback 96", "default": "XLSTMForecaster with its default settings"}

INTRODUCTION = """\
Written by `xlstm-ts bench tables` from [long_horizon.csv](long_horizon.csv) and
[published.csv](published.csv). Cells are MSE / MAE on the test part in z-scored units, means over seeds, with the
number of seeds where it is more than one and then the largest distance of a seed's MSE from their mean. A mean over
horizons stands only where all four are there; a dash marks a cell that is missing. Rows in italics are as published."""


ABLATION = """\
The mixer of the tables (context 512, one sLSTM block, absolute error), and the same with one thing changed, by
`xlstm-ts bench ablation`: MSE / MAE on the validation part, then on the test part. One seed each."""

INTERVALS = """\
By `xlstm-ts bench intervals`: `XLSTMForecaster` with its default settings, as fitted and as its intervals go on
learning, its network before calibration, and the seasonal naive forecast; "blocks" are held out from the calibration
in turn. Shares of targets inside, with 95 % limits by a bootstrap of blocks of origins, then at the
first, the middle and the last step; and the Winkler score, of which less is better."""


def _ablation(rows: pd.DataFrame) -> str:
    names = list(rows["data"].drop_duplicates())
    lines = ["| variant | " + " | ".join(f"{name}, validation | {name}, test" for name in names) + " |"]
    lines.append("|---" * (1 + 2 * len(names)) + "|")
    for variant in rows["model"].drop_duplicates():
        cells = []
        for name in names:
            found = rows[(rows["data"] == name) & (rows["model"] == variant)]
            for mse, mae in (("valid_mse", "valid_mae"), ("mse", "mae")):
                mean = found[[mse, mae]].mean().set_axis(["mse", "mae"])
                cells.append(_pair(mean) if len(found) else "-")
        lines.append(f"| {variant} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _plain(rows: pd.DataFrame) -> str:
    lines = ["| " + " | ".join(name.replace("_", " ") for name in rows.columns) + " |", "|---" * rows.shape[1] + "|"]
    lines += ["| " + " | ".join(map(str, row)) + " |" for row in rows.itertuples(index=False)]
    return "\n".join(lines)


def _read(path: str) -> pd.DataFrame:
    return pd.read_csv(path, dtype={"protocol": str})


def _markdown(ours: pd.DataFrame, theirs: pd.DataFrame) -> str:
    lines = []
    for data in ours["data"].drop_duplicates():
        lines += [f"\n{data}:\n", "| model | " + " | ".join(map(str, HORIZONS)) + " | mean |", "|---" * 6 + "|"]
        here = ours[ours["data"] == data]
        lines += [_line(here[here["model"] == model], model) for model in OURS if model in set(here["model"])]
        there = theirs[theirs["data"] == data]
        lines += [_line(there[there["model"] == model], f"*{model}*") for model in there["model"].drop_duplicates()]
    return "\n".join(lines).lstrip("\n")


def _line(rows: pd.DataFrame, name: str) -> str:
    cells, means = [], []
    for horizon in HORIZONS:
        cell = rows[rows["horizon"] == horizon]
        if not len(cell):
            cells.append("-")
            continue
        mean = cell[["mse", "mae"]].mean()
        means.append(mean)
        seeds = ""
        if len(cell) > 1:
            seeds = f" ({len(cell)} seeds, ± {(cell['mse'] - mean['mse']).abs().max():.3f})"
        cells.append(_pair(mean) + seeds)
    whole = _pair(pd.concat(means, axis=1).mean(axis=1)) if len(means) == len(HORIZONS) else "-"
    return f"| {name} | " + " | ".join([*cells, whole]) + " |"


def _pair(mean: pd.Series) -> str:
    def text(value: float) -> str:
        return "-" if pd.isna(value) else f"{value:.3f}"

    return f"{text(mean['mse'])} / {text(mean['mae'])}"


def _draw(ours: pd.DataFrame, theirs: pd.DataFrame, path: str) -> None:
    """Draw MSE over the horizon, a panel per data set."""
    from matplotlib.figure import Figure

    names = list(ours["data"].drop_duplicates())
    models = [name for name in pd.concat([ours["model"], theirs["model"]]).unique() if name != "seasonal_naive"]
    colours = {model: f"C{number}" for number, model in enumerate(models)}  # a panel may lack some
    figure = Figure(figsize=(3.2 * max(1, len(names)), 3.2), layout="constrained")
    for number, data in enumerate(names):
        axes = figure.add_subplot(1, len(names), number + 1)
        for table, style in ((ours, "o-"), (theirs, "x--")):
            for model, rows in table[table["data"] == data].groupby("model", sort=False):
                if model in colours:
                    mean = rows.groupby("horizon")["mse"].mean()
                    axes.plot(
                        [HORIZONS.index(horizon) for horizon in mean.index],
                        mean,
                        style,
                        color=colours[model],
                        label=model,
                        linewidth=1.2,
                        markersize=4,
                    )
        axes.set_xticks(range(len(HORIZONS)), [str(horizon) for horizon in HORIZONS])
        axes.set(title=data, xlabel="horizon", ylabel="MSE" if number == 0 else "")
    if names:
        figure.axes[0].legend(fontsize="x-small", frameon=False)
    figure.savefig(path, dpi=DPI)
