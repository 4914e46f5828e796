"""What `backtest` can be asked for beyond one series and one fit."""

import numpy as np
import pandas as pd
import pytest
from fake_forecasters import AllAtOnce, Walker, forget, hourly, panel

from xlstm_ts.errors import DataError, ParameterError, XLSTMError
from xlstm_ts.evaluation.backtest import backtest


@pytest.fixture(autouse=True)
def _forget():
    forget()


def both(y, X=None, **arguments):
    """Return the forecasts of the walking and of the batched path, after checking that they agree."""
    models = {"walk": Walker(), "batch": AllAtOnce()}
    result = backtest(models, y, X, baselines=False, quantile_levels=[0.1, 0.5, 0.9], **arguments)
    walk, batch = (result.frame[result.frame["model"] == name].reset_index(drop=True) for name in models)
    pd.testing.assert_frame_equal(walk.drop(columns="model"), batch.drop(columns="model"), rtol=0, atol=1e-9)
    return result


def last_rows(parts):
    return [len(part) for part in parts]


# Origins, folds and windows


def test_initial_and_stride_place_the_origins():
    y = hourly(40)

    result = both(y, horizon=3, initial=20, stride=5)

    assert result.origins.tolist() == y.index[[19, 24, 29, 34]].tolist()
    assert last_rows(Walker.fitted_on) == [20, 20]


def test_stride_alone_starts_after_four_fifths_and_ends_where_the_horizon_fits():
    y = hourly(50)

    assert both(y, horizon=3, stride=1).origins.tolist() == y.index[39:47].tolist()


@pytest.mark.parametrize(
    ("refit", "window", "rows", "starts"),
    [
        (False, "expanding", [20], [0]),
        (True, "expanding", [20, 22, 24, 26, 28], [0] * 5),
        (2, "expanding", [20, 24, 28], [0] * 3),
        (2, "sliding", [20, 20, 20], [0, 4, 8]),
        (99, "sliding", [20], [0]),
    ],
)
def test_each_fold_is_fitted_on_the_rows_before_its_first_origin(refit, window, rows, starts):
    y = hourly(34)

    both(y, horizon=4, initial=20, stride=2, refit=refit, window=window)

    walked = Walker.fitted_on[: len(rows)]
    assert last_rows(walked) == rows
    assert [y.index.get_loc(part.index[0]) for part in walked] == starts


def test_a_gap_ends_the_training_part_before_the_first_origin_and_is_still_read():
    y = hourly(60)

    result = both(y, horizon=2, origins=y.index[[40, 50]], gap=5, refit=1)

    assert [part.index[-1] for part in Walker.fitted_on[:2]] == [y.index[35], y.index[45]]
    assert [part.index[0] for part in Walker.updated_with] == [y.index[36], y.index[46]]
    expected = y.iloc[40] + 0.1 + 0.01 * y.iloc[:36].mean()
    assert result.frame["point"].iloc[0] == pytest.approx(expected)


def test_a_gap_moves_the_first_origin_behind_the_initial_rows():
    y = hourly(40)

    assert both(y, horizon=3, initial=20, stride=10, gap=4).origins.tolist() == y.index[[23, 33]].tolist()


def test_a_sliding_window_hides_older_rows_from_predict_origins():
    y = hourly(40)

    both(y, horizon=2, initial=15, stride=5, refit=True, window="sliding")

    assert [part.index[0] for part, _, _ in AllAtOnce.asked_with] == list(y.index[[0, 5, 10, 15, 20]])


def test_steps_may_have_holes():
    y = hourly(40)

    result = both(y, horizon=[1, 6, 3], origins=3)

    assert result.frame["step"].tolist() == [1, 3, 6] * 6
    assert result.horizon == 6
    times = pd.DatetimeIndex(result.frame["time"])
    assert (times - pd.DatetimeIndex(result.frame["origin"])).tolist() == [pd.Timedelta(hours=h) for h in (1, 3, 6)] * 6
    assert result.by_step().index.unique("step").tolist() == [1, 3, 6]


def test_batch_size_bounds_the_origins_of_one_call():
    y = hourly(80)

    both(y, horizon=2, stride=1, initial=60, batch_size=7)

    assert [len(origins) for _, _, origins in AllAtOnce.asked_with] == [7, 6, 6]
    assert [part.index[-1] for part, _, origins in AllAtOnce.asked_with] == [
        origins[-1] for _, _, origins in AllAtOnce.asked_with
    ]


# Covariates


