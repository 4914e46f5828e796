"""Panels and hierarchies through sktime's composites, with one global network."""

import numpy as np
import pandas as pd
import pytest
from helpers import ignores_remember_data, monthly, tiny_forecaster
from sklearn.model_selection import KFold
from sktime.forecasting.compose import ForecastByLevel, HierarchyEnsembleForecaster
from sktime.forecasting.model_evaluation import evaluate
from sktime.forecasting.reconcile import ReconcilerForecaster
from sktime.split import ExpandingWindowSplitter, InstanceSplitter, SingleWindowSplitter
from sktime.transformations.boxcox import LogTransformer
from sktime.transformations.hierarchical.aggregate import Aggregator

from xlstm_ts.data.causal import OutlierLimiter

STEPS = [1, 2, 5]

pytestmark = [
    ignores_remember_data,
    # sktime's reconcilers sum up once more what they have summed up themselves, and say so.
    pytest.mark.filterwarnings("ignore:Found elements in the index of X named '__total':UserWarning"),
]


def stacked(columns=4):
    wide = monthly(columns=columns)
    return pd.concat({name: wide[[name]].set_axis(["load"], axis=1) for name in wide}, names=["station", "month"])


def hierarchy():
    panel = stacked().reset_index()
    panel["region"] = panel["station"].map({"a": "north", "b": "north", "c": "south", "d": "south"})
    return panel.set_index(["region", "station", "month"]).sort_index()


def test_a_transformed_panel_is_the_forecast_of_the_transformed_panel():
    panel = stacked()
    pipeline = LogTransformer() * tiny_forecaster()

    forecast = pipeline.fit(panel).predict(fh=STEPS)

    pd.testing.assert_frame_equal(forecast, np.exp(tiny_forecaster().fit(np.log(panel)).predict(fh=STEPS)))


def test_a_panel_is_cleaned_series_by_series():
    panel = stacked()
    panel.iloc[30] = 500.0
    forecast = (OutlierLimiter(window_length=25) * tiny_forecaster()).fit(panel).predict(fh=STEPS)

    cleaned = pd.concat(
        {key: OutlierLimiter(window_length=25).fit_transform(panel.loc[key]) for key in "abcd"},
        names=["station", "month"],
    )
    assert cleaned["load"].max() < 100
    pd.testing.assert_frame_equal(forecast, tiny_forecaster().fit(cleaned).predict(fh=STEPS))


@pytest.mark.parametrize("method", ["bu", "ols", "wls_str", "td_fcst", "mint_shrink"])
def test_one_network_for_a_whole_hierarchy_is_reconciled(method):
    forecast = ReconcilerForecaster(tiny_forecaster(), method=method).fit(hierarchy()).predict(fh=STEPS)

    leaves = forecast.loc[[index for index in forecast.index if index[1] != "__total"]]
    sums = Aggregator().fit_transform(leaves)
    np.testing.assert_allclose(forecast.reindex(sums.index), sums, rtol=1e-6)
    assert len(forecast) == 7 * len(STEPS)


def test_bottom_up_sums_the_leaves_of_one_network():
    forecast = ReconcilerForecaster(tiny_forecaster(), method="bu").fit(hierarchy()).predict(fh=STEPS)

    leaves = tiny_forecaster().fit(hierarchy()).predict(fh=STEPS)
    np.testing.assert_allclose(forecast.reindex(leaves.index), leaves, rtol=1e-6)
    total = leaves["load"].groupby(level=-1).sum()
    np.testing.assert_allclose(forecast.loc[("__total", "__total"), "load"], total, rtol=1e-6)


def test_each_level_may_have_a_network_of_its_own():
    whole = Aggregator().fit_transform(hierarchy())
    forecasters = [("tops", tiny_forecaster(loss="mse"), 0), ("leaves", tiny_forecaster(), 2)]
    model = HierarchyEnsembleForecaster(forecasters, by="level", default=tiny_forecaster(random_state=1))

    forecast = model.fit(whole).predict(fh=STEPS)

    leaves = tiny_forecaster().fit(hierarchy()).predict(fh=STEPS)
    np.testing.assert_allclose(forecast.reindex(leaves.index), leaves, rtol=1e-6)


@pytest.mark.parametrize("groupby", ["global", "local"])
def test_a_network_for_all_or_for_each(groupby):
    panel = stacked()

    forecast = ForecastByLevel(tiny_forecaster(), groupby=groupby).fit(panel).predict(fh=STEPS)

    if groupby == "global":
        expected = tiny_forecaster().fit(panel).predict(fh=STEPS)
    else:
        expected = pd.concat(
            {key: tiny_forecaster().fit(panel.loc[key]).predict(fh=STEPS) for key in "abcd"}, names=panel.index.names
        )
    np.testing.assert_allclose(forecast, expected.reindex(forecast.index), rtol=1e-6)


def test_folds_cut_all_series_at_the_same_time():
    panel = stacked()
    folds = ExpandingWindowSplitter(fh=[1, 2], initial_window=36, step_length=6)

    table = evaluate(tiny_forecaster(), folds, panel, return_data=True, error_score="raise")

    months = panel.index.get_level_values(-1)
    for row in table.itertuples():
        known = panel[months <= row.cutoff]
        expected = tiny_forecaster().fit(known).predict(fh=[1, 2])
        np.testing.assert_allclose(row.y_pred, expected.reindex(row.y_pred.index), rtol=1e-6)


def test_series_that_were_never_seen_are_forecast_after_pretraining():
    panel = stacked()
    instances = InstanceSplitter(KFold(2))

    table = evaluate(
        tiny_forecaster(),
        SingleWindowSplitter(fh=[1, 2, 3]),
        panel,
        cv_global=instances,
        return_data=True,
        error_score="raise",
    )

    assert len(table) == 2
    for row, (train, test) in zip(table.itertuples(), instances.split(panel), strict=True):
        others, seen = panel.iloc[train], panel.iloc[test]
        before = seen[seen.index.get_level_values(-1) <= row.cutoff]
        model = tiny_forecaster().pretrain(others).fit(before)
        expected = model.predict(fh=[1, 2, 3])
        np.testing.assert_allclose(row.y_pred, expected.reindex(row.y_pred.index), rtol=1e-6)
