"""The training loop: the same bits from the same seed, a falling loss, the best weights, and every way to stop."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import SMALL_NETWORK, generator

from xlstm_ts.data.windows import Windows
from xlstm_ts.errors import ParameterError, TrainingError
from xlstm_ts.nn import ForecastNetwork
from xlstm_ts.nn.layers import Dropout
from xlstm_ts.nn.losses import make_loss
from xlstm_ts.training import loop
from xlstm_ts.training.callbacks import BestWeights, Callback
from xlstm_ts.training.loop import (
    LINEAR_RATE,
    TrainingConfig,
    evaluate,
    fine_tune,
    make_optimiser,
    rate_at,
    step,
    steps_in_epoch,
    train,
)

CPU = torch.device("cpu")
NETWORK = SMALL_NETWORK
TRAINING = TrainingConfig(
    max_epochs=3, steps_per_epoch=4, batch_size=16, learning_rate=0.01, weight_decay=0.01, gradient_clip=1.0
)
STOP, ROWS = 90, 120
ORIGINS, VALID = np.arange(1, STOP - 1), np.arange(STOP, ROWS - 1)


def sine_windows():
    return Windows.of(np.sin(np.arange(ROWS) * 2 * np.pi / 11)[:, None], 8, 2, CPU)


def make_network(**changes):
    return ForecastNetwork.create(replace(NETWORK, **changes), generator=generator(), device=CPU)


def run_training(network, config=TRAINING, callbacks=(), valid=VALID, seed=3, windows=None):
    windows = sine_windows() if windows is None else windows
    return train(
        network,
        windows,
        ORIGINS,
        stop=STOP,
        valid_origins=valid,
        config=config,
        generator=generator(seed),
        callbacks=callbacks,
    )


def weights_of(network):
    return {name: value.clone() for name, value in network.state_dict().items()}


def same(left, right):
    return all(torch.equal(left[name], right[name]) for name in left)


class Recorder(Callback):
    """Writes down what it is told, and raises or stops where it is asked to."""

    def __init__(self, interrupt_at=None, stop_at=None):
        self.events, self.interrupt_at, self.stop_at = [], interrupt_at, stop_at

    def on_train_start(self, run):
        self.events.append("start")

    def on_step_end(self, run):
        self.events.append("step")
        if self.interrupt_at == self.events.count("step"):
            raise KeyboardInterrupt

    def on_epoch_end(self, run):
        self.events.append("epoch")
        run.stop = self.stop_at == self.events.count("epoch")

    def on_train_end(self, run):
        self.events.append("end")


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("layout", ["s", "m", "l"])
def test_the_same_seed_gives_the_same_bits(layout, dropout):
    first, second, other = (make_network(layout=layout, dropout=dropout) for _ in range(3))

    runs = [run_training(network, seed=seed) for network, seed in ((first, 3), (second, 3), (other, 4))]

    assert same(weights_of(first), weights_of(second))
    assert not same(weights_of(first), weights_of(other))
    losses = [[row["train_loss"] for row in run.history[1:]] for run in runs]
    assert losses[0] == losses[1]
    assert losses[0] != losses[2]


def test_global_seeds_are_neither_read_nor_moved():
    states = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
        network = make_network(dropout=0.3)

        run_training(network)

        assert torch.equal(torch.get_rng_state(), before[0])
        assert np.array_equal(np.random.get_state()[1], before[1])  # noqa: NPY002
        states.append(weights_of(network))
    assert same(*states)


@pytest.mark.parametrize("loss", ["quantile", "mae", "mse"])
@pytest.mark.parametrize("backbone", ["patch", "stacked"])
def test_the_loss_falls_on_a_sine(backbone, loss):
    config = replace(TRAINING, max_epochs=12, steps_per_epoch=None)

    run = run_training(make_network(backbone=backbone, loss=loss), config)

    losses = [row["valid_loss"] for row in run.history]
    assert losses[-1] < 0.35 * losses[0]
    assert [row["epoch"] for row in run.history] == list(range(13))


def test_history_has_a_row_per_epoch_and_one_for_the_start():
    run = run_training(make_network())

    start, *epochs = run.history
    assert all(row.keys() == {"epoch", "train_loss", "valid_loss", "learning_rate", "seconds"} for row in run.history)
    assert start["epoch"] == 0
    assert math.isnan(start["train_loss"])
    assert [row["epoch"] for row in epochs] == [1, 2, 3]
    assert all(row["seconds"] > 0 and math.isfinite(row["train_loss"]) for row in epochs)
    assert epochs[-1]["learning_rate"] == pytest.approx(0.0, abs=1e-12)
    assert run.total_steps == 12


def test_the_first_row_is_the_loss_of_the_weights_before_training():
    network = make_network()
    before = evaluate(network, sine_windows(), VALID)

    assert run_training(network).history[0]["valid_loss"] == before


def test_without_held_out_windows_there_is_no_validation_loss():
    run = run_training(make_network(), valid=np.arange(0))

    assert [row["epoch"] for row in run.history] == [1, 2, 3]
    assert all(math.isnan(row["valid_loss"]) for row in run.history)
    assert run.best_epoch is None


def test_callbacks_hear_of_every_step_and_epoch_in_order():
    recorder = Recorder()

    run_training(make_network(), replace(TRAINING, max_epochs=2, steps_per_epoch=2), [recorder])

    assert recorder.events == ["start", "step", "step", "epoch", "step", "step", "epoch", "end"]


def test_a_callback_may_stop_the_run_after_an_epoch():
    recorder = Recorder(stop_at=2)

    run = run_training(make_network(), callbacks=[recorder])

    assert recorder.events.count("epoch") == 2
    assert recorder.events[-1] == "end"
    assert not run.interrupted


def test_the_network_ends_in_evaluation_mode_with_its_dropout_given_back():
    network = make_network(dropout=0.3)

    run_training(network)

    assert not network.training
    assert all(part.generator is None for part in network.modules() if isinstance(part, Dropout))


def test_dropout_acts_while_training():
    plain, dropped = make_network(), make_network(dropout=0.5)

    run_training(plain)
    run_training(dropped)

    assert not same(weights_of(plain), weights_of(dropped))


def test_windows_are_drawn_without_repetition_in_an_epoch(monkeypatch):
    drawn = []
    batch = Windows.batch

    def recorded(self, origins, stop):
        if stop == STOP:
            drawn.append(origins)
        return batch(self, origins, stop)

    monkeypatch.setattr(Windows, "batch", recorded)

    run_training(make_network(), replace(TRAINING, steps_per_epoch=None, max_epochs=2))

    epochs = np.split(np.concatenate(drawn), 2)
    assert all(sorted(epoch) == ORIGINS.tolist() for epoch in epochs)
    assert epochs[0].tolist() != epochs[1].tolist()


def test_nothing_from_row_stop_on_is_learned_from():
    windows = sine_windows()
    values = windows.values.clone()
    values[STOP:] = 1e6
    first, second = make_network(), make_network()

    run_training(first, windows=windows, valid=np.arange(0))
    run_training(second, windows=replace(windows, values=values), valid=np.arange(0))

    assert same(weights_of(first), weights_of(second))


def test_a_loss_that_is_not_finite_ends_training_with_the_remedy(monkeypatch):
    calls = []

    def broken(name, levels):
        calls.append(name)
        loss_of = make_loss(name, levels)
        return (lambda *batch: loss_of(*batch) * math.nan) if len(calls) > 6 else loss_of

    monkeypatch.setattr(loop, "make_loss", broken)
    network, recorder = make_network(dropout=0.3), Recorder()

    with pytest.raises(TrainingError) as raised:
        run_training(network, callbacks=[recorder])

    # One call for the start, four for the first epoch and one for its validation: the second epoch it is.
    assert str(raised.value).startswith("the training loss became nan in epoch 2")
    assert "learning_rate=0.01" in str(raised.value)
    assert "gradient_clip=1.0" in str(raised.value)
    assert recorder.events[-1] == "end"
    assert not network.training


def test_a_validation_loss_that_is_not_finite_ends_training():
    windows = sine_windows()
    values = windows.values.clone()
    values[STOP + 5] = math.inf

    with pytest.raises(TrainingError, match="the validation loss became"):
        run_training(make_network(), windows=replace(windows, values=values))


def test_a_learning_rate_beyond_all_measure_ends_training_with_an_error():
    with pytest.raises(TrainingError, match=r"became (nan|inf) in epoch \d; .* Lower learning_rate=1e\+30"):
        run_training(make_network(), replace(TRAINING, learning_rate=1e30))


def test_an_interrupt_in_the_second_epoch_leaves_the_best_weights():
    undisturbed, interrupted = make_network(), make_network()
    run_training(undisturbed, replace(TRAINING, max_epochs=3), [Recorder(stop_at=1)])

    run = run_training(interrupted, callbacks=[BestWeights(5), Recorder(interrupt_at=6)])

    assert run.interrupted
    assert [row["epoch"] for row in run.history] == [0, 1]
    assert run.best_epoch == 1
    assert same(weights_of(interrupted), weights_of(undisturbed))
    assert not interrupted.training


@pytest.mark.parametrize("valid", [VALID, np.arange(0)], ids=["with validation", "without"])
def test_an_interrupt_in_the_first_epoch_is_passed_on(valid):
    network, recorder = make_network(), Recorder(interrupt_at=2)

    with pytest.raises(KeyboardInterrupt):
        run_training(network, callbacks=[recorder], valid=valid)

    assert recorder.events == ["start", "step", "step", "end"]


def test_evaluation_is_the_mean_over_observed_targets_however_it_is_batched(monkeypatch):
    series = np.random.default_rng(0).normal(size=(ROWS, 1))
    series[::5] = np.nan
    windows, network = Windows.of(series, 8, 2, CPU), make_network().eval()
    whole = evaluate(network, windows, VALID)

    monkeypatch.setattr(loop, "EVALUATION_BATCH", 3)

    assert evaluate(network, windows, VALID) == pytest.approx(whole, rel=1e-6)
    batch = windows.batch(VALID, ROWS)
    with torch.no_grad():
        prediction, _ = network(batch.context, batch.context_observed)
    expected = make_loss("quantile", NETWORK.quantile_levels)(prediction, batch.target, batch.target_observed)
    assert whole == pytest.approx(expected.item(), rel=1e-6)


def test_evaluation_thins_very_many_windows_evenly(monkeypatch):
    windows, network = sine_windows(), make_network().eval()
    monkeypatch.setattr(loop, "MAX_EVALUATION_WINDOWS", 10)

    assert evaluate(network, windows, VALID) == evaluate(network, windows, VALID[::3])


def test_fine_tuning_changes_the_weights_deterministically_and_without_dropout():
    start = make_network(dropout=0.5)
    run_training(start)
    results = []
    for seed, dropout in ((7, 0.5), (7, 0.5), (7, 0.0), (8, 0.5)):
        network = make_network(dropout=dropout)
        network.load_state_dict(start.state_dict())
        before = torch.get_rng_state()

        fine_tune(
            network,
            sine_windows(),
            ORIGINS,
            stop=STOP,
            steps=3,
            config=TRAINING,
            generator=generator(seed),
        )

        assert torch.equal(torch.get_rng_state(), before)
        assert not network.training
        results.append(weights_of(network))
    assert same(results[0], results[1])
    assert same(results[0], results[2])
    assert not same(results[0], results[3])
    moves = [(results[0][name] - value).abs().max().item() for name, value in start.state_dict().items()]
    assert 0 < max(moves) <= 3.5 * TRAINING.learning_rate / 10  # each step of Adam moves about the rate


def test_fine_tuning_no_steps_changes_nothing():
    network = make_network()
    before = weights_of(network)

    fine_tune(network, sine_windows(), ORIGINS, stop=STOP, steps=0, config=TRAINING, generator=generator())

    assert same(weights_of(network), before)


def test_averaged_weights_are_what_is_validated_and_kept():
    class Follow(Callback):
        """Average by hand."""

        def __init__(self, network):
            self.network, self.average, self.count = network, weights_of(network), 0

        def on_step_end(self, run):
            self.count += 1
            decay = min(0.9, (1 + self.count) / (10 + self.count))
            for name, value in self.network.state_dict().items():
                self.average[name] += (1 - decay) * (value - self.average[name])

    network, plain = make_network(dropout=0.2), make_network(dropout=0.2)
    follow = Follow(network)
    run = run_training(network, replace(TRAINING, averaging=0.9), [follow])
    run_training(plain)

    assert follow.count == 12
    for name, value in network.state_dict().items():
        torch.testing.assert_close(value, follow.average[name])
    assert not same(weights_of(network), weights_of(plain))
    assert run.history[-1]["valid_loss"] == evaluate(network, sine_windows(), VALID)
    best = make_network(dropout=0.2)
    run = run_training(best, replace(TRAINING, averaging=0.9, max_epochs=8, learning_rate=0.3), [BestWeights(1)])
    losses = [row["valid_loss"] for row in run.history]
    assert evaluate(best, sine_windows(), VALID) == min(losses)


@pytest.mark.parametrize("total", [1, 2, 19, 40, 1000])
def test_the_rate_rises_linearly_then_falls_along_half_a_cosine(total):
    warmup = max(1, int(total * 0.05))
    rates = [rate_at(number, total) for number in range(total + 1)]

    assert all(0 < rate <= 1 for rate in rates[:-1])
    assert rates[:warmup] == pytest.approx([(number + 1) / (warmup + 1) for number in range(warmup)])
    assert (np.diff(rates[warmup:]) < 0).all()
    if total > 1:
        assert rates[warmup] == 1
        assert rates[-1] == pytest.approx(0, abs=1e-12)
        middle = (warmup + total) / 2
        if middle == int(middle):
            assert rates[int(middle)] == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("count", "limit", "expected"), [(32, None, 2), (33, None, 3), (1, None, 1), (1000, 4, 4), (20, 4, 2)]
)
def test_an_epoch_is_all_windows_or_the_limit_if_that_is_less(count, limit, expected):
    assert steps_in_epoch(count, replace(TRAINING, batch_size=16, steps_per_epoch=limit)) == expected


@pytest.mark.parametrize("linear_skip", [True, False])
def test_linear_maps_move_slowly_because_they_start_at_their_solution(linear_skip):
    network = make_network(backbone="mixer", linear_skip=linear_skip)
    named = {id(p): name for name, p in network.named_parameters()}

    *others, linear = make_optimiser(network, TRAINING).param_groups

    names = {named[id(p)] for p in linear["params"]}
    assert names == {"backbone.forecast_weight"} | ({"skip_weight"} if linear_skip else set())
    assert linear["lr"] == TRAINING.learning_rate * LINEAR_RATE
    assert {group["lr"] for group in others} == {TRAINING.learning_rate}


def test_only_matrices_of_projections_decay():
    network = make_network(layout="sml")
    named = {id(p): name for name, p in network.named_parameters()}

    groups = make_optimiser(network, TRAINING).param_groups

    decayed, free, linear = ({named[id(p)] for p in group["params"]} for group in groups)
    assert [group["weight_decay"] for group in groups] == [0.01, 0.0, 0.0]
    assert decayed | free | linear == set(named.values())
    assert not decayed & free
    assert {"backbone.embed.weight", "head.head_weight"} <= decayed
    assert linear == {"skip_weight"}
    assert not [name for name in decayed if "bias" in name or "norm" in name]


def test_a_training_takes_the_steps_of_adamw_as_its_paper_writes_them(monkeypatch):
    """Loshchilov and Hutter 2019, algorithm 2: in float64, from the gradients that the training itself met."""
    config = replace(TRAINING, weight_decay=0.3)
    network = make_network(layout="sm")
    taken = []
    real = loop.step

    def recorded(*arguments):
        loss = real(*arguments)
        taken.append({name: (p.grad.double(), p.detach().double()) for name, p in network.named_parameters()})
        return loss

    monkeypatch.setattr(loop, "step", recorded)
    weight = {name: p.detach().double() for name, p in network.named_parameters()}
    first, second = (dict.fromkeys(weight, 0.0) for _ in range(2))

    run_training(network, config)

    total = config.max_epochs * config.steps_per_epoch
    assert len(taken) == total
    for number, step_taken in enumerate(taken, start=1):
        for name, (gradient, got) in step_taken.items():
            linear = name == "skip_weight"
            decays = name.endswith("weight") and gradient.dim() > 1 and not linear
            rate = config.learning_rate * rate_at(number - 1, total) * (LINEAR_RATE if linear else 1)
            first[name] = 0.9 * first[name] + 0.1 * gradient
            second[name] = 0.999 * second[name] + 0.001 * gradient**2
            moved = (first[name] / (1 - 0.9**number)) / ((second[name] / (1 - 0.999**number)).sqrt() + 1e-8)
            weight[name] = weight[name] - rate * (moved + (config.weight_decay if decays else 0) * weight[name])
            torch.testing.assert_close(got, weight[name], rtol=1e-5, atol=1e-6, msg=f"{name}, step {number}")


@pytest.mark.parametrize(("clip", "expected"), [(1e-3, 1e-3), (1e6, None)], ids=["clipped", "left as it is"])
def test_gradients_are_clipped_to_their_norm(clip, expected):
    network, windows = make_network(), sine_windows()
    config = replace(TRAINING, gradient_clip=clip)
    batch = windows.batch(ORIGINS, STOP)
    prediction, _ = network(batch.context, batch.context_observed)
    make_loss("quantile", NETWORK.quantile_levels)(prediction, batch.target, batch.target_observed).backward()
    raw = torch.stack([p.grad.norm() for p in network.parameters()]).norm().item()

    step(network, batch, make_optimiser(network, config), config)

    norm = torch.stack([p.grad.norm() for p in network.parameters()]).norm().item()
    assert raw > 1e-2
    assert norm == pytest.approx(raw if expected is None else expected, rel=1e-4)


@pytest.mark.parametrize("value", [0, -1])
@pytest.mark.parametrize("name", ["max_epochs", "steps_per_epoch", "batch_size", "learning_rate", "gradient_clip"])
def test_what_must_be_positive_is_refused_by_name(name, value):
    with pytest.raises(ParameterError, match=rf"^{name}={value} is impossible; expected "):
        replace(TRAINING, **{name: value})


@pytest.mark.parametrize("name", ["max_epochs", "steps_per_epoch", "batch_size"])
def test_what_is_counted_must_be_whole(name):
    with pytest.raises(ParameterError, match=rf"^{name}=2\.5 is impossible; expected a whole number"):
        replace(TRAINING, **{name: 2.5})


@pytest.mark.parametrize("name", ["learning_rate", "gradient_clip", "weight_decay"])
@pytest.mark.parametrize("value", [math.nan, "fast"])
def test_rates_must_be_numbers(name, value):
    with pytest.raises(ParameterError, match=f"^{name}={value!r} is impossible"):
        replace(TRAINING, **{name: value})


def test_a_negative_decay_is_refused_and_none_is_fine():
    with pytest.raises(ParameterError, match=r"^averaging=1\.0 is impossible"):
        replace(TRAINING, averaging=1.0)
    with pytest.raises(ParameterError, match=r"^weight_decay=-0\.1 is impossible"):
        replace(TRAINING, weight_decay=-0.1)
    assert replace(TRAINING, weight_decay=0, steps_per_epoch=None).weight_decay == 0
