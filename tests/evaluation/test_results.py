import numpy as np
import pandas as pd
import pytest
from fake_forecasters import AllAtOnce, Walker, hourly, panel

from xlstm_ts.errors import DataError, ParameterError
from xlstm_ts.evaluation import metrics
from xlstm_ts.evaluation.backtest import backtest
from xlstm_ts.evaluation.scores import intervals_of, known_metrics
from xlstm_ts.evaluation.significance import diebold_mariano

LEVELS = [0.05, 0.1, 0.5, 0.9, 0.95]


@pytest.fixture(scope="module")
def result():
    y = hourly(120, columns=2)
    y.iloc[[90, 92, 94], 0] = np.nan  # no origins, so that every forecast has its last value
    return backtest(AllAtOnce(), y, horizon=4, initial=80, stride=2, quantile_levels=LEVELS)


def rows_of(result, **chosen):
    frame = result.frame
    for column, value in chosen.items():
        frame = frame[frame[column] == value]
    return frame


def scores_by_hand(result, rows):
    """The scores of some rows, by the plain functions."""
    scale, rms = (
        s.loc[list(zip(rows["series"], rows["variable"], strict=True))].to_numpy()
        for s in (result.train_scale, result.train_rms_scale)
    )
    actual, point, quantiles = rows["y"], rows["point"], rows[LEVELS]
    by_hand = {
        "MAE": metrics.mae(actual, point),
        "RMSE": metrics.rmse(actual, point),
        "MASE": metrics.mase(actual, point, scale),
        "RMSSE": metrics.rmsse(actual, point, rms),
        "sMAPE": metrics.smape(actual, point),
        "WAPE": metrics.wape(actual, point),
        "bias": metrics.bias(actual, point),
        "pinball": metrics.pinball_loss(actual, quantiles, LEVELS),
        "WQL": metrics.weighted_quantile_loss(actual, quantiles, LEVELS),
        "CRPS": metrics.crps(actual, quantiles, LEVELS),
    }
    for share, (low, high) in intervals_of(LEVELS).items():
        bounds = rows[low], rows[high]
        by_hand[f"coverage_{share}"] = metrics.coverage(actual, *bounds)
        by_hand[f"width_{share}"] = metrics.interval_width(*bounds, observed=actual.notna())
        by_hand[f"winkler_{share}"] = metrics.winkler_score(actual, *bounds, high - low)
    return by_hand


def test_every_score_of_every_group_equals_the_plain_function(result):
    everything = known_metrics(LEVELS)
    tables = {
        ("model",): result.summary(everything),
        ("model", "step"): result.by_step(everything),
        ("model", "origin"): result.by_origin(everything),
        ("model", "variable"): result.by_variable(everything),
        ("model", "series"): result.by_series(everything),
    }

    for keys, table in tables.items():
        for key in table.index[::5]:
            chosen = dict(zip(keys, key if isinstance(key, tuple) else (key,), strict=True))
            expected = scores_by_hand(result, rows_of(result, **chosen))
            assert table.loc[key, everything].to_dict() == pytest.approx(expected, rel=1e-9), (keys, key)
    assert set(intervals_of(LEVELS)) == {"80", "90"}


def test_by_time_groups_by_the_hour_of_the_target_and_shows_skill(result):
    table = result.by_time("hour", ["MAE"])

    rows = result.frame[pd.DatetimeIndex(result.frame["time"]).hour == 7]
    mae = {model: metrics.mae(part["y"], part["point"]) for model, part in rows.groupby("model")}
    assert table.loc[("AllAtOnce", 7), "MAE"] == pytest.approx(mae["AllAtOnce"])
    assert table.loc[("AllAtOnce", 7), "skill"] == pytest.approx(1 - mae["AllAtOnce"] / mae["seasonal_naive"])
    assert result.by_time("season").index.unique("season").tolist() == ["DJF"]
    assert result.by_time("weekday").index.unique("weekday").tolist() == [3, 4]


