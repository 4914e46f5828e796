"""`XLSTMForecaster`: the network as a native sktime forecaster."""

import copy
import warnings
from dataclasses import replace
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pandas as pd
from sktime.datatypes._dtypekind import DtypeKind
from sktime.forecasting.base import BaseForecaster, ForecastingHorizon

from xlstm_ts.checks import is_between, is_whole, require
from xlstm_ts.data.covariates import CovariatePlan, check_x, plan_columns, with_categories
from xlstm_ts.data.entry import check_container, check_coverage, check_horizon
from xlstm_ts.data.panel import (
    Panel,
    check_same_times,
    is_nested,
    make_panel,
    panel_scaler,
    repair,
    take_apart,
)
from xlstm_ts.data.repair import check_whole_step
from xlstm_ts.data.series import check_columns, check_values
from xlstm_ts.data.time_axis import MOST_STEPS, TimeAxis, check_order
from xlstm_ts.data.time_features import choose_time_features
from xlstm_ts.errors import DataError, ParameterError
from xlstm_ts.evaluation.baselines import seasonal_period
from xlstm_ts.fitted_panel import FittedPanel
from xlstm_ts.inference import BATCH_SIZE, Predictor
from xlstm_ts.nn.network import POINT_LOSSES, NetworkConfig
from xlstm_ts.persistence import Kind, read_model, record, write_model
from xlstm_ts.piecewise_normal import PiecewiseNormal
from xlstm_ts.quantiles import check_levels, interpolate_levels
from xlstm_ts.streaming import ForecastStream
from xlstm_ts.training.calibration import MIN_WINDOWS, WidthFactors
from xlstm_ts.training.checkpoint import Checkpoint
from xlstm_ts.training.defaults import Shape, choose_shape, choose_shapes
from xlstm_ts.training.device import resolve_device
from xlstm_ts.training.fitting import FitConfig, Fitted, adapt, fit_panel
from xlstm_ts.training.loop import TrainingConfig
from xlstm_ts.training.seeds import draw_seed


