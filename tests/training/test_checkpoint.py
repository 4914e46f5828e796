"""A run that was killed goes on and ends with the same bits; what is damaged or of another run is refused."""

import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import SMALL_NETWORK, generator, monthly, tiny_forecaster
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, TimeSeriesSplit

from xlstm_ts import XLSTMForecaster, XLSTMRegressor, archive
from xlstm_ts.data.windows import Windows
from xlstm_ts.errors import CheckpointError, ParameterError, TrainingError, XLSTMError
from xlstm_ts.nn import ForecastNetwork
from xlstm_ts.training import checkpoint as module
from xlstm_ts.training import loop
from xlstm_ts.training.callbacks import BestWeights, Callback, Progress
from xlstm_ts.training.checkpoint import Checkpoint
from xlstm_ts.training.loop import TrainingConfig, train

CPU = torch.device("cpu")
TRAINING = TrainingConfig(
    max_epochs=5, steps_per_epoch=3, batch_size=16, learning_rate=0.01, weight_decay=0.01, gradient_clip=1.0
)
STOP, ROWS = 90, 120
VALID = np.arange(STOP, ROWS - 1)


class Killed(BaseException):
    """What no code of ours catches, as little as a signal that kills."""


class KillAt(Callback):
    """Ends a run in the midst of its n-th step."""

    def __init__(self, step):
        self.step = step

    def on_step_end(self, run):
        if run.step == self.step:
            raise Killed


@pytest.fixture(autouse=True)
def write_after_every_epoch(monkeypatch):
    """Whether a write pays depends on the clock; here each is made."""
    monkeypatch.setattr(module, "PAUSE", 0)


def noisy_windows(seed=0, columns=1):
    noise = np.random.default_rng(seed).normal(size=(ROWS, columns))
    return Windows.of(np.sin(np.arange(ROWS) * 2 * np.pi / 11)[:, None] + 0.3 * noise, 8, 2, CPU)


def run_training(path, *, network=None, config=TRAINING, valid=VALID, patience=9, seed=3, windows=None, watch=()):
    windows = noisy_windows() if windows is None else windows
    changes = {"dropout": 0.3, "channels": windows.values.shape[1]} | (network or {})
    made = ForecastNetwork.create(replace(SMALL_NETWORK, **changes), generator=generator(), device=CPU)
    run = train(
        made,
        windows,
        np.arange(1, STOP - 1),
        stop=STOP,
        valid_origins=valid,
        config=config,
        generator=generator(seed),
        callbacks=[*([BestWeights(patience)] if len(valid) else []), *watch],
        checkpoint=None if path is None else Checkpoint(path, "test", {"patience": patience}),
    )
    return made, run


def assert_same(left, right):
    (network, run), (others, other) = left, right
    for name, value in network.state_dict().items():
        assert torch.equal(value, others.state_dict()[name]), name
    rows, other_rows = (pd.DataFrame(one.history).drop(columns="seconds") for one in (run, other))
    pd.testing.assert_frame_equal(rows, other_rows, check_exact=True)
    assert (run.best_epoch, run.step, run.stop) == (other.best_epoch, other.step, other.stop)


def broken_off(path, step=8, **options):
    """Leave the checkpoint of a run that was killed."""
    with pytest.raises(Killed):
        run_training(path, watch=[KillAt(step)], **options)
    return path


RUNS = {
    "patch": {"network": {"backbone": "patch", "layout": "sm"}},
    "stacked": {"network": {"backbone": "stacked", "layout": "ml"}},
    "mixer": {"network": {"backbone": "mixer"}, "windows": noisy_windows(columns=3)},
    "averaged": {"config": replace(TRAINING, averaging=0.9)},
    "without validation": {"valid": np.arange(0)},
    "averaged, without validation": {"config": replace(TRAINING, averaging=0.9), "valid": np.arange(0)},
    "stopped early": {"config": replace(TRAINING, learning_rate=0.1, averaging=0.5, max_epochs=12), "patience": 1},
}


