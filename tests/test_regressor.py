"""The regressor as a user of scikit-learn meets it: what it learns, what it may see, and what works around it."""

import pickle

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse
from sklearn.base import clone
from sklearn.compose import TransformedTargetRegressor
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import GridSearchCV, TimeSeriesSplit, cross_val_score
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import PolynomialFeatures, StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from xlstm_ts import XLSTMRegressor, make_windows
from xlstm_ts.data.transformers import WindowTransformer
from xlstm_ts.errors import BackendError, DataError, ParameterError, TrainingError

BY_DESIGN = "a row's prediction depends on the rows before it, so rows cannot be moved or taken away"
SMALL = {
    "context_length": 5,
    "layout": "s",
    "hidden_size": 4,
    "num_heads": 1,
    "conv_width": 2,
    "max_epochs": 2,
    "steps_per_epoch": 4,
    "learning_rate": 0.01,
    "validation_fraction": 0,  # nothing is taken back: the blocks have their say beside the linear start
    "random_state": 0,
}


def small(**changes):
    return XLSTMRegressor(**(SMALL | changes))


def hourly(rows=120, columns=2, seed=0):
    """Inputs that say nothing of each other, and a target that is linear in the input three rows before."""
    rng = np.random.default_rng(seed)
    index = pd.date_range("2024-01-01", periods=rows, freq="h")
    X = pd.DataFrame(rng.normal(size=(rows, columns)), index=index, columns=[f"x{j}" for j in range(columns)])
    y = pd.Series(10 + 3 * X["x0"].shift(3, fill_value=0.0), name="y")
    return X, y


@pytest.fixture(scope="module")
def fitted():
    X, y = hourly()
    return small().fit(X[:100], y[:100])


@parametrize_with_checks(
    [small(context_length=3, random_state=None, max_epochs=1)],
    expected_failed_checks=lambda estimator: {
        "check_methods_sample_order_invariance": BY_DESIGN,
        "check_methods_subset_invariance": BY_DESIGN,
    },
)
def test_the_regressor_keeps_the_contract_of_scikit_learn(estimator, check):
    check(estimator)


# What it learns


def test_it_learns_what_a_row_by_row_regressor_cannot():
    X = np.random.default_rng(0).normal(size=(700, 1))
    y = np.abs(np.roll(X[:, 0], 3))
    train, test = slice(3, 500), slice(500, None)
    model = XLSTMRegressor(
        5, layout="s", hidden_size=16, num_heads=2, dropout=0.0, learning_rate=0.01, max_epochs=20, random_state=0
    )

    model.fit(X[train], y[train])

    by_row = make_pipeline(PolynomialFeatures(4), LinearRegression()).fit(X[train], y[train])
    by_lag = LinearRegression().fit(WindowTransformer(5, padding="edge").fit_transform(X[train]), y[train])
    lags = WindowTransformer(5, padding="edge").fit_transform(X[test])
    assert by_row.score(X[test], y[test]) < 0.05
    assert by_lag.score(lags, y[test]) < 0.05
    assert model.score(X[test], y[test]) > 0.8
    assert model.best_epoch_ > 0


def test_a_linear_delay_is_known_from_the_start():
    X, y = hourly(rows=200)

    model = small(max_epochs=1, learning_rate=1e-6).fit(X[:150], y[:150])

    assert model.score(X[150:], y[150:]) > 0.99


def test_every_target_of_several_has_its_own_column():
    X, y = hourly(rows=200)
    both = pd.DataFrame({"near": X["x1"] * 1e6, "delayed": y})

    model = small().fit(X[:150], both[:150])
    predicted = model.predict(X[150:])

    assert predicted.shape == (50, 2)
    assert np.corrcoef(predicted[:, 0], both["near"][150:])[0, 1] > 0.99
    assert np.corrcoef(predicted[:, 1], both["delayed"][150:])[0, 1] > 0.99
    assert model.score(X[150:], both[150:]) > 0.98


@pytest.mark.parametrize("shape", [(120,), (120, 1), (120, 3)])
def test_predictions_have_the_shape_of_the_fitted_target(shape):
    X, _ = hourly()
    y = np.random.default_rng(1).normal(size=shape)

    predicted = small().fit(X, y).predict(X[:7])

    assert predicted.shape == (7, *shape[1:])
    assert predicted.dtype == np.float64


