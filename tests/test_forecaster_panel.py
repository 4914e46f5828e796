"""One network for many series: equal to each series by itself, whatever their lengths, ends, levels and names."""

import copy
import warnings
from functools import cache

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone

from xlstm_ts.errors import DataError
from xlstm_ts.forecaster import ShortSeriesWarning, XLSTMForecaster

SETTINGS = {
    "horizon": 4,
    "context_length": 12,
    "patch_length": 4,
    "hidden_size": 8,
    "num_heads": 2,
    "max_epochs": 2,
    "steps_per_epoch": 10,
    "random_state": 0,
}
START = pd.Timestamp("2024-01-01")
SPANS = {"a": (0, 160), "b": (40, 130), "c": (10, 170), "d": (100, 112)}  # first and last day


def make_series(first, last, level, scale, seed):
    draw = np.random.default_rng(seed)
    index = pd.date_range(START + pd.Timedelta(days=first), START + pd.Timedelta(days=last - 1), freq="D")
    values = np.sin(np.arange(first, last) * 2 * np.pi / 7) + 0.1 * draw.normal(size=last - first)
    return pd.DataFrame({"y": level + scale * values}, index=index)


def make_panel(**changes):
    parts = {
        key: make_series(*span, level=10.0**k, scale=2.0**k, seed=k) for k, (key, span) in enumerate(SPANS.items())
    }
    return pd.concat(parts | changes, names=["station", "day"])


@cache
def fitted(**changes):
    return XLSTMForecaster(**SETTINGS | dict(changes)).fit(make_panel())


def scale_of(panel):
    return panel["y"].groupby("station").std()


def test_each_series_is_forecast_from_its_own_end():
    forecast = fitted().predict(fh=[1, 4, 9])

    ends = {key: START + pd.Timedelta(days=last - 1) for key, (_, last) in SPANS.items()}
    expected = [(key, end + pd.Timedelta(days=step)) for key, end in ends.items() for step in (1, 4, 9)]
    assert forecast.index.tolist() == expected
    assert forecast.index.names == ["station", "day"]
    for key, (_, last) in SPANS.items():
        level, scale = 10.0 ** list(SPANS).index(key), 2.0 ** list(SPANS).index(key)
        actual = level + scale * np.sin((last + np.array([0, 3, 8])) * 2 * np.pi / 7)
        assert np.abs(forecast.loc[key, "y"] - actual).max() < 0.8 * scale


def test_a_time_is_another_step_for_each_series():
    day = START + pd.Timedelta(days=172)

    absolute = fitted().predict(fh=pd.DatetimeIndex([day]))
    relative = fitted().predict(fh=[13, 43, 3, 61])

    for key, step in zip("abcd", (13, 43, 3, 61), strict=True):
        assert absolute.loc[(key, day), "y"] == pytest.approx(
            relative.loc[(key, day), "y"], abs=1e-5 * scale_of(make_panel())[key]
        ), step


@pytest.mark.parametrize("backbone", ["patch", "stacked", "mixer"])
def test_the_panel_equals_each_series_by_itself_under_the_same_model(backbone):
    panel = make_panel()
    model = fitted(backbone=backbone)
    together = model.predict_quantiles(fh=[1, 4, 7], alpha=[0.1, 0.5, 0.9])

    for key, scale in scale_of(panel).items():
        one = panel.loc[[key]]
        alone = model.predict_origins(one, origins=[one.index[-1][1]], fh=[1, 4, 7], quantile_levels=[0.1, 0.5, 0.9])
        np.testing.assert_allclose(alone[[0.1, 0.5, 0.9]], together.loc[key], atol=1e-5 * scale, rtol=0)