class ShortSeriesWarning(UserWarning):
    """The series leaves no room for validation windows, or next to nothing to learn from before them.

    Early stopping or calibration is off then, or intervals rest on very few values.
    """


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
    context_length : int, tuple of int, or "auto", default="auto"
        Steps that the network reads; rounded up to whole patches. Shorter histories are padded as missing. Of several
        lengths, a network is trained for each, one after the other, and their quantiles are averaged; the same length
        again is a network of other random numbers. "auto" is three lengths: one, two thirds of it, and a third. The
        longest is a quarter of the series, at least two seasons of its step if half the series holds them, at most
        512 where the mixer reads steps within the day and 96 elsewhere.
    backbone : {"auto", "patch", "stacked", "mixer"}, default="auto"
        Blocks over patches of time, every column by itself with shared weights; blocks over single time steps
        of all columns together (slower, and the columns inform each other); or blocks over the columns, each of
        which gives its whole context at once (quick for long contexts, and the columns inform each other).
        "auto" takes "mixer" for several columns and for steps from 15 minutes to an hour, else "patch".
    layout : str, default="auto"
        Blocks from input to output: letters s (sLSTM), m (mLSTM), l (classic LSTM), or a ratio such as "7:1". "auto"
        takes "s" for the mixer and "sm" for other backbones.
    num_blocks : int, optional
        Number of blocks; the layout is repeated up to it. Default: the layout's own.
    hidden_size : int, default=64
        Width of the blocks.
    num_heads : int, default=4
        Heads of every cell; divides `hidden_size`.
    patch_length : int or "auto", default="auto"
        Steps per patch. "auto" takes 8, and 16 for contexts of 256 steps or more.
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
        for at predict; it is interpolated. With 0.5 alone there are forecasts, but neither intervals nor variances.
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
    calibrate : bool or "adaptive", default=True
        Whether intervals are calibrated (needs at least 30 held-out windows). With "adaptive" they go on learning from
        every window that `update` or, origin by origin, `predict_origins` completes: a target outside its interval
        widens those that follow a little, one inside narrows them less. Needs a loss with quantiles of its own.
    refit_on_all : bool, default=False
        Train once more on the whole period, for the number of epochs that was best.
    update_steps : int, default=20
        Fine-tuning steps of ``update(..., update_params=True)``: at a tenth of `learning_rate`, on windows whose
        targets reach into the new data, from the present weights and with scalers and calibration kept. As many
        are taken by `fit` after `pretrain`. 0 keeps the weights.
    past_covariates : list of column names, optional
        Columns of X that are measurements: read up to the cutoff, never beyond it. All other columns of X are known
        ahead: `predict` needs them from the step after the cutoff to the last one asked for.
    static_covariates : list of column names, optional
        Columns of X that tell the series of a panel apart: one value per series, which `predict` need not be given.
    calendar_features : "auto", list of str, or None, default=None
        Covariates that the clock gives: sine and cosine of the place in the "hour", "day", "week" or "year", read
        off the local time where the index has a zone. "auto" takes every cycle that the step can show and the
        longest series has gone through twice.
    holidays : str, optional
        Country, or country and region, whose public holidays are marked as a covariate: "DE", "US-CA". Needs the
        extra `calendar`.
    on_gap : {"raise", "mask"}, default="raise"
        What to do with times that are left out of a regular index: an error, or missing values in their place.
    resample : str, optional
        A step of time, "1h", to whose grid `y` and `X` are brought first by averaging; times may then be irregular,
        repeated and unsorted. Give `update` whole steps: rows that begin inside a step seen before are an error.
    calendar : pandas offset, str, DatetimeIndex or TradingCalendar, optional
        What continues a daily index without freq: an offset, the future sessions themselves, or the `calendar_` of
        another forecaster. Default: inferred from the sessions seen (weekdays and holiday rules), see `calendar_`.
    device : str, default="auto"
        Torch device; "auto" takes CUDA when it is available.
    random_state : int, RandomState or None, default=None
        Same value, machine, versions, device and threads: the same bits. No global seed is read or set, but for
        the `RandomState` that is passed.
    checkpoint : str or PathLike, optional
        A file in which training is kept while it goes on, so that a fit that was killed can be called again and goes
        on where it was: to the same bits as if nothing had happened, on the same machine. It is removed when `fit`
        is done; a file of other data, parameters or versions is an error that names them. Where many fits share
        the parameter (a search, a backtest that refits), give a folder that is there: each fit then has a file of
        its own in it. Needs a `random_state`.
    verbose : bool, default=False
        Whether a progress bar is shown while training.

    Attributes
    ----------
    network_ : ForecastNetwork or NetworkAverage
        The trained network, or networks.
    history_ : pd.DataFrame
        One row per epoch: losses, learning rate, seconds. Of several networks, also which one, the longest context
        first.
    best_epoch_ : int, or list of int
        The epoch whose weights are kept. Training starts at a ridge regression with its empirical quantiles; 0
        means that nothing learned after it was better on the held-out windows. Of several networks, one for each.
    calibrated_ : bool
        Whether intervals were calibrated on held-out windows.
    calibration_coverage_ : pd.DataFrame or None
        Where they were, the share of the calibration windows' targets in the central intervals, by nominal coverage:
        "network" as the network says them, "calibrated" where each quarter of the windows was calibrated by those of
        the other three that share no target with it; NaN where there are none.
    calendar_ : TradingCalendar or None
        The sessions rule of an index without freq (of the first series).
    pretrained_ : tuple
        After `pretrain`: the network and how it came about.

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
    CheckpointError
        The checkpoint cannot be written, or is damaged or of another fit.

    Warns
    -----
    ShortSeriesWarning
        The series leaves no room for validation windows, or only a constant to learn from before them; or a column is
        constant there but for one value at most.

    Notes
    -----
    Columns of numbers in X are scaled by what was seen in training; columns of text or of a categorical dtype become
    categories. NaN means missing, in X as in y.

    A frame with instance levels above time is one panel: a single network is trained on all its series, each with a
    level and scale of its own. Series may have different lengths and ends; their ends are held out from the same
    time on. `pretrain` on a panel and then `fit` on other series takes the network to these.

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
        "y_inner_mtype": ["pd.DataFrame", "pd-multiindex", "pd_multiindex_hier"],
        "X_inner_mtype": ["pd.DataFrame", "pd-multiindex", "pd_multiindex_hier"],
        "capability:multivariate": True,
        "capability:exogenous": True,
        "capability:categorical_in_X": True,
        "capability:non_contiguous_X": False,
        "capability:unequal_length": True,
        "capability:pretrain": True,
        "pretrain:fitted_params": ["pretrained_"],
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
        context_length="auto",
        *,
        backbone="auto",
        layout="auto",
        num_blocks=None,
        hidden_size=64,
        num_heads=4,
        patch_length="auto",
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
        past_covariates=None,
        static_covariates=None,
        calendar_features=None,
        holidays=None,
        on_gap="raise",
        resample=None,
        calendar=None,
        device="auto",
        random_state=None,
        checkpoint=None,
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
        self.past_covariates = past_covariates
        self.static_covariates = static_covariates
        self.calendar_features = calendar_features
        self.holidays = holidays
        self.on_gap = on_gap
        self.resample = resample
        self.calendar = calendar
        self.device = device
        self.random_state = random_state
        self.checkpoint = checkpoint
        self.verbose = verbose
        super().__init__()

    # Fitting

    def fit(self, y, X=None, fh=None):
        """Fit to a series or a panel, as sktime's `fit`."""
        check_container(y, "y", f"{type(self).__name__}.fit")
        return super().fit(y, X=X, fh=fh)

    def _check_X_y(self, X=None, y=None, **kwargs):
        """Repair and check frames, in words of our own, before sktime's generic checks see them."""
        where = f"{type(self).__name__}.{'predict' if y is None else 'update' if self.is_fitted else 'fit'}"
        for name, data in (("y", y), ("X", X)):
            if data is not None:
                check_container(data, name, where)
                self._check_levels_of(data, name, where)
        if y is not None:
            y = self._prepared(y, where, check_values)
        if X is not None:
            X = with_categories(self._prepared(X, f"{where}: X", check_x))
        if all(isinstance(data, pd.Series | pd.DataFrame) and not is_nested(data) for data in (y, X)):
            check_same_times(y, X, where)
        return super()._check_X_y(X=X, y=y, **kwargs)

    def _check_levels_of(self, data, name: str, where: str) -> None:
        """Raise unless a frame is a panel where the fitted one was, and a single series where that was."""
        if self.is_fitted and isinstance(data, pd.Series | pd.DataFrame) and not is_nested(data):
            many = isinstance(data.index, pd.MultiIndex)
            if many != (self._panel.keys is not None):
                kinds = ["a panel" if one else "a single series" for one in (many, not many)]
                raise DataError(
                    f"{where}: {name} is {kinds[0]}, but the forecaster was fitted on {kinds[1]}. Give the same index "
                    "levels."
                )

    def _check_fh(self, fh, pred_int=False):
        where = type(self).__name__
        if fh is not None:
            check_horizon(fh, where)
        elif self.is_fitted and self._fh is None:
            raise ParameterError(f"{where}: fh is missing. Say which steps, for instance predict(fh=[1, 2, 3]).")
        try:
            return super()._check_fh(fh, pred_int=pred_int)
        except (TypeError, ValueError) as error:
            raise ParameterError(f"{where}: fh={fh!r} is impossible: {error}") from error

    def _prepared(self, data, where: str, check):
        """Return a pandas object as asked for by `resample` and `on_gap`, checked; anything else as it is."""
        if not isinstance(data, pd.Series | pd.DataFrame) or is_nested(data):
            return data
        frame = data.to_frame() if isinstance(data, pd.Series) else data
        # Of new rows of y the fitted axis knows which are left out, where a few by themselves do not show it.
        on_gap = "raise" if self.is_fitted and check is check_values else self.on_gap
        repaired = repair(frame, where, resample=self.resample, on_gap=on_gap)
        raw, seen = {}, {}
        if self.resample is not None and where.startswith(f"{type(self).__name__}.update"):
            raw = dict(take_apart(frame, where))
            seen = {self._panel.key(j): one.axis.index for j, one in enumerate(self._panel.series)}
        for key, part in take_apart(repaired, where):
            name = where if key == 0 else f"{where}: series {key!r}"
            if key in seen:
                check_whole_step(raw[key], part, seen[key], self.resample, name)
            check(part, name)
            check_order(part.index, name)
        if repaired is frame:
            return data
        return repaired.iloc[:, 0].rename(data.name) if isinstance(data, pd.Series) else repaired

    def _fit(self, y, X, fh):
        where = f"{type(self).__name__}.fit"
        self._seed = draw_seed(self.random_state)
        pretrained = getattr(self, "pretrained_", None)
        if pretrained is None:
            fitted, config, panel = self._train(y, X, where)
        else:
            fitted, config, panel = self._continue(pretrained, y, X, where)
        self.network_ = fitted.network
        self.history_ = pd.DataFrame(fitted.history)
        self.best_epoch_ = fitted.best_epoch
        self.calibrated_ = fitted.calibrated
        self.calibration_coverage_ = None
        if fitted.coverage is not None:
            self.calibration_coverage_ = pd.DataFrame.from_dict(
                fitted.coverage, orient="index", columns=["network", "calibrated"]
            ).rename_axis("coverage")
        self.calendar_ = panel.series[0].axis.calendar
        self._calibration, self._covariates = fitted.calibration, fitted.covariates
        self._scaler, self._panel, self._fit_config = fitted.scaler, panel, config
        # Of each series, the factors of its widths, where they learn: [S, L, C, Q].
        self._factors = None
        if isinstance(self.calibrate, str) and isinstance(fitted.calibration, WidthFactors):
            self._factors = np.repeat(fitted.calibration.factors[None], len(panel), axis=0)
        if fitted.interrupted:
            # Nothing is lost: the estimator is complete with its best weights so far, and the caller is told.
            self._is_fitted = True
            raise KeyboardInterrupt
        return self

    def _pretrain(self, y, X=None, fh=None):
        where = f"{type(self).__name__}.pretrain"
        self._seed = draw_seed(self.random_state)
        fitted, config, _ = self._train(y, X, where)
        self.pretrained_ = Pretrained(fitted, config)
        if fitted.interrupted:
            raise KeyboardInterrupt
        return self

    def _pretrain_update(self, y, X=None, fh=None):
        fitted, config, _ = self._continue(self.pretrained_, y, X, f"{type(self).__name__}.pretrain")
        self.pretrained_ = Pretrained(fitted, config)
        return self

    def _train(self, y, X, where: str) -> tuple[Fitted, FitConfig, Panel]:
        """Fit a network to a frame."""
        self._check_parameters(where)
        # What is impossible is named before the data are looked at.
        self._fit_config_of(self._shapes(rows=1000, channels=1, season=1), 1, ())
        device = resolve_device(self.device, where)
        settings = {"patience": self.patience, "validation_fraction": self.validation_fraction}
        checkpoint = Checkpoint.of(self.checkpoint, self.random_state, where, **settings)
        # What X says of times after those of y is known ahead at best: no category is learned from there.
        seen = None if X is None else X[X.index.isin(y.index)]
        columns = plan_columns(seen, _names(self.past_covariates), _names(self.static_covariates), where)
        panel = make_panel(y, X=X, plan=columns, calendar=self.calendar, where=where)
        clock = choose_time_features(
            [one.axis.index for one in panel.series], self.calendar_features, self.holidays, where
        )
        covariates = CovariatePlan.unscaled(columns, clock)
        longest = max((one.axis.index for one in panel.series), key=len)
        rows = len(longest)
        shapes = self._shapes(rows=rows, channels=y.shape[1], season=seasonal_period(longest))
        config = self._fit_config_of(shapes, y.shape[1], tuple(covariates.known.tolist()))
        fitted = fit_panel(
            panel, covariates, config, seed=self._seed, device=device, where=where, checkpoint=checkpoint
        )
        self._warn_if_short(where, rows, fitted)
        if fitted.still and not fitted.late:
            series, column = fitted.still[0]
            name = repr(panel.columns[column]) + ("" if panel.keys is None else f" of series {panel.key(series)!r}")
            more = f", and {len(fitted.still) - 1} more like it" if len(fitted.still) > 1 else ""
            warnings.warn(
                f"{where}: {name}{more}: all values but one at most are the same in the part of the rows that is "
                "learned from, and others are not. The intervals rest on next to nothing, and are too narrow if the "
                "column moves again. Give more rows in which it moves, or leave it out.",
                ShortSeriesWarning,
                stacklevel=4,
            )
        return fitted, config, panel

    def _continue(self, pretrained, y, X, where: str) -> tuple[Fitted, FitConfig, Panel]:
        """Take a pretrained network to other series: scale them, and let it adapt a little."""
        fitted, config = pretrained
        if y.shape[1] != config.network.channels:
            raise DataError(
                f"{where}: y has {y.shape[1]} columns; the forecaster was pretrained on {config.network.channels}. "
                "Give as many."
            )
        columns = fitted.covariates.columns
        if X is not None and not columns:
            raise DataError(f"{where}: X was given, but the forecaster was pretrained without. Leave it out.")
        panel = make_panel(y, X=X, plan=columns, calendar=self.calendar, where=where)
        scaler = panel_scaler(panel, np.array([len(one.values) for one in panel.series]))
        network = copy.deepcopy(fitted.network)
        if self.update_steps:
            known = np.zeros(len(panel), dtype=np.int64)
            options = {"steps": self.update_steps, "seed": self._seed}
            adapt(network, panel, scaler, fitted.covariates, known, config, **options)
        return fitted._replace(network=network, scaler=scaler), config, panel

    def _check_parameters(self, where: str) -> None:
        several = isinstance(self.quantile_levels, list | tuple | np.ndarray)
        require(several, "quantile_levels", self.quantile_levels, "a tuple of numbers between 0 and 1")
        for name in ("linear_skip", "refit_on_all"):
            value = getattr(self, name)
            require(isinstance(value, bool | np.bool_), name, value, "True or False")
        adaptive = isinstance(self.calibrate, str) and self.calibrate == "adaptive"
        chosen = adaptive or isinstance(self.calibrate, bool | np.bool_)
        require(chosen, "calibrate", self.calibrate, 'True, False or "adaptive"')
        if adaptive and self.loss in POINT_LOSSES:
            raise ParameterError(
                f'{where}: calibrate="adaptive" changes the quantiles of a network, and loss={self.loss!r} has none. '
                'Choose calibrate=True, or loss="quantile".'
            )
        levels = check_levels(self.quantile_levels, where)
        if not np.allclose(levels, 1 - levels[::-1]) or len(levels) % 2 == 0:
            raise ParameterError(
                f"{where}: quantile_levels={self.quantile_levels} must be symmetric around 0.5 and contain it. Other "
                "levels can be asked for at predict_quantiles."
            )
        fraction = self.validation_fraction
        require(is_between(fraction, 0, 1), "validation_fraction", fraction, "from 0 (none) to below 1")
        require(is_whole(self.patience), "patience", self.patience, "a whole number, 1 or above")
        require(is_whole(self.update_steps, 0), "update_steps", self.update_steps, "a whole number, 0 or above")
        require(self.on_gap in ("raise", "mask"), "on_gap", self.on_gap, '"raise" or "mask"')
        for name in ("past_covariates", "static_covariates"):
            value = getattr(self, name)
            named = value is None or isinstance(value, list | tuple | pd.Index)
            require(named, name, value, "a list of columns of X, or None")

    def _shapes(self, *, rows: int, channels: int, season: int) -> list[Shape]:
        """Return the part of each network's shape that may be "auto", the longest context first."""
        given = {name: getattr(self, name) for name in Shape._fields}
        lengths = given.pop("context_length")
        several = isinstance(lengths, list | tuple | np.ndarray)
        require(not several or len(lengths) > 0, "context_length", lengths, "one length or more")
        for length in lengths if several else [lengths]:
            _require_number_or_auto("context_length", length, given_as=lengths)
        _require_number_or_auto("patch_length", given["patch_length"])
        for name in ("backbone", "layout"):
            require(isinstance(given[name], str), name, given[name], 'a name, or "auto"')
        given = {name: value for name, value in given.items() if not _is_auto(value)}
        if _is_auto(lengths):
            return choose_shapes(rows, channels, season, **given)
        shapes = [
            choose_shape(rows, channels, season, context_length=None if _is_auto(length) else length, **given)
            for length in (lengths if several else [lengths])
        ]
        return sorted(shapes, key=lambda shape: -shape.context_length)

    def _network_config(self, shape: Shape, channels: int, known: tuple[bool, ...]) -> NetworkConfig:
        return NetworkConfig(
            channels=channels,
            horizon=self.horizon,
            context_length=shape.context_length,
            backbone=shape.backbone,
            layout=shape.layout,
            num_blocks=self.num_blocks,
            hidden_size=self.hidden_size,
            num_heads=self.num_heads,
            patch_length=shape.patch_length,
            conv_width=self.conv_width,
            decomposition=self.decomposition,
            dropout=self.dropout,
            linear_skip=self.linear_skip,
            loss=self.loss,
            quantile_levels=tuple(float(level) for level in self.quantile_levels),
            known=known,
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

    def _fit_config_of(self, shapes: list[Shape], channels: int, known: tuple[bool, ...]) -> FitConfig:
        network, *others = (self._network_config(shape, channels, known) for shape in shapes)
        return FitConfig(
            network,
            self._training_config(),
            patience=self.patience,
            validation_fraction=self.validation_fraction,
            calibrate=bool(self.calibrate),
            refit_on_all=bool(self.refit_on_all),
            verbose=bool(self.verbose),
            quantile_levels=np.asarray(self.quantile_levels, dtype=np.float64),
            others=tuple(others),
        )

    def _warn_if_short(self, where: str, rows: int, fitted: Fitted) -> None:
        if self.validation_fraction == 0:
            return
        off = [] if fitted.stopping_windows else ["early stopping"]
        if self.calibrate and fitted.held_out_windows < MIN_WINDOWS:
            off.append("interval calibration")
        if not off:
            return
        missing = f"{' and '.join(off)} {'is' if len(off) == 1 else 'are'} off"
        if fitted.late:
            reason = (
                f"before the part to be held out (validation_fraction={self.validation_fraction}) there is nothing, or "
                f"only a constant, to learn from, so all {rows} rows were trained on; {missing}. Intervals rest on the "
                "few rows that move, and nothing checked them. Give more such rows,"
            )
        else:
            need = int(np.ceil(2 * (self.horizon + MIN_WINDOWS) / self.validation_fraction))
            reason = (
                f"{rows} rows leave too few validation windows for horizon={self.horizon}; {missing}. "
                f"About {need} rows are needed for both; give a longer series, a shorter horizon,"
            )
        warnings.warn(
            f"{where}: {reason} or validation_fraction=0 to say that this is meant.", ShortSeriesWarning, stacklevel=5
        )

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
        check_columns(y.columns, self._panel.columns, where)
        columns = self._covariates.columns
        self._refuse_x(X, where)
        calendar = self.calendar_ or self.calendar
        before = self._fitted_panel()
        panel = self._panel.updated(y, where, X=X, plan=columns, calendar=calendar)
        after, changed = before.grown(panel, where)
        self._warn_if_moving(after, changed, where)
        if update_params and self.update_steps:
            known = np.array([len(self._panel.series[j].values) if j < len(self._panel) else 0 for j in changed])
            network = copy.deepcopy(self.network_)
            rows = sum(len(one.values) for one in panel.series)
            options = {"steps": self.update_steps, "seed": self._seed + rows}
            config = replace(self._fit_config, training=self._training_config())
            part = after.subset(changed)
            adapt(network, part.panel, part.scaler, self._covariates, known, config, **options)
            self.network_ = network
        self._panel, self._scaler, self._factors = after.panel, after.scaler, after.factors
        return self

    def _warn_if_moving(self, fitted: FittedPanel, changed: list[int], where: str) -> None:
        panel, scaler = fitted.panel, fitted.scaler
        for j in changed:
            moved = (scaler.scale[j] == 0) & (np.nan_to_num(panel.series[j].values - scaler.level[j]) != 0).any(0)
            if moved.any():
                name = panel.columns[moved][0] if panel.keys is None else panel.key(j)
                warnings.warn(
                    f"{where}: {name!r} was constant in training and now moves; its forecast stays at that constant "
                    "until it is fitted again.",
                    UserWarning,
                    stacklevel=5,
                )

    def _refuse_x(self, X, where: str) -> None:
        if X is not None and X.shape[1] and not self._covariates.columns:
            raise DataError(
                f"{where}: X was given, but the forecaster was fitted without. Give X to fit too, or leave it out."
            )

    def _update_predict_single(self, y, fh, X=None, update_params=True):
        self._update(y, X if self._covariates.columns else None, update_params)
        return self._predict(fh, X)

    # Forecasting

    def _predict(self, fh, X):
        times, points, _ = self._forecast(fh, X, f"{type(self).__name__}.predict")
        return self._panel.frame(points, times, self._get_columns("predict"))

    def predict_interval(self, fh=None, X=None, coverage=0.9):
        """Forecast intervals that hold a share `coverage` of what comes, as sktime's `predict_interval`."""
        check_coverage(coverage, f"{type(self).__name__}.predict_interval")
        return super().predict_interval(fh=fh, X=X, coverage=coverage)

    def predict_quantiles(self, fh=None, X=None, alpha=None):
        """Forecast quantiles at the levels `alpha`, default 0.05 and 0.95, as sktime's `predict_quantiles`."""
        if alpha is not None:
            check_levels(alpha, f"{type(self).__name__}.predict_quantiles")
        return super().predict_quantiles(fh=fh, X=X, alpha=alpha)

    def _predict_quantiles(self, fh, X, alpha):
        where = f"{type(self).__name__}.predict_quantiles"
        wanted = check_levels(alpha, where)
        times, _, quantiles = self._forecast(fh, X, where)
        tables = [interpolate_levels(part, self._levels, wanted) for part in quantiles]
        return self._panel.frame(tables, times, self._get_columns("predict_quantiles", alpha=alpha))

    def _predict_var(self, fh, X=None, cov=False):
        times, _, quantiles = self._forecast(fh, X, f"{type(self).__name__}.predict_var")
        tables = [PiecewiseNormal(part, self._levels).variance() for part in quantiles]
        return self._panel.frame(tables, times, self._get_columns("predict_var"))

    def _predict_proba(self, fh, X, marginal=True):
        try:
            from xlstm_ts.distribution import QuantileDistribution
        except ImportError as error:
            raise ImportError(
                f"{type(self).__name__}.predict_proba needs skpro, which the extra `proba` installs: "
                "pip install 'xlstm-ts[proba]'."
            ) from error
        times, _, quantiles = self._forecast(fh, X, f"{type(self).__name__}.predict_proba")
        index, columns = self._panel.index(times), self._get_columns("predict")
        return QuantileDistribution(np.concatenate(quantiles), self._levels, index=index, columns=columns)

    def predict_origins(self, y, X=None, *, origins, fh, quantile_levels=None, batch_size=BATCH_SIZE):
        """Forecast from many origins at once, with weights, scalers and calibration as fitted.

        With ``calibrate="adaptive"`` the calibration of each origin has learned from the rows of `y` between the cutoff
        and that origin, whatever other origins are asked for, which takes a forecast from each of these rows.

        Equal to ``update(y_to_origin, update_params=False)`` followed by a prediction at each origin, in batched
        passes. The forecaster does not change.

        Parameters
        ----------
        y : pd.Series or pd.DataFrame
            The observed series, or a panel of them, up to the last origin at least; of an origin, nothing after it
            is read. A series that was not there when the forecaster was fitted is scaled by its rows up to the
            first origin.
        X : pd.DataFrame, optional
            Covariates at the times of `y`, and, of those that are known ahead, up to the last step asked for.
        origins : sequence of index values
            The last observed time of each forecast, the same for all series; a series that has no such time has no
            rows for it.
        fh : int or sequence of int
            Steps ahead, 1 or more.
        quantile_levels : sequence of float, optional
            Default: the learned levels.
        batch_size : int, default=256
            Windows that the network reads at once, which bounds the memory.

        Returns
        -------
        pd.DataFrame
            One row per series, origin, step and variable: series (its key, 0 for a single series), origin, step,
            time, variable, point, and one column per level, named by the level as a float.

        Raises
        ------
        DataError
            An origin is not a time of `y`, or `y` or `X` cannot be used as they are.
        ParameterError
            A step is below 1 or a level outside (0, 1).
        """
        self.check_is_fitted()
        where = f"{type(self).__name__}.predict_origins"
        wanted = self._levels if quantile_levels is None else check_levels(quantile_levels, where)
        require(is_whole(batch_size), "batch_size", batch_size, "a whole number, 1 or above")
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
            frame = frame.set_axis(self._panel.columns, axis=1)
        check_columns(frame.columns, self._panel.columns, where)
        self._refuse_x(X, where)
        frame = repair(frame, where, resample=self.resample, on_gap=self.on_gap)
        if X is not None:
            X = with_categories(X.to_frame() if isinstance(X, pd.Series) else X)
            X = repair(X, f"{where}: X", resample=self.resample, on_gap=self.on_gap)
        plan = self._covariates.columns
        panel = make_panel(frame, X=X, plan=plan, calendar=self.calendar_ or self.calendar, where=where)
        return self._fitted_panel().from_origins(panel, X, origins, steps, wanted, batch_size=batch_size, where=where)

    def stream(self, series=None):
        """Return a stream that goes on from here, one observation after another, at a cost that never grows.

        Parameters
        ----------
        series : hashable, optional
            Key of one series of the panel that the forecaster was fitted on; needed there only.

        Returns
        -------
        ForecastStream
            Its `push` takes observations in and its `forecast` says what follows. The forecaster does not change.

        Raises
        ------
        ParameterError
            The panel has no series of that key, or none was named.
        """
        self.check_is_fitted()
        panel = self._panel
        keys = [None] if panel.keys is None else list(panel.keys)
        if series not in keys:
            shown = f"one of {keys[:5]}{' and more' if len(keys) > 5 else ''}" if panel.keys else "None: there is one"
            raise ParameterError(f"{type(self).__name__}.stream: series={series!r} is impossible; expected {shown}.")
        return ForecastStream(self._fitted_panel().subset([keys.index(series)]), self._get_varnames())

    def predict_residuals(self, y=None, X=None):
        """Return observed minus forecast values; of the training series where no `y` is given."""
        self.check_is_fitted()
        where = f"{type(self).__name__}.predict_residuals"
        panel = self._panel
        if panel.keys is None:
            if y is None:
                y = pd.DataFrame(panel.series[0].values, panel.series[0].axis.index, self._get_varnames())
                y = y.iloc[:, 0] if self._y_metadata["mtype"] == "pd.Series" else y
            alone = copy.copy(self)
            alone._fh = None  # sktime would count the times of y in steps, as an earlier horizon did
            return super(XLSTMForecaster, alone).predict_residuals(y=y, X=X)
        if y is None:
            y = panel.frame(
                [one.values for one in panel.series], [one.axis.index for one in panel.series], panel.columns
            )
        parts = dict(take_apart(y, where))
        if strange := [key for key in parts if key not in panel.keys]:
            raise DataError(
                f"{where}: the series {strange[:3]} were not there at fit; there were {panel.keys[:3]}, ..."
            )
        numbers = [j for j in range(len(panel)) if panel.key(j) in parts]
        wanted = [parts[panel.key(j)] for j in numbers]
        steps = [panel.series[j].axis.steps_of(one.index) for j, one in zip(numbers, wanted, strict=True)]
        some = self._fitted_panel().subset(numbers)
        points, _ = some.at_steps(steps, X, where)
        residuals = [one.to_numpy(dtype=np.float64) - point for one, point in zip(wanted, points, strict=True)]
        return some.panel.frame(residuals, [one.index for one in wanted], self._get_varnames())

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
            model.update(y.iloc[rows], X=X, update_params=update_params)
            forecast = model.predict(fh=cv.get_fh(), X=X)
            forecasts.append(convert_to(forecast, mtype, store=store, store_behaviour="freeze"))
            cutoffs.append(model.cutoff)
        return _format_moving_cutoff_predictions(forecasts, cutoffs)

    @property
    def _levels(self) -> np.ndarray:
        return self._fit_config.quantile_levels

    def _fitted_panel(self) -> FittedPanel:
        predictor = Predictor(self.network_, self._levels, self._calibration)
        return FittedPanel(predictor, self._panel, self._scaler, self._covariates, self._factors)

    def _forecast(self, fh, X, where: str) -> tuple[list[pd.Index], list[np.ndarray], list[np.ndarray]]:
        """Return times, points (n, C) and quantiles (n, C, Q) of each series at a horizon, in the sample too."""
        self._refuse_x(X, where)
        try:
            steps = [_steps(fh, one.axis) for one in self._panel.series]
            times = [one.axis.at(part) for one, part in zip(self._panel.series, steps, strict=True)]
        except DataError as error:
            raise DataError(f"{where}: {error}") from error
        return times, *self._fitted_panel().at_steps(steps, X, where)

    def save_model(self, path):
        """Write the fitted forecaster to a model file, which cannot run code when it is loaded.

        `save` of sktime pickles instead.

        Parameters
        ----------
        path : str or PathLike
            The file. What is there is replaced once the new file is whole.

        Raises
        ------
        ModelFileError
            Something cannot be kept without code, such as a calendar object of one's own, or the file cannot be
            written; what was there before is as it was.
        """
        if not hasattr(self, "pretrained_"):
            self.check_is_fitted()
        write_model(path, self, self.get_params(deep=False), _KINDS, f"{type(self).__name__}.save_model")

    @classmethod
    def load_model(cls, path, *, device="cpu"):
        """Return the forecaster that `save_model` wrote.

        Parameters
        ----------
        path : str or PathLike
            The file.
        device : str, default="cpu"
            Where its network computes, wherever it was fitted; "auto" takes CUDA when it is available. The
            parameter of that name stays as it was.

        Returns
        -------
        XLSTMForecaster
            Fitted, and equal to the one that was saved: on the same machine, to the bit.

        Raises
        ------
        ModelFileError
            The file is not there, damaged, of a newer format, of another class, or no model file at all.
        """
        where = f"{cls.__name__}.load_model"
        return read_model(path, cls, cls.get_param_names(), _KINDS, device=resolve_device(device, where), where=where)

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
            small | {"layout": "l", "validation_fraction": 0.3, "calibrate": False, "calendar_features": "auto"},
        ]