def test_skill_and_test_against_the_seasonal_naive_forecast(result):
    summary = result.summary()

    losses = [
        [metrics.mae(part["y"], part["point"]) for _, part in rows_of(result, model=model).groupby("origin")]
        for model in ("AllAtOnce", "seasonal_naive")
    ]
    assert result.overlap == 2
    expected = diebold_mariano(*losses, horizon=2)
    assert summary.loc["AllAtOnce", "DM_p"] == pytest.approx(expected.p_value)
    assert summary.loc["AllAtOnce", "skill"] == pytest.approx(
        1 - summary["MAE"]["AllAtOnce"] / summary["MAE"]["seasonal_naive"]
    )
    assert summary.loc["AllAtOnce", "CRPS_skill"] == pytest.approx(
        1 - summary["CRPS"]["AllAtOnce"] / summary["CRPS"]["seasonal_naive"]
    )
    assert summary.loc["seasonal_naive", ["skill", "CRPS_skill"]].tolist() == [0, 0]
    assert np.isnan(summary.loc["seasonal_naive", "DM_p"])
    against = result.compare("last_value")
    assert against.loc["AllAtOnce", "low"] <= against.loc["AllAtOnce", "skill"] <= against.loc["AllAtOnce", "high"]


def test_confidence_limits_enclose_the_scores_and_come_from_the_seed(result):
    first, again, other = (result.confidence(["RMSE", "coverage_80"], random_state=seed) for seed in (1, 1, 2))

    pd.testing.assert_frame_equal(first, again)
    assert not first.equals(other)
    summary = result.summary(["RMSE", "coverage_80"])
    for (model, name), row in first.iterrows():
        assert row["value"] == pytest.approx(summary.loc[model, name])
        assert row["low"] <= row["value"] <= row["high"]


def test_coverage_table_has_both_kinds_of_limits(result):
    table = result.coverage()

    row = table.loc[("AllAtOnce", 0.8)]
    assert row["coverage"] == pytest.approx(result.summary()["coverage_80"]["AllAtOnce"])
    assert row["wilson_low"] < row["coverage"] < row["wilson_high"]
    assert row["block_low"] <= row["coverage"] <= row["block_high"]
    assert row["width"] == pytest.approx(0.8)


def test_pit_is_the_level_of_each_actual_value(result):
    rows = rows_of(result, model="AllAtOnce")

    values = result.pit()

    inside = rows["y"].between(rows[0.1], rows[0.9])
    assert values[inside].between(0.1, 0.9).all()
    assert values[rows["y"].isna()].isna().all()
    assert (values[rows["y"] < rows[0.05]] < 0.05).all()


def test_metrics_of_the_users_own_stand_beside_the_others():
    def worst(actual, point):
        return np.abs(actual - point).max()

    y = hourly(80)
    y.iloc[70] = np.nan

    result = backtest(Walker(), y, horizon=3, origins=5, metrics={"worst": worst})

    rows = rows_of(result, model="Walker").dropna(subset="y")
    assert result.summary().loc["Walker", "worst"] == pytest.approx((rows["y"] - rows["point"]).abs().max())
    assert "MAE" in result.summary()
    step = rows[rows["step"] == 2]
    assert result.by_step().loc[("Walker", 2), "worst"] == pytest.approx((step["y"] - step["point"]).abs().max())


def test_chosen_metrics_are_what_the_summary_shows():
    result = backtest(Walker(), hourly(80), horizon=3, origins=5, metrics=["WAPE", "winkler_90"], baselines=False)

    assert list(result.summary()) == ["WAPE", "winkler_90", "origins", "scored", "fit_seconds", "predict_seconds"]
    with pytest.raises(ParameterError, match="no metric is called 'coverage_70'"):
        result.summary(["coverage_70"])


def test_sktime_form_has_the_columns_of_evaluate():
    from sktime.performance_metrics.forecasting import MeanAbsoluteScaledError, MeanSquaredError
    from sktime.performance_metrics.forecasting.probabilistic import EmpiricalCoverage, PinballLoss

    y = hourly(80)
    result = backtest(Walker(), y, horizon=3, origins=y.index[[60, 70]], quantile_levels=[0.1, 0.5, 0.9])

    table = result.to_sktime(
        scoring=[MeanSquaredError(), MeanAbsoluteScaledError(), PinballLoss(), EmpiricalCoverage()]
    )

    fold = rows_of(result, model="Walker", origin=y.index[70])
    row = table.iloc[1]
    assert row["cutoff"] == y.index[70]
    assert row["test_MeanSquaredError"] == pytest.approx(((fold["y"] - fold["point"]) ** 2).mean())
    assert row["test_MeanAbsoluteScaledError"] == pytest.approx(
        metrics.mae(fold["y"], fold["point"]) / y[:61].diff().abs().mean()
    )
    assert row["test_PinballLoss"] == pytest.approx(
        metrics.pinball_loss(fold["y"], fold[[0.1, 0.5, 0.9]], [0.1, 0.5, 0.9])
    )
    assert row["test_EmpiricalCoverage"] == pytest.approx(metrics.coverage(fold["y"], fold[0.1], fold[0.9]))
    pd.testing.assert_frame_equal(row["y_test"], y.iloc[71:74].to_frame(), check_freq=False)
    assert row["y_pred_quantiles"].columns.tolist() == [("load", 0.1), ("load", 0.5), ("load", 0.9)]
    assert "test_MeanAbsoluteError" in result.to_sktime("last_value")


