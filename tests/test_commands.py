"""``xlstm-ts fit``, ``forecast`` and ``backtest`` say what the Python API says, and first of all what is wrong."""

import sys

import numpy as np
import pandas as pd
import pytest

from xlstm_ts import XLSTMForecaster, backtest, cli, commands

pytestmark = [
    pytest.mark.filterwarnings("ignore::xlstm_ts.forecaster.ShortSeriesWarning"),
]

SMALL = {
    "context_length": 8,
    "backbone": "patch",
    "patch_length": 4,
    "layout": "s",
    "hidden_size": 4,
    "num_heads": 1,
    "max_epochs": 1,
    "steps_per_epoch": 2,
    "validation_fraction": 0,
    "verbose": False,
}
SET = ["--set", *(f"{name}={str(value).lower()}" for name, value in SMALL.items())]


def weather(rows=80):
    place = np.arange(rows)
    index = pd.date_range("2024-03-01", periods=rows, freq="h", name="when")
    return pd.DataFrame(
        {
            "temperature": 10 + np.sin(place / 24 * 2 * np.pi) + 0.1 * np.sin(place**2 * 0.37),
            "pressure": 1000 + np.cos(place / 9),
            "shift": np.array(["early", "late"])[place // 12 % 2],
        },
        index=index,
    )


def make_model(**changes):
    return XLSTMForecaster(**{**SMALL, "horizon": 4, "random_state": 0, **changes})


def run(*arguments):
    return cli.main([str(argument) for argument in arguments])


@pytest.fixture
def table(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    weather().to_csv("weather.csv")
    return tmp_path / "weather.csv"


@pytest.fixture
def no_training(monkeypatch):
    monkeypatch.setattr(XLSTMForecaster, "fit", lambda *arguments, **more: pytest.fail("began to train"))


def assert_is_forecast(table, model, steps, coverage, X=None):
    """Compare a table of one series and one variable with what a forecaster says."""
    fh = range(1, steps + 1)
    points = model.predict(fh=fh, X=X)
    intervals = model.predict_interval(fh=fh, X=X, coverage=list(coverage))
    assert list(table["variable"].unique()) == list(points.columns)
    assert pd.to_datetime(table.iloc[:, 0]).tolist() == points.index.tolist()
    np.testing.assert_allclose(table["point"], points.iloc[:, 0], rtol=1e-9)
    for share in coverage:
        for side in ("lower", "upper"):
            expected = intervals[(points.columns[0], share, side)]
            np.testing.assert_allclose(table[f"{side}_{100 * share:g}"], expected, rtol=1e-9)


def test_fit_and_forecast_say_what_the_forecaster_says(table, capsys):
    y = weather()[["temperature"]]

    assert run("fit", table, "--target", "temperature", "--horizon", 4, "--model", "w.xlstm", *SET) == 0
    said = capsys.readouterr().out
    assert run("forecast", "w.xlstm", "--steps", 6, "--coverage", 0.8, 0.5, "--output", "f.csv", "--plot", "f.png") == 0

    assert "80 rows from 2024-03-01 to 2024-03-04 07:00, by the column 'when'" in said
    assert "The model is w.xlstm." in said
    assert_is_forecast(pd.read_csv("f.csv"), make_model().fit(y), 6, (0.8, 0.5))
    assert (table.parent / "f.png").read_bytes().startswith(b"\x89PNG")


def test_a_forecast_without_an_output_is_csv_and_nothing_else(table, capsys):
    run("fit", table, "--target", "temperature", "--horizon", 4, "--model", "w.xlstm", *SET)
    capsys.readouterr()

    assert run("forecast", "w.xlstm") == 0

    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "when,variable,point,lower_50,upper_50,lower_90,upper_90"
    assert [line.split(",")[1] for line in lines[1:]] == ["temperature"] * 4


def test_newer_rows_move_the_forecast_and_leave_the_model_file(table):
    y = weather()[["temperature"]]
    weather(92).iloc[70:].to_csv("newer.csv")
    run("fit", table, "--target", "temperature", "--horizon", 4, "--model", "w.xlstm", *SET)
    before = (table.parent / "w.xlstm").read_bytes()

    assert run("forecast", "w.xlstm", "--data", "newer.csv", "--output", "f.csv") == 0

    model = make_model().fit(y).update(weather(92).iloc[70:][["temperature"]], update_params=False)
    assert_is_forecast(pd.read_csv("f.csv"), model, 4, (0.5, 0.9))
    assert (table.parent / "w.xlstm").read_bytes() == before


def test_covariates_are_read_and_those_known_ahead_come_from_rows_without_a_target(table, capsys):
    frame = weather(90)
    frame.loc[frame.index[84] :, ["temperature", "pressure"]] = np.nan
    frame.to_csv("newer.csv")
    columns = ["--known-covariates", "shift", "--past-covariates", "pressure"]
    run("fit", table, "--target", "temperature", *columns, "--horizon", 4, "--model", "w.xlstm", *SET)

    assert run("forecast", "w.xlstm") == 2
    assert "known ahead: shift. Give a table with their values after the end" in capsys.readouterr().err
    assert run("forecast", "w.xlstm", "--data", "newer.csv", "--steps", 6, "--output", "f.csv") == 0

    y, X = weather()[["temperature"]], weather()[["shift", "pressure"]]
    model = make_model(past_covariates=["pressure"]).fit(y, X=X)
    new = frame.iloc[:84]
    model.update(new[["temperature"]], X=new[["shift", "pressure"]], update_params=False)
    assert_is_forecast(pd.read_csv("f.csv"), model, 6, (0.5, 0.9), X=frame[["shift"]])


def test_many_series_are_a_panel(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    parts = {name: weather(60 + 5 * k)[["temperature"]] + k for k, name in enumerate(["north", "south"])}
    panel = pd.concat(parts, names=["site", "when"])
    panel.reset_index().sample(frac=1, random_state=0).to_csv("sites.csv", index=False)

    columns = ["--series", "site", "--target", "temperature"]
    assert run("fit", "sites.csv", *columns, "--horizon", 4, "--model", "s.xlstm", *SET) == 0
    assert run("forecast", "s.xlstm", "--data", "sites.csv", "--output", "f.csv", "--plot", "f.svg") == 0

    forecast = pd.read_csv("f.csv")
    expected = make_model().fit(panel).predict(fh=range(1, 5))
    assert list(zip(forecast["site"], pd.to_datetime(forecast["when"]), strict=True)) == expected.index.tolist()
    np.testing.assert_allclose(forecast["point"], expected["temperature"], rtol=1e-9)


def test_backtest_writes_the_scores_and_the_page_of_the_backtest(table, capsys):
    y = weather()[["temperature"]]

    code = run(
        *("backtest", table, "--target", "temperature", "--horizon", 4, "--origins", 5),
        *("--output", "scores.csv", "--html", "report.html", *SET),
    )

    result = backtest(make_model(), y, horizon=4, origins=5)
    scores, expected = pd.read_csv("scores.csv", index_col="model"), result.summary()
    assert code == 0
    assert list(scores.index) == ["XLSTMForecaster", "last_value", "seasonal_naive"]
    for name in ("MAE", "MASE", "CRPS", "coverage_80", "skill"):
        np.testing.assert_allclose(scores[name], expected[name], rtol=1e-8)
    out = capsys.readouterr().out
    assert result.describe()[0] in out
    assert "Backtest of temperature in weather.csv" in (table.parent / "report.html").read_text(encoding="utf-8")


def test_irregular_tables_are_repaired_where_that_is_asked_for(table):
    gone = weather().drop(weather().index[[30, 31]])
    gone.to_csv("holes.csv")
    settings = [*SET, "on_gap=mask"]
    options = ["--target", "temperature", "--horizon", 4]

    assert run("fit", "holes.csv", *options, "--model", "w.xlstm", *settings) == 0
    assert run("forecast", "w.xlstm", "--output", "f.csv") == 0
    assert run("backtest", "holes.csv", *options, "--origins", 5, "--output", "scores.csv", *settings) == 0

    y = weather()[["temperature"]]
    y.iloc[[30, 31]] = np.nan
    assert_is_forecast(pd.read_csv("f.csv"), make_model().fit(y), 4, (0.5, 0.9))
    expected = backtest(make_model(), y, horizon=4, origins=5).summary()
    np.testing.assert_allclose(pd.read_csv("scores.csv")["MAE"], expected["MAE"], rtol=1e-8)


def test_a_data_set_is_read_by_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    assert run("fit", "airline", "--target", "passengers", "--horizon", 4, "--model", "a.xlstm", *SET) == 0

    model = XLSTMForecaster.load_model("a.xlstm")
    assert str(model.cutoff[0]) == "1960-12"
    assert model.verbose is False


def test_an_interrupted_fit_keeps_the_best_weights_so_far(table, monkeypatch, capsys):
    whole = XLSTMForecaster.fit

    def interrupted(self, y, X=None, fh=None):
        whole(self, y, X=X, fh=fh)
        raise KeyboardInterrupt

    monkeypatch.setattr(XLSTMForecaster, "fit", interrupted)

    assert run("fit", table, "--target", "temperature", "--horizon", 4, "--model", "w.xlstm", *SET) == 130

    assert "best weights so far" in capsys.readouterr().out
    assert XLSTMForecaster.load_model("w.xlstm").horizon == 4


HOLES = weather().drop(weather().index[[30, 31]]).to_csv()
TWICE = pd.concat([weather(), weather()[-1:]]).to_csv()
WORDS = weather().astype(object).replace({"shift": {"early": "later", "late": "n.n."}}).to_csv()
REFUSED = {
    "no file": ({}, ["nothere.csv", "--target", "temperature"], "nothere.csv: there is no such file, nor a data set"),
    "no time": ({"w": "a,b\n1,2\n2,3\n"}, ["w", "--target", "a"], "w: no column holds times (of a, b). Name one"),
    "two times": (
        {"w": "a,b,c\n2024-01-01,2024-01-02,3\n"},
        ["w", "--target", "c"],
        "more than one column holds times: a, b. Say which with --time.",
    ),
    "time of another name": ({}, ["weather.csv", "--target", "temperature", "--time", "whem"], "'when'?"),
    "unknown target": ({}, ["weather.csv", "--target", "temprature"], "(--target). Did you mean 'temperature'?"),
    "text": (
        {},
        ["weather.csv", "--target", "shift"],
        "the column 'shift' holds 'early' at 2024-03-01 00:00:00 (80 such cells), where numbers are expected.",
    ),
    "holes": (
        {"w": HOLES},
        ["w", "--target", "temperature"],
        "2024-03-02 05:00:00 is followed by 2024-03-02 08:00:00. With --set resample=h the rows of every such step are "
        "averaged; with --set on_gap=mask",
    ),
    "a time twice": (
        {"w": TWICE},
        ["w", "--target", "temperature", "--set", "on_gap=mask"],
        "2024-03-04 07:00:00 stands twice in the index. With --set resample=h",
    ),
    "no value": ({"w": "t,a\n2024-01-01,\n2024-01-02,\n"}, ["w", "--target", "a"], "have no value"),
    "a time that is missing": ({"w": "t,a\n2024-01-01,1\n,2\n"}, ["w", "--target", "a"], "row 2 has no time"),
    "day or month": (
        {"w": "t,a\n01/02/2024,1\n02/02/2024,2\n03/02/2024,3\n"},
        ["w", "--target", "a"],
        "'01/02/2024' in the column 't' can be read as '%d/%m/%Y' or '%m/%d/%Y'. Say which with --time-format.",
    ),
    "no table": ({"w": ""}, ["w", "--target", "a"], "w: this cannot be read as CSV: No columns"),
    "a folder": ({}, [".", "--target", "a"], ".: this is no file"),
    "a setting of another form": ({}, ["weather.csv", "--target", "temperature", "--set", "epochs"], "KEY=VALUE"),
    "an unknown setting": (
        {},
        ["weather.csv", "--target", "temperature", "--set", "epochs=3"],
        "--set epochs: XLSTMForecaster has no such parameter. Did you mean 'max_epochs'?",
    ),
    "a setting with an option": (
        {},
        ["weather.csv", "--target", "temperature", "--set", "horizon=3"],
        "--set horizon: this has an option of its own. Use --horizon.",
    ),
    "a column twice": (
        {},
        ["weather.csv", "--target", "temperature", "--past-covariates", "temperature"],
        "the column 'temperature' stands in two options",
    ),
    "Parquet": ({"w.parquet": ""}, ["w.parquet", "--target", "a"], "Parquet needs pyarrow"),
}


@pytest.mark.parametrize(("files", "arguments", "message"), REFUSED.values(), ids=REFUSED)
@pytest.mark.parametrize("command", ["fit", "backtest"])
def test_what_is_wrong_is_one_line_before_any_training(
    command, files, arguments, message, table, no_training, monkeypatch, capsys
):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    for name, text in files.items():
        (table.parent / name).write_text(text, encoding="utf-8")
    written = ["--model", "w.xlstm"] if command == "fit" else ["--html", "w.html"]

    code = run(command, *arguments, *written)

    told = capsys.readouterr().err
    assert code == 2
    assert message in told
    assert told.count("\n") == 1
    assert not (table.parent / written[1]).exists()


OUTPUTS = {
    "fit": ["weather.csv", "--target", "temperature", "--model", "missing/w.xlstm"],
    "backtest": ["weather.csv", "--target", "temperature", "--html", "missing/w.html"],
    "backtest ": ["weather.csv", "--target", "temperature", "--output", "missing/w.csv"],
    "forecast": ["w.xlstm", "--output", "missing/w.csv"],
    "forecast ": ["w.xlstm", "--plot", "missing/w.png"],
}


@pytest.mark.parametrize("command", OUTPUTS)
def test_an_output_that_cannot_be_written_is_one_line_before_any_work(command, table, no_training, monkeypatch, capsys):
    monkeypatch.setattr(commands, "read_table", lambda *arguments: pytest.fail("went on"))

    code = run(command.strip(), *OUTPUTS[command])

    told = capsys.readouterr().err
    assert code == 2
    assert told.count("\n") == 1
    assert f"in a folder that exists, with {OUTPUTS[command][-2]}." in told


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothere.xlstm"], "nothere.xlstm cannot be read (No such file or directory)"),
        (["weather.csv"], "weather.csv is not a whole model file"),
        (["w.xlstm"], "w.xlstm is damaged"),
        (["w.xlstm", "--coverage", "90"], "--coverage: coverage=90.0 is impossible"),
        (["w.xlstm", "--steps", "0"], "--steps=0 is impossible"),
        (["w.xlstm", "--plot", "w.doc"], "a file that ends in .png, .svg, .pdf is needed"),
    ],
)
def test_a_forecast_that_cannot_be_made_is_one_line(arguments, message, table, capsys):
    run("fit", table, "--target", "temperature", "--horizon", 4, "--model", "w.xlstm", *SET)
    data = bytearray((table.parent / "w.xlstm").read_bytes())
    data[100] ^= 1
    (table.parent / "w.xlstm").write_bytes(data)
    capsys.readouterr()

    assert run("forecast", *arguments) == 2

    told = capsys.readouterr().err
    assert message in told
    assert told.count("\n") == 1


def test_a_warning_is_one_line_without_its_place_in_the_code(table, monkeypatch, capsys):
    monkeypatch.setattr("warnings.filters", [])  # as outside the tests
    settings = [text for text in SET if not text.startswith("validation")]

    assert run("fit", table, "--target", "temperature", "--horizon", 4, "--model", "w.xlstm", *settings) == 0

    told = capsys.readouterr().err
    assert told.startswith("xlstm-ts: warning: XLSTMForecaster.fit: 80 rows leave too few validation windows")
    assert told.count("\n") == 1
