"""What several test files share."""

import pytest
import torch

from xlstm_ts.nn import NetworkConfig

# sktime 1.2 announces with every estimator that its default for keeping data will change. Ours has settled it for
# itself and is silent; sktime's own composites are not.
ignores_remember_data = pytest.mark.filterwarnings("ignore:The default of config ``remember_data``:FutureWarning")

SMALL_NETWORK = NetworkConfig(
    channels=1,
    horizon=2,
    context_length=8,
    backbone="patch",
    layout="s",
    num_blocks=None,
    hidden_size=8,
    num_heads=2,
    patch_length=4,
    conv_width=2,
    decomposition=None,
    dropout=0.0,
    linear_skip=True,
    loss="quantile",
    quantile_levels=(0.1, 0.5, 0.9),
)


def relative_rms(got: torch.Tensor, expected: torch.Tensor, floor: float = 0.0) -> float:
    """Root mean square of the error over that of the expected values (or over `floor`, if that is larger)."""
    got, expected = got.double(), expected.double()
    error = (got - expected).square().mean().sqrt()
    return float(error / expected.square().mean().sqrt().clamp_min(max(floor, 1e-300)))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64).to(dtype)


def tiny_forecaster(**changes):
    """Return a forecaster that fits in some ten milliseconds."""
    from xlstm_ts.forecaster import XLSTMForecaster

    settings = {
        "horizon": 3,
        "backbone": "patch",
        "context_length": 8,
        "patch_length": 4,
        "hidden_size": 4,
        "num_heads": 1,
        "conv_width": 2,
        "layout": "s",
        "max_epochs": 1,
        "steps_per_epoch": 2,
        "batch_size": 8,
        "validation_fraction": 0,
        "update_steps": 2,
        "quantile_levels": (0.1, 0.5, 0.9),
        "random_state": 0,
    }
    return XLSTMForecaster(**(settings | changes))


def monthly(rows: int = 48, columns: int = 1, seed: int = 0):
    """Return a positive frame with a yearly cycle, one phase per column."""
    import numpy as np
    import pandas as pd

    time = np.arange(rows)[:, None]
    noise = np.random.default_rng(seed).normal(size=(rows, columns))
    values = 20 + 0.1 * time + 5 * np.sin(time * 2 * np.pi / 12 + np.arange(columns)) + noise
    index = pd.period_range("2018-01", periods=rows, freq="M")
    return pd.DataFrame(values, index=index, columns=list("abcdefgh")[:columns])
