"""Causal preprocessing: no value depends on a later one, pieces equal the whole, and both do what they say."""

import pickle

import numpy as np
import pandas as pd
import pytest
from helpers import ignores_remember_data, tiny_forecaster
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.pipeline import Pipeline
from sktime.utils.estimator_checks import check_estimator, parametrize_with_checks

from xlstm_ts import XLSTMRegressor
from xlstm_ts.data.causal import OutlierLimiter, WaveletDenoiser
from xlstm_ts.errors import DataError, DataTypeError, ParameterError


@pytest.fixture(params=["limiter", "denoiser"])
def transformer(request):
    if request.param == "limiter":
        return OutlierLimiter(window_length=9, max_deviations=1.5)
    pytest.importorskip("pywt")
    return WaveletDenoiser(window_length=16, wavelet="db2")


def noisy(rows=150, columns=2, seed=0):
    rng = np.random.default_rng(seed)
    values = 10 + 3 * np.sin(np.arange(rows)[:, None] / 9 + np.arange(columns)) + rng.standard_t(2, (rows, columns))
    index = pd.date_range("2024-01-01", periods=rows, freq="h")
    frame = pd.DataFrame(values, index=index, columns=[f"station {j}" for j in range(columns)])
    frame.iloc[[20, 21, 22, 90], 0] = np.nan
    return frame


# Nothing from the future


@pytest.mark.parametrize("known", [1, 2, 30, 91, 149])
@pytest.mark.parametrize("later", ["noise", "missing", "huge"])
def test_no_value_depends_on_a_later_one(transformer, known, later):
    X = noisy()
    changed = X.copy()
    shape = changed.iloc[known:].shape
    changed.iloc[known:] = {
        "noise": np.random.default_rng(1).normal(size=shape) * 1e3,
        "missing": np.full(shape, np.nan),
        "huge": np.full(shape, 1e300),
    }[later]

    before, after = (transformer.clone().fit_transform(series).iloc[:known] for series in (X, changed))

    pd.testing.assert_frame_equal(before, after, check_exact=True)


def test_no_value_depends_on_another_column(transformer):
    X = noisy()
    alone = transformer.clone().fit_transform(X[["station 1"]])

    pd.testing.assert_frame_equal(transformer.fit_transform(X)[["station 1"]], alone, check_exact=True)


@pytest.mark.parametrize("wavelet", ["db4", "sym5"])
def test_denoising_the_whole_series_tells_the_direction_of_a_random_walk_and_denoising_causally_does_not(wavelet):
    pywt = pytest.importorskip("pywt")
    walk = np.cumsum(np.random.default_rng(0).normal(size=6000))
    smooth, *details = pywt.wavedec(walk, wavelet, level=1)
    whole = pywt.waverec([smooth, *(0 * detail for detail in details)], wavelet)[: len(walk)]
    causal = WaveletDenoiser(window_length=64, wavelet=wavelet).fit_transform(walk)[:, 0]

    accuracy = {name: accuracy_of_direction(inputs, walk) for name, inputs in (("whole", whole), ("causal", causal))}

    chance = 3 * 0.5 / np.sqrt(3000)  # three standard deviations of a coin's share in the test half
    assert accuracy["whole"] > 0.65
    assert abs(accuracy["causal"] - 0.5) < chance


def accuracy_of_direction(inputs, walk, lags=10):
    """Regress the next raw move on the last moves of the inputs; return the share of right signs in the later half."""
    moves = np.diff(inputs)
    past = np.lib.stride_tricks.sliding_window_view(moves, lags)[:-1]  # moves up to time t
    target = np.diff(walk)[lags:]  # the move from t to t + 1
    half = len(target) // 2
    weights = np.linalg.lstsq(past[:half], target[:half], rcond=None)[0]
    return (np.sign(past[half:] @ weights) == np.sign(target[half:])).mean()


# Pieces


@settings(max_examples=20, deadline=None)
@given(cuts=st.lists(st.integers(1, 149), min_size=1, max_size=4, unique=True), limiter=st.booleans())
def test_pieces_equal_the_whole(cuts, limiter):
    if not limiter:
        pytest.importorskip("pywt")
    kind = OutlierLimiter(9, 1.5) if limiter else WaveletDenoiser(16, "db2")
    X = noisy()
    pieces = [X.iloc[first:last] for first, last in zip([0, *sorted(cuts)], [*sorted(cuts), len(X)], strict=True)]

    parts = [kind.fit_transform(pieces[0])]
    for piece in pieces[1:]:
        before = kind.transform(piece)  # as a pipeline does at predict
        parts.append(kind.update(piece).transform(piece))  # as a pipeline does at update
        pd.testing.assert_frame_equal(before, parts[-1])

    pd.testing.assert_frame_equal(pd.concat(parts), kind.clone().fit_transform(X), check_freq=False)


