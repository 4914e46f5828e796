"""`XLSTMRegressor`: the network as a scikit-learn regressor whose rows are moments in time."""

import copy

import numpy as np
import pandas as pd
import torch
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.linear_model import RidgeCV
from sklearn.utils.validation import check_is_fitted

from xlstm_ts.checks import is_between, is_whole, require
from xlstm_ts.data.rows import RowWindows
from xlstm_ts.data.scaler import SeriesScaler
from xlstm_ts.data.transformers import Tail, validated
from xlstm_ts.data.windows import Windows
from xlstm_ts.errors import DataError, DataTypeError
from xlstm_ts.nn.regression import RegressionConfig, RegressionNetwork
from xlstm_ts.persistence import read_model, write_model
from xlstm_ts.training.callbacks import BestWeights, Callback, Progress
from xlstm_ts.training.checkpoint import Checkpoint
from xlstm_ts.training.device import resolve_device
from xlstm_ts.training.loop import TrainingConfig, train
from xlstm_ts.training.seeds import draw_seed

MIN_VALIDATION_ROWS = 10
"""Rows below which nothing is held out: a loss over fewer says too little of which epoch is best."""

PENALTIES = tuple(10.0**k for k in range(-5, 4))
"""Ridge penalties that are tried for the linear start, per row."""

LARGEST_START = 4_000_000  # numbers in the matrix of the linear start; rows are thinned down to it
MAX_START_ROWS = 20_000
PREDICTION_BATCH = 1024


