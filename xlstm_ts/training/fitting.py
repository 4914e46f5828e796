"""From a panel to a fitted network: cut the end off, scale, start at linear models, train, calibrate.

The end of the training period is held out by target time, at the same time in all series: its earlier half decides
when to stop, its later half calibrates. Levels and scales are measured before it.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import numpy as np
import torch

from xlstm_ts.data.covariates import CovariatePlan
from xlstm_ts.data.panel import Panel, covariate_scaler, panel_scaler, panel_windows
from xlstm_ts.data.scaler import SeriesScaler
from xlstm_ts.data.windows import Split, Windows, held_out_origins, split_by_target_time, training_origins
from xlstm_ts.errors import DataError
from xlstm_ts.nn.average import NetworkAverage, members_of
from xlstm_ts.nn.network import POINT_LOSSES, ForecastNetwork, NetworkConfig
from xlstm_ts.training.calibration import (
    MIN_WINDOWS,
    HeldOut,
    ResidualQuantiles,
    WidthFactors,
    forecast_held_out,
    measure_coverage,
)
from xlstm_ts.training.callbacks import BestWeights, Callback, Progress
from xlstm_ts.training.checkpoint import Checkpoint
from xlstm_ts.training.loop import TrainingConfig, fine_tune, train
from xlstm_ts.training.warm_start import warm_start

NONE = np.arange(0)

FEW_VALUES = 10
"""Observed values below which it is no wonder that a column hardly moves."""


@dataclass(frozen=True)
class FitConfig:
    """What is fitted, and how.

    Parameters
    ----------
    network : NetworkConfig
        Shape of the network; of several, of the one which reads furthest back.
    training : TrainingConfig
        How to take steps.
    patience : int
        Epochs without a better validation loss before training stops.
    validation_fraction : float
        Share of the training period that is held out at its end.
    calibrate, refit_on_all, verbose : bool
        As in `xlstm_ts.XLSTMForecaster`.
    quantile_levels : array of shape (Q,)
        Levels of the forecasts, symmetric around one half.
    others : tuple of NetworkConfig
        Networks that are trained after the first, and averaged with it.
    """

    network: NetworkConfig
    training: TrainingConfig
    patience: int
    validation_fraction: float
    calibrate: bool
    refit_on_all: bool
    verbose: bool
    quantile_levels: np.ndarray
    others: tuple[NetworkConfig, ...] = ()

    def callbacks(self, *, early_stopping: bool) -> list[Callback]:
        """Return what watches a run."""
        stopping: list[Callback] = [BestWeights(self.patience)] if early_stopping else []
        return stopping + ([Progress()] if self.verbose else [])


class Fitted(NamedTuple):
    """What a fit leaves behind."""

    network: ForecastNetwork | NetworkAverage
    scaler: SeriesScaler  # (S, C)
    covariates: CovariatePlan
    calibration: WidthFactors | ResidualQuantiles | None
    calibrated: bool
    coverage: dict[float, tuple[float, float]] | None  # of the calibration windows, see `measure_coverage`
    history: list[dict]
    best_epoch: int | list[int]  # of several networks, one for each
    stopping_windows: int
    held_out_windows: int
    late: bool  # all that can be learned from lies in the part to be held out, so nothing was
    still: list[tuple[int, int]]  # series and columns that move, but hardly where they are learned from
    interrupted: bool


class _Data(NamedTuple):
    """A panel, laid out and cut."""

    windows: Windows
    starts: np.ndarray
    split: Split
    scaler: SeriesScaler
    covariates: CovariatePlan

    def origins(self, part: str, horizon: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the usable origins of a part of the period, and the row at which its targets end, for each row."""
        train, stop, end = self.split
        if part == "train":
            limit, of = train, [training_origins(int(k), horizon) for k in train]
        else:
            low, limit = (train, stop) if part == "stop" else (stop, end)
            of = [held_out_origins(int(a), int(b), horizon) for a, b in zip(low, limit, strict=True)]
        sizes = np.diff([*self.starts, len(self.windows.values)])
        stops = np.repeat(self.starts + limit, sizes)
        origins = np.concatenate([start + some for start, some in zip(self.starts, of, strict=True)])
        return self.windows.usable(origins, stops), stops