def test_covariates_reach_fit_update_and_predict_for_the_right_times():
    y = hourly(60)
    X = pd.DataFrame({"x": np.arange(60.0)}, index=y.index)

    result = both(y, X, horizon=3, origins=y.index[[40, 45]])

    first = result.frame.iloc[:3]
    mean = 0.01 * y.iloc[:41].mean()
    np.testing.assert_allclose(first["point"], y.iloc[40] + 0.1 * np.arange(1, 4) + mean + [41.0, 42.0, 43.0])
    given = AllAtOnce.asked_with[0][1]
    assert given.index[-1] == y.index[48]


def test_covariates_beyond_the_last_step_are_never_given():
    y, X = hourly(60), pd.DataFrame({"x": np.arange(60.0)}, index=hourly(60).index)
    changed = X.where((X.index <= y.index[44])[:, np.newaxis], -1e9)

    results = [both(y, data, horizon=4, origins=y.index[[30, 40]]) for data in (X, changed)]

    pd.testing.assert_frame_equal(results[0].frame, results[1].frame, check_exact=True)


@pytest.mark.parametrize(
    ("X", "message"),
    [
        (hourly(80).iloc[:70], "X has no row at 2024-01-03 22:00:00 and 9 other times"),
        (hourly(80).to_numpy(), "X is a ndarray"),
        (panel(), "one of y and X is a panel"),
        (pd.concat([hourly(80), hourly(1)]), "repeats"),
    ],
)
def test_covariates_that_do_not_fit_are_refused(X, message):
    with pytest.raises(DataError, match=message):
        backtest(Walker(), hourly(80), X, horizon=3)
    assert not Walker.fitted_on


# Panels


@pytest.mark.parametrize("columns", [1, 2])
@pytest.mark.parametrize("levels", [1, 2])
def test_panels_are_forecast_series_by_series(columns, levels):
    y = panel((60, 60, 60), columns, levels)

    result = both(y, horizon=3, origins=4)

    assert len(result.frame) == 2 * 4 * 3 * 3 * columns
    keys = y.index.droplevel(-1).unique().tolist()
    assert list(dict.fromkeys(result.frame["series"])) == keys
    rows = result.frame[[key == keys[1] for key in result.frame["series"]]]
    own = y.loc[keys[1]]
    mean = own[own.index <= result.settings["train_end"]].to_numpy().mean()
    own, rows = own["a"], rows[rows["variable"] == "a"]
    np.testing.assert_array_equal(rows["y"], own[rows["time"]])
    np.testing.assert_allclose(rows["point"], own[rows["origin"]].to_numpy() + 0.1 * rows["step"] + 0.01 * mean)


def test_the_table_of_a_hierarchy_has_a_level_for_each_of_its_own():
    result = both(panel((60, 60, 60), levels=2), horizon=3, origins=4)

    table = result.by_series()

    assert table.index.names == ["model", "region", "store"]
    part = result.frame[[key == ("r1", "s1") for key in result.frame["series"]]].query("model == 'walk'")
    assert table.loc[("walk", "r1", "s1"), "MAE"] == pytest.approx((part["y"] - part["point"]).abs().mean())


def test_a_series_without_the_origin_has_no_rows_for_it():
    y = panel((80, 30))
    origins = y.loc["s0"].index[[45, 60]]

    result = backtest(AllAtOnce(), y, horizon=3, origins=origins)

    assert result.frame.groupby(["origin", "series"]).size().to_dict() == {
        (origins[0], "s0"): 9,
        (origins[1], "s0"): 9,
        (origins[1], "s1"): 9,
    }


def test_steps_beyond_the_end_of_a_series_are_left_out():
    y = panel((80, 80)).drop(index=[("s1", time) for time in hourly(80).index[70:]])

    result = both(y, horizon=4, origins=hourly(80).index[[60, 68]])

    counted = result.frame[result.frame["model"] == "batch"].groupby(["origin", "series"]).size()
    assert counted.tolist() == [4, 4, 4, 1]


def test_baselines_of_a_panel_equal_those_of_each_series():
    y = panel((60, 60))

    whole = backtest(Walker(), y, horizon=3, origins=4, baselines=["last_value", "seasonal_naive", "drift"])

    for key in ("s0", "s1"):
        alone = backtest(
            Walker(), y.loc[key], horizon=3, origins=4, baselines=["last_value", "seasonal_naive", "drift"]
        )
        part = whole.frame[whole.frame["series"] == key].drop(columns="series").reset_index(drop=True)
        pd.testing.assert_frame_equal(part, alone.frame.drop(columns="series"))
        assert whole.train_scale[key, "a"] == alone.train_scale["", "a"]


