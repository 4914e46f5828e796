"""What may watch a training run: a protocol of no-op methods, and the two callbacks in use."""

import math
from dataclasses import dataclass, field

import torch
from tqdm.auto import tqdm

from xlstm_ts.nn.network import ForecastNetwork
from xlstm_ts.nn.regression import RegressionNetwork


@dataclass
class Run:
    """A training run, as its callbacks see it."""

    network: ForecastNetwork | RegressionNetwork
    total_steps: int
    history: list[dict] = field(default_factory=list)
    best_epoch: int | None = None
    step: int = 0
    stop: bool = False
    interrupted: bool = False


class Callback:
    """Override what you need; every method gets the run. Set ``run.stop`` to end it after the epoch."""

    def on_train_start(self, run: Run) -> None:
        """Before the first epoch."""

    def on_step_end(self, run: Run) -> None:
        """After each optimiser step."""

    def on_epoch_end(self, run: Run) -> None:
        """After each epoch; the last row of ``run.history`` is about it."""

    def on_train_end(self, run: Run) -> None:
        """After the last epoch, an interrupt included."""

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return what a run that goes on needs of this callback, beside its history."""
        return {}

    def restore(self, run: Run, tensors: dict[str, torch.Tensor]) -> None:
        """Take it on, before the start of a run that goes on."""


class BestWeights(Callback):
    """Keep the weights of the best epoch, stop when `patience` epochs brought nothing better, and restore them."""

    def __init__(self, patience: int):
        self.patience = patience
        self.loss = math.inf
        self.weights: dict[str, torch.Tensor] | None = None

    def on_train_start(self, run: Run) -> None:
        """Count the start as epoch 0."""
        if self.weights is None:
            self._keep(run)

    def on_epoch_end(self, run: Run) -> None:
        """Compare the epoch with the best so far."""
        last = run.history[-1]
        if last["valid_loss"] < self.loss:
            self._keep(run)
        elif last["epoch"] - run.best_epoch >= self.patience:
            run.stop = True

    def _keep(self, run: Run) -> None:
        run.best_epoch, self.loss = run.history[-1]["epoch"], run.history[-1]["valid_loss"]
        self.weights = {name: value.detach().clone() for name, value in run.network.state_dict().items()}

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return the best weights."""
        return self.weights or {}

    def restore(self, run: Run, tensors: dict[str, torch.Tensor]) -> None:
        """Take the best weights on; their loss stands in the history."""
        self.weights = tensors
        self.loss = next(row["valid_loss"] for row in run.history if row["epoch"] == run.best_epoch)

    def on_train_end(self, run: Run) -> None:
        """Go back to the best epoch."""
        if self.weights is not None:
            run.network.load_state_dict(self.weights)


class Progress(Callback):
    """A progress bar over steps, with the losses beside it."""

    def on_train_start(self, run: Run) -> None:
        """Open the bar."""
        self.bar = tqdm(total=run.total_steps, initial=run.step, desc="training", unit="step")

    def on_step_end(self, run: Run) -> None:
        """Advance it."""
        self.bar.update()

    def on_epoch_end(self, run: Run) -> None:
        """Show the losses of the epoch."""
        last = run.history[-1]
        self.bar.set_postfix(epoch=last["epoch"], train=last["train_loss"], valid=last["valid_loss"])

    def on_train_end(self, run: Run) -> None:
        """Close it; a run that stopped early is complete, not broken off."""
        self.bar.total = self.bar.n
        self.bar.close()
