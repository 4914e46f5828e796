"""Frames taken apart and put together again."""

import numpy as np
import pandas as pd
import pytest

from xlstm_ts.data.covariates import CovariatePlan, plan_columns
from xlstm_ts.data.panel import Panel, covariate_scaler, make_panel, panel_scaler, panel_windows, repair, take_apart
from xlstm_ts.data.scaler import SeriesScaler
from xlstm_ts.data.time_features import TimeFeatures
from xlstm_ts.errors import DataError

DAYS = pd.date_range("2024-01-01", periods=5)


def frame(**series):
    parts = {key: pd.DataFrame({"y": values}, index=DAYS[: len(values)]) for key, values in series.items()}
    return pd.concat(parts, names=["shop", "day"])


def test_a_frame_is_taken_apart_by_its_keys_in_the_order_in_which_they_come():
    y = frame(b=[1.0, 2.0], a=[3.0, 4.0, 5.0])

    parts = take_apart(y, "fit")

    assert [key for key, _ in parts] == ["b", "a"]
    assert parts[1][1]["y"].tolist() == [3, 4, 5]
    assert parts[1][1].index.equals(DAYS[:3])


def test_a_single_series_is_a_panel_without_keys():
    panel = make_panel(frame(a=[1.0, 2.0]).loc["a"], where="fit")

    assert len(panel) == 1
    assert panel.keys is None
    assert panel.key(0) == 0


def test_tables_come_back_under_their_keys():
    panel = make_panel(frame(b=[1.0, 2.0], a=[3.0, 4.0, 5.0]), where="fit")

    got = panel.frame([np.array([[7.0]]), np.array([[8.0], [9.0]])], [DAYS[:1], DAYS[1:3]], pd.Index(["y"]))

    expected = pd.MultiIndex.from_tuples([("b", DAYS[0]), ("a", DAYS[1]), ("a", DAYS[2])], names=["shop", "day"])
    pd.testing.assert_frame_equal(got, pd.DataFrame({"y": [7.0, 8.0, 9.0]}, index=expected))


@pytest.mark.parametrize(
    "keys", [[0, 1], [1.5, 2.5], ["x", "x y, 'z' % {}"], [pd.Timestamp("2020"), pd.Timestamp("2021")]]
)
def test_keys_keep_their_kind(keys):
    y = pd.concat({key: pd.DataFrame({"y": [1.0, 2.0]}, index=DAYS[:2]) for key in keys}, names=["id", "day"])
    panel = make_panel(y, where="fit")

    index = panel.index([DAYS[:2], DAYS[:2]])

    assert index.equals(y.index)
    assert index.get_level_values(0).dtype == y.index.get_level_values(0).dtype


def test_an_index_that_repeats_is_understood_once(monkeypatch):
    from xlstm_ts.data import series

    calls = []
    real = series.make_axis
    monkeypatch.setattr(series, "make_axis", lambda *a, **k: calls.append(1) or real(*a, **k))

    make_panel(frame(a=[1.0, 2.0, 3.0], b=[1.0, 2.0, 3.0], c=[1.0, 2.0]), where="fit")

    assert len(calls) == 2


def test_new_rows_go_to_their_series_and_new_series_to_the_end():
    panel = make_panel(frame(a=[1.0, 2.0], b=[3.0, 4.0]), where="fit")
    new = pd.concat(
        {"c": pd.DataFrame({"y": [7.0, 8.0]}, index=DAYS[:2]), "a": pd.DataFrame({"y": [9.0]}, index=DAYS[3:4])},
        names=["shop", "day"],
    )

    after = panel.updated(new, "update", X=None, plan=())

    assert after.keys == ("a", "b", "c")
    np.testing.assert_array_equal(after.series[0].values[:, 0], [1, 2, np.nan, 9])
    assert after.series[1] is panel.series[1]
    assert after.series[2].values[:, 0].tolist() == [7, 8]