def test_a_panel_whose_times_have_no_rhythm_reaches_walking_forecasters_as_positions():
    y = panel((60, 60))
    gaps = y.index.get_level_values("time").unique()[[5, 17, 33]]
    y = y[~y.index.get_level_values("time").isin(gaps)]

    result = backtest(Walker(), y, horizon=3, origins=4, baselines=False)

    assert Walker.fitted_on[0].index.get_level_values(-1).max() == len(y.loc["s0"]) - 3 - 1 - 9
    own = y["a"].loc["s1"]
    rows = result.frame[result.frame["series"] == "s1"]
    np.testing.assert_array_equal(rows["y"], own[rows["time"]])


def test_panels_out_of_order_are_refused():
    y = panel((60, 60))

    with pytest.raises(DataError, match="not each in one piece"):
        backtest(Walker(), y.sort_index(level="time"), horizon=3)
    with pytest.raises(DataError, match="series 's0': the index of y is not sorted"):
        backtest(Walker(), y[::-1].sort_index(level=0, sort_remaining=False), horizon=3)
    with pytest.raises(DataError, match="0 rows"):
        backtest(Walker(), y[:0], horizon=3)


# Both paths in many configurations


@pytest.mark.parametrize("seed", range(20))
def test_the_batched_path_equals_the_walking_one(seed):
    rng = np.random.default_rng(seed)
    y = (
        panel((70, 70, 50), int(rng.integers(1, 3)), 1 + seed % 2)
        if seed % 3 == 0
        else hourly(70, rng.choice([None, 2]))
    )
    if seed % 4 == 1:
        y = y.mask(rng.random(y.shape) < 0.1)
    X = pd.DataFrame({"x": rng.normal(size=len(y))}, index=y.index) if seed % 2 else None
    horizon = [int(rng.integers(1, 6)), [1, 4], [2, 3, 7]][seed % 3]

    result = both(
        y,
        X,
        horizon=horizon,
        initial=int(rng.integers(25, 35)),
        stride=int(rng.integers(1, 6)),
        gap=int(rng.integers(0, 6)),
        refit=[False, True, 3][rng.integers(3)],
        window=rng.choice(["expanding", "sliding"]),
        batch_size=int(rng.choice([2, 5, 100])),
    )

    assert len(result.frame)


# Fitted models


def test_a_fitted_model_is_evaluated_as_it_is():
    y = hourly(60)
    models = {"walk": Walker().fit(y[:30]), "batch": AllAtOnce().fit(y[:30])}
    forget()

    result = backtest(models, y, horizon=3, origins=y.index[[40, 50]], refit=None)

    assert Walker.fitted_on == []
    expected = y.iloc[40] + 0.1 + 0.01 * y.iloc[:30].mean()
    for name in models:
        assert result.frame[result.frame["model"] == name]["point"].iloc[0] == pytest.approx(expected)
    assert models["walk"].cutoff == y.index[29], "the object passed in does not move"
    assert "last_value" in result.models


def test_a_fitted_model_that_saw_the_first_origin_s_future_is_refused():
    y = hourly(60)

    with pytest.raises(ParameterError, match="'Walker' end at 2024-01-02 17:00:00, after the first origin"):
        backtest(Walker().fit(y[:42]), y, horizon=3, origins=y.index[[40, 50]], refit=None)
    assert len(backtest(Walker().fit(y[:41]), y, horizon=3, origins=y.index[[40, 50]], refit=None).frame)


def test_a_model_that_is_not_fitted_or_has_no_cutoff_is_refused():
    class NoCutoff(Walker):
        cutoff = None

    unfitted = Walker()
    unfitted.is_fitted = False
    with pytest.raises(ParameterError, match="it is not fitted"):
        backtest(unfitted, hourly(60), horizon=3, refit=None)
    with pytest.raises(ParameterError, match="cannot be told"):
        backtest(NoCutoff().fit(hourly(30)), hourly(60), horizon=3, refit=None)


# Failures


@pytest.mark.parametrize("kind", [Walker, AllAtOnce])
def test_an_origin_that_fails_is_left_out_on_request_counted_and_named(kind):
    y = hourly(60)
    origins = y.index[[40, 45, 50]]
    model = kind(fails_at=[origins[1]])

    with pytest.raises(XLSTMError, match="no luck"):
        backtest(model, y, horizon=3, origins=origins)
    result = backtest(model, y, horizon=3, origins=origins, error_score=np.nan)

    own = result.frame[result.frame["model"] == kind.__name__]
    assert own["origin"].unique().tolist() == [origins[0], origins[2]]
    assert result.summary()["failed"].to_dict() == {kind.__name__: 1, "last_value": 0, "seasonal_naive": 0}
    assert result.summary()["origins"].to_dict() == {kind.__name__: 2, "last_value": 3, "seasonal_naive": 3}
    assert result.failures["origin"].tolist() == [origins[1]]
    assert "no luck" in result.failures["error"].iloc[0]
    assert np.isfinite(result.summary().loc[kind.__name__, "MAE"])