def test_rows_of_the_fit_are_transformed_as_at_the_fit(transformer):
    X = noisy()
    fitted = transformer.fit(X)

    pd.testing.assert_frame_equal(fitted.transform(X), transformer.clone().fit_transform(X))
    pd.testing.assert_frame_equal(fitted.transform(X.iloc[60:80]), fitted.transform(X).iloc[60:80], check_freq=False)


def test_copies_remember_the_last_rows_and_data_given_may_change(transformer):
    X = noisy()
    expected = transformer.clone().fit_transform(X).iloc[100:]
    known = X.iloc[:100].copy()
    copied = pickle.loads(pickle.dumps(transformer.fit(known)))
    known[:] = 0.0

    pd.testing.assert_frame_equal(copied.transform(X.iloc[100:]), expected, check_freq=False)
    pd.testing.assert_frame_equal(transformer.transform(X.iloc[100:]), expected, check_freq=False)


# What they do


def test_the_limiter_does_what_its_formula_says():
    X = noisy(columns=1)["station 0"]

    got = OutlierLimiter(window_length=9, max_deviations=1.5).fit_transform(X)

    moved = 0
    for t, value in enumerate(X):
        earlier = X.iloc[max(0, t - 8) : t].dropna()
        if len(earlier) >= 5 and not np.isnan(value):
            level = earlier.median()
            reach = 1.5 * (earlier - level).abs().median() / 0.6744897501960817
            moved += value != np.clip(value, level - reach, level + reach)
            value = np.clip(value, level - reach, level + reach)
        assert got.iloc[t] == pytest.approx(value, rel=1e-12, nan_ok=True)
    assert moved > 10


def test_the_limiter_leaves_alone_what_it_knows_too_little_of():
    short = pd.Series([1.0, 2.0, 3.0, 2.0, 99.0])
    flat = pd.Series([0.0] * 20 + [7.0] + [0.0] * 5)

    pd.testing.assert_series_equal(OutlierLimiter().fit_transform(short), short)
    pd.testing.assert_series_equal(OutlierLimiter().fit_transform(flat), flat)


def test_the_limiter_follows_a_new_level_after_half_a_window():
    rng = np.random.default_rng(0)
    y = pd.Series(np.repeat([0.0, 100.0], 100) + rng.normal(size=200))

    limited = OutlierLimiter(window_length=21).fit_transform(y)

    assert (limited[100:105] < 12).all()
    pd.testing.assert_series_equal(limited[112:], y[112:])


def test_the_denoiser_does_what_its_formula_says():
    pywt = pytest.importorskip("pywt")
    X = noisy(columns=1)["station 0"].ffill()

    got = WaveletDenoiser(window_length=16, wavelet="db2", level=2, threshold=0.7).fit_transform(X)

    for t in (0, 3, 15, 40, 149):
        window = np.pad(X.to_numpy()[max(0, t - 15) : t + 1], (max(0, 15 - t), 0), mode="edge")
        smooth, coarse, fine = pywt.wavedec(window, "db2", mode="symmetric", level=2)
        bound = 0.7 * np.median(np.abs(fine)) / 0.6744897501960817 * np.sqrt(2 * np.log(16))
        shrunk = [pywt.threshold(detail, bound, mode="soft") if bound else detail for detail in (coarse, fine)]
        expected = pywt.waverec([smooth, *shrunk], "db2", mode="symmetric")[15]
        assert got.iloc[t] == pytest.approx(expected, rel=1e-10)


def test_the_denoiser_takes_noise_away_and_keeps_the_signal():
    pytest.importorskip("pywt")
    signal = 5 * np.sin(np.arange(2000) / 25)
    series = signal + 0.3 * np.random.default_rng(0).normal(size=2000)

    denoised = WaveletDenoiser().fit_transform(series)[:, 0]
    untouched = WaveletDenoiser(threshold=0).fit_transform(series)[:, 0]

    assert np.std(denoised - signal) < 0.7 * np.std(series - signal)
    np.testing.assert_allclose(untouched, series, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("scale", "shift"), [(1e-6, 0.0), (-3.0, 1e9), (1e6, -1e12)])
def test_mapping_the_series_by_a_line_maps_the_result(transformer, scale, shift):
    X = noisy()

    got = transformer.fit_transform(scale * X + shift)

    expected = scale * transformer.clone().fit_transform(X) + shift
    np.testing.assert_allclose(got, expected, rtol=1e-12, atol=abs(scale) * 1e-9 + 1e-15 * abs(shift))


