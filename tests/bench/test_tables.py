"""The page and the figure from rows of results."""

import pandas as pd
from matplotlib.figure import Figure

from xlstm_ts.bench.tables import write_tables
from xlstm_ts.cli import main


def write(path, rows):
    pd.DataFrame(rows, columns=["data", "horizon", "protocol", "model", "seed", "mse", "mae"]).to_csv(path, index=False)


def write_others(folder):
    columns = ["data", "model", "valid_mse", "valid_mae", "mse", "mae"]
    rows = [("etth1", "LSTM blocks", 0.1, 0.2, 0.3, 0.4), ("etth2", "mixer", 0.5, 0.6, 0.7, 0.8)]
    pd.DataFrame(rows, columns=columns).to_csv(folder / "ablation.csv", index=False)
    rows = [("etth1", 0, "naive", 0.9)]
    pd.DataFrame(rows, columns=["data", "seed", "intervals", "coverage"]).to_csv(folder / "intervals.csv", index=False)


def test_cells_are_means_over_seeds_and_missing_ones_are_said_to_be(tmp_path):
    ours = [("etth1", horizon, "tuned", "linear", 0, 0.4, 0.5) for horizon in (96, 192, 336, 720)]
    ours += [("etth1", 96, "tuned", "xlstm", seed, mse, 0.3) for seed, mse in enumerate((0.2, 0.3))]
    ours += [("weather", 96, "96", "xlstm", 0, 0.15, 0.2)]
    write(tmp_path / "ours.csv", ours)
    write(tmp_path / "theirs.csv", [("etth1", h, "tuned", "Known", 0, h / 1000, None) for h in (96, 192, 336, 720)])
    write_others(tmp_path)
    files = {
        "results": "ours.csv",
        "published": "theirs.csv",
        "ablation": "ablation.csv",
        "intervals": "intervals.csv",
        "page": "page.md",
        "figure": "figure.png",
    }

    code = main(
        ["bench", "tables", *(text for name, file in files.items() for text in (f"--{name}", str(tmp_path / file)))]
    )

    page = (tmp_path / "page.md").read_text().splitlines()
    assert code == 0
    assert "| xlstm | 0.250 / 0.300 (2 seeds, ± 0.050) | - | - | - | - |" in page
    assert "| linear | 0.400 / 0.500 | 0.400 / 0.500 | 0.400 / 0.500 | 0.400 / 0.500 | 0.400 / 0.500 |" in page
    assert "| *Known* | 0.096 / - | 0.192 / - | 0.336 / - | 0.720 / - | 0.336 / - |" in page
    assert page.index("## Tuned lookback") < page.index("weather:") > page.index("## Lookback 96")
    assert "| LSTM blocks | 0.100 / 0.200 | 0.300 / 0.400 | - | - |" in page
    assert "| etth1 | naive | 0.9 |" in page
    assert (tmp_path / "figure.png").stat().st_size > 1000


def test_a_model_has_one_colour_in_all_panels_of_the_figure(tmp_path, monkeypatch):
    figures = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: figures.append(figure))
    ours = [("etth1", 96, "tuned", model, 0, 0.4, 0.5) for model in ("xlstm", "lstm", "linear")]
    ours += [("weather", 96, "tuned", model, 0, 0.4, 0.5) for model in ("xlstm", "linear", "seasonal_naive")]
    write(tmp_path / "ours.csv", ours)
    write(tmp_path / "theirs.csv", [(data, 96, "tuned", "Known", 0, 0.3, None) for data in ("weather", "etth1")])
    paths = [str(tmp_path / name) for name in ("ours.csv", "theirs.csv", "none", "none", "page.md", "figure.png")]

    write_tables(*paths)

    drawn = [{line.get_label(): line.get_color() for line in axes.lines} for axes in figures[0].axes]
    assert [list(panel) for panel in drawn] == [["xlstm", "lstm", "linear", "Known"], ["xlstm", "linear", "Known"]]
    assert all(drawn[0][model] == colour for model, colour in drawn[1].items())
    assert len(set(drawn[0].values())) == 4
