"""The guards catch what leaks, let pass what does not, and find nothing in any public class."""

import numpy as np
import pandas as pd
import pytest
from fake_forecasters import AllAtOnce, Walker, hourly, panel
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

import xlstm_ts
from xlstm_ts.errors import DataError, ParameterError
from xlstm_ts.evaluation.baselines import Climatology, Drift, SeasonalNaive
from xlstm_ts.evaluation.leakage import LeakageError, check_leakage, random_walk_canary, random_walks


def smoothed(values, half_width=4):
    """A centred moving average: what a smoother of the whole series does, the simplest of them."""
    kernel = np.ones(2 * half_width + 1)
    return np.convolve(values, kernel, "same") / np.convolve(np.ones(len(values)), kernel, "same")


def smoothed_so_far(values, half_width=4):
    """The same average, of the values so far."""
    return pd.Series(values).rolling(2 * half_width + 1, min_periods=1).mean().to_numpy()


# check_leakage


@pytest.mark.parametrize(
    ("function", "leaks"),
    [
        (lambda y: y.rolling(5).mean(), False),
        (lambda y: y.rolling(5, center=True).mean(), True),
        (lambda y: y.shift(1), False),
        (lambda y: y.shift(-1), True),
        (lambda y: y.ffill(), False),
        (lambda y: (y - y.mean()) / y.std(), True),
        (lambda y: y.expanding().mean().to_numpy(), False),
        (lambda y: smoothed(y.to_numpy()), True),
        (lambda y: smoothed_so_far(y.to_numpy()), False),
        (lambda y: y.rank(), True),
        (lambda y: y.resample("6h").last(), True),  # a bin is stamped before its values
        (lambda y: y.resample("6h", closed="right", label="right").last()[:-1], False),
    ],
    ids=[
        "rolling",
        "centred",
        "lag",
        "lead",
        "ffill",
        "z-score",
        "expanding",
        "denoised",
        "causal",
        "rank",
        "bins",
        "ends",
    ],
)
def test_functions_are_judged_by_whether_their_past_moves(function, leaks):
    report = check_leakage(function, hourly(96))

    assert report.leaks == leaks, str(report)
    assert report.compared > 0


def test_a_report_names_the_outputs_that_moved():
    y = hourly(60)

    report = check_leakage(lambda y: pd.DataFrame({"now": y, "next": y.shift(-1)}), y, cuts=2)

    assert set(report.moved["output"]) == {"next"}
    assert (report.moved["time"] == report.moved["cut"]).all(), "only the last known row reaches one row ahead"
    assert len(report.moved) == 4
    row = report.moved.iloc[0]
    assert row["before"] == y.shift(-1)[row["time"]]
    assert str(report).startswith("Leak: 4 of ")
    with pytest.raises(LeakageError, match=f"'next' at {row['time']}"):
        report.raise_if_leaking()
    honest = check_leakage(lambda y: y, y)
    honest.raise_if_leaking()
    assert str(honest).startswith("No leak: none of ")


def test_covariates_of_a_function_are_changed_too():
    y, X = hourly(60), pd.DataFrame({"x": np.arange(60.0)}, index=hourly(60).index)

    assert not check_leakage(lambda y, X: y + X["x"], y, X).leaks
    assert check_leakage(lambda y, X: y + X["x"].shift(-2), y, X).leaks


def test_a_small_movement_can_be_tolerated():
    y = hourly(64)

    def through_fourier(y):
        return np.fft.irfft(np.fft.rfft(y.to_numpy()), len(y))

    assert check_leakage(through_fourier, y).leaks
    assert not check_leakage(through_fourier, y, tolerance=1e-9).leaks


def test_scalers_are_honest_if_fitted_before_and_leak_if_fitted_on_everything():
    y = hourly(60)

    assert not check_leakage(StandardScaler(), y).leaks
    assert check_leakage(StandardScaler(), y, fit_on="all").leaks
    assert check_leakage(FunctionTransformer(lambda X: smoothed(np.asarray(X)[:, 0])[:, np.newaxis]), y).leaks


def test_regressors_are_examined_by_their_inputs():
    y = hourly(80)
    X = pd.DataFrame({"x": y.shift(1).bfill()})
    honest = make_pipeline(StandardScaler(), LinearRegression())
    peeking = make_pipeline(FunctionTransformer(lambda X: np.asarray(X) - np.mean(np.asarray(X))), LinearRegression())

    assert not check_leakage(honest, y, X).leaks
    assert check_leakage(peeking, y, X).leaks
    with pytest.raises(ParameterError, match="give them as X"):
        check_leakage(honest, y)