@pytest.mark.parametrize(("shift", "unit"), [(1e9, 1.0), (0.0, 1e-12), (-1e6, 1e12)])
def test_level_and_unit_of_target_and_inputs_do_not_matter(shift, unit):
    X, y = hourly(rows=160)
    plain = small().fit(X[:120], y[:120]).predict(X[120:])

    moved = small().fit(shift + unit * X[:120], shift + unit * y[:120]).predict(shift + unit * X[120:])

    np.testing.assert_allclose((moved - shift) / unit, plain, atol=1e-3)


def test_a_constant_target_predicts_itself():
    X, y = hourly()
    both = pd.DataFrame({"constant": 1e9 + 0.1, "moving": y})

    predicted = small().fit(X, both).predict(X[:50] * 100)

    assert (predicted[:, 0] == 1e9 + 0.1).all()
    assert predicted[:, 1].std() > 0.1


def test_an_input_that_never_moved_is_ignored_when_it_does():
    X, y = hourly()
    train = X.assign(still=5.0, empty=np.nan)
    model = small().fit(train, y)

    changed = model.predict(train.assign(still=1e12))

    np.testing.assert_array_equal(changed, model.predict(train))
    assert np.isfinite(model.predict(train.assign(empty=3.0))).all()


def test_missing_inputs_are_missing_and_not_zero():
    X, y = hourly(rows=300)
    X["x0"] += 2.0
    holes = X.mask(np.random.default_rng(1).random(X.shape) < 0.2)

    model = small(max_epochs=3).fit(holes[:250], y[:250])
    predicted = model.predict(holes[250:])

    assert np.isfinite(predicted).all()
    assert model.score(holes[250:], y[250:]) > 0.6
    assert (predicted != model.predict(holes[250:].fillna(X.mean()))).any()


def test_the_absolute_loss_is_not_moved_by_outliers():
    X = np.zeros((200, 1))
    X[::2] = 1.0
    y = np.where(np.arange(200) % 10 == 0, 1000.0, 1.0)
    settings = {"linear_skip": False, "dropout": 0.0, "learning_rate": 0.02}

    absolute = small(loss="mae", max_epochs=20, steps_per_epoch=None, context_length=1, **settings).fit(X, y)

    assert abs(np.median(absolute.predict(X)) - 1.0) < 50  # the mean is 101


# What it may see


def test_rows_that_continue_the_fit_see_their_true_history(fitted):
    X, _ = hourly()

    joined = fitted.predict(X)

    np.testing.assert_allclose(fitted.predict(X[100:]), joined[100:], rtol=1e-6)
    assert abs(fitted.predict(X[100:].reset_index(drop=True))[:3] - joined[100:103]).min() > 1e-3
    np.testing.assert_allclose(fitted.predict(X[101:])[4:], joined[105:], rtol=1e-6)


@pytest.mark.parametrize("layout", ["s", "m", "ms"])
def test_predictions_skip_the_part_of_the_last_block_that_nothing_reads(layout, monkeypatch):
    X, y = hourly()
    model = small(layout=layout, max_epochs=1).fit(X[:100], y[:100])
    forward, wanted = type(model.network_).forward, []

    def whole(network, values, observed, *, carry=True):
        wanted.append(carry)
        return forward(network, values, observed)

    quick = model.predict(X[100:])
    monkeypatch.setattr(type(model.network_), "forward", whole)

    np.testing.assert_allclose(quick, model.predict(X[100:]), rtol=1e-5)
    assert wanted == [False]


@pytest.mark.filterwarnings("ignore:X does not have valid feature names")
def test_every_array_starts_with_an_empty_history(fitted):
    X, _ = hourly()
    rows = X[100:].to_numpy()

    first = fitted.predict(rows)

    np.testing.assert_array_equal(fitted.predict(rows), first)
    np.testing.assert_allclose(first, fitted.predict(X[100:].reset_index(drop=True)))
    assert abs(first - fitted.predict(X[100:]))[:4].max() > 1e-2


def test_the_rows_of_the_fit_do_not_follow_themselves(fitted):
    X, _ = hourly()

    alone = clone(fitted).fit(X[:100].to_numpy(), hourly()[1][:100].to_numpy()).predict(X[:100].to_numpy())

    np.testing.assert_array_equal(fitted.predict(X[:100]), alone)


