"""`XLSTMForecaster`: the network as a native sktime forecaster."""

import copy
import warnings
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch
from sktime.forecasting.base import BaseForecaster

from xlstm_ts.checks import is_between, is_whole, require
from xlstm_ts.data.panel import SeriesArray, SeriesScaler, check_values, make_series
from xlstm_ts.data.time_axis import check_order
from xlstm_ts.data.windows import Split, Windows, held_out_origins, split_by_target_time, training_origins
from xlstm_ts.errors import DataError, ParameterError
from xlstm_ts.inference import Predictor
from xlstm_ts.nn.network import POINT_LOSSES, ForecastNetwork, NetworkConfig
from xlstm_ts.quantiles import check_levels, interpolate_levels
from xlstm_ts.training.calibration import MIN_WINDOWS, ResidualQuantiles, WidthFactors, forecast_held_out
from xlstm_ts.training.callbacks import BestWeights, Callback, Progress
from xlstm_ts.training.device import resolve_device
from xlstm_ts.training.loop import TrainingConfig, fine_tune, train
from xlstm_ts.training.seeds import draw_seed
from xlstm_ts.training.warm_start import warm_start

DENSE_LEVELS = (np.arange(200) + 0.5) / 200  # for moments and distributions


class ShortSeriesWarning(UserWarning):
    """The series leaves no room for validation windows, so early stopping or calibration is off."""


