"""Our quantiles as a distribution of skpro's kind, and what sktime's metrics make of it."""

import copy

import numpy as np
import pandas as pd
import pytest
from helpers import monthly, tiny_forecaster
from scoringrules import crps_quantile
from skpro.utils import check_estimator
from sktime.performance_metrics.forecasting import probabilistic

from xlstm_ts.distribution import QuantileDistribution
from xlstm_ts.errors import ParameterError
from xlstm_ts.forecaster import XLSTMForecaster

LEVELS = np.array([0.1, 0.3, 0.5, 0.7, 0.9])
STEPS = [1, 2, 5, -3]  # in the horizon, beyond it, and in the sample


def quantiles(rows=4, columns=2, seed=0):
    return np.cumsum(np.random.default_rng(seed).gamma(1, size=(rows, columns, len(LEVELS))), axis=-1) - 3


def distribution(**changes):
    index = pd.date_range("2024-01-01", periods=4, name="day")
    return QuantileDistribution(
        **{"quantiles": quantiles(), "levels": LEVELS, "index": index, "columns": ["a", "b"]} | changes
    )


def hierarchy():
    """Three series below two levels, one of them constant."""
    parts = {
        ("north", "a"): monthly(48)["a"],
        ("north", "b"): monthly(40, seed=1)["a"] * 1e6,
        ("south", "c"): monthly(48)["a"] * 0 + 5,
    }
    return pd.concat(parts, names=["region", "station"]).rename_axis(["region", "station", "month"]).to_frame("y")


@pytest.fixture(scope="module")
def forecasters():
    frames = {"series": monthly(), "columns": monthly(columns=2) * [1, -1e5], "hierarchy": hierarchy()}
    return {name: tiny_forecaster().fit(frame) for name, frame in frames.items()}


# The interface


@pytest.mark.filterwarnings("default")
def test_skpros_contract():
    results = check_estimator(QuantileDistribution, raise_exceptions=True, verbose=False)

    assert len(results) > 100
    assert set(results.values()) == {"PASSED"}


def test_one_set_of_quantiles_serves_all_rows_and_columns():
    row = quantiles()[0, 0]
    one, many = (
        QuantileDistribution(row, LEVELS),
        QuantileDistribution(row, LEVELS, index=[5, 6, 7], columns=["a", "b"]),
    )

    assert one.shape == ()
    assert many.shape == (3, 2)
    assert many.cdf(0.5).to_numpy().tolist() == np.full((3, 2), one.cdf(0.5)).tolist()
    assert QuantileDistribution(quantiles()[0], LEVELS).shape == (1, 2)
    assert QuantileDistribution(quantiles(), LEVELS).index.equals(pd.RangeIndex(4))


def test_rows_and_columns_are_taken_as_pandas_takes_them():
    full = distribution()
    table = full.ppf(0.8)

    for rows in ([2, 0], slice(1, 3), np.array([True, False, False, True]), -1, range(2)):
        expected = table.iloc[np.atleast_1d(np.arange(4)[rows])]
        pd.testing.assert_frame_equal(full.iloc[rows].ppf(0.8), expected, check_freq=False)
    pd.testing.assert_frame_equal(
        full.loc[table.index[[3, 1]], ["b"]].ppf(0.8), table.loc[table.index[[3, 1]], ["b"]], check_freq=False
    )
    assert (
        full.iloc[2, 1].ppf(0.8) == full.iat[2, 1].ppf(0.8) == full.at[table.index[2], "b"].ppf(0.8) == table.iloc[2, 1]
    )
    with pytest.raises(KeyError, match="2024"):
        full.cdf(table.set_axis(table.index + pd.Timedelta(days=1)))


def test_a_shuffled_frame_is_scored_by_its_labels():
    full = distribution()
    x = full.ppf(0.3) + 0.1

    shuffled = x.iloc[[2, 0, 3, 1], ::-1]

    pd.testing.assert_frame_equal(
        full.log_pdf(shuffled), full.log_pdf(x).loc[shuffled.index, shuffled.columns], check_freq=False
    )


def test_samples_follow_the_distribution_independently():
    full = distribution()
    np.random.seed(0)  # noqa: NPY002

    drawn = full.sample(20_000)

    assert drawn.index.names == [None, "day"]
    values = drawn.to_numpy().reshape(20_000, 8)
    shares = (values[:, None, :] <= full.ppf(0.05).to_numpy().ravel()).mean(axis=0)
    np.testing.assert_allclose(shares, 0.05, atol=0.01)
    np.testing.assert_allclose(values.mean(axis=0), full.mean().to_numpy().ravel(), atol=0.05)
    np.testing.assert_allclose(values.var(axis=0), full.var().to_numpy().ravel(), rtol=0.1)
    np.testing.assert_allclose(np.corrcoef(values.T), np.eye(8), atol=0.05)
    assert full.sample().shape == (4, 2)


def test_energies_are_summed_over_columns():
    full = distribution()
    x = full.mean() + 1

    alone = [full.loc[:, [name]] for name in ("a", "b")]
    np.testing.assert_allclose(full.energy(), sum(one.energy() for one in alone))
    np.testing.assert_allclose(full.energy(x), sum(one.energy(x[one.columns]) for one in alone))