@pytest.mark.parametrize("layout", ["s", "m", "l"])
def test_a_later_row_of_x_never_changes_an_earlier_prediction(layout):
    X, y = hourly()
    model = small(layout=layout, max_epochs=1).fit(X[:80], y[:80])
    changed = X.copy()
    changed.iloc[100:] += 50.0

    before, after = model.predict(X), model.predict(changed)

    np.testing.assert_array_equal(before[:100], after[:100])
    assert (before[100:] != after[100:]).all()


def test_a_row_older_than_the_context_changes_nothing(fitted):
    X, _ = hourly()
    changed = X.copy()
    changed.iloc[:50] += 50.0

    before, after = fitted.predict(X), fitted.predict(changed)

    np.testing.assert_array_equal(before[54:], after[54:])
    assert before[53] != after[53]


def test_the_target_is_never_an_input():
    X, _ = hourly(rows=400)
    y = np.cumsum(np.random.default_rng(5).normal(size=400))  # the last target is all that could be known of it
    y = np.diff(y, prepend=0.0)

    model = small(validation_fraction=0, max_epochs=4).fit(X[:300], y[:300])

    assert model.score(X[300:], y[300:]) < 0.05
    assert model.network_.config.inputs == 2


def test_held_out_targets_do_not_reach_the_weights():
    X, y = hourly()
    other = y.copy()
    other.iloc[96:] = -100.0  # validation is the last fifth; with one epoch that is kept, nothing depends on it
    settings = {"max_epochs": 1, "validation_fraction": 0.2}

    first, second = (small(**settings).fit(X, target) for target in (y, other))

    assert first.history_["train_loss"].tolist()[1] == second.history_["train_loss"].tolist()[1]
    assert first.history_["valid_loss"].tolist() != second.history_["valid_loss"].tolist()
    assert first._y_scaler.level == second._y_scaler.level


# Windows that are already cut


def test_windows_cut_by_hand_give_the_same_predictions(fitted):
    X, _ = hourly()
    contexts, _, origins = make_windows(X, context_length=5, horizon=1)

    cut = fitted.predict(contexts)

    np.testing.assert_allclose(cut, pd.Series(fitted.predict(X), index=X.index)[origins], rtol=1e-6)


def test_fit_on_windows_cut_by_hand_nearly_equals_fit_on_rows():
    X, y = hourly()
    filled = np.vstack([np.full((4, 2), np.nan), X.to_numpy()])
    windows = np.stack([filled[t : t + 5] for t in range(len(X))])

    by_rows, by_windows = small().fit(X.to_numpy(), y), small().fit(windows, y)

    # Level and scale weigh a row by the windows that it is in.
    np.testing.assert_allclose(by_windows.predict(windows), by_rows.predict(X.to_numpy()), atol=0.1)
    assert by_windows.n_features_in_ == 2


def test_windows_are_independent_and_short_ones_are_padded():
    X, _ = hourly()
    contexts, targets, _ = make_windows(X, context_length=3, horizon=1)
    model = small().fit(contexts, targets[:, 0, 0])
    predicted = model.predict(contexts)

    np.testing.assert_allclose(model.predict(contexts[::-1]), predicted[::-1], rtol=1e-5)
    np.testing.assert_allclose(model.predict(contexts[40:41]), predicted[40:41], rtol=1e-5)
    padded = np.concatenate([np.full((len(contexts), 2, 2), np.nan), contexts], axis=1)
    np.testing.assert_array_equal(model.predict(padded), predicted)


# Around it


def test_the_same_seed_gives_the_same_bits_and_global_randomness_is_left_alone():
    X, y = hourly()
    numpy_before, torch_before = np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002

    first, second = (small(dropout=0.3).fit(X, y).predict(X) for _ in range(2))
    small(random_state=None).fit(X, y)

    np.testing.assert_array_equal(first, second)
    assert (small(dropout=0.3, random_state=1).fit(X, y).predict(X) != first).any()
    assert (np.random.get_state()[1] == numpy_before).all()  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), torch_before)


def test_a_model_survives_clone_and_pickle(fitted):
    X, _ = hourly()

    again = pickle.loads(pickle.dumps(fitted))

    np.testing.assert_array_equal(again.predict(X[100:]), fitted.predict(X[100:]))
    assert clone(fitted).get_params() == fitted.get_params()
    assert not hasattr(clone(fitted), "network_")


def test_a_second_fit_forgets_the_first():
    X, y = hourly()
    model = small().fit(X, y)

    model.set_params(context_length=3).fit(X[["x0"]], y)

    fresh = small(context_length=3).fit(X[["x0"]], y)
    np.testing.assert_array_equal(model.predict(X[["x0"]]), fresh.predict(X[["x0"]]))


