"""The training loop: train -> epoch -> step, and one function for each thing that they need.

AdamW, a learning rate that warms up linearly and falls along a cosine, clipped gradients, weights averaged over the
last steps if wanted, a stop when the loss is not finite. Randomness comes from the generator that is passed; global
seeds are neither read nor set.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from xlstm_ts.checks import is_between, is_whole, require
from xlstm_ts.data.rows import RowWindows
from xlstm_ts.data.windows import Windows
from xlstm_ts.errors import TrainingError
from xlstm_ts.nn.layers import set_dropout_generator
from xlstm_ts.nn.losses import make_loss
from xlstm_ts.nn.network import LINEAR_WEIGHTS, ForecastNetwork
from xlstm_ts.nn.regression import RegressionNetwork
from xlstm_ts.training.callbacks import Callback, Run
from xlstm_ts.training.checkpoint import Checkpoint, TrainingState, facts_of

WARMUP = 0.05  # share of the steps in which the learning rate rises
LINEAR_RATE = 0.03  # share of the learning rate for linear maps, which start at their ridge solution: they overfit fast
EVALUATION_BATCH = 256
MAX_EVALUATION_WINDOWS = 1024  # validation looks at this many windows, evenly spread, at most


@dataclass(frozen=True)
class TrainingConfig:
    """How to train.

    Parameters
    ----------
    max_epochs : int
        Epochs at most.
    steps_per_epoch : int or None
        Batches per epoch at most; None for all windows.
    batch_size : int
        Windows per step.
    learning_rate, weight_decay, gradient_clip : float
        Peak rate and decay of AdamW, and the largest norm of a gradient.
    averaging : float
        Decay per step of the exponential average of the weights, which is what is validated and kept: at 0.99 it
        reaches some hundred steps back, less while fewer have been made. 0 keeps the last weights themselves.

    Raises
    ------
    ParameterError
        A value is impossible; the message names it.
    """

    max_epochs: int
    steps_per_epoch: int | None
    batch_size: int
    learning_rate: float
    weight_decay: float
    gradient_clip: float
    averaging: float = 0.0

    def __post_init__(self):
        for name in ("max_epochs", "batch_size"):
            require(is_whole(getattr(self, name)), name, getattr(self, name), "a whole number, 1 or above")
        some = self.steps_per_epoch is None or is_whole(self.steps_per_epoch)
        require(some, "steps_per_epoch", self.steps_per_epoch, "a whole number, 1 or above, or None for all windows")
        for name in ("learning_rate", "gradient_clip"):
            value = getattr(self, name)
            require(is_between(value, 0, math.inf) and value > 0, name, value, "a finite number above 0")
        decay = self.weight_decay
        require(is_between(decay, 0, math.inf), "weight_decay", decay, "a finite number, 0 or above")
        require(is_between(self.averaging, 0, 1), "averaging", self.averaging, "a number from 0 to below 1")


def train(
    network: ForecastNetwork | RegressionNetwork,
    windows: Windows | RowWindows,
    origins: np.ndarray,
    *,
    stop: int | np.ndarray,
    valid_origins: np.ndarray,
    config: TrainingConfig,
    generator: torch.Generator,
    callbacks: Sequence[Callback] = (),
    checkpoint: Checkpoint | None = None,
) -> Run:
    """Train a network on windows.

    Parameters
    ----------
    network : ForecastNetwork or RegressionNetwork
        Changed in place.
    windows : Windows or RowWindows
        The series to forecast, or rows with targets of their own.
    origins, stop
        Training windows: their origins (of rows, the rows themselves), and the row from which on nothing is a
        training target: a number, or one for each row.
    valid_origins : array
        Held-out windows that decide which epoch was best; without any, the last epoch is.
    config : TrainingConfig
        How to train.
    generator : torch.Generator
        On the CPU; decides the order of the windows. Dropout draws from one of its own, seeded from it.
    callbacks : sequence of Callback
        Called in order.
    checkpoint : Checkpoint, optional
        Where the run is written after its epochs, and where it goes on from if it was written before. It stays there
        when the run is over.

    Returns
    -------
    Run
        With one row of history per epoch, and one for the start if there are held-out windows. An interrupt
        (Ctrl-C) after the first epoch ends the run as if it had been stopped, and `interrupted` says so; before,
        it is raised.

    Raises
    ------
    TrainingError
        A loss was not finite.
    CheckpointError
        The run cannot be written, or what was written is damaged or another run.
    """
    steps = steps_in_epoch(len(origins), config)
    average = _Average(network, config.averaging) if config.averaging else None
    kept = network if average is None else average.module
    run = Run(kept, config.max_epochs * steps)
    optimiser = make_optimiser(network, config)
    seed = int(torch.randint(2**62, (), generator=generator))
    dropout = torch.Generator(windows.values.device).manual_seed(seed)
    set_dropout_generator(network, dropout)
    modules = {"network": network} if average is None else {"network": network, "average": average}
    state = TrainingState(run, modules, optimiser, {"order": generator, "dropout": dropout}, callbacks)
    goes_on = False
    if checkpoint is not None:
        goes_on = checkpoint.begin(state, facts_of(network, windows, origins, stop, valid_origins, config, generator))
    if len(valid_origins) and not goes_on:
        # Where training starts from is a candidate too: it counts as epoch 0.
        loss = evaluate(kept, windows, valid_origins)
        run.history.append(
            {"epoch": 0, "train_loss": math.nan, "valid_loss": loss, "learning_rate": 0.0, "seconds": 0.0}
        )
    _tell(callbacks, "on_train_start", run)
    if checkpoint is not None and not goes_on:
        checkpoint.write(state)  # what cannot be written is known before any long work
    try:
        for number in range(run.step // steps + 1, config.max_epochs + 1):
            if run.stop:
                break
            start = time.perf_counter()
            chosen = torch.randperm(len(origins), generator=generator)[: steps * config.batch_size].numpy()
            train_loss = epoch(network, windows, origins[chosen], stop, optimiser, average, config, run, callbacks)
            valid_loss = evaluate(kept, windows, valid_origins) if len(valid_origins) else math.nan
            _check_finite(valid_loss if len(valid_origins) else train_loss, "validation", number, config)
            rate = config.learning_rate * rate_at(run.step, run.total_steps)
            seconds = time.perf_counter() - start
            row = {"epoch": number, "train_loss": train_loss, "valid_loss": valid_loss}
            run.history.append(row | {"learning_rate": rate, "seconds": seconds})
            _tell(callbacks, "on_epoch_end", run)
            if checkpoint is not None:
                checkpoint.write(state)
    except TrainingError:
        if checkpoint is not None:
            checkpoint.remove()  # to go on would end here again
        raise
    except KeyboardInterrupt:
        if not run.history or run.history[-1]["epoch"] == 0:
            raise
        run.interrupted = True
    finally:
        set_dropout_generator(network, None)
        network.eval()
        _tell(callbacks, "on_train_end", run)
        if average is not None:
            network.load_state_dict(kept.state_dict())
    if not len(valid_origins):  # nothing has looked at the weights since the last step
        last = evaluate(network, windows, origins[-EVALUATION_BATCH:])
        _check_finite(last, "training", run.history[-1]["epoch"], config)
    return run


def epoch(network, windows, origins, stop, optimiser, average, config, run, callbacks) -> float:
    """Go once through the given windows; return the mean loss."""
    network.train()
    losses = []
    for first in range(0, len(origins), config.batch_size):
        batch = windows.batch(origins[first : first + config.batch_size], stop)
        for group in optimiser.param_groups:
            group["lr"] = group["peak"] * rate_at(run.step, run.total_steps)
        loss = step(network, batch, optimiser, config)
        run.step += 1
        if average is not None:
            average.update_parameters(network)
        losses.append(loss)
        _check_finite(loss, "training", run.history[-1]["epoch"] + 1 if run.history else 1, config)
        _tell(callbacks, "on_step_end", run)
    return float(np.mean(losses))


def step(network, batch, optimiser, config) -> float:
    """Take one optimiser step; return the loss before it."""
    optimiser.zero_grad(set_to_none=True)
    prediction, _ = network(**batch.inputs, carry=False)
    loss = make_loss(network.config.loss, network.config.quantile_levels)(
        prediction, batch.target, batch.target_observed
    )
    loss.backward()
    torch.nn.utils.clip_grad_norm_(network.parameters(), config.gradient_clip)
    optimiser.step()
    return loss.item()


@torch.no_grad()
def evaluate(network: ForecastNetwork | RegressionNetwork, windows: Windows | RowWindows, origins: np.ndarray) -> float:
    """Return the mean loss over held-out windows, thinned evenly if they are very many."""
    network.eval()
    loss_of = make_loss(network.config.loss, network.config.quantile_levels)
    origins = origins[:: -(-len(origins) // MAX_EVALUATION_WINDOWS)]
    total, count = 0.0, 0
    for first in range(0, len(origins), EVALUATION_BATCH):
        batch = windows.batch(origins[first : first + EVALUATION_BATCH], len(windows.values))
        prediction, _ = network(**batch.inputs, carry=False)
        observed = int(batch.target_observed.sum())
        total += loss_of(prediction, batch.target, batch.target_observed).item() * observed
        count += observed
    return total / max(count, 1)


def fine_tune(network, windows, origins, *, stop, steps, config, generator) -> None:
    """Take a few steps at a tenth of the learning rate from the present weights, without dropout."""
    optimiser = make_optimiser(network, config, rate=config.learning_rate / 10)
    network.eval()
    for number in range(steps):
        chosen = torch.randint(len(origins), (min(config.batch_size, len(origins)),), generator=generator).numpy()
        loss = step(network, windows.batch(origins[chosen], stop), optimiser, config)
        _check_finite(loss, "fine-tuning", number + 1, config)
    _check_finite(evaluate(network, windows, origins[-EVALUATION_BATCH:]), "fine-tuning", steps, config)


def make_optimiser(network, config: TrainingConfig, *, rate: float | None = None) -> torch.optim.Optimizer:
    """Return AdamW over all weights; only matrices of projections decay, and linear maps move slowly."""
    rate = config.learning_rate if rate is None else rate
    named = list(network.named_parameters())
    linear = [p for name, p in named if name.endswith(LINEAR_WEIGHTS)]
    others = [(name, p) for name, p in named if not name.endswith(LINEAR_WEIGHTS)]
    decayed = [p for name, p in others if name.endswith("weight") and p.dim() >= 2]
    free = [p for name, p in others if not (name.endswith("weight") and p.dim() >= 2)]
    groups = [
        {"params": decayed, "weight_decay": config.weight_decay, "peak": rate},
        {"params": free, "weight_decay": 0.0, "peak": rate},
        {"params": linear, "weight_decay": 0.0, "peak": rate * LINEAR_RATE},
    ]
    return torch.optim.AdamW([group | {"lr": group["peak"]} for group in groups], fused=True)


class _Average(torch.optim.swa_utils.AveragedModel):
    """The exponential average of a network's weights, from its start on."""

    module: ForecastNetwork | RegressionNetwork

    def __init__(self, network: torch.nn.Module, decay: float):
        def update(averages, weights, count):
            torch._foreach_lerp_(averages, weights, 1 - min(decay, (1 + int(count)) / (10 + int(count))))

        super().__init__(network, multi_avg_fn=update)
        self.update_parameters(network)


def rate_at(step: int, total: int) -> float:
    """Return the share of the peak learning rate at a step: a linear rise, then half a cosine down to 0."""
    warmup = max(1, int(total * WARMUP))
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warmup) / max(1, total - warmup))))


def steps_in_epoch(count: int, config: TrainingConfig) -> int:
    """Return the number of batches in an epoch over `count` windows."""
    steps = -(-count // config.batch_size)
    return steps if config.steps_per_epoch is None else min(steps, config.steps_per_epoch)


def _check_finite(loss: float, kind: str, number: int, config: TrainingConfig) -> None:
    if not math.isfinite(loss):
        unit = "step" if kind == "fine-tuning" else "epoch"
        raise TrainingError(
            f"the {kind} loss became {loss} in {unit} {number}; training was stopped. Lower learning_rate="
            f"{config.learning_rate} or gradient_clip={config.gradient_clip}."
        )


def _tell(callbacks: Sequence[Callback], event: str, run: Run) -> None:
    for callback in callbacks:
        getattr(callback, event)(run)