@pytest.mark.parametrize("name", RUNS)
def test_a_run_that_was_killed_twice_equals_one_that_was_not(name, tmp_path):
    whole = run_training(None, **RUNS[name])
    last = whole[1].step

    for first, second in [(1, 2), (5, 9), (7, last), (last - 1, last)]:
        path = tmp_path / f"{first}.ckpt"
        for step in (first, second):
            broken_off(path, step, **RUNS[name])
        assert_same(run_training(path, **RUNS[name]), whole)


def test_one_case_stops_early_so_that_stopping_is_seen_to_go_on():
    _, run = run_training(None, **RUNS["stopped early"])

    assert run.stop
    assert 0 < run.best_epoch < run.step // 3 < 12


def test_a_run_that_is_over_is_over_at_once_when_it_is_called_again(tmp_path):
    whole = run_training(tmp_path / "a", patience=2, config=replace(TRAINING, learning_rate=0.3))

    again = run_training(tmp_path / "a", patience=2, config=replace(TRAINING, learning_rate=0.3), watch=[KillAt(1)])

    assert_same(again, whole)


def test_an_interrupted_run_goes_on_too(tmp_path):
    class Interrupt(Callback):
        def on_step_end(self, run):
            if run.step == 11:
                raise KeyboardInterrupt

    _, interrupted = run_training(tmp_path / "a", watch=[Interrupt()])

    assert interrupted.interrupted
    assert [row["epoch"] for row in interrupted.history] == [0, 1, 2, 3]
    assert_same(run_training(tmp_path / "a"), run_training(None))


def test_nothing_is_drawn_or_computed_again_but_the_epoch_that_was_broken_off(tmp_path):
    class Count(Callback):
        steps = 0

        def on_step_end(self, run):
            self.steps += 1

    count = Count()
    broken_off(tmp_path / "a", step=11)
    run_training(tmp_path / "a", watch=[count])

    assert count.steps == 15 - 9


def test_progress_goes_on_where_it_was(tmp_path, capsys):
    broken_off(tmp_path / "a", step=11)
    run_training(tmp_path / "a", watch=[Progress()])

    shown = capsys.readouterr().err
    assert "9/15" in shown
    assert "15/15" in shown


# What is refused


def changed(name):
    """Return what a run is of, with one thing changed, and how the message calls that."""
    windows = noisy_windows()
    values = windows.values.clone()
    values[100] += 1e-3
    features = torch.zeros(ROWS, 1), torch.ones(1, dtype=torch.bool)
    return {
        "y": ({"windows": replace(windows, values=values)}, r"differ: y\. "),
        "missing": ({"windows": replace(windows, observed=windows.observed & (values != values[100]))}, r"differ: y\."),
        "X": ({"windows": replace(windows, covariates=features[0], known=features[1])}, r"differ: X\. "),
        "rows": ({"valid": VALID[:-1]}, "differ: rows to learn from"),
        "seed": ({"seed": 4}, r"differ: random_state\. "),
        "rate": ({"config": replace(TRAINING, learning_rate=0.02)}, "learning_rate=0.01 there, 0.02 here"),
        "epochs": ({"config": replace(TRAINING, max_epochs=6)}, "max_epochs=5 there, 6 here"),
        "averaging": ({"config": replace(TRAINING, averaging=0.5)}, r"averaging=0\.0 there, 0\.5 here"),
        "dropout": ({"network": {"dropout": 0.2}}, r"dropout=0\.3 there, 0\.2 here"),
        "layout": ({"network": {"layout": "m"}}, "layout='s' there, 'm' here"),
        "patience": ({"patience": 8}, "patience=9 there, 8 here"),
    }[name]


@pytest.mark.parametrize(
    "name", ["y", "missing", "X", "rows", "seed", "rate", "epochs", "averaging", "dropout", "layout", "patience"]
)
def test_another_run_is_refused_and_what_differs_is_named(name, tmp_path):
    options, message = changed(name)
    path = broken_off(tmp_path / "a.ckpt")
    before = path.read_bytes()

    with pytest.raises(CheckpointError, match=rf"a\.ckpt is of another run.*{message}.*delete the file or give"):
        run_training(path, **options)

    assert path.read_bytes() == before