@pytest.mark.parametrize("kind", [Walker, AllAtOnce])
@pytest.mark.parametrize("columns", [None, 2])
def test_honest_forecasters_pass(kind, columns):
    y = hourly(80, columns)
    X = pd.DataFrame({"x": np.arange(80.0)}, index=y.index)

    assert not check_leakage(kind(), y).leaks
    assert not check_leakage(kind(), y, X).leaks


def test_a_forecaster_that_reads_the_series_beyond_its_origin_is_caught():
    class Peeks(AllAtOnce):
        def predict_origins(self, y, X=None, *, origins, fh, quantile_levels=None):
            frame = super().predict_origins(y, X, origins=origins, fh=fh, quantile_levels=quantile_levels)
            return frame.assign(point=frame["point"] + 1e-9 * y.mean())

    report = check_leakage(Peeks(), hourly(80))

    assert report.leaks
    assert set(report.moved["output"]) == {"point"}


def test_a_forecaster_that_reads_covariates_beyond_its_steps_is_caught():
    class Peeks(AllAtOnce):
        def predict_origins(self, y, X=None, *, origins, fh, quantile_levels=None):
            frame = super().predict_origins(y, X, origins=origins, fh=fh, quantile_levels=quantile_levels)
            return frame.assign(point=frame["point"] + float(X["x"].iloc[-1]))

    X = pd.DataFrame({"x": np.arange(80.0)}, index=hourly(80).index)

    assert check_leakage(Peeks(), hourly(80), X).leaks


def test_sktime_pipelines_are_examined_as_forecasters(recwarn):
    # sktime puts a filter of its own before ours, so that its notice on a new default is recorded instead.
    from sktime.forecasting.naive import NaiveForecaster
    from sktime.transformations.series.detrend import Deseasonalizer

    assert not check_leakage(Deseasonalizer(sp=24) * NaiveForecaster(), hourly(160)).leaks


# The canary


def test_walks_are_the_same_for_the_same_seed_and_foreseen_by_nobody():
    first, again = (list(random_walks(3, 50, random_state=5)) for _ in range(2))

    for one, other in zip(first, again, strict=True):
        pd.testing.assert_series_equal(one, other)
    assert all((walk > 0).all() for walk in first)


def denoised_direction(walk, smooth):
    """The classic trap: prepare the whole series, learn the next change from the last ones, score on that."""
    prepared = smooth(np.log(walk.to_numpy()))
    changes = np.diff(prepared)
    rows = np.stack([changes[k : len(changes) - 5 + k] for k in range(5)], axis=1)
    target = changes[5:]
    half = len(target) // 2
    forecast = LinearRegression().fit(rows[:half], target[:half]).predict(rows[half:])
    return forecast, target[half:], walk.index[-len(target) + half :]


def test_the_classic_trap_claims_to_foresee_a_random_walk_and_is_caught():
    def trap(walk):
        forecast, prepared, _ = denoised_direction(walk, smoothed)
        return float((np.sign(forecast) == np.sign(prepared)).mean())

    found = random_walk_canary(trap)

    assert 0.70 < found.mean < 0.89
    assert found.caught
    with pytest.raises(LeakageError, match="Caught"):
        found.raise_if_caught()


def test_the_trap_is_caught_on_real_changes_too():
    def trap(walk):
        forecast, _, times = denoised_direction(walk, smoothed)
        return pd.Series(forecast, index=times)

    found = random_walk_canary(trap)

    assert found.caught
    assert found.mean > 0.55


def test_its_causal_twin_scores_one_half():
    def twin(walk):
        forecast, _, times = denoised_direction(walk, smoothed_so_far)
        return pd.Series(forecast, index=times)

    found = random_walk_canary(twin)

    assert not found.caught
    assert abs(found.mean - 0.5) < 3 * found.standard_error
    assert found.standard_error == pytest.approx(0.5 / np.sqrt(40 * 197))
    found.raise_if_caught()
    assert str(found).startswith("Not caught")


def test_the_trap_and_its_twin_are_told_apart_by_the_leak_check_as_well():
    walk = next(random_walks(1, 200))

    assert check_leakage(lambda y: smoothed(np.log(y.to_numpy())), walk).leaks
    assert not check_leakage(lambda y: smoothed_so_far(np.log(y.to_numpy())), walk).leaks


# Every public class

SETTINGS = {
    "horizon": 3,
    "context_length": 8,
    "layout": "s",
    "hidden_size": 4,
    "num_heads": 1,
    "patch_length": 4,
    "max_epochs": 1,
    "steps_per_epoch": 2,
    "validation_fraction": 0,
    "random_state": 0,
}


def small(name, **arguments):
    return getattr(xlstm_ts, name)(**arguments)


def forecaster(**arguments):
    return small("XLSTMForecaster", **SETTINGS | arguments)


