"""Time-series forecasting with xLSTM networks.

The public names are resolved when they are first used: importing the package, or its kernels, imports neither
sktime nor matplotlib.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from xlstm_ts.data.causal import OutlierLimiter, WaveletDenoiser
    from xlstm_ts.data.transformers import WindowTransformer, make_windows
    from xlstm_ts.datasets import list_datasets, load_dataset
    from xlstm_ts.evaluation.backtest import backtest
    from xlstm_ts.evaluation.leakage import check_leakage, random_walk_canary
    from xlstm_ts.evaluation.plots import plot_forecast
    from xlstm_ts.forecaster import XLSTMForecaster
    from xlstm_ts.regressor import XLSTMRegressor

__version__ = "0.1.0"

_HOMES = {
    "OutlierLimiter": "xlstm_ts.data.causal",
    "WaveletDenoiser": "xlstm_ts.data.causal",
    "WindowTransformer": "xlstm_ts.data.transformers",
    "XLSTMForecaster": "xlstm_ts.forecaster",
    "XLSTMRegressor": "xlstm_ts.regressor",
    "backtest": "xlstm_ts.evaluation.backtest",
    "check_leakage": "xlstm_ts.evaluation.leakage",
    "list_datasets": "xlstm_ts.datasets",
    "load_dataset": "xlstm_ts.datasets",
    "make_windows": "xlstm_ts.data.transformers",
    "plot_forecast": "xlstm_ts.evaluation.plots",
    "random_walk_canary": "xlstm_ts.evaluation.leakage",
}

__all__ = [
    "OutlierLimiter",
    "WaveletDenoiser",
    "WindowTransformer",
    "XLSTMForecaster",
    "XLSTMRegressor",
    "backtest",
    "check_leakage",
    "list_datasets",
    "load_dataset",
    "make_windows",
    "plot_forecast",
    "random_walk_canary",
]


def __getattr__(name: str):
    """Import a public name from its home (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module 'xlstm_ts' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    """List the public names."""
    return sorted([*globals(), *_HOMES])