@pytest.mark.parametrize(("what", "name"), [("__version__", "xlstm_ts"), ("torch.__version__", "torch")])
def test_another_version_is_refused_in_a_folder_too(what, name, tmp_path, monkeypatch):
    broken_off(tmp_path)
    monkeypatch.setattr(f"xlstm_ts.training.checkpoint.{what}", "9.9")

    with pytest.raises(CheckpointError, match=rf"differ: {name}='.*' there, '9\.9' here"):
        run_training(tmp_path)


def test_no_damage_goes_unseen(tmp_path):
    data = broken_off(tmp_path / "whole").read_bytes()
    random, path = np.random.default_rng(0), tmp_path / "damaged"

    for place in [*range(0, 40, 8), *range(len(data) - 100, len(data), 7), *random.integers(len(data), size=100)]:
        flipped = bytearray(data)
        flipped[place] ^= 1 << random.integers(8)
        path.write_bytes(flipped)
        with pytest.raises(CheckpointError, match=r"damaged is (damaged|not a whole checkpoint).* Delete it to begin"):
            run_training(path)
    for size in [0, 1, 71, len(data) - 1, *random.integers(len(data), size=60)]:
        path.write_bytes(data[:size])
        with pytest.raises(CheckpointError, match=r"damaged is .*Delete it to begin anew"):
            run_training(path)


def rewritten(path, change):
    """Change what a checkpoint says, and seal it anew."""
    config, arrays = archive.read_archive(path, module.CHECKPOINT, "test")
    change(config, arrays)
    archive.write_archive(path, config, arrays, module.CHECKPOINT, "test")


@pytest.mark.parametrize(
    "change",
    [
        lambda config, arrays: config.pop("run"),
        lambda config, arrays: config["run"].pop("step"),
        lambda config, arrays: arrays.pop("module.network.skip_weight"),
        lambda config, arrays: arrays.pop("generator.order"),
        lambda config, arrays: arrays.update({"generator.order": np.zeros(3, dtype=np.uint8)}),
        lambda config, arrays: arrays.update({"optimiser.0.exp_avg": np.zeros((2, 2), dtype=np.float32)}),
        lambda config, arrays: arrays.update({"module.network.skip_weight": np.zeros(2, dtype=np.float32)}),
        lambda config, arrays: config["run"].update(best_epoch=77),
    ],
)
def test_a_sealed_file_that_is_no_such_run_is_refused(change, tmp_path):
    path = broken_off(tmp_path / "a")
    rewritten(path, change)

    with pytest.raises(CheckpointError, match="is not the checkpoint of such a run"):
        run_training(path)


def test_a_file_of_another_kind_is_never_written_over(tmp_path):
    (tmp_path / "notes.txt").write_text("dear diary")
    tiny_forecaster().fit(monthly()["a"]).save_model(tmp_path / "model")

    for name in ("notes.txt", "model"):
        before = (tmp_path / name).read_bytes()
        with pytest.raises(CheckpointError, match=r"[Dd]elete (it|the file)"):
            run_training(tmp_path / name)
        assert (tmp_path / name).read_bytes() == before


# Writing


class DiskFull:
    """Lets the n-th call of functions that write fail, and all later ones."""

    def __init__(self, monkeypatch, n):
        self.calls, self.n = 0, n
        for name in ("open", "write", "fsync", "replace"):
            monkeypatch.setattr(archive.os, name, self.wrap(getattr(os, name)))

    def wrap(self, original):
        def call(*arguments, **options):
            self.calls += 1
            if self.calls >= self.n:
                raise OSError(28, "No space left on device")
            return original(*arguments, **options)

        return call


@pytest.mark.parametrize("n", range(1, 14))
def test_a_full_disk_ends_a_run_before_it_starts_or_leaves_it_able_to_go_on(n, tmp_path, monkeypatch):
    path, steps = tmp_path / "a", []

    class Count(Callback):
        def on_step_end(self, run):
            steps.append(run.step)

    with monkeypatch.context() as patch:
        DiskFull(patch, n)
        with pytest.raises(CheckpointError, match=r"cannot be written .No space left.*What was there before is as it"):
            run_training(path, watch=[Count()])

    if n <= 4:  # open, write, fsync, replace
        assert steps == []
        assert os.listdir(tmp_path) == []
    else:
        assert os.listdir(tmp_path) == ["a"]
        assert_same(run_training(path), run_training(None))