def test_comparisons_use_the_origins_that_both_have():
    y = hourly(60)
    origins = y.index[[40, 45, 50]]

    result = backtest(Walker(fails_at=[origins[1]]), y, horizon=1, origins=origins, error_score=np.nan)

    frame = result.frame[result.frame["origin"] != origins[1]]
    mae = (frame["y"] - frame["point"]).abs().groupby(frame["model"]).mean()
    assert result.compare().loc["Walker", "skill"] == pytest.approx(1 - mae["Walker"] / mae["seasonal_naive"])
    assert result.compare().loc["Walker", "origins"] == 2


def test_a_fit_that_fails_leaves_its_fold_out():
    class Picky(Walker):
        def fit(self, y, X=None, fh=None):
            if len(y) > 45:
                raise ValueError("too long for me")
            return super().fit(y, X, fh)

    y = hourly(60)

    result = backtest(Picky(), y, horizon=3, origins=y.index[[40, 45, 50]], refit=True, error_score=np.nan)

    assert result.failures["origin"].tolist() == y.index[[45, 50]].tolist()
    with pytest.raises(XLSTMError, match="failed to fit on the 46 rows"):
        backtest(Picky(), y, horizon=3, origins=y.index[[40, 45, 50]], refit=True)


# Backends


@pytest.mark.parametrize("backend", ["threading", "loky"])
def test_folds_run_side_by_side_give_the_same_frame(backend):
    y = hourly(60)
    arguments = {"horizon": 3, "initial": 40, "stride": 5, "refit": True}
    alone = backtest({"a": Walker(), "b": AllAtOnce()}, y, **arguments)

    together = backtest(
        {"a": Walker(), "b": AllAtOnce()}, y, **arguments, backend=backend, backend_params={"n_jobs": 2}
    )

    pd.testing.assert_frame_equal(alone.frame, together.frame)


# Errors


GOOD = hourly(80)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"origins": 5, "initial": 40}, ParameterError, "origins and initial or stride are both given"),
        ({"origins": 5, "stride": 2}, ParameterError, "both given"),
        ({"stride": 0}, ParameterError, "stride=0"),
        ({"initial": 4}, ParameterError, "initial=4; the first training part needs at least 5 rows"),
        ({"initial": 78}, DataError, "initial=78, gap=0 and horizon=3 need at least 81"),
        ({"initial": 70, "gap": 8}, DataError, "gap=8 and horizon=3 need at least 81"),
        ({"gap": -1}, ParameterError, "gap=-1"),
        ({"gap": 1.5}, ParameterError, "gap=1.5"),
        ({"gap": 70}, DataError, "70 for the gap"),
        ({"origins": GOOD.index[[40]], "gap": 39}, DataError, "2 rows of y lie up to the first origin, less gap=39,"),
        ({"origins": GOOD.index[[40]], "gap": 60}, DataError, "0 rows of y lie up to the first origin, less gap=60,"),
        ({"window": "rolling"}, ParameterError, "window='rolling'"),
        ({"refit": 0}, ParameterError, "refit=0"),
        ({"refit": "yes"}, ParameterError, "refit='yes'"),
        ({"horizon": [0, 1]}, ParameterError, r"horizon=\[0, 1\]"),
        ({"horizon": []}, ParameterError, r"horizon=\[\]"),
        ({"horizon": [1, 40]}, DataError, "horizon=40 needs"),
        ({"baselines": ["mean"]}, ParameterError, "no baseline is called 'mean'"),
        ({"metrics": ["MAE", "R2"]}, ParameterError, "no metric is called 'R2'"),
        ({"metrics": ["coverage_70"]}, ParameterError, "no metric is called 'coverage_70'"),
        ({"batch_size": 0}, ParameterError, "batch_size=0"),
        ({"error_score": 0.0}, ParameterError, "error_score=0.0"),
        ({"backend": "multiprocessing"}, ParameterError, "backend='multiprocessing'"),
        ({"store": "results.txt"}, ParameterError, "results.txt"),
    ],
)
def test_impossible_requests_are_refused_before_any_fit(change, error, message):
    with pytest.raises(error, match=message):
        backtest(**{"forecaster": Walker(), "y": GOOD, "horizon": 3, **change})
    assert not Walker.fitted_on