@pytest.mark.parametrize("calibrate", [True, "adaptive"])
def test_many_origins_of_a_panel_equal_update_then_predict(calibrate):
    panel = make_panel()
    known = panel[panel.index.get_level_values("day") < START + pd.Timedelta(days=100)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ShortSeriesWarning)
        model = XLSTMForecaster(**SETTINGS | {"calibrate": calibrate, "validation_fraction": 0.4}).fit(known)
    assert model.calibrated_
    origins = [START + pd.Timedelta(days=day) for day in (105, 120)]
    panel = pd.concat([panel, pd.concat({"new": make_series(80, 125, 3, 1, seed=9)}, names=panel.index.names)])

    together = model.predict_origins(panel.loc[[*"abc", "new"]], origins=origins, fh=[1, 6], quantile_levels=[0.1])

    last = START + pd.Timedelta(days=99)
    for origin in origins:
        days = panel.index.get_level_values("day")
        stations = panel.index.get_level_values("station")
        first = (stations == "new") & (origin == origins[0])  # all of it, the first time
        new = panel[((days > last) | first) & (days <= origin)].loc[[*"abc", "new"]]
        model, last = model.update(new, update_params=False), origin
        expected = model.predict(fh=[1, 6])
        got = together[together["origin"] == origin]
        assert list(zip(got["series"], got["time"], strict=True)) == expected.index.tolist()
        np.testing.assert_allclose(got["point"], expected["y"], rtol=1e-5)
        low = model.predict_quantiles(fh=[1, 6], alpha=[0.1])
        np.testing.assert_allclose(got[0.1], low.iloc[:, 0], rtol=1e-5)
    if calibrate == "adaptive":  # each series has factors of its own by now
        assert not any(np.allclose(model._factors[3], model._factors[j]) for j in range(3))


def test_a_series_without_an_origin_has_no_rows_for_it():
    panel, day = make_panel(), START + pd.Timedelta(days=20)

    got = fitted().predict_origins(panel, origins=[day], fh=[1])

    assert got["series"].tolist() == ["a", "c"]
    with pytest.raises(DataError, match="2030"):
        fitted().predict_origins(panel, origins=[pd.Timestamp("2030-01-01")], fh=[1])


def test_of_a_new_series_there_must_be_something_up_to_its_first_origin():
    panel = pd.concat({"new": make_series(0, 60, level=5, scale=1, seed=8)}, names=["station", "day"])
    panel.iloc[:20] = np.nan

    with pytest.raises(DataError, match=r"'new' is new .* first origin, 2024-01-11 .*later origin"):
        fitted().predict_origins(panel, origins=[START + pd.Timedelta(days=10)], fh=[1])


def test_a_panel_is_new_to_a_forecaster_of_one_series_whatever_its_keys():
    model = XLSTMForecaster(**SETTINGS | {"calibrate": False}).fit(make_series(0, 160, level=0, scale=1, seed=0))
    other, origin = make_series(0, 160, level=1e9, scale=1e-3, seed=5), START + pd.Timedelta(days=100)

    got = model.predict_origins(pd.concat({0: other, 1: other}, names=["station", "day"]), origins=[origin], fh=[1, 4])

    first, second = (got.loc[got["series"] == key, "point"].to_numpy() for key in (0, 1))
    np.testing.assert_array_equal(first, second)


def test_rows_of_no_series_are_an_error():
    panel = make_panel()
    names = panel.index.get_level_values(0)
    panel.index = pd.MultiIndex.from_arrays(
        [np.where(names == "b", None, names), panel.index.get_level_values(1)], names=panel.index.names
    )

    with pytest.raises(DataError, match=r"row 160 belongs to no series.*'station'"):
        XLSTMForecaster(**SETTINGS).fit(panel)


def test_a_series_may_begin_after_the_others_are_cut():
    late = make_series(158, 170, level=50, scale=3, seed=4)

    model = XLSTMForecaster(**SETTINGS).fit(make_panel(late=late))

    forecast = model.predict(fh=[1]).loc["late", "y"]
    assert abs(float(forecast.iloc[0]) - 50) < 12


def test_series_never_touch():
    model = copy.deepcopy(fitted())
    expected = model.predict(fh=[1, 6])
    changed = make_series(150, 175, level=-1e6, scale=1e5, seed=9)

    model.update(pd.concat({"a": changed}, names=["station", "day"]), update_params=False)

    after = model.predict(fh=[1, 6])
    pd.testing.assert_frame_equal(after.loc[["b", "c", "d"]], expected.loc[["b", "c", "d"]])
    assert not np.allclose(after.loc["a"], expected.loc["a"])