def test_where_nothing_can_be_written_is_said_before_a_step_is_taken(tmp_path):
    with pytest.raises(CheckpointError, match=r"there is no folder .*nowhere"):
        run_training(tmp_path / "nowhere" / "a", watch=[KillAt(1)])
    with pytest.raises(ParameterError, match=r'checkpoint=3 is not the name of a file. Give one, such as "fit.ckpt"'):
        run_training(3)


def test_of_two_runs_with_one_file_the_first_to_see_it_says_so(tmp_path):
    class Other(Callback):
        def on_step_end(self, run):
            if run.step == 5:
                (tmp_path / "a").unlink()
                run_training(tmp_path / "a", seed=4)

    with pytest.raises(CheckpointError, match=r"another fit writes to .*Let each have a file of its own"):
        run_training(tmp_path / "a", watch=[Other()])

    assert_same(run_training(tmp_path / "a", seed=4), run_training(None, seed=4))


def test_runs_do_not_meet_in_a_folder(tmp_path):
    for seed in (3, 4):
        broken_off(tmp_path, step=11, seed=seed)

    assert len(os.listdir(tmp_path)) == 2
    for seed in (3, 4):
        assert_same(run_training(tmp_path, seed=seed), run_training(None, seed=seed))


def test_a_file_that_is_deleted_meanwhile_is_written_again(tmp_path):
    class Delete(Callback):
        def on_step_end(self, run):
            if run.step in (2, 8):
                (tmp_path / "a").unlink()

    run_training(tmp_path / "a", watch=[Delete()])

    assert os.listdir(tmp_path) == ["a"]


def test_a_loss_that_is_not_finite_leaves_nothing_to_go_on_from(tmp_path):
    with pytest.raises(TrainingError):
        run_training(tmp_path / "a", config=replace(TRAINING, learning_rate=1e30))

    assert os.listdir(tmp_path) == []


def test_writing_takes_its_share_of_the_time_at_most(tmp_path, monkeypatch):
    """A write takes 1 s here and an epoch 15 s: with a share of 2 % every fourth epoch is written, not each."""
    monkeypatch.setattr(module, "PAUSE", 50)
    clock, written = [0.0], []

    class Epoch(Callback):
        def on_epoch_end(self, run):
            clock[0] += 15.0

    def write(target, config, *rest):
        written.append(len(config["run"]["history"]) - 1)
        clock[0] += 1.0

    monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(module, "write_archive", write)
    run_training(tmp_path / "a", config=replace(TRAINING, max_epochs=13), watch=[Epoch()])

    assert written == [0, 4, 8, 12]


def test_what_a_killed_writer_left_is_cleared_away_but_not_what_is_being_written(tmp_path):
    old, new, other = (tmp_path / name for name in (".a.0123.part", ".a.4567.part", ".b.0123.part"))
    for part in (old, new, other):
        part.write_bytes(b"half")
    for part in (old, other):
        os.utime(part, (0, 0))

    run_training(tmp_path / "a")

    assert sorted(os.listdir(tmp_path)) == [".a.4567.part", ".b.0123.part", "a"]


def test_errors_of_checkpoints_are_ours_and_of_the_system():
    assert issubclass(CheckpointError, XLSTMError)
    assert issubclass(CheckpointError, OSError)


# Estimators


FORECASTERS = {
    "calibrated": {"calibrate": "adaptive"},
    "refitted": {"refit_on_all": True, "linear_skip": False},
    "point": {"loss": "mse"},
    "averaged": {"context_length": (8, 8, 16)},
}
SERIES = monthly(150)["a"]


def forecaster(**changes):
    settings = {"validation_fraction": 0.6, "max_epochs": 3, "steps_per_epoch": 3, "learning_rate": 0.02}
    return tiny_forecaster(**settings | changes)


@pytest.fixture
def kill_at(monkeypatch):
    """Return how to kill whatever trains in its n-th step from now on; None lets it live."""
    calls, last = [0], [math.inf]
    step = loop.step

    def killing(*arguments):
        calls[0] += 1
        if calls[0] == last[0]:
            raise Killed
        return step(*arguments)

    def at(n):
        calls[0], last[0] = 0, math.inf if n is None else n

    monkeypatch.setattr(loop, "step", killing)
    return at