class XLSTMForecaster(BaseForecaster):
    """Forecast time series with an xLSTM network: quantiles, calibrated intervals, any horizon.

    The network reads the last `context_length` steps and predicts quantiles of the next `horizon` steps at once.
    It is made of the sLSTM and mLSTM blocks of Beck et al. 2024 (arXiv 2405.04517) with instance scaling and a
    linear skip. The end of the training period is held out by target time: its earlier half decides when training
    stops, its later half calibrates the intervals.

    Parameters
    ----------
    horizon : int, default=24
        Steps that the network predicts at once. Any `fh` is served: beyond it, forecasts roll forward in blocks.
    context_length : int, default=96
        Steps that the network reads; rounded up to whole patches. Shorter histories are padded as missing.
    backbone : {"patch", "stacked", "mixer"}, default="patch"
        Blocks over patches of time, every column by itself with shared weights; blocks over single time steps
        of all columns together (slower, and the columns inform each other); or blocks over the columns, each of
        which gives its whole context at once (quick for long contexts, and the columns inform each other).
    layout : str, default="sm"
        Blocks from input to output: letters s (sLSTM), m (mLSTM), l (classic LSTM), or a ratio such as "7:1".
    num_blocks : int, optional
        Number of blocks; the layout is repeated up to it. Default: the layout's own.
    hidden_size : int, default=64
        Width of the blocks.
    num_heads : int, default=4
        Heads of every cell; divides `hidden_size`.
    patch_length : int, default=8
        Steps per patch.
    conv_width : int, default=4
        Tokens seen by the causal convolution in a block; 0 leaves it out. "mixer" has none.
    decomposition : int, optional
        Steps of a moving average, one season or more: trend and remainder are then read by a backbone each.
        Default: they are read together.
    dropout : float, default=0.1
        Rate on the residual branches while training.
    linear_skip : bool, default=True
        Whether a linear map from context to horizon stands beside the blocks.
    loss : {"quantile", "student_t", "mae", "mse", "huber"}, default="quantile"
        What is minimised: pinball loss, negative log likelihood of a Student t, or the error of a point. With a
        point loss, quantiles come from held-out residuals.
    quantile_levels : tuple of float
        Levels that are learned: increasing, symmetric around 0.5 and containing it. Any other level can be asked
        for at predict; it is interpolated.
    max_epochs : int, default=30
        Epochs at most.
    steps_per_epoch : int or None, default=100
        Batches per epoch at most, drawn without replacement; None for all windows.
    batch_size : int, default=32
        Windows per batch.
    learning_rate : float, default=1e-3
        Peak of the schedule (linear rise, cosine fall).
    weight_decay : float, default=0.01
        Of AdamW, on projection matrices.
    gradient_clip : float, default=1.0
        Largest norm of a gradient.
    patience : int, default=5
        Epochs without a better validation loss before training stops.
    validation_fraction : float, default=0.2
        Share of the training period that is held out at its end. 0 switches early stopping and calibration off.
    calibrate : bool, default=True
        Whether intervals are calibrated (needs at least 30 held-out windows).
    refit_on_all : bool, default=False
        Train once more on the whole period, for the number of epochs that was best.
    update_steps : int, default=20
        Fine-tuning steps of ``update(..., update_params=True)``: at a tenth of `learning_rate`, on windows whose
        targets reach into the new data, from the present weights and with scalers and calibration kept.
    calendar : pandas offset, str, DatetimeIndex or TradingCalendar, optional
        What continues a daily index without freq: an offset, the future sessions themselves, or the `calendar_` of
        another forecaster. Default: inferred
        from the sessions seen (weekdays and holiday rules), see `calendar_`.
    device : str, default="auto"
        Torch device; "auto" takes CUDA when it is available.
    random_state : int, RandomState or None, default=None
        Same value, machine, versions, device and threads: the same bits. No global seed is read or set, but for
        the `RandomState` that is passed.
    verbose : bool, default=False
        Whether a progress bar is shown while training.

    Attributes
    ----------
    network_ : ForecastNetwork
        The trained network.
    history_ : pd.DataFrame
        One row per epoch: losses, learning rate, seconds.
    best_epoch_ : int
        The epoch whose weights are kept. Training starts at a ridge regression with its empirical quantiles; 0
        means that nothing learned after it was better on the held-out windows.
    calibrated_ : bool
        Whether intervals were calibrated on held-out windows.
    calendar_ : TradingCalendar or None
        The sessions rule of an index without freq.

    Raises
    ------
    DataError
        The series cannot be used as it is; the message names the place and the remedy.
    ParameterError
        A parameter is impossible.
    BackendError
        The device is not here.
    TrainingError
        The loss was not finite.

    Warns
    -----
    ShortSeriesWarning
        The series leaves no room for validation windows.

    Notes
    -----
    This version takes no covariates: as sktime does for forecasters without them, `X` is accepted and ignored.

    Unlike the forecaster of the same name in sktime, which is the network of another paper, this one computes the
    xLSTM equations, and a step's value does not depend on which other steps are asked for.

    Examples
    --------
    >>> from sktime.datasets import load_airline
    >>> from xlstm_ts import XLSTMForecaster
    >>> y = load_airline()
    >>> model = XLSTMForecaster(horizon=12, context_length=24, max_epochs=2, random_state=0)
    >>> forecast = model.fit(y[:-12]).predict(fh=[1, 2, 12])
    >>> forecast.index.astype(str).tolist()
    ['1960-01', '1960-02', '1960-12']
    """

    _tags: ClassVar[dict[str, Any]] = {
        "authors": ["xlstm_ts developers"],
        "maintainers": ["xlstm_ts developers"],
        "python_dependencies": None,
        "y_inner_mtype": "pd.DataFrame",
        "X_inner_mtype": "pd.DataFrame",
        "capability:multivariate": True,
        "capability:exogenous": False,
        "capability:missing_values": True,
        "capability:insample": True,
        "capability:pred_int": True,
        "capability:pred_int:insample": True,
        "capability:update": True,
        "capability:random_state": True,
        "property:randomness": "derandomized",
        "requires-fh-in-fit": False,
    }
    # The data that prediction needs are kept by `_fit` and `_update` themselves.
    _config: ClassVar[dict[str, Any]] = {"remember_data": False}
    _y = None
    _X = None

    def __init__(
        self,
        horizon=24,
        context_length=96,
        *,
        backbone="patch",
        layout="sm",
        num_blocks=None,
        hidden_size=64,
        num_heads=4,
        patch_length=8,
        conv_width=4,
        decomposition=None,
        dropout=0.1,
        linear_skip=True,
        loss="quantile",
        quantile_levels=(0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99),
        max_epochs=30,
        steps_per_epoch=100,
        batch_size=32,
        learning_rate=1e-3,
        weight_decay=0.01,
        gradient_clip=1.0,
        patience=5,
        validation_fraction=0.2,
        calibrate=True,
        refit_on_all=False,
        update_steps=20,
        calendar=None,
        device="auto",
        random_state=None,
        verbose=False,
    ):
        self.horizon = horizon
        self.context_length = context_length
        self.backbone = backbone
        self.layout = layout
        self.num_blocks = num_blocks
        self.hidden_size = hidden_size
        self.num_heads = num_heads
        self.patch_length = patch_length
        self.conv_width = conv_width
        self.decomposition = decomposition
        self.dropout = dropout
        self.linear_skip = linear_skip
        self.loss = loss
        self.quantile_levels = quantile_levels
        self.max_epochs = max_epochs
        self.steps_per_epoch = steps_per_epoch
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.gradient_clip = gradient_clip
        self.patience = patience
        self.validation_fraction = validation_fraction
        self.calibrate = calibrate
        self.refit_on_all = refit_on_all
        self.update_steps = update_steps
        self.calendar = calendar
        self.device = device
        self.random_state = random_state
        self.verbose = verbose
        super().__init__()

    # Fitting

    def _check_X_y(self, X=None, y=None, **kwargs):
        """Check a single series in words of our own before sktime's generic checks see it."""
        if isinstance(y, pd.Series | pd.DataFrame) and not isinstance(y.index, pd.MultiIndex):
            frame = y.to_frame() if isinstance(y, pd.Series) else y
            where = f"{type(self).__name__}.{'update' if self.is_fitted else 'fit'}"
            check_values(frame, where)
            check_order(frame.index, where)
        return super()._check_X_y(X=X, y=y, **kwargs)

    def _fit(self, y, X, fh):
        where = f"{type(self).__name__}.fit"
        self._check_parameters(where)
        config = self._network_config(y.shape[1])
        training = self._training_config()
        device = resolve_device(self.device, where)
        series = make_series(y, calendar=self.calendar, where=where)

        rows = len(series.values)
        for split in (split_by_target_time(rows, self.horizon, self.validation_fraction), Split(rows, rows, rows)):
            scaler = SeriesScaler.fit_before(series.values, split.train)
            windows = Windows.of(scaler.forward(series.values), config.context_length, self.horizon, device)
            origins = windows.usable(training_origins(split.train, self.horizon), split.train)
            if len(origins):  # else all that was observed lies in the part to be held out
                break
        else:
            raise DataError(
                f"{where}: no two observed values are within context_length={config.context_length} plus "
                f"horizon={self.horizon} steps of each other; there is nothing to learn from. Raise one of them, or "
                "resample the series to a longer step."
            )
        valid = windows.usable(held_out_origins(split.train, split.stop, self.horizon), split.stop)
        held_out = windows.usable(held_out_origins(split.stop, split.end, self.horizon), split.end)
        self._warn_if_short(where, rows, len(valid), len(held_out))

        self._seed = draw_seed(self.random_state)
        generator = torch.Generator().manual_seed(self._seed)
        network = ForecastNetwork.create(config, generator=generator, device=device)
        penalty = warm_start(network, windows, origins, stop=split.train, valid_origins=valid)
        run = train(
            network,
            windows,
            origins,
            stop=split.train,
            valid_origins=valid,
            config=training,
            generator=generator,
            callbacks=self._callbacks(len(valid)),
        )
        best_epoch = run.history[-1]["epoch"] if run.best_epoch is None else run.best_epoch
        self.calibrated_ = bool(self.calibrate) and len(held_out) >= MIN_WINDOWS
        self._calibration = self._calibrate(network, windows, held_out, origins)
        interrupted = run.interrupted
        if self.refit_on_all and not interrupted and split.train < rows:
            again, interrupted = self._train_on_all(windows, training, best_epoch, penalty, config, device)
            network = network if interrupted else again

        self.network_ = network
        self.history_ = pd.DataFrame(run.history)
        self.best_epoch_ = best_epoch
        self.calendar_ = series.axis.calendar
        self._scaler = scaler
        self._series = series
        if interrupted:
            # Nothing is lost: the estimator is complete with its best weights so far, and the caller is told.
            self._is_fitted = True
            raise KeyboardInterrupt
        return self

    def _check_parameters(self, where: str) -> None:
        several = isinstance(self.quantile_levels, list | tuple | np.ndarray)
        require(several, "quantile_levels", self.quantile_levels, "a tuple of numbers between 0 and 1")
        for name in ("linear_skip", "calibrate", "refit_on_all"):
            value = getattr(self, name)
            require(isinstance(value, bool | np.bool_), name, value, "True or False")
        levels = check_levels(self.quantile_levels, where)
        if not np.allclose(levels, 1 - levels[::-1]) or len(levels) % 2 == 0:
            raise ParameterError(
                f"{where}: quantile_levels={self.quantile_levels} must be symmetric around 0.5 and contain it. Other "
                "levels can be asked for at predict_quantiles."
            )
        fraction = self.validation_fraction
        require(is_between(fraction, 0, 1), "validation_fraction", fraction, "from 0 (none) to below 1")
        for name in ("patience", "update_steps"):
            require(is_whole(getattr(self, name)), name, getattr(self, name), "a whole number, 1 or above")

    def _network_config(self, channels: int) -> NetworkConfig:
        context_length = self.context_length
        if self.backbone == "patch" and is_whole(context_length) and is_whole(self.patch_length):
            context_length = self.patch_length * -(-context_length // self.patch_length)
        return NetworkConfig(
            channels=channels,
            horizon=self.horizon,
            context_length=context_length,
            backbone=self.backbone,
            layout=self.layout,
            num_blocks=self.num_blocks,
            hidden_size=self.hidden_size,
            num_heads=self.num_heads,
            patch_length=self.patch_length,
            conv_width=self.conv_width,
            decomposition=self.decomposition,
            dropout=self.dropout,
            linear_skip=self.linear_skip,
            loss=self.loss,
            quantile_levels=tuple(float(level) for level in self.quantile_levels),
        )

    def _training_config(self) -> TrainingConfig:
        return TrainingConfig(
            max_epochs=self.max_epochs,
            steps_per_epoch=self.steps_per_epoch,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
            gradient_clip=self.gradient_clip,
        )

    def _warn_if_short(self, where: str, rows: int, stopping: int, held_out: int) -> None:
        if self.validation_fraction == 0:
            return
        off = [] if stopping else ["early stopping"]
        if self.calibrate and held_out < MIN_WINDOWS:
            off.append("interval calibration")
        if off:
            need = int(np.ceil(2 * (self.horizon + MIN_WINDOWS) / self.validation_fraction))
            warnings.warn(
                f"{where}: {rows} rows leave too few validation windows for horizon={self.horizon}; "
                f"{' and '.join(off)} {'is' if len(off) == 1 else 'are'} off. About {need} rows are needed for both; "
                "give a longer series, a shorter horizon, or validation_fraction=0 to say that this is meant.",
                ShortSeriesWarning,
                stacklevel=4,
            )

    def _callbacks(self, valid_windows: int) -> list[Callback]:
        stopping: list[Callback] = [BestWeights(self.patience)] if valid_windows else []
        return stopping + ([Progress()] if self.verbose else [])

    def _calibrate(self, network, windows, held_out, origins) -> WidthFactors | ResidualQuantiles | None:
        levels = np.asarray(self.quantile_levels, dtype=np.float64)
        if self.loss in POINT_LOSSES:
            # A point network has no spread of its own: without enough held-out windows it is measured in training.
            measured = held_out if len(held_out) >= MIN_WINDOWS else origins
            return ResidualQuantiles.fit(forecast_held_out(network, windows, measured), levels)
        return WidthFactors.fit(forecast_held_out(network, windows, held_out), levels) if self.calibrated_ else None

    def _train_on_all(self, windows, training, epochs, penalty, config, device) -> tuple[ForecastNetwork, bool]:
        """Train a second network on every row, as long as was best for the first; say whether that was interrupted."""
        generator = torch.Generator().manual_seed(self._seed)
        network = ForecastNetwork.create(config, generator=generator, device=device)
        rows, none = len(windows.values), np.arange(0)
        origins = windows.usable(training_origins(rows, self.horizon), rows)
        warm_start(network, windows, origins, stop=rows, valid_origins=none, penalty=penalty)
        if epochs == 0:
            return network, False
        try:
            run = train(
                network,
                windows,
                origins,
                stop=rows,
                valid_origins=none,
                config=replace(training, max_epochs=epochs),
                generator=generator,
                callbacks=self._callbacks(0),
            )
        except KeyboardInterrupt:
            return network, True
        return network, run.interrupted

    def update(self, y, X=None, update_params=True):
        """Take new observations in, as sktime's `update`; a call that fails leaves the forecaster as it was."""
        cutoff = getattr(self, "_cutoff", None)
        try:
            return super().update(y, X=X, update_params=update_params)
        except BaseException:
            self._cutoff = cutoff
            raise

    def _update(self, y, X=None, update_params=True):
        where = f"{type(self).__name__}.update"
        _check_columns(y.columns, self._series.columns, where)
        series = self._series.updated(y, where)
        if (left := (self._scaler.scale == 0) & (np.nan_to_num(series.values - self._scaler.level) != 0).any(0)).any():
            warnings.warn(
                f"{where}: {series.columns[left][0]!r} was constant in training and now moves; its forecast stays at "
                "that constant until it is fitted again.",
                UserWarning,
                stacklevel=4,
            )
        if update_params:
            self.network_ = self._fine_tuned(series, len(self._series.values))
        self._series = series
        return self

    def _update_predict_single(self, y, fh, X=None, update_params=True):
        self._update(y, X, update_params)
        return self._predict(fh, X)

    def _fine_tuned(self, series: SeriesArray, known: int) -> ForecastNetwork:
        """Return a copy of the network that has adapted to the rows from `known` on."""
        network = copy.deepcopy(self.network_)
        config = network.config
        rows = len(series.values)
        device = next(network.parameters()).device
        windows = Windows.of(self._scaler.forward(series.values), config.context_length, config.horizon, device)
        origins = np.arange(max(1, min(known, rows) - config.horizon + 1), rows)
        origins = windows.usable(origins, rows)
        if len(origins):
            generator = torch.Generator().manual_seed(self._seed + rows)
            fine_tune(
                network,
                windows,
                origins,
                stop=rows,
                steps=self.update_steps,
                config=self._training_config(),
                generator=generator,
            )
        return network

    # Forecasting

    def _predict(self, fh, X):
        steps = self._steps(fh)
        point, _ = self._forecast_steps(steps)
        return pd.DataFrame(point, index=self._series.axis.at(steps), columns=self._get_columns("predict"))

    def _predict_quantiles(self, fh, X, alpha):
        steps = self._steps(fh)
        wanted = check_levels(alpha, f"{type(self).__name__}.predict_quantiles")
        _, quantiles = self._forecast_steps(steps)
        levels = np.asarray(self.quantile_levels, dtype=np.float64)
        values = interpolate_levels(quantiles, levels, wanted).reshape(len(steps), -1)
        columns = self._get_columns("predict_quantiles", alpha=alpha)
        return pd.DataFrame(values, index=self._series.axis.at(steps), columns=columns)

    def _predict_var(self, fh, X=None, cov=False):
        steps = self._steps(fh)
        _, quantiles = self._forecast_steps(steps)
        dense = interpolate_levels(quantiles, np.asarray(self.quantile_levels, dtype=np.float64), DENSE_LEVELS)
        # In units of the largest value nothing is squared that overflows before the variance itself does.
        unit = np.abs(dense).max(axis=-1, keepdims=True).clip(np.finfo(np.float64).tiny)
        with np.errstate(over="ignore"):
            variance = np.minimum((dense / unit).var(axis=-1) * unit[..., 0] * unit[..., 0], np.finfo(np.float64).max)
        return pd.DataFrame(variance, index=self._series.axis.at(steps), columns=self._get_columns("predict_var"))

    def _predict_proba(self, fh, X, marginal=True):
        try:
            from skpro.distributions import QPD_Empirical
        except ImportError as error:
            raise ImportError(
                f"{type(self).__name__}.predict_proba needs skpro, which the extra `proba` installs: "
                "pip install 'xlstm-ts[proba]'."
            ) from error
        steps = self._steps(fh)
        _, quantiles = self._forecast_steps(steps)
        dense = interpolate_levels(quantiles, np.asarray(self.quantile_levels, dtype=np.float64), DENSE_LEVELS)
        index, columns = self._series.axis.at(steps), self._get_columns("predict")
        rows = pd.MultiIndex.from_product([DENSE_LEVELS, index])
        values = pd.DataFrame(np.moveaxis(dense, -1, 0).reshape(len(rows), -1), index=rows, columns=columns)
        return QPD_Empirical(values, time_indep=False, index=index, columns=columns)

    def predict_origins(self, y, X=None, *, origins, fh, quantile_levels=None):
        """Forecast from many origins of a series at once, with weights, scalers and calibration as fitted.

        Equal to ``update(y_to_origin, update_params=False)`` followed by a prediction at each origin, in batched
        passes. The forecaster does not change.

        Parameters
        ----------
        y : pd.Series or pd.DataFrame
            The observed series, up to the last origin at least; of an origin, nothing after it is read.
        X : None
            Not used by this version.
        origins : sequence of index values
            The last observed time of each forecast.
        fh : int or sequence of int
            Steps ahead, 1 or more.
        quantile_levels : sequence of float, optional
            Default: the learned levels.

        Returns
        -------
        pd.DataFrame
            One row per origin, step and variable: series (always 0), origin, step, time, variable, point, and one
            column per level, named by the level as a float.

        Raises
        ------
        DataError
            An origin is not a time of `y`, or `y` cannot be used as it is.
        ParameterError
            A step is below 1 or a level outside (0, 1).
        """
        self.check_is_fitted()
        where = f"{type(self).__name__}.predict_origins"
        learned = np.asarray(self.quantile_levels, dtype=np.float64)
        wanted = learned if quantile_levels is None else check_levels(quantile_levels, where)
        steps = np.unique(np.atleast_1d(np.asarray(fh)))
        if not np.issubdtype(steps.dtype, np.integer) or steps.size == 0 or steps[0] < 1:
            raise ParameterError(f"{where}: fh={fh!r} is impossible; expected steps ahead, 1 or more.")
        if not isinstance(y, pd.Series | pd.DataFrame):
            raise DataError(
                f"{where}: y is a {type(y).__name__}; expected a pandas Series or DataFrame with its times."
            )
        origins = pd.Index([origins]) if pd.api.types.is_scalar(origins) else pd.Index(origins)
        if len(origins) == 0:
            raise DataError(f"{where}: there are no origins. Give at least one time of y.")
        frame = y.to_frame() if isinstance(y, pd.Series) else y
        if isinstance(y, pd.Series) and y.name is None:
            frame = frame.set_axis(self._series.columns, axis=1)
        _check_columns(frame.columns, self._series.columns, where)
        series = make_series(frame, calendar=self.calendar_ or self.calendar, where=where)
        rows = series.axis.index.get_indexer(origins)
        if (rows < 0).any():
            raise DataError(f"{where}: the origin {origins[rows < 0][0]} is not a time of y.")

        forecast = self._predictor().forecast(series.values, rows + 1, int(steps[-1]))
        times = series.axis.index.append(series.axis.future(int(rows.max() + steps[-1]) + 1 - len(series.axis)))
        point = forecast.point[:, steps - 1]  # [O, S, C]
        quantiles = interpolate_levels(forecast.quantiles[:, steps - 1], learned, wanted)
        shape = point.shape
        table: dict[str | float, object] = {
            "series": 0,
            "origin": series.axis.index[rows].repeat(shape[1] * shape[2]),
            "step": np.tile(np.repeat(steps, shape[2]), shape[0]),
            "time": times[(rows[:, None] + steps).ravel()].repeat(shape[2]),
            "variable": np.tile(frame.columns.to_numpy(), shape[0] * shape[1]),
            "point": point.ravel(),
        }
        table |= {float(level): quantiles[..., j].ravel() for j, level in enumerate(wanted)}
        return pd.DataFrame(table)

    def predict_residuals(self, y=None, X=None):
        """Return observed minus forecast values; of the training series where no `y` is given, as sktime does."""
        if y is None:
            self.check_is_fitted()
            y = pd.DataFrame(self._series.values, index=self._series.axis.index, columns=self._get_varnames())
            y = y.iloc[:, 0] if self._y_metadata["mtype"] == "pd.Series" else y
        return super().predict_residuals(y=y, X=X)

    def _predict_moving_cutoff(self, y, cv, X=None, update_params=True, reset_forecaster=True):
        """Update and predict window by window, also where there is no freq by which sktime could shift the cutoff."""
        if self.calendar_ is None:
            return super()._predict_moving_cutoff(y, cv, X, update_params, reset_forecaster)
        from sktime.datatypes import convert_to
        from sktime.forecasting.base._base import _format_moving_cutoff_predictions

        mtype, store = self._y_metadata["mtype"], self._converter_store_y
        model = copy.deepcopy(self) if reset_forecaster else self
        forecasts, cutoffs = [], []
        for rows, _ in cv.split(y):
            forecast = model.update(y.iloc[rows], update_params=update_params).predict(fh=cv.get_fh())
            forecasts.append(convert_to(forecast, mtype, store=store, store_behaviour="freeze"))
            cutoffs.append(model.cutoff)
        return _format_moving_cutoff_predictions(forecasts, cutoffs)

    def _predictor(self) -> Predictor:
        levels = np.asarray(self.quantile_levels, dtype=np.float64)
        return Predictor(self.network_, self._scaler, levels, self._calibration)

    def _forecast_steps(self, steps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return points (S, C) and quantiles (S, C, Q) at steps counted from the cutoff, in the sample too."""
        rows = len(self._series.values)
        if steps.min() + rows - 1 < 0:
            self._series.axis.at(steps)  # raises, naming the step
        shape = (len(steps), self._series.values.shape[1])
        point, quantiles = np.empty(shape), np.empty((*shape, len(self.quantile_levels)))
        predictor = self._predictor()
        ahead = steps > 0
        if ahead.any():
            forecast = predictor.forecast(self._series.values, np.array([rows]), int(steps.max()))
            point[ahead] = forecast.point[0, steps[ahead] - 1]
            quantiles[ahead] = forecast.quantiles[0, steps[ahead] - 1]
        if not ahead.all():
            forecast = predictor.forecast(self._series.values, steps[~ahead] + rows - 1, 1)
            point[~ahead], quantiles[~ahead] = forecast.point[:, 0], forecast.quantiles[:, 0]
        return point, quantiles

    def _steps(self, fh) -> np.ndarray:
        """Return the steps of a forecasting horizon, counted from the cutoff."""
        values = fh.to_pandas()
        if fh.is_relative:
            if pd.api.types.is_integer_dtype(values):
                return values.to_numpy(dtype=np.int64)
            values = pd.Index([self._series.axis.index[-1] + step for step in values])  # time spans
        axis = self._series.axis
        if isinstance(axis.index, pd.PeriodIndex) and isinstance(values, pd.DatetimeIndex):
            values = values.to_period(axis.index.freq)
        elif isinstance(axis.index, pd.DatetimeIndex) and isinstance(values, pd.PeriodIndex):
            values = values.to_timestamp()
        return axis.steps_of(values)

    def __getstate__(self):
        """Return the state for copies and files, with the network on the CPU: it loads where there is no GPU."""
        state = super().__getstate__().copy() if hasattr(super(), "__getstate__") else self.__dict__.copy()
        network = state.get("network_")
        if network is not None and next(network.parameters()).device.type != "cpu":
            state["network_"] = copy.deepcopy(network).cpu()
        return state

    @classmethod
    def get_test_params(cls, parameter_set="default"):
        """Return small settings for sktime's contract tests."""
        small = {
            "horizon": 2,
            "context_length": 4,
            "hidden_size": 4,
            "num_heads": 1,
            "patch_length": 2,
            "conv_width": 2,
            "max_epochs": 1,
            "steps_per_epoch": 1,
            "batch_size": 4,
            "validation_fraction": 0,
            "update_steps": 1,
            "quantile_levels": (0.1, 0.5, 0.9),
            "random_state": 0,
        }
        return [
            small | {"layout": "s"},
            small | {"backbone": "stacked", "layout": "m", "loss": "mse"},
            small | {"backbone": "mixer", "layout": "s", "loss": "student_t", "decomposition": 2},
        ]


def _check_columns(found: pd.Index, fitted: pd.Index, where: str) -> None:
    if len(found) != len(fitted) or (len(found) > 1 and list(found) != list(fitted)):
        raise DataError(
            f"{where}: y has the columns {list(found)}; the forecaster was fitted on {list(fitted)}. Give the same "
            "columns in the same order."
        )