def fit_panel(
    panel: Panel,
    covariates: CovariatePlan,
    config: FitConfig,
    *,
    seed: int,
    device: torch.device,
    where: str,
    checkpoint: Checkpoint | None = None,
) -> Fitted:
    """Fit one network to all series of a panel.

    Parameters
    ----------
    panel : Panel
        The training period.
    covariates : CovariatePlan
        What X and the clock offer; its scaler is measured here.
    config : FitConfig
        What is fitted, and how.
    seed : int
        Of the one generator that everything random draws from.
    device : torch.device
        Where to train.
    where : str
        Object and method, for the messages.
    checkpoint : Checkpoint, optional
        Where training is written while it goes on, each network in a stage of its own; what follows it is quick and
        is computed again. It is removed when all is done, and stays after an interrupt.

    Raises
    ------
    DataError
        No window has something to read and something to learn.
    TrainingError
        A loss was not finite.
    CheckpointError
        Training cannot be written, or what was written is damaged or of another fit.
    """
    horizon = config.network.horizon
    times = panel.times()
    cut = split_by_target_time(times, horizon, config.validation_fraction)
    for split in (cut, _uncut(panel)):
        data = _lay_out(panel, covariates, config.network, split, device)
        origins, _ = data.origins("train", horizon)
        # A constant beginning of something that moves later teaches nothing of how far it may move.
        if len(origins) and (_moves(panel, split.train) or not _moves(panel, split.end)):
            break
    else:
        raise DataError(
            f"{where}: no two observed values are within context_length={config.network.context_length} plus "
            f"horizon={horizon} steps of each other; there is nothing to learn from. Raise one of them, or "
            "resample the series to a longer step."
        )
    valid, _ = data.origins("stop", horizon)
    held_out, _ = data.origins("calibrate", horizon)
    trained = _train_each(data, config, seed, device, checkpoint)
    network = _together([one.network for one in trained])
    calibrated = config.calibrate and len(held_out) >= MIN_WINDOWS
    if split is not cut:  # nor do residuals of a constant beginning tell a spread
        end = data._replace(split=cut)
        moving = np.concatenate([end.origins(part, horizon)[0] for part in ("stop", "calibrate")])
        origins = moving if len(moving) else origins
    calibration, coverage = _calibrate(network, data.windows, held_out, origins, config, calibrated)
    interrupted = trained[-1].interrupted
    if config.refit_on_all and not interrupted and bool((split.train < split.end).any()):
        whole = data._replace(split=_uncut(panel))
        again, interrupted = _train_on_all(whole, config, seed, trained, device, checkpoint)
        network = network if interrupted else _together(again)
    if checkpoint is not None and not interrupted:
        checkpoint.remove()
    best_epochs = [one.best_epoch for one in trained]
    return Fitted(
        network,
        data.scaler,
        data.covariates,
        calibration,
        calibrated,
        coverage,
        _history(trained) if config.others else trained[0].history,
        best_epochs if config.others else best_epochs[0],
        len(valid),
        len(held_out),
        split is not cut,
        _still(panel, split.train),
        interrupted,
    )


def adapt(
    network: ForecastNetwork | NetworkAverage,
    panel: Panel,
    scaler: SeriesScaler,
    covariates: CovariatePlan,
    known: np.ndarray,
    config: FitConfig,
    *,
    steps: int,
    seed: int,
) -> None:
    """Fine-tune a network, in place, on windows whose targets reach beyond the rows `known` (S,) of each series."""
    horizon, device = config.network.horizon, next(network.parameters()).device
    windows, starts = panel_windows(
        panel, scaler, covariates, config.network.context_length, horizon, device, ahead=horizon
    )
    ends = np.array([len(one.values) for one in panel.series])
    first = np.maximum(1, np.minimum(known, ends) - horizon + 1)
    origins = np.concatenate([start + np.arange(a, b) for start, a, b in zip(starts, first, ends, strict=True)])
    stops = np.repeat(starts + ends, np.diff([*starts, len(windows.values)]))
    origins = windows.usable(origins, stops)
    if len(origins):
        generator = torch.Generator().manual_seed(seed)
        options = {"stop": stops, "steps": steps, "config": config.training, "generator": generator}
        for member in members_of(network):
            fine_tune(member, windows.of_length(member.config.context_length), origins, **options)


def _moves(panel: Panel, stops: np.ndarray) -> bool:
    """Say whether a column of any series has two different values before its stop."""
    columns = (column for one, stop in zip(panel.series, stops, strict=True) for column in one.values[: int(stop)].T)
    return any(len(np.unique(column[~np.isnan(column)])) > 1 for column in columns)


def _still(panel: Panel, stops: np.ndarray) -> list[tuple[int, int]]:
    """Return series and number of the columns that move, but before the stop of their series once at most."""
    found = []
    for j, (one, stop) in enumerate(zip(panel.series, stops, strict=True)):
        for number, column in enumerate(one.values.T):
            before, values = (part[~np.isnan(part)] for part in (column[: int(stop)], column))
            if len(before) < FEW_VALUES:
                continue
            middle = len(before) // 2
            usual = np.partition(before, middle)[middle]  # what is constant but for one value has that constant there
            if (before != usual).sum() <= 1 and (values != usual).any():
                found.append((j, number))
    return found


def _uncut(panel: Panel) -> Split:
    rows = np.array([len(one.values) for one in panel.series])
    return Split(rows, rows, rows)


def _lay_out(
    panel: Panel, covariates: CovariatePlan, network: NetworkConfig, split: Split, device: torch.device
) -> _Data:
    scaler = panel_scaler(panel, split.train)
    covariates = replace(covariates, scaler=covariate_scaler(panel, covariates.columns, split.train))
    windows, starts = panel_windows(
        panel, scaler, covariates, network.context_length, network.horizon, device, ahead=network.horizon
    )
    return _Data(windows, starts, split, scaler, covariates)


