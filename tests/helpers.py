"""What several test files share."""

import torch

from xlstm_ts.nn import NetworkConfig

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
