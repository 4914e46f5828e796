"""The callbacks against made-up validation losses, and a real run for what the best weights are."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers import SMALL_NETWORK, generator

from xlstm_ts.data.windows import Windows
from xlstm_ts.nn import ForecastNetwork
from xlstm_ts.training.callbacks import BestWeights, Callback, Progress
from xlstm_ts.training.loop import TrainingConfig, evaluate, train


def play(callback, losses):
    """Tell a callback of epochs with these validation losses; the only weight is the number of the epoch."""
    network = torch.nn.Linear(1, 1, bias=False)
    run = SimpleNamespace(network=network, history=[], best_epoch=None, stop=False, total_steps=len(losses), step=0)
    for epoch, loss in enumerate(losses):
        with torch.no_grad():
            network.weight.fill_(epoch)
        run.history.append({"epoch": epoch, "train_loss": loss, "valid_loss": loss})
        if epoch == 0:
            callback.on_train_start(run)
            continue
        callback.on_step_end(run)
        callback.on_epoch_end(run)
        if run.stop:
            break
    callback.on_train_end(run)
    return run


@pytest.mark.parametrize(
    ("losses", "best"),
    [
        ([5, 4, 3, 2], 3),
        ([5, 2, 3, 4], 1),
        ([1, 2, 3, 4], 0),
        ([3, 2, 2, 2], 1),
        ([2, 2, 2, 2], 0),
        ([5, 3, float("nan"), 4], 1),
    ],
    ids=["the last", "the first epoch", "the start", "the first of equals", "nothing better than the start", "nan"],
)
def test_the_best_weights_are_restored(losses, best):
    run = play(BestWeights(patience=10), losses)

    assert run.best_epoch == best
    assert run.network.weight.item() == best


@pytest.mark.parametrize(
    ("patience", "losses", "epochs"),
    [
        (1, [5, 4, 4, 1], 2),
        (2, [5, 4, 6, 7, 1], 3),
        (2, [5, 4, 6, 3, 7, 7, 1], 5),
        (3, [1, 2, 3, 4, 0], 3),
        (9, [1, 2, 3, 4, 5], 4),
    ],
)
def test_training_stops_after_as_many_epochs_without_anything_better_as_patience_says(patience, losses, epochs):
    run = play(BestWeights(patience), losses)

    assert run.history[-1]["epoch"] == epochs
    assert run.stop == (epochs < len(losses) - 1)


def test_the_weights_that_are_kept_are_copies():
    callback = BestWeights(5)
    network = torch.nn.Linear(1, 1, bias=False)
    run = SimpleNamespace(network=network, history=[{"epoch": 0, "valid_loss": 1.0}])
    with torch.no_grad():
        network.weight.fill_(7)
    callback.on_train_start(run)

    with torch.no_grad():
        network.weight.fill_(-1)
    callback.on_train_end(run)

    assert network.weight.item() == 7


def test_after_a_real_run_the_network_has_the_smallest_validation_loss_of_its_history():
    config = replace(SMALL_NETWORK, backbone="stacked", dropout=0.2)
    training = TrainingConfig(
        max_epochs=15, steps_per_epoch=8, batch_size=8, learning_rate=0.05, weight_decay=0.0, gradient_clip=1.0
    )
    series = np.random.default_rng(0).normal(size=(100, 1))
    windows = Windows.of(series, 8, 2, torch.device("cpu"))
    network = ForecastNetwork.create(config, generator=generator(), device=torch.device("cpu"))
    valid = np.arange(70, 99)

    run = train(
        network,
        windows,
        np.arange(1, 69),
        stop=70,
        valid_origins=valid,
        config=training,
        generator=generator(),
        callbacks=[BestWeights(4)],
    )

    losses = [row["valid_loss"] for row in run.history]
    assert run.best_epoch == int(np.argmin(losses))
    assert 0 < run.best_epoch < len(losses) - 1  # a noisy run, which learns something and then too much
    assert len(losses) == run.best_epoch + 4 + 1
    assert evaluate(network, windows, valid) == min(losses)


def test_progress_counts_the_steps_and_shows_the_losses(capsys):
    play(Progress(), [5, 4, 3.25])

    shown = capsys.readouterr().err
    assert "training" in shown
    assert "2/3" in shown
    assert "valid=3.25" in shown


def test_a_callback_that_overrides_nothing_watches_in_silence(capsys):
    play(Callback(), [2, 1])

    captured = capsys.readouterr()
    assert captured.out == captured.err == ""