def test_parallel_fits_equal_those_in_turn():
    X, y = hourly()
    in_turn = [small(random_state=seed).fit(X, y).predict(X) for seed in range(3)]

    together = joblib.Parallel(n_jobs=2, prefer="threads")(
        joblib.delayed(lambda seed: small(random_state=seed).fit(X, y).predict(X))(seed) for seed in range(3)
    )

    np.testing.assert_array_equal(together, in_turn)


def test_a_pipeline_that_keeps_the_index_keeps_the_history():
    X, y = hourly()
    model = Pipeline([("scale", StandardScaler()), ("network", small())])
    arrays = model.fit(X[:100], y[:100]).predict(X[100:])

    frames = clone(model).set_output(transform="pandas").fit(X[:100], y[:100])

    np.testing.assert_allclose(frames.predict(X[100:]), frames.predict(X)[100:], rtol=1e-5)
    assert abs(arrays - frames.predict(X[100:]))[:4].max() > 1e-2
    np.testing.assert_allclose(arrays[4:], frames.predict(X[100:])[4:], rtol=1e-4)


def test_grid_search_over_time_finds_the_context_that_is_needed():
    X, y = hourly(rows=240)
    search = GridSearchCV(
        small(max_epochs=1), {"context_length": [2, 4]}, cv=TimeSeriesSplit(n_splits=2, gap=3), error_score="raise"
    )

    search.fit(X, y)

    assert search.best_params_ == {"context_length": 4}
    assert search.best_score_ > 0.9


def test_a_search_over_targets_of_several_steps_keeps_a_gap_of_one_less():
    X, y = hourly(rows=240)
    horizon = 3
    steps = pd.concat({f"+{k}": y.shift(-k) for k in range(1, horizon + 1)}, axis=1)[:-horizon]
    X = X[:-horizon]
    folds = TimeSeriesSplit(n_splits=2, gap=horizon - 1)
    search = GridSearchCV(small(max_epochs=1), {"context_length": [2, 4]}, cv=folds, error_score="raise")

    search.fit(X, steps)

    for row, length in enumerate((2, 4)):
        scores = []
        for train, test in folds.split(X):
            assert train[-1] + horizon == test[0]  # the last training target is the first test row, not its target
            model = small(max_epochs=1, context_length=length).fit(X.iloc[train], steps.iloc[train])
            scores.append(model.score(X.iloc[test], steps.iloc[test]))
        assert search.cv_results_["mean_test_score"][row] == pytest.approx(np.mean(scores))
    assert search.predict(X[-5:]).shape == (5, horizon)
    assert search.best_params_ == {"context_length": 4}


def test_folds_without_a_gap_see_true_history():
    X, y = hourly(rows=240)

    with_index = cross_val_score(small(), X, y, cv=TimeSeriesSplit(n_splits=2))
    without = cross_val_score(small(), X.to_numpy(), y.to_numpy(), cv=TimeSeriesSplit(n_splits=2))

    assert with_index.min() > 0.99
    assert (with_index > without).all()


def test_a_transformed_target_comes_back_in_its_own_units():
    X, y = hourly(rows=200)
    growing = np.exp(y / 10)
    model = TransformedTargetRegressor(small(), func=np.log, inverse_func=np.exp)

    model.fit(X[:150], growing[:150])

    assert model.score(X[150:], growing[150:]) > 0.98


def test_early_stopping_needs_ten_rows():
    X, y = hourly(rows=60)

    model = small(validation_fraction=0.2)

    assert model.fit(X[:49], y[:49]).history_["valid_loss"].isna().all()
    assert model.fit(X[:50], y[:50]).history_["epoch"].tolist() == [0, 1, 2]


def test_an_interrupted_fit_can_predict(monkeypatch):
    X, y = hourly()
    from xlstm_ts.training import loop

    calls = iter(range(100))
    evaluate = loop.evaluate

    def interrupted(*arguments):
        if next(calls) == 2:  # after the start and one epoch
            raise KeyboardInterrupt
        return evaluate(*arguments)

    monkeypatch.setattr(loop, "evaluate", interrupted)
    model = small(max_epochs=5, validation_fraction=0.2)
    with pytest.raises(KeyboardInterrupt):
        model.fit(X, y)

    assert np.isfinite(model.predict(X)).all()


