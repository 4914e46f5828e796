import numpy as np
import pandas as pd
import pytest

from xlstm_ts import demo
from xlstm_ts.evaluation.backtest import backtest


def table(xlstm, last_value, seasonal_naive):
    """Scores of the three models, in the order MASE and pinball, coverage."""
    rows = {"xLSTM": xlstm, "last_value": last_value, "seasonal_naive": seasonal_naive}
    frame = pd.DataFrame.from_dict(rows, orient="index", columns=["MASE", demo.COVERAGE])
    return frame.assign(MAE=frame["MASE"], RMSE=frame["MASE"], pinball=frame["MASE"], seconds=0.0)


def listed(found):
    places = {name: "here" if name in found else "not here" for name in ("goog", "weather", "ambient_temperature")}
    return lambda: pd.DataFrame({"found": places})


@pytest.mark.parametrize(
    ("scores", "said"),
    [
        ((0.5, 1.0, 2.0), "beats the last value (1.0) and seasonal naive (2.0)"),
        ((1.5, 1.0, 2.0), "beats seasonal naive (2.0) and does not beat the last value (1.0)"),
        ((1.01, 1.0, 2.0), "beats seasonal naive (2.0) and is level with the last value (1.0)"),
        ((3.0, 1.0, 2.0), "does not beat the last value (1.0) and seasonal naive (2.0)"),
    ],
    ids=["beats both", "beats one", "level with one", "beats none"],
)
def test_the_sentence_says_which_baselines_are_beaten(scores, said):
    series = pd.Series(scores, index=["xLSTM", "last_value", "seasonal_naive"])

    assert demo._comparison(series, series.astype(str)) == said


@pytest.mark.parametrize(
    ("coverage", "said"),
    [(80, "close to its promise"), (85, "close to its promise"), (74, "too narrow"), (86, "wider than need be")],
)
def test_the_sentence_says_whether_the_interval_kept_its_promise(coverage, said):
    assert said in demo._judgement(coverage)


@pytest.mark.parametrize(("coverage", "honest"), [(84, True), (40, False)])
def test_a_stock_is_said_to_have_the_more_honest_interval_only_where_it_has(coverage, honest):
    sentence = demo._about_stocks(table((2.0, coverage), (1.9, 47), (2.2, 47)))

    assert "random walk" in sentence
    assert ("is not the more honest" not in sentence) is honest


def test_a_median_on_one_side_of_the_values_is_pointed_out():
    y = pd.Series(np.r_[np.zeros(60), -np.arange(1.0, 31)], index=pd.date_range("2020-01-01", periods=90, freq="D"))
    from xlstm_ts.evaluation.baselines import SeasonalNaive

    result = backtest({demo.MODEL: SeasonalNaive(1)}, y, horizon=2, origins=10, quantile_levels=demo.FAN_LEVELS)

    assert demo._about_median(result) == [
        "100 % of the actual values lay below its median; here it forecast too high.",
    ]


def test_measured_series_are_taken_where_their_files_are_here_and_simulated_ones_elsewhere(monkeypatch):
    days = pd.date_range("2020-01-01 00:10", periods=144 * 3, freq="10min", name="time")
    frames = {
        "goog": demo.load_dataset("goog"),
        "weather": pd.DataFrame({"T (degC)": np.arange(len(days), dtype=float)}, index=days),
    }
    monkeypatch.setattr(demo, "load_dataset", frames.__getitem__)  # any other name fails
    monkeypatch.setattr(demo, "list_datasets", listed({"goog", "weather"}))

    stock, weather, sensor = demo.demo_series()

    assert stock.y.equals(frames["goog"]["close"])
    assert "simulated" not in weather.title
    assert weather.y.index[0] == pd.Timestamp("2020-01-01 01:00")
    assert weather.y.iloc[:2].tolist() == [2.5, 8.5]
    assert "simulated" in sensor.title
    assert sensor.source.startswith("Simulated, not measured")


def test_a_page_that_is_already_there_survives_a_failed_run(tmp_path, monkeypatch):
    (tmp_path / "report.html").write_text("old")
    monkeypatch.setattr(demo, "demo_series", lambda: 1 / 0)

    with pytest.raises(ZeroDivisionError):
        demo.run_demo(tmp_path / "report.html")

    assert (tmp_path / "report.html").read_text() == "old"


def test_a_failed_run_leaves_no_empty_page(tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "demo_series", lambda: 1 / 0)

    with pytest.raises(ZeroDivisionError):
        demo.run_demo(tmp_path / "report.html")

    assert list(tmp_path.iterdir()) == []