def test_level_and_scale_of_a_series_do_not_matter():
    panel = make_panel()
    moved = panel.copy()
    moved.loc["b"] = moved.loc["b"].to_numpy() * 1e4 - 1e7

    got = XLSTMForecaster(**SETTINGS).fit(moved).predict(fh=[1, 4, 6])
    expected = fitted().predict(fh=[1, 4, 6])

    scale = scale_of(panel)["b"] * 1e4
    np.testing.assert_allclose(got.loc["b"], expected.loc["b"] * 1e4 - 1e7, atol=1e-4 * scale)
    np.testing.assert_allclose(got.loc["a"], expected.loc["a"], atol=1e-4 * scale_of(panel)["a"])


def test_the_order_of_rows_of_different_series_does_not_matter():
    panel = make_panel()
    mixed = panel.iloc[np.argsort(panel.index.get_level_values("day"), kind="stable")]
    model = copy.deepcopy(fitted())

    got = model.predict_origins(mixed, origins=[START + pd.Timedelta(days=105)], fh=[2])
    expected = model.predict_origins(panel, origins=[START + pd.Timedelta(days=105)], fh=[2])

    assert sorted(got["series"]) == sorted(expected["series"])
    np.testing.assert_array_equal(
        got.set_index("series").loc["a", "point"], expected.set_index("series").loc["a", "point"]
    )


def test_in_the_sample_each_series_starts_at_its_own_level():
    panel = make_panel()

    forecast = fitted().predict(fh=[-11, 0])

    firsts = forecast.groupby("station").nth(0)["y"]
    d = panel.loc["d", "y"]
    assert firsts["d"].iloc[0] == pytest.approx(d.mean(), rel=1e-9)  # nothing is known before its first day
    assert forecast.loc["a"].index.tolist() == [START + pd.Timedelta(days=148), START + pd.Timedelta(days=159)]


def test_a_constant_series_in_a_panel_is_forecast_exactly():
    still = pd.DataFrame({"y": 0.1}, index=pd.date_range(START, periods=50, freq="D"))
    model = XLSTMForecaster(**SETTINGS).fit(make_panel(e=still))

    assert (model.predict(fh=[1, 5, 30]).loc["e", "y"] == 0.1).all()
    interval = model.predict_interval(fh=[1, 5], coverage=0.9).loc["e"]
    assert (interval == 0.1).all(axis=None)


def test_hierarchies_keep_their_levels():
    panel = make_panel()
    labels = [("north", key) if key in "ab" else ("south", key) for key in panel.index.get_level_values(0)]
    index = pd.MultiIndex.from_tuples(
        [(*label, day) for label, day in zip(labels, panel.index.get_level_values(1), strict=True)],
        names=["region", "station", "day"],
    )
    model = XLSTMForecaster(**SETTINGS).fit(panel.set_axis(index))

    got, expected = model.predict(fh=[1, 6]), fitted().predict(fh=[1, 6])

    assert got.index.names == ["region", "station", "day"]
    np.testing.assert_array_equal(got, expected)
    origins = model.predict_origins(panel.set_axis(index), origins=[START + pd.Timedelta(days=105)], fh=[1])
    assert origins["series"].tolist() == [("north", "a"), ("north", "b"), ("south", "c"), ("south", "d")]


def test_quantiles_intervals_and_variances_serve_panels():
    model, fh = fitted(), [1, 6]

    quantiles = model.predict_quantiles(fh, alpha=[0.05, 0.5, 0.95])
    interval = model.predict_interval(fh, coverage=0.9)
    variance = model.predict_var(fh)

    assert quantiles.index.equals(interval.index)
    assert quantiles.index.equals(variance.index)
    np.testing.assert_allclose(interval[("y", 0.9, "upper")], quantiles[("y", 0.95)])
    np.testing.assert_allclose(model.predict(fh)["y"], quantiles[("y", 0.5)])
    assert (variance["y"] > 0).all()


def test_a_series_that_is_new_at_update_gets_its_own_level():
    model = copy.deepcopy(fitted())
    new = make_series(100, 160, level=-500, scale=3, seed=7)

    model.update(pd.concat({"new": new}, names=["station", "day"]), update_params=False)
    forecast = model.predict(fh=[1, 2, 3])

    assert forecast.index.get_level_values(0).unique().tolist() == ["a", "b", "c", "d", "new"]
    actual = -500 + 3 * np.sin((160 + np.arange(3)) * 2 * np.pi / 7)
    assert np.abs(forecast.loc["new", "y"] - actual).max() < 2.4