def test_verbose_shows_progress_and_quiet_is_quiet(capsys):
    X, y = hourly()

    small().fit(X, y)
    assert capsys.readouterr() == ("", "")
    small(verbose=True).fit(X, y)
    assert "training" in capsys.readouterr().err


# What goes wrong


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        ("context_length", 0),
        ("context_length", 2.5),
        ("layout", "x"),
        ("layout", None),
        ("num_blocks", 0),
        ("hidden_size", 0),
        ("num_heads", 3),
        ("conv_width", -1),
        ("dropout", 1.0),
        ("loss", "quantile"),
        ("max_epochs", 0),
        ("steps_per_epoch", 0),
        ("batch_size", 0),
        ("learning_rate", 0.0),
        ("weight_decay", -1.0),
        ("gradient_clip", 0.0),
        ("patience", 0),
        ("validation_fraction", 1.0),
    ],
)
def test_an_impossible_parameter_is_named_before_training(parameter, value, monkeypatch):
    monkeypatch.setattr("xlstm_ts.regressor.train", None)

    with pytest.raises(ParameterError, match=parameter):
        small(**{parameter: value}).fit(*hourly())


def bad_inputs():
    X, y = hourly()
    windows = make_windows(X, 6, 1).contexts
    yield "infinite input", X.replace(X.iloc[3, 0], np.inf), y, "infinity"
    yield "missing target", X, y.where(y.index.hour != 3), "y contains NaN.*Leave out the rows without a target"
    yield "text in a column", X.assign(x1="a"), y, "could not convert"
    yield "text as target", X, y.astype(str) + "a", "y is of type|convert"
    yield "numbers written as text", X, y.astype(str).to_numpy(dtype=str), "y is of type"
    yield "times as target", X, X.index.to_numpy(), "y is of type datetime64"
    yield "sparse target", X, sparse.csr_array(y.to_numpy()[:, None]), "y is of type csr"
    yield "times in a column", X.assign(x1=X.index), y, "of type datetime64.*Put times in the index"
    yield "only times", X.assign(x0=X.index, x1=X.index), y, "of type datetime64.*Put times in the index"
    yield "windows without columns", np.zeros((9, 4, 0)), np.zeros(9), r"0 feature"
    yield "no windows", np.zeros((0, 4, 2)), np.zeros(0), "0 sample"
    yield "one row", X[:1], y[:1], "minimum of 2"
    yield "other length", X, y[:-1].to_numpy(), "inconsistent numbers of samples"
    yield "other times", X, y.shift(freq="h"), "X and y have other times"
    yield "one dimension", X["x0"], y, "Expected"
    yield "four dimensions", np.zeros((3, 2, 2, 2)), np.zeros(3), "dim"
    yield "rows backwards", X[::-1], y[::-1], "comes after a later one"
    yield "several series", pd.concat({"s": X}), y.to_numpy(), "2 levels"
    yield "no target", X, None, "requires y"
    yield "complex", X + 1j, y, "Complex"
    yield "windows too long", windows, np.zeros(len(windows)), "expected 1 to context_length=5"
    yield "windows and targets differ", windows[:, 1:], np.zeros(3), "inconsistent numbers of samples"


@pytest.mark.parametrize(
    ("X", "y", "words"), [case[1:] for case in bad_inputs()], ids=[case[0] for case in bad_inputs()]
)
def test_what_cannot_be_used_is_named_before_training(X, y, words, monkeypatch):
    monkeypatch.setattr("xlstm_ts.regressor.train", None)

    with pytest.raises(DataError, match=words):
        small().fit(X, y)


def test_predict_names_what_does_not_fit_the_model(fitted):
    X, _ = hourly()

    with pytest.raises(NotFittedError):
        small().predict(X)
    with pytest.raises(DataError, match=r"XLSTMRegressor.predict: .*feature names"):
        fitted.predict(X[["x1", "x0"]])
    with pytest.raises(DataError, match="X has 3 columns; fit saw 2"):
        fitted.predict(np.zeros((4, 5, 3)))
    with pytest.raises(DataError, match="expected 1 to context_length=5"):
        fitted.predict(np.zeros((4, 6, 2)))


def test_a_device_that_is_not_here_and_a_loss_that_explodes_are_typed():
    X, y = hourly()

    with pytest.raises(BackendError, match="device='abacus'"):
        small(device="abacus").fit(X, y)
    with pytest.raises(TrainingError, match="learning_rate"):
        small(learning_rate=1e30, max_epochs=5, steps_per_epoch=None).fit(X, y)