class XLSTMRegressor(RegressorMixin, BaseEstimator):
    """Predict y of every row from the X of that row and of the rows before it.

    The rows are moments in time. Each is predicted from a window, its own X and that of the ``context_length - 1``
    rows before it, by the sLSTM and mLSTM blocks of Beck et al. 2024 (arXiv 2405.04517) beside a linear map. No later
    row is read, and y is never an input: give past values of y as columns of X where they are known in time.

    Parameters
    ----------
    context_length : int, default=24
        Rows in a window, its own included. Rows before the first count as missing.
    layout : str, default="sm"
        Blocks from input to output: letters s (sLSTM), m (mLSTM), l (classic LSTM), or a ratio such as "7:1".
    num_blocks : int, optional
        Number of blocks; the layout is repeated up to it. Default: the layout's own.
    hidden_size : int, default=64
        Width of the blocks.
    num_heads : int, default=4
        Heads of every cell; divides `hidden_size`.
    conv_width : int, default=4
        Rows seen by the causal convolution in a block; 0 leaves it out.
    dropout : float, default=0.1
        Rate on the residual branches while training.
    linear_skip : bool, default=True
        Whether a linear map of the window stands beside the blocks; training then starts at a ridge regression.
    loss : {"mse", "mae"}, default="mse"
        What is minimised.
    max_epochs : int, default=30
        Epochs at most.
    steps_per_epoch : int or None, default=100
        Batches per epoch at most, drawn without replacement; None for all rows.
    batch_size : int, default=32
        Rows per batch.
    learning_rate : float, default=1e-3
        Peak of the schedule (linear rise, cosine fall).
    weight_decay : float, default=0.01
        Of AdamW, on projection matrices.
    gradient_clip : float, default=1.0
        Largest norm of a gradient.
    patience : int, default=5
        Epochs without a better validation loss before training stops.
    validation_fraction : float, default=0.2
        Share of the rows that is held out at their end and decides when training stops, if that is 10 rows or more.
        0 trains on all rows for `max_epochs`.
    device : str, default="auto"
        Torch device; "auto" takes CUDA when it is available.
    random_state : int, RandomState or None, default=None
        Same value, machine, versions, device and threads: the same bits. No global seed is read or set, but for
        the `RandomState` that is passed.
    checkpoint : str or PathLike, optional
        A file in which training is kept while it goes on, so that a fit that was killed can be called again and goes
        on where it was, or a folder in which each of many fits has one: as in `xlstm_ts.XLSTMForecaster`. Needs a
        `random_state`.
    verbose : bool, default=False
        Whether a progress bar is shown while training.

    Attributes
    ----------
    network_ : RegressionNetwork
        The trained network.
    history_ : pd.DataFrame
        One row per epoch: losses, learning rate, seconds.
    best_epoch_ : int
        The epoch whose weights are kept; 0 is the linear start.
    n_features_in_ : int
        Columns of X seen in fit.
    feature_names_in_ : array of str
        Their names, where X was a DataFrame whose names are all strings.

    Raises
    ------
    DataError
        X or y cannot be used as they are: not numbers, infinite, not in time order, several series in one frame.
    ParameterError
        A parameter is impossible.
    BackendError
        The device is not here.
    TrainingError
        The loss was not finite.
    CheckpointError
        The checkpoint cannot be written, or is damaged or of another fit.

    Notes
    -----
    X may also hold windows that are already cut, of shape (n, T, C) with T up to `context_length`. The rows then are
    independent of each other.

    The last ``context_length - 1`` rows of a 2D fit are remembered. They stand before the rows of `predict` if these
    directly continue them, which is read off the index of a DataFrame: its first label is the one that follows the
    last fitted label (the next period, integer, regular time or trading session). An array has no index, and each
    `predict` of one starts with an empty history. In a pipeline, ``set_output(transform="pandas")`` keeps the index.

    NaN in X means missing and needs no filling; y has to be complete. Level and scale of every column are removed in
    double precision. A column of X that never moves in training is ignored, and a y that never moves is predicted
    exactly.

    Examples
    --------
    >>> import numpy as np
    >>> from xlstm_ts import XLSTMRegressor
    >>> X = np.random.default_rng(0).normal(size=(200, 1))
    >>> y = np.roll(X[:, 0], 2)  # what X was two rows before
    >>> model = XLSTMRegressor(context_length=4, hidden_size=8, max_epochs=2, random_state=0).fit(X[2:], y[2:])
    >>> model.score(X[2:], y[2:]) > 0.95
    True
    """

    def __init__(
        self,
        context_length=24,
        *,
        layout="sm",
        num_blocks=None,
        hidden_size=64,
        num_heads=4,
        conv_width=4,
        dropout=0.1,
        linear_skip=True,
        loss="mse",
        max_epochs=30,
        steps_per_epoch=100,
        batch_size=32,
        learning_rate=1e-3,
        weight_decay=0.01,
        gradient_clip=1.0,
        patience=5,
        validation_fraction=0.2,
        device="auto",
        random_state=None,
        checkpoint=None,
        verbose=False,
    ):
        self.context_length = context_length
        self.layout = layout
        self.num_blocks = num_blocks
        self.hidden_size = hidden_size
        self.num_heads = num_heads
        self.conv_width = conv_width
        self.dropout = dropout
        self.linear_skip = linear_skip
        self.loss = loss
        self.max_epochs = max_epochs
        self.steps_per_epoch = steps_per_epoch
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.gradient_clip = gradient_clip
        self.patience = patience
        self.validation_fraction = validation_fraction
        self.device = device
        self.random_state = random_state
        self.checkpoint = checkpoint
        self.verbose = verbose

    def fit(self, X, y):
        """Train the network.

        Parameters
        ----------
        X : DataFrame or array of shape (n, C), or array of shape (n, T, C)
            Rows in time order, or windows that are already cut.
        y : array of shape (n,) or (n, K)
            Targets of the rows.

        Returns
        -------
        self
        """
        where = f"{type(self).__name__}.fit"
        require(is_whole(self.context_length), "context_length", self.context_length, "a whole number, 1 or above")
        require(is_whole(self.patience), "patience", self.patience, "a whole number, 1 or above")
        fraction = self.validation_fraction
        require(is_between(fraction, 0, 1), "validation_fraction", fraction, "from 0 (none) to below 1")
        training = self._training_config()
        self._network_config(1, 1)  # what is impossible is named before the data are looked at
        device = resolve_device(self.device, where)
        settings = {"patience": self.patience, "validation_fraction": fraction}
        checkpoint = Checkpoint.of(self.checkpoint, self.random_state, where, **settings)
        values, targets = self._check_fit(X, y, where)
        one_target, targets = targets.ndim == 1, targets.reshape(len(values), -1)
        config = self._network_config(values.shape[-1], targets.shape[1])

        rows = len(values)
        held_out = int(rows * fraction)
        stop = rows - held_out if held_out >= MIN_VALIDATION_ROWS else rows
        x_scaler, y_scaler = SeriesScaler.fit_before(values, stop), SeriesScaler.fit_before(targets, stop)
        history = values if values.ndim == 2 else values[:0, 0]  # windows that are already cut have no end
        scaled, ends = _lay_out(_remove_scale(values, x_scaler), self.context_length)
        windows = RowWindows.of(Windows.of(scaled, self.context_length, 1, device), ends, y_scaler.forward(targets))

        generator = torch.Generator().manual_seed(draw_seed(self.random_state))
        network = RegressionNetwork.create(config, generator=generator, device=device)
        if self.linear_skip:
            _start_linear(network, windows, stop)
        run = train(
            network,
            windows,
            np.arange(stop),
            stop=stop,
            valid_origins=np.arange(stop, rows),
            config=training,
            generator=generator,
            callbacks=self._callbacks(early_stopping=stop < rows),
            checkpoint=checkpoint,
        )
        if checkpoint is not None and not run.interrupted:
            checkpoint.remove()
        self.network_ = network
        self.history_ = pd.DataFrame(run.history)
        self.best_epoch_ = run.history[-1]["epoch"] if run.best_epoch is None else run.best_epoch
        self._x_scaler, self._y_scaler, self._one_target = x_scaler, y_scaler, one_target
        self._tail = Tail.of(X, history, self.context_length - 1)
        if run.interrupted:
            # Nothing is lost: the estimator is complete with its best weights so far, and the caller is told.
            raise KeyboardInterrupt
        return self

    def predict(self, X):
        """Predict y of every row.

        Parameters
        ----------
        X : DataFrame or array of shape (n, C), or array of shape (n, T, C)
            Rows in time order, or windows that are already cut.

        Returns
        -------
        array of shape (n,) or (n, K), float64
            In the shape of the fitted y.
        """
        check_is_fitted(self)
        length, where = self.network_.config.context_length, f"{type(self).__name__}.predict"
        if _is_cut(X):
            values = self._check_cut(X, length, where, reset=False)
            before = values[:0]
        else:
            values = validated(self, X, where=where, reset=False)
            before = self._tail.before(X)
        values = np.concatenate([before, values])
        scaled, ends = _lay_out(_remove_scale(values, self._x_scaler), length)
        ends = ends[len(before) :]
        windows = Windows.of(scaled, length, 1, next(self.network_.parameters()).device)
        parts = []
        with torch.no_grad():
            for first in range(0, len(ends), PREDICTION_BATCH):
                prediction, _ = self.network_(*windows.contexts(ends[first : first + PREDICTION_BATCH]), carry=False)
                parts.append(prediction[:, 0, :, 0].cpu().double().numpy())
        predicted = self._y_scaler.backward(np.concatenate(parts))
        return predicted[:, 0] if self._one_target else predicted

    def _check_fit(self, X, y, where: str) -> tuple[np.ndarray, np.ndarray]:
        """Return X as float64 of (n, C) or (n, T, C), and y as float64 of (n,) or (n, K)."""
        times, others = getattr(X, "index", None), getattr(y, "index", None)
        if _is_time(times) and _is_time(others) and len(X) == len(y) and not X.index.equals(y.index):
            raise DataError(f"{where}: X and y have other times. Give the same rows, for instance y.loc[X.index].")
        values = self._check_cut(X, self.context_length, where, reset=True) if _is_cut(X) else None
        # Of windows, their last rows stand for X where its length is compared with that of y.
        options = {"ensure_min_samples": 2, "multi_output": True, "y_numeric": True}
        rows, targets = validated(self, X if values is None else values[:, -1], y, where=where, reset=True, **options)
        if not isinstance(targets, np.ndarray) or targets.dtype.kind not in "fiub":
            found = targets.dtype if isinstance(targets, np.ndarray) else type(targets).__name__
            raise DataTypeError(f"{where}: y is of type {found}; expected real numbers.")
        targets = np.asarray(targets, dtype=np.float64)
        return rows if values is None else values, targets

    def _check_cut(self, X, length: int, where: str, *, reset: bool) -> np.ndarray:
        """Return windows as float64 of (n, T, C), with what their beginnings lack as missing."""
        windows = np.asarray(X)
        if not 1 <= windows.shape[1] <= length:
            raise DataError(
                f"{where}: X has windows of {windows.shape[1]} rows; expected 1 to context_length={length}. Cut "
                "shorter ones, or raise context_length."
            )
        flat = windows.reshape(windows.shape[0] * windows.shape[1], windows.shape[2])
        if not reset:
            if windows.shape[2] != self.n_features_in_:
                raise DataError(
                    f"{where}: X has {windows.shape[2]} columns; fit saw {self.n_features_in_}. Give the same columns."
                )
            # An array has no names to compare; without those of the fit scikit-learn would warn.
            flat = pd.DataFrame(flat, columns=getattr(self, "feature_names_in_", None))
        flat = validated(self, flat, where=where, reset=reset)
        missing = ((0, 0), (length - windows.shape[1], 0), (0, 0))
        return np.pad(flat.reshape(windows.shape), missing, constant_values=np.nan)

    def _network_config(self, inputs: int, targets: int) -> RegressionConfig:
        return RegressionConfig(
            inputs=inputs,
            targets=targets,
            context_length=self.context_length,
            layout=self.layout,
            num_blocks=self.num_blocks,
            hidden_size=self.hidden_size,
            num_heads=self.num_heads,
            conv_width=self.conv_width,
            dropout=self.dropout,
            linear_skip=self.linear_skip,
            loss=self.loss,
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

    def _callbacks(self, *, early_stopping: bool) -> list[Callback]:
        callbacks: list[Callback] = [BestWeights(self.patience)] if early_stopping else []
        return [*callbacks, Progress()] if self.verbose else callbacks

    def save_model(self, path):
        """Write the fitted regressor to a model file, which cannot run code when it is loaded.

        Parameters
        ----------
        path : str or PathLike
            The file. What is there is replaced once the new file is whole.

        Raises
        ------
        ModelFileError
            Something cannot be kept without code, or the file cannot be written; what was there before is as it was.
        """
        check_is_fitted(self)
        write_model(path, self, self.get_params(deep=False), (), f"{type(self).__name__}.save_model")

    @classmethod
    def load_model(cls, path, *, device="cpu"):
        """Return the regressor that `save_model` wrote.

        Parameters
        ----------
        path : str or PathLike
            The file.
        device : str, default="cpu"
            Where its network computes, wherever it was fitted. The parameter of that name stays as it was.

        Returns
        -------
        XLSTMRegressor
            Fitted, and equal to the one that was saved.

        Raises
        ------
        ModelFileError
            The file is not there, damaged, of a newer format, of another class, or no model file at all.
        """
        where = f"{cls.__name__}.load_model"
        return read_model(path, cls, cls._get_param_names(), (), device=resolve_device(device, where), where=where)

    def __getstate__(self):
        """Return the state for copies and files, with the network on the CPU: it loads where there is no GPU."""
        state = super().__getstate__().copy()
        network = state.get("network_")
        if network is not None and next(network.parameters()).device.type != "cpu":
            state["network_"] = copy.deepcopy(network).cpu()
        return state

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.input_tags.three_d_array = True
        tags.target_tags.multi_output = True
        return tags


def _is_cut(X) -> bool:
    return getattr(X, "ndim", 2) == 3


def _is_time(index) -> bool:
    return isinstance(index, pd.DatetimeIndex | pd.PeriodIndex | pd.TimedeltaIndex)


def _remove_scale(values: np.ndarray, scaler: SeriesScaler) -> np.ndarray:
    """Scale the inputs; one that never moved in training says nothing and becomes 0."""
    return np.where((scaler.scale == 0) & ~np.isnan(values), 0.0, scaler.forward(values))


def _lay_out(scaled: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a series (N, C) and the row after each window's last; windows (n, T, C) follow one another in it."""
    if scaled.ndim == 2:
        return scaled, np.arange(1, len(scaled) + 1)
    return scaled.reshape(-1, scaled.shape[2]), length * np.arange(1, len(scaled) + 1)


def _start_linear(network: RegressionNetwork, windows: RowWindows, stop: int) -> None:
    """Start at a ridge regression of the targets on the windows; the penalty is the best by leave-one-out."""
    config = network.config
    width = config.context_length * config.inputs
    most = min(MAX_START_ROWS, max(2, LARGEST_START // width))
    rows = np.arange(0, stop, -(-stop // most))
    batch = windows.batch(rows, stop)
    inputs = batch.context.flatten(1).cpu().double().numpy()
    targets = batch.target[:, 0].cpu().double().numpy()
    if len(rows) < 2 or not inputs.any() or not targets.any():
        return
    ridge = RidgeCV(alphas=[penalty * len(rows) for penalty in PENALTIES], alpha_per_target=targets.shape[1] > 1)
    ridge.fit(inputs, targets if targets.shape[1] > 1 else targets[:, 0])
    network.start_from(torch.from_numpy(np.atleast_2d(ridge.coef_)), torch.from_numpy(np.atleast_1d(ridge.intercept_)))