@pytest.mark.parametrize(
    ("changes", "message"),
    {
        "falling": ({"quantiles": quantiles()[..., ::-1]}, "never fall"),
        "missing": ({"quantiles": quantiles() * np.nan}, "be finite"),
        "levels out of order": ({"levels": LEVELS[::-1]}, "levels must increase"),
        "levels outside": ({"levels": LEVELS * 2}, "0 < level < 1"),
        "one level": ({"quantiles": quantiles()[..., :1], "levels": LEVELS[:1]}, "says nothing of others"),
        "too few": ({"levels": LEVELS[:3]}, "do not belong to 3 levels"),
        "too many dimensions": ({"quantiles": quantiles()[None]}, "do not belong"),
    }.values(),
    ids=str,
)  # fmt: skip
def test_impossible_quantiles_are_refused(changes, message):
    with pytest.raises(ParameterError, match=message):
        distribution(**changes)


# The forecaster's


@pytest.mark.parametrize("name", ["series", "columns", "hierarchy"])
def test_the_distribution_agrees_with_quantiles_intervals_and_variance(forecasters, name):
    model = forecasters[name]
    asked = [0.001, 0.1, 0.25, 0.5, 0.77, 0.9, 0.999]

    full = model.predict_proba(fh=STEPS)

    assert isinstance(full, QuantileDistribution)
    bands = model.predict_quantiles(fh=STEPS, alpha=asked)
    pd.testing.assert_frame_equal(full.quantile(asked), bands, check_names=False)
    for level in asked:
        expected = bands.xs(level, axis=1, level=1)
        pd.testing.assert_frame_equal(full.ppf(level), expected, check_names=False, rtol=1e-14)
    interval = model.predict_interval(fh=STEPS, coverage=0.8)
    np.testing.assert_array_equal(full.ppf(0.1), interval.xs("lower", axis=1, level=2))
    np.testing.assert_array_equal(full.ppf(0.9), interval.xs("upper", axis=1, level=2))
    pd.testing.assert_frame_equal(full.var(), model.predict_var(fh=STEPS), check_names=False)
    np.testing.assert_array_equal(full.ppf(0.5), np.asarray(model.predict(fh=STEPS)).reshape(full.shape))


def test_a_median_alone_has_no_intervals():
    model = tiny_forecaster(quantile_levels=(0.5,)).fit(monthly())

    assert np.isfinite(model.predict(fh=STEPS).to_numpy()).all()
    for ask in (model.predict_interval, model.predict_var, model.predict_proba):
        with pytest.raises(ParameterError, match=r"only quantile level is 0\.5"):
            ask(fh=STEPS)


def test_a_hierarchy_is_taken_by_its_levels(forecasters):
    full = forecasters["hierarchy"].predict_proba(fh=[1, 2])
    table = full.mean()

    pd.testing.assert_frame_equal(full.loc["north"].mean(), table.loc[["north"]])
    pd.testing.assert_frame_equal(full.loc[("south", "c")].mean(), table.iloc[4:])
    pd.testing.assert_frame_equal(full.loc[table.index[[3]], ["y"]].mean(), table.iloc[[3]])


def test_the_crps_is_exact_and_near_that_of_many_levels(forecasters):
    model = forecasters["series"]
    actual = model.predict(fh=[1, 2, 3]).add([-2.0, 0.1, 9.0], axis=0)
    levels = (np.arange(1000) + 0.5) / 1000

    score = probabilistic.CRPS().evaluate_by_index(actual, model.predict_proba(fh=[1, 2, 3]))

    many = model.predict_quantiles(fh=[1, 2, 3], alpha=levels.tolist()).to_numpy()
    np.testing.assert_allclose(score.iloc[:, 0], crps_quantile(actual.to_numpy()[:, 0], many, levels), rtol=2e-3)


METRICS = [probabilistic.CRPS, probabilistic.LogLoss, probabilistic.SquaredDistrLoss, probabilistic.AUCalibration]


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.__name__)
@pytest.mark.parametrize("hit", [True, False], ids=["hit", "missed"])
def test_no_metric_of_a_panel_with_a_certain_forecast_is_nan(forecasters, metric, hit):
    model = forecasters["hierarchy"]
    full = model.predict_proba(fh=[1, 2, 3])
    actual = model.predict(fh=[1, 2, 3]) + (0 if hit else 0.5)

    by_row = metric().evaluate_by_index(actual, full)

    assert np.isfinite(by_row.to_numpy()).all()
    assert np.isfinite(metric()(actual, full))
    if metric is probabilistic.CRPS:  # of a certain forecast the absolute error
        np.testing.assert_array_equal(by_row.loc[("south", "c")], 0.0 if hit else 0.5)


def test_the_log_loss_prefers_the_right_spread():
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(400, 1)) * 2
    z = np.array([-1.2815515655446004, 0.0, 1.2815515655446004])

    losses = {
        spread: probabilistic.LogLoss()(
            pd.DataFrame(scores),
            QuantileDistribution(np.broadcast_to(z * spread, (400, 1, 3)), np.array([0.1, 0.5, 0.9])),
        )
        for spread in (1.0, 2.0, 4.0)
    }

    assert min(losses, key=losses.get) == 2.0
    assert losses[2.0] == pytest.approx(np.log(2 * np.sqrt(2 * np.pi)) + (scores**2).mean() / 8)


def test_it_can_be_copied_and_its_class_keeps_what_it_was_given():
    full = distribution()

    for other in (full.clone(), copy.deepcopy(full)):
        pd.testing.assert_frame_equal(other.mean(), full.mean())
    assert full.get_params()["levels"] is LEVELS


def test_skpro_is_not_needed_for_the_variance(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "skpro.distributions.base", None)
    monkeypatch.delitem(__import__("sys").modules, "xlstm_ts.distribution", raising=False)
    model: XLSTMForecaster = tiny_forecaster().fit(monthly())

    assert (model.predict_var(fh=[1, 2]) > 0).all(axis=None)
    with pytest.raises(ImportError, match=r"xlstm-ts\[proba\]"):
        model.predict_proba(fh=[1])