class Pretrained(NamedTuple):
    """What `pretrain` leaves behind: a network and how it came about."""

    fitted: Fitted
    config: FitConfig


_KINDS = (
    record(Pretrained),
    Kind(DtypeKind, lambda value: value.name, lambda name: DtypeKind[name]),
    Kind(
        ForecastingHorizon,
        lambda fh: [fh.to_pandas(), fh.is_relative, fh.freq],
        lambda plain: ForecastingHorizon(plain[0], is_relative=plain[1], freq=plain[2]),
    ),
)
"""What a fitted forecaster holds beside the parts of `xlstm_ts.persistence`."""


def _is_auto(value) -> bool:
    return isinstance(value, str) and value == "auto"


def _require_number_or_auto(name: str, value, given_as=None) -> None:
    shown = value if given_as is None else given_as
    require(is_whole(value) or _is_auto(value), name, shown, 'a whole number, 1 or above, or "auto"')


def _names(columns) -> list:
    return [] if columns is None else list(columns)


def _steps(fh, axis: TimeAxis) -> np.ndarray:
    """Return the steps of a forecasting horizon, counted from the last time of an axis."""
    values = fh.to_pandas()
    if fh.is_relative:
        if pd.api.types.is_integer_dtype(values):
            if values.max() > MOST_STEPS:
                raise DataError(
                    f"the forecasting horizon asks for {values.max()} steps ahead; at most {MOST_STEPS} are served. "
                    "Resample the series to a longer step."
                )
            return values.to_numpy(dtype=np.int64)
        values = pd.Index([axis.index[-1] + step for step in values])  # time spans
    if isinstance(axis.index, pd.PeriodIndex) and isinstance(values, pd.DatetimeIndex):
        values = values.to_period(axis.index.freq)
    elif isinstance(axis.index, pd.DatetimeIndex) and isinstance(values, pd.PeriodIndex):
        values = values.to_timestamp()
    return axis.steps_of(values)