def test_the_largest_floats_stay_finite_and_missing_values_stay_missing(transformer):
    X = pd.DataFrame({"a": 1.7e308 * np.sign(np.sin(np.arange(80))), "b": np.nan})
    X.iloc[30, 0] = np.nan

    got = transformer.fit_transform(X)

    assert got["b"].isna().all()
    assert got["a"].isna().tolist() == X["a"].isna().tolist()
    assert np.isfinite(got["a"].dropna()).all()
    assert got["a"].iloc[0] == X["a"].iloc[0]


# Around them


@pytest.mark.filterwarnings("default")  # sktime's own scenarios emit its deprecation notices
@parametrize_with_checks([OutlierLimiter, WaveletDenoiser], obj_varname="kind", check_varname="name")
def test_sktime_contract(kind, name):
    if "WaveletDenoiser" in str(kind):
        pytest.importorskip("pywt")
    results = check_estimator(kind, tests_to_run=name, raise_exceptions=True, verbose=False)

    assert results
    assert set(results.values()) == {"PASSED"}


@ignores_remember_data
def test_a_pipeline_forecasts_from_limited_values(transformer):
    y = noisy(columns=1)["station 0"]
    pipeline = transformer * tiny_forecaster()
    cleaned = transformer.clone().fit_transform(y)

    pipeline.fit(y[:120])
    by_hand = tiny_forecaster().fit(cleaned[:120])
    pd.testing.assert_series_equal(pipeline.predict(fh=[1, 4]), by_hand.predict(fh=[1, 4]))

    pipeline.update(y[120:], update_params=False)
    by_hand.update(cleaned[120:], update_params=False)
    pd.testing.assert_series_equal(pipeline.predict(fh=[1, 4]), by_hand.predict(fh=[1, 4]))


def test_each_series_of_a_panel_is_transformed_by_itself(transformer):
    panel = pd.concat({key: noisy(columns=1, seed=key) for key in (0, 1)}, names=["series", "time"])

    got = transformer.fit_transform(panel)

    for key in (0, 1):
        pd.testing.assert_frame_equal(got.loc[key], transformer.clone().fit_transform(panel.loc[key]), check_freq=False)


def test_a_scikit_learn_pipeline_takes_them_too(transformer):
    X = noisy()
    y = X["station 1"].shift(2).bfill().to_numpy()
    settings = {"context_length": 4, "hidden_size": 4, "num_heads": 1, "max_epochs": 1, "random_state": 0}
    pipeline = Pipeline([("clean", transformer), ("network", XLSTMRegressor(**settings))])

    predicted = pipeline.fit(X[:100], y[:100]).predict(X[100:])

    cleaned = transformer.clone().fit_transform(X)
    by_hand = XLSTMRegressor(**settings).fit(cleaned[:100], y[:100])
    np.testing.assert_allclose(predicted, by_hand.predict(cleaned[100:]), rtol=1e-9)


# What goes wrong


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (OutlierLimiter(window_length=5), "window_length=5"),
        (OutlierLimiter(window_length=7.5), r"window_length=7\.5"),
        (OutlierLimiter(max_deviations=0), "max_deviations=0"),
        (OutlierLimiter(max_deviations=np.inf), "max_deviations=inf"),
        (WaveletDenoiser(window_length=1), "window_length=1"),
        (WaveletDenoiser(window_length=6), "window_length=6 is too short for the wavelet 'db4'"),
        (WaveletDenoiser(wavelet="db99"), "wavelet='db99'"),
        (WaveletDenoiser(wavelet="morl"), "wavelet='morl'"),
        (WaveletDenoiser(level=4), "level=4 is impossible; expected None or 1 to 3"),
        (WaveletDenoiser(threshold=-1.0), r"threshold=-1\.0"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_impossible_parameter_is_named(wrong, words):
    if isinstance(wrong, WaveletDenoiser):
        pytest.importorskip("pywt")
    with pytest.raises(ParameterError, match=words):
        wrong.fit(noisy())


def test_rows_that_cannot_be_used_are_named(transformer):
    X = noisy()
    infinite = X.copy()
    infinite.iloc[7, 1] = -np.inf
    name = type(transformer).__name__

    with pytest.raises(DataError, match=rf"{name}.fit: series 'station 1' is infinite at 2024-01-01 07"):
        transformer.fit(infinite)
    with pytest.raises(TypeError, match="categorical"):
        transformer.fit(X.assign(kind="a"))
    fitted = transformer.clone().fit(X)
    with pytest.raises(DataError, match=rf"{name}.transform: X has the columns \['other'\]"):
        fitted.transform(X[["station 0"]].set_axis(["other"], axis=1))
    assert issubclass(DataTypeError, DataError)


def test_without_pywavelets_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pywt", None)
    with pytest.raises(ImportError, match=r"xlstm-ts\[wavelet\]"):
        WaveletDenoiser().fit(noisy())