def _calibrate(network, windows, held_out, origins, config, calibrated):
    """Return what turns the network's output into quantiles, and the coverage measured with it, or None for either."""
    levels, enough = config.quantile_levels, len(held_out) >= MIN_WINDOWS
    fit: Callable[[HeldOut], WidthFactors | ResidualQuantiles]
    if config.network.loss in POINT_LOSSES:
        # A point network has no spread of its own: without enough held-out windows it is measured in training.
        data = forecast_held_out(network, windows, held_out if enough else origins)
        fit = partial(ResidualQuantiles.fit, levels=levels)
    elif calibrated:
        data = forecast_held_out(network, windows, held_out)
        fit = partial(WidthFactors.fit, levels=levels)
    else:
        return None, None
    return fit(data), measure_coverage(data, levels, fit) if enough else None


class _Trained(NamedTuple):
    """A network, how it was trained, and what its start was made with."""

    network: ForecastNetwork
    history: list[dict]
    best_epoch: int
    penalty: float
    effect: torch.Tensor | None
    interrupted: bool


def _together(networks: list[ForecastNetwork]) -> ForecastNetwork | NetworkAverage:
    return networks[0] if len(networks) == 1 else NetworkAverage.of(networks)


def _train_each(
    data: _Data, config: FitConfig, seed: int, device: torch.device, checkpoint: Checkpoint | None
) -> list[_Trained]:
    """Train one network after the other; an interrupt ends that and keeps what there is, if there is anything."""
    generator = torch.Generator().manual_seed(seed)
    trained: list[_Trained] = []
    for number, network in enumerate((config.network, *config.others)):
        stage = None if checkpoint is None else checkpoint.stage(f"network{number}")
        try:
            one = _train_one(data, config, network, generator, device, stage)
        except KeyboardInterrupt:
            if not trained:
                raise
            return [*trained[:-1], trained[-1]._replace(interrupted=True)]
        trained.append(one)
        if one.interrupted:
            break
    return trained


def _history(trained: list[_Trained]) -> list[dict]:
    """Return the rows of all networks, with their number and their context."""
    which = [
        {"network": number, "context_length": one.network.config.context_length} for number, one in enumerate(trained)
    ]
    return [mark | row for mark, one in zip(which, trained, strict=True) for row in one.history]


def _train_one(data: _Data, config: FitConfig, shape: NetworkConfig, generator, device, checkpoint) -> _Trained:
    network = ForecastNetwork.create(shape, generator=generator, device=device)
    windows = data.windows.of_length(shape.context_length)
    origins, stops = data.origins("train", shape.horizon)
    valid, _ = data.origins("stop", shape.horizon)
    penalty = warm_start(network, windows, origins, stop=stops, valid_origins=valid)
    effect = None if network.effect is None else network.effect.covariate_weight.detach().clone()
    run = train(
        network,
        windows,
        origins,
        stop=stops,
        valid_origins=valid,
        config=config.training,
        generator=generator,
        callbacks=config.callbacks(early_stopping=len(valid) > 0),
        checkpoint=checkpoint,
    )
    best_epoch = run.history[-1]["epoch"] if run.best_epoch is None else run.best_epoch
    return _Trained(network, run.history, best_epoch, penalty, effect, run.interrupted)


def _train_on_all(
    data: _Data,
    config: FitConfig,
    seed: int,
    trained: list[_Trained],
    device: torch.device,
    checkpoint: Checkpoint | None,
) -> tuple[list[ForecastNetwork], bool]:
    """Train second networks on every row, as long as was best for the first; say whether that was interrupted."""
    generator = torch.Generator().manual_seed(seed)
    networks: list[ForecastNetwork] = []
    for number, one in enumerate(trained):
        stage = None if checkpoint is None else checkpoint.stage(f"all{number}")
        try:
            network, interrupted = _train_again(data, config, one, generator, device, stage)
        except KeyboardInterrupt:
            return networks, True
        if interrupted:
            return networks, True
        networks.append(network)
    return networks, False


def _train_again(
    data: _Data, config: FitConfig, one: _Trained, generator, device, checkpoint
) -> tuple[ForecastNetwork, bool]:
    shape = one.network.config
    network = ForecastNetwork.create(shape, generator=generator, device=device)
    windows = data.windows.of_length(shape.context_length)
    origins, stops = data.origins("train", shape.horizon)
    if network.effect is not None and one.effect is not None:
        network.effect.covariate_weight.data.copy_(one.effect)  # its penalty was judged on held-out windows
    warm_start(network, windows, origins, stop=stops, valid_origins=NONE, penalty=one.penalty)
    if one.best_epoch == 0:
        return network, False
    run = train(
        network,
        windows,
        origins,
        stop=stops,
        valid_origins=NONE,
        config=replace(config.training, max_epochs=one.best_epoch),
        generator=generator,
        callbacks=config.callbacks(early_stopping=False),
        checkpoint=checkpoint,
    )
    return network, run.interrupted