def test_updating_adapts_to_the_series_that_moved_on():
    model = copy.deepcopy(fitted())
    before = {name: value.clone() for name, value in model.network_.state_dict().items()}

    model.update(pd.concat({"a": make_series(160, 170, 1, 1, seed=3)}, names=["station", "day"]))

    assert any(not torch.equal(before[name], value) for name, value in model.network_.state_dict().items())
    assert model.predict(fh=[1]).loc["a"].index[0] == START + pd.Timedelta(days=170)


# Pretraining


def new_series():
    return make_series(0, 30, level=77, scale=5, seed=5)["y"]


def test_pretraining_serves_a_series_that_is_too_short_to_learn_from():
    model = XLSTMForecaster(**SETTINGS | {"update_steps": 0}).pretrain(make_panel())
    pretrained = copy.deepcopy(model.pretrained_.fitted.network.state_dict())

    forecast = model.fit(new_series()).predict(fh=[1, 2, 3, 4])

    assert isinstance(forecast, pd.Series)
    assert all(torch.equal(pretrained[name], value) for name, value in model.network_.state_dict().items())
    actual = 77 + 5 * np.sin((30 + np.arange(4)) * 2 * np.pi / 7)
    assert np.abs(forecast - actual).max() < 4
    assert np.abs(forecast - actual).mean() < np.abs(new_series().iloc[-1] - actual).mean()


def test_fitting_after_pretraining_adapts_and_leaves_what_was_pretrained():
    model = XLSTMForecaster(**SETTINGS).pretrain(make_panel())
    before = copy.deepcopy(model.pretrained_.fitted.network.state_dict())

    first = model.fit(new_series()).predict(fh=[1, 2])
    again = model.fit(new_series()).predict(fh=[1, 2])

    pd.testing.assert_series_equal(first, again)
    after = model.pretrained_.fitted.network.state_dict()
    assert all(torch.equal(before[name], value) for name, value in after.items())
    assert any(not torch.equal(before[name], value) for name, value in model.network_.state_dict().items())


def test_a_clone_keeps_what_was_pretrained():
    model = XLSTMForecaster(**SETTINGS | {"update_steps": 0}).pretrain(make_panel())

    twin = model.clone()

    pd.testing.assert_series_equal(
        twin.fit(new_series()).predict(fh=[1, 2]), model.fit(new_series()).predict(fh=[1, 2])
    )
    assert not hasattr(clone(XLSTMForecaster(**SETTINGS)), "pretrained_")


def test_pretraining_on_more_series_goes_on_from_the_weights():
    model = XLSTMForecaster(**SETTINGS).pretrain(make_panel())
    before = copy.deepcopy(model.pretrained_.fitted.network.state_dict())

    model.pretrain(pd.concat({"z": make_series(0, 90, 3, 1, seed=8)}, names=["station", "day"]))

    moved = [
        float((value - before[name]).abs().max())
        for name, value in model.pretrained_.fitted.network.state_dict().items()
    ]
    assert 0 < max(moved) < 0.1


def test_a_pretrained_network_needs_as_many_columns():
    model = XLSTMForecaster(**SETTINGS).pretrain(make_panel())

    with pytest.raises(DataError, match=r"2 columns.*pretrained on 1"):
        model.fit(pd.DataFrame({"a": new_series(), "b": new_series()}))


# Covariates of panels


def with_covariates():
    panel = make_panel()
    draw = np.random.default_rng(3)
    price = draw.normal(size=len(panel))
    place = panel.index.get_level_values(0).map({"a": "hill", "b": "hill", "c": "coast", "d": "coast"})
    X = pd.DataFrame({"price": price, "place": place.to_numpy()}, index=panel.index)
    y = panel.copy()
    y["y"] += 3 * scale_of(panel).loc[panel.index.get_level_values(0)].to_numpy() * price
    return y, X


def future_x(price):
    ends = {key: START + pd.Timedelta(days=last) for key, (_, last) in SPANS.items()}
    index = pd.MultiIndex.from_tuples(
        [(key, end + pd.Timedelta(days=step)) for key, end in ends.items() for step in range(6)],
        names=["station", "day"],
    )
    return pd.DataFrame({"price": price}, index=index)