def test_sktime_form_of_a_panel_keeps_its_index():
    y = panel((60, 60), columns=2)
    result = backtest(AllAtOnce(), y, horizon=3, origins=2)

    table = result.to_sktime()

    actual = table["y_test"].iloc[0]
    assert actual.index.names == ["store", "time"]
    pd.testing.assert_frame_equal(actual, y.loc[actual.index])


def test_select_keeps_the_rows_of_a_mask(result):
    part = result.select(result.frame["step"] == 1)

    assert part.frame["step"].unique().tolist() == [1]
    expected = rows_of(result, model="AllAtOnce", step=1)
    assert part.summary().loc["AllAtOnce", "MAE"] == pytest.approx(metrics.mae(expected["y"], expected["point"]))


def test_plot_takes_origins_by_name_and_panels_by_series():
    y = panel((60, 60))
    result = backtest(AllAtOnce(), y, horizon=3, origins=4)
    chosen = result.origins[[1]]

    figure = result.plot(series="s1", origins=chosen)

    fan = figure.axes[0]
    assert fan.get_title(loc="left") == f"from {chosen[0]:%Y-%m-%d %H:%M}"
    actual = {line.get_label(): line.get_ydata() for line in fan.lines}["actual"]
    np.testing.assert_allclose(actual[1:], rows_of(result, model="AllAtOnce", series="s1", origin=chosen[0])["y"])
    for bad in ({"series": "x"}, {"origins": [pd.Timestamp("1999-01-01")]}):
        with pytest.raises(ParameterError, match=f"BacktestResult.plot: {next(iter(bad))}="):
            result.plot(**bad)


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"quantile_levels": ()},
        {"baselines": False},
        {"horizon": 1, "origins": 1},
        {"error_score": np.nan, "refit": True, "gap": 2},
    ],
    ids=["all", "no quantiles", "no baselines", "one origin", "failures"],
)
def test_the_page_says_what_was_done_in_every_case(tmp_path, arguments):
    y = hourly(80)
    model = Walker(fails_at=[y.index[-4]] if "error_score" in arguments else None)
    result = backtest(model, y, **{"horizon": 3, "origins": 6} | arguments)

    html = result.to_html(tmp_path / "page.html", title="<b>T", notes=["What it is."]).read_text("utf-8")

    assert "<h1>&lt;b&gt;T</h1>" in html
    assert "What it is." in html
    assert "script" not in html
    for heading, shown in (
        ("Is it more than luck?", result.models[-1] == "seasonal_naive"),
        ("Do intervals hold what they promise?", bool(result.quantile_levels)),
        ("By step ahead", result.horizon > 1),
        ("Origins left out", len(result.failures) > 0),
        ("How it was made", True),
    ):
        assert (f"<h2>{heading}</h2>" in html) == shown, heading


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda r: r.by_time("minute"), ParameterError, "unit='minute'"),
        (lambda r: r.compare("x"), ParameterError, "reference='x'"),
        (lambda r: r.compare(loss="x"), ParameterError, "no metric is called 'x'"),
        (lambda r: r.pit("x"), ParameterError, "model='x'"),
        (lambda r: r.to_sktime("x"), ParameterError, "model='x'"),
    ],
)
def test_unknown_names_are_refused(result, call, error, message):
    with pytest.raises(error, match=message):
        call(result)


def test_views_that_need_dates_or_quantiles_say_so():
    result = backtest(AllAtOnce(), pd.Series(np.arange(60.0)), horizon=2, origins=3, quantile_levels=())

    with pytest.raises(DataError, match="dates are needed"):
        result.by_time("hour")
    with pytest.raises(ParameterError, match="two quantile levels"):
        result.pit()
    assert result.coverage().empty