def test_each_series_has_its_own_scale_and_all_share_that_of_x():
    y = frame(a=[0.0, 2.0, 100.0], b=[10.0, 30.0, 0.0])
    X = pd.DataFrame({"x": [0.0, 2.0, 9.0, 4.0, 6.0, 9.0], "kind": list("uvuvuv")}, index=y.index)
    columns = plan_columns(X, [], [], "fit")
    panel = make_panel(y, X=X, plan=columns, where="fit")

    scaler, shared = panel_scaler(panel, np.array([2, 2])), covariate_scaler(panel, columns, np.array([2, 2]))

    assert scaler.level[:, 0].tolist() == [1, 20]
    assert scaler.scale[:, 0].tolist() == [1, 10]
    assert shared.level.tolist() == [3, 0]  # of 0, 2, 4 and 6
    assert shared.scale.tolist() == [pytest.approx(np.sqrt(5)), 1]
    assert scaler.of(1).backward(np.array([[1.0]])) == [[30.0]]


def test_hundreds_of_series_are_laid_out_once_however_long_the_windows_are():
    lengths = np.random.default_rng(0).integers(100, 2000, 200)
    parts = {k: pd.DataFrame({"y": np.arange(n) % 7.0}, index=pd.RangeIndex(n)) for k, n in enumerate(lengths)}
    panel = make_panel(pd.concat(parts, names=["series", "t"]), where="fit")
    scaler = panel_scaler(panel, lengths)
    plan = CovariatePlan.unscaled([], TimeFeatures())

    import torch

    for context_length in (8, 512):
        windows, starts = panel_windows(
            panel, scaler, plan, context_length, 24, torch.device("cpu"), ahead=24
        )  # fmt: skip
        assert len(windows.values) == (lengths + 24).sum()
        assert windows.values.nbytes == 4 * len(windows.values)
        np.testing.assert_array_equal(np.diff(starts), lengths[:-1] + 24)


def test_windows_hold_the_future_of_what_is_known():
    y = frame(a=[0.0, 2.0], b=[10.0, 30.0])
    X = pd.DataFrame({"x": [1.0, 2.0, 3.0, 4.0]}, index=y.index)
    later = pd.concat({key: pd.DataFrame({"x": [5.0, 6.0]}, index=DAYS[2:4]) for key in "ab"}, names=["shop", "day"])
    columns = plan_columns(X, [], [], "fit")
    panel = make_panel(y, X=X, plan=columns, where="fit")
    plan = CovariatePlan(columns, TimeFeatures(), SeriesScaler(np.zeros(1), np.ones(1)))

    import torch

    future = panel.future_x(later, np.array([2, 1]), columns, "predict")
    windows, starts = panel_windows(
        panel, panel_scaler(panel, np.array([2, 2])), plan, 2, 2, torch.device("cpu"), ahead=2, future=future
    )

    context, beyond = windows.features(starts + 2)
    assert context[..., 0].tolist() == [[1, 2], [3, 4]]
    assert beyond[..., 0].tolist() == [[5, 6], [5, 0]]
    assert beyond[..., 1].tolist() == [[1, 1], [1, 0]]  # the last row was not asked for


def test_a_panel_keeps_some_of_its_series():
    panel = make_panel(frame(a=[1.0, 2.0], b=[3.0, 4.0], c=[5.0, 6.0]), where="fit")

    some = panel.subset([2, 0])

    assert isinstance(some, Panel)
    assert some.keys == ("c", "a")


def test_without_a_wish_nothing_is_repaired():
    y = frame(a=[1.0, 2.0])

    assert repair(y, "fit", resample=None, on_gap="raise") is y


def test_every_series_is_repaired_by_itself():
    y = frame(a=[1.0, 2.0, 3.0, 4.0], b=[1.0, 2.0, 3.0]).drop([("a", DAYS[1])])

    got = repair(y, "fit", resample=None, on_gap="mask")

    assert got.index.names == ["shop", "day"]
    np.testing.assert_array_equal(got.loc["a", "y"], [1, np.nan, 3, 4])
    assert got.loc["b", "y"].tolist() == [1, 2, 3]


def test_an_empty_panel_is_refused():
    with pytest.raises(DataError, match="panel is empty"):
        make_panel(frame(a=[1.0, 2.0]).iloc[:0], where="fit")