@pytest.mark.parametrize("in_folder", [False, True], ids=["file", "folder"])
@pytest.mark.parametrize("name", FORECASTERS)
def test_a_forecaster_that_was_killed_becomes_the_one_that_was_not(name, in_folder, tmp_path, kill_at):
    path = tmp_path if in_folder else tmp_path / "fit.ckpt"
    whole = forecaster(**FORECASTERS[name]).fit(SERIES)
    for n in (2, 5, 4, 6):  # with a second training on all rows the later ones fall into it
        kill_at(n)
        try:
            forecaster(checkpoint=path, **FORECASTERS[name]).fit(SERIES)
        except Killed:
            assert os.listdir(tmp_path)
    kill_at(None)

    model = forecaster(checkpoint=path, **FORECASTERS[name]).fit(SERIES)

    assert os.listdir(tmp_path) == []
    levels = {"fh": [1, 3, 5], "alpha": [0.1, 0.5, 0.8]}
    expected, got = whole.predict_quantiles(**levels), model.predict_quantiles(**levels)
    pd.testing.assert_frame_equal(got, expected, check_exact=True)
    seconds = ["seconds"]
    pd.testing.assert_frame_equal(model.history_.drop(columns=seconds), whole.history_.drop(columns=seconds))
    assert model.best_epoch_ == whole.best_epoch_


def test_the_second_training_goes_on_without_the_first(tmp_path, kill_at):
    settings = FORECASTERS["refitted"] | {"patience": 3, "checkpoint": tmp_path / "fit.ckpt"}
    whole = forecaster(**settings).fit(SERIES)
    assert whole.best_epoch_ > 0
    kill_at(9 + 3 * whole.best_epoch_)  # its last step
    with pytest.raises(Killed):
        forecaster(**settings).fit(SERIES)
    assert sorted(os.listdir(tmp_path)) == ["fit.ckpt", "fit.ckpt.all0"]

    kill_at(4)  # an epoch is broken off, of three steps, and no more is left
    model = forecaster(**settings).fit(SERIES)

    assert os.listdir(tmp_path) == []
    pd.testing.assert_series_equal(model.predict(fh=[1, 4]), whole.predict(fh=[1, 4]), check_exact=True)


def test_pretraining_goes_on_too(tmp_path, kill_at):
    panel = pd.concat({"u": monthly(150), "v": monthly(140, seed=1)}, names=["key", "time"])
    whole = forecaster().pretrain(panel).fit(SERIES[40:])
    kill_at(7)
    with pytest.raises(Killed):
        forecaster(checkpoint=tmp_path / "a").pretrain(panel)
    kill_at(None)

    model = forecaster(checkpoint=tmp_path / "a").pretrain(panel).fit(SERIES[40:])

    assert os.listdir(tmp_path) == []
    pd.testing.assert_series_equal(model.predict(fh=[1, 4]), whole.predict(fh=[1, 4]), check_exact=True)


def test_an_interrupted_fit_is_complete_and_can_still_go_on(tmp_path, monkeypatch):
    whole = forecaster().fit(SERIES)
    step, calls = loop.step, []

    def interrupted(*arguments):
        calls.append(1)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return step(*arguments)

    monkeypatch.setattr(loop, "step", interrupted)
    model = forecaster(checkpoint=tmp_path / "a")
    with pytest.raises(KeyboardInterrupt):
        model.fit(SERIES)

    assert np.isfinite(model.predict(fh=[1, 2])).all()
    assert len(model.history_) == 2
    assert os.listdir(tmp_path) == ["a"]
    model.fit(SERIES)
    assert os.listdir(tmp_path) == []
    pd.testing.assert_series_equal(model.predict(fh=[1, 4]), whole.predict(fh=[1, 4]), check_exact=True)


def test_a_series_that_grew_is_another_fit(tmp_path, kill_at):
    kill_at(5)
    with pytest.raises(Killed):
        forecaster(checkpoint=tmp_path / "a").fit(SERIES[:-1])

    with pytest.raises(CheckpointError, match=r"^XLSTMForecaster\.fit: the checkpoint .*a is of another run.* y[;.]"):
        forecaster(checkpoint=tmp_path / "a").fit(SERIES)
    with pytest.raises(CheckpointError, match=r"validation_fraction=0\.6 there, 0\.5 here"):
        forecaster(checkpoint=tmp_path / "a", validation_fraction=0.5).fit(SERIES[:-1])