def test_known_and_static_covariates_serve_panels():
    y, X = with_covariates()
    model = XLSTMForecaster(**SETTINGS | {"static_covariates": ["place"]}).fit(y, X)

    low, high = (model.predict(fh=[1, 6], X=future_x(price))["y"] for price in (-1.0, 1.0))

    effect = (high - low).groupby("station").mean() / scale_of(make_panel())
    np.testing.assert_allclose(effect, 6, atol=1.5)


def test_a_series_whose_x_is_too_short_is_named():
    y, X = with_covariates()
    model = XLSTMForecaster(**SETTINGS | {"static_covariates": ["place"]}).fit(y, X)

    with pytest.raises(DataError, match=r"series 'c'.*Missing columns: none. Missing steps: 1"):
        model.predict(fh=[1, 6], X=future_x(0.0).drop(("c", START + pd.Timedelta(days=172))))
    with pytest.raises(DataError, match=r"series 'd'.*no X was given"):
        model.predict(fh=[1], X=future_x(0.0).drop("d", level=0))


def test_a_static_column_cannot_change_at_update():
    y, X = with_covariates()
    model = XLSTMForecaster(**SETTINGS | {"static_covariates": ["place"]}).fit(y, X)
    day = pd.MultiIndex.from_tuples([("a", START + pd.Timedelta(days=160))], names=["station", "day"])
    new = pd.DataFrame({"y": [1.0]}, index=day)

    with pytest.raises(DataError, match=r"series 'a'.*'place'.*'hill'"):
        model.update(new, pd.DataFrame({"price": [0.0], "place": ["coast"]}, index=day))


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        (lambda y, X: (y, X.drop("b", level=0)), ["no rows for series 'b'"]),
        (lambda y, X: (y, X.drop(X.index[170])), ["series 'b'", "lacks 1 of the 90 times"]),
        (lambda y, X: (y, X.loc["a"]), ["panel", "single series"]),
        (lambda y, X: (y, X.assign(place=range(len(X)))), ["'place'", "static_covariates", "series 'a'"]),
        (lambda y, X: (y.assign(y=np.where(y.index.get_level_values(0) == "c", np.nan, y["y"])), X), ["series 'c'"]),
        (lambda y, X: (y.drop(y.index[30]), X), ["series 'a'", "no regular step", "on_gap"]),
        (lambda y, X: (pd.concat([y, y.iloc[:1]]), X), ["series 'a'", "stands twice"]),
        (lambda y, X: (y.iloc[::-1], X), ["series 'd'", "sort_index"]),
    ],
    ids=["series-of-x", "rows-of-x", "x-single", "not-static", "all-missing", "hole", "twice", "unsorted"],
)
def test_what_is_wrong_in_a_panel_is_named_with_its_series(change, parts):
    y, X = change(*with_covariates())

    with pytest.raises(DataError) as caught:
        XLSTMForecaster(**SETTINGS | {"static_covariates": ["place"]}).fit(y, X)

    assert all(part in str(caught.value) for part in parts), str(caught.value)


def test_holes_in_series_of_a_panel_are_masked_when_asked_for():
    panel = make_panel()
    holes = panel.drop(panel.index[[30, 31, 200]])

    model = XLSTMForecaster(**SETTINGS | {"on_gap": "mask"}).fit(holes)

    masked = panel.copy()
    masked.iloc[[30, 31, 200]] = np.nan
    expected = XLSTMForecaster(**SETTINGS).fit(masked)
    pd.testing.assert_frame_equal(model.predict(fh=[1, 6]), expected.predict(fh=[1, 6]))


def test_residuals_of_a_panel_are_those_of_each_series():
    panel, model = make_panel(), fitted()

    residuals = model.predict_residuals()
    some = model.predict_residuals(panel.loc[["c", "a"]].groupby("station").tail(3))

    assert residuals.index.equals(panel.index)
    forecast = model.predict(fh=range(-11, 1))
    for key in SPANS:
        expected = panel.loc[key, "y"].tail(12) - forecast.loc[key, "y"]
        np.testing.assert_allclose(residuals.loc[key, "y"].tail(12), expected, rtol=1e-6, atol=1e-9)
    # Batches of another size round differently in float32.
    np.testing.assert_allclose(some.loc["c", "y"], residuals.loc["c", "y"].tail(3), atol=1e-6)
    with pytest.raises(DataError, match="'z'"):
        model.predict_residuals(pd.concat({"z": panel.loc["a"]}, names=["station", "day"]))