FORECASTERS = {
    **{
        f"XLSTMForecaster, {kind}": (lambda kind=kind: forecaster(backbone=kind))
        for kind in ("patch", "stacked", "mixer")
    },
    "SeasonalNaive": lambda: SeasonalNaive(24),
    "Drift": Drift,
    "Climatology": Climatology,
}
OTHERS = {
    "XLSTMRegressor": lambda: small(
        "XLSTMRegressor", context_length=6, layout="s", hidden_size=4, num_heads=1, max_epochs=1, random_state=0
    ),
    "WindowTransformer": lambda: small("WindowTransformer", context_length=6),
    "OutlierLimiter": lambda: small("OutlierLimiter", window_length=9),
    "WaveletDenoiser": lambda: small("WaveletDenoiser", window_length=16, wavelet="db2"),
}
EVERY_CLASS = FORECASTERS | OTHERS


def made(name):
    if name == "WaveletDenoiser":
        pytest.importorskip("pywt")
    return EVERY_CLASS[name]()


def test_the_table_below_holds_every_public_class():
    public = {name for name in xlstm_ts.__all__ if isinstance(getattr(xlstm_ts, name), type)}
    examined = {name.partition(",")[0] for name in EVERY_CLASS}

    assert {name for name in public if hasattr(getattr(xlstm_ts, name), "fit")} <= examined


@pytest.mark.parametrize("name", EVERY_CLASS)
def test_no_public_class_leaks(name):
    y = hourly(120, columns=2)
    y.iloc[[20, 75]] = np.nan
    if name == "XLSTMRegressor":
        X, y = y, y["a"].shift(1).bfill().ffill()
    else:
        X = None

    report = check_leakage(made(name), y, X)

    assert not report.leaks, str(report)
    assert report.compared > 100


def test_covariates_of_the_forecaster_do_not_leak():
    y = hourly(120)
    X = pd.DataFrame({"x": np.random.default_rng(0).normal(size=120)}, index=y.index)

    report = check_leakage(forecaster(), y, X)

    assert not report.leaks, str(report)


def regressed(walk):
    """Direction from a regressor on lagged changes; the first half is learned."""
    changes = np.log(walk).diff()
    X = pd.concat({f"lag{k}": changes.shift(k) for k in (1, 2, 3)}, axis=1).iloc[4:]
    half = len(X) // 2
    model = made("XLSTMRegressor").fit(X.iloc[:half], changes.iloc[4:].iloc[:half])
    return pd.Series(model.predict(X.iloc[half:]), index=X.index[half:])


def transformed(name):
    """Direction from a line through prepared values, each known at its own time."""

    def pipeline(walk):
        prepared = made(name).fit(walk[:100]).transform(walk)
        values = prepared.to_numpy().ravel()
        known = pd.Series(values, index=walk.index).diff().dropna()
        return (-known).shift(1).dropna()[100:]

    return pipeline


@pytest.mark.parametrize("name", [*FORECASTERS, "XLSTMRegressor", "OutlierLimiter", "WaveletDenoiser"])
def test_no_public_class_foresees_a_random_walk(name):
    if name in FORECASTERS:
        pipeline = made(name)
    else:
        made(name)  # skips where a package is missing
        pipeline = regressed if name == "XLSTMRegressor" else transformed(name)

    found = random_walk_canary(pipeline, length=200)

    assert abs(found.mean - 0.5) < 3 * found.standard_error, str(found)


# Errors


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: check_leakage(Walker, hourly(80)), ParameterError, "is a class"),
        (lambda: check_leakage(3, hourly(80)), ParameterError, "no forecaster, transformer, regressor or function"),
        (lambda: check_leakage(len, panel()), DataError, "panel"),
        (lambda: check_leakage(lambda y: y, hourly(30)), DataError, "30 rows"),
        (lambda: check_leakage(lambda y: y[:5].to_numpy(), hourly(60)), DataError, "5 rows, the input 60"),
        (lambda: check_leakage(lambda y: y.set_axis(range(60)), hourly(60)), DataError, "times that the input has not"),
        (lambda: check_leakage(lambda y: y, hourly(60), cuts=0), ParameterError, "cuts=0"),
        (lambda: check_leakage(lambda y: y, hourly(60), fit_on="test"), ParameterError, "fit_on='test'"),
        (lambda: random_walk_canary(lambda y: 0.5, walks=1), ParameterError, "walks=1"),
        (lambda: random_walk_canary(lambda y: 50.0, walks=2), DataError, "accuracy of 50"),
        (lambda: random_walk_canary(lambda y: [1, 2], walks=2), DataError, "must return a Series"),
        (lambda: random_walk_canary(lambda y: y[:0], walks=2), DataError, "can be scored"),
    ],
)
def test_bad_input_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()