def regression_rows(rows=80):
    X = np.random.default_rng(0).normal(size=(rows, 2))
    return X, np.roll(X[:, 0], 1) + 0.1 * X[:, 1] ** 2


def regressor(**changes):
    settings = {"context_length": 3, "hidden_size": 4, "num_heads": 1, "max_epochs": 4, "steps_per_epoch": 2}
    return XLSTMRegressor(**settings | {"random_state": 0, "learning_rate": 0.02} | changes)


def test_a_regressor_that_was_killed_becomes_the_one_that_was_not(tmp_path, kill_at):
    X, y = regression_rows()
    for n in (2, 5):
        kill_at(n)
        with pytest.raises(Killed):
            regressor(checkpoint=tmp_path / "a").fit(X, y)
    with pytest.raises(CheckpointError, match=r"^XLSTMRegressor\.fit: .* of another run.* differ: y\."):
        regressor(checkpoint=tmp_path / "a").fit(X, y + np.arange(80))
    with pytest.raises(CheckpointError, match=r"differ: X\."):
        regressor(checkpoint=tmp_path / "a").fit(X[:, ::-1], y)
    kill_at(None)

    model, whole = regressor(checkpoint=tmp_path / "a").fit(X, y), regressor().fit(X, y)

    assert os.listdir(tmp_path) == []
    np.testing.assert_array_equal(model.predict(X), whole.predict(X))


def test_a_search_goes_on_in_a_folder(tmp_path, kill_at):
    X, y = regression_rows()

    def search(checkpoint):
        model, grid = regressor(checkpoint=checkpoint, max_epochs=3), {"dropout": [0.0, 0.2]}
        return GridSearchCV(model, grid, cv=TimeSeriesSplit(2), error_score="raise").fit(X, y)

    kill_at(16)
    with pytest.raises(Killed):
        search(tmp_path)
    assert len(os.listdir(tmp_path)) == 1
    kill_at(None)

    found, expected = search(tmp_path), search(None)

    assert os.listdir(tmp_path) == []
    scores = "mean_test_score"
    np.testing.assert_array_equal(found.cv_results_[scores], expected.cv_results_[scores])
    np.testing.assert_array_equal(found.predict(X), expected.predict(X))


@pytest.mark.parametrize("make", [tiny_forecaster, regressor])
def test_the_parameter_is_stored_cloned_and_saved_like_any_other(make, tmp_path):
    for value in ("fit.ckpt", Path("fit.ckpt"), None):
        model = make(checkpoint=value)
        assert clone(model).get_params()["checkpoint"] == value
        assert make().set_params(checkpoint=value).checkpoint is value
    model = make(checkpoint=tmp_path / "fit.ckpt")
    data = (SERIES,) if isinstance(model, XLSTMForecaster) else regression_rows()

    model.fit(*data).save_model(tmp_path / "model")

    assert type(model).load_model(tmp_path / "model").get_params()["checkpoint"] == tmp_path / "fit.ckpt"


@pytest.mark.parametrize("make", [tiny_forecaster, regressor])
def test_what_cannot_be_a_checkpoint_is_said_at_once(make):
    data = (SERIES,) if make is tiny_forecaster else regression_rows()

    with pytest.raises(ParameterError, match=r"fit: checkpoint='a' needs a random_state. Give a whole number"):
        make(checkpoint="a", random_state=None).fit(*data)
    with pytest.raises(ParameterError, match="fit: checkpoint=7 is not the name of a file"):
        make(checkpoint=7).fit(*data)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_fits_that_are_killed_by_the_system_end_as_if_nothing_had_happened(tmp_path):
    script = Path(__file__).with_name("killed_fits.py")

    options = {"env": os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}, "capture_output": True, "text": True}
    done = subprocess.run([sys.executable, script, "6", tmp_path], timeout=100, **options)

    assert done.returncode == 0, done.stderr
    assert "6 kills" in done.stdout
