"""What several test files share."""

import torch


def relative_rms(got: torch.Tensor, expected: torch.Tensor, floor: float = 0.0) -> float:
    """Root mean square of the error over that of the expected values (or over `floor`, if that is larger)."""
    got, expected = got.double(), expected.double()
    error = (got - expected).square().mean().sqrt()
    return float(error / expected.square().mean().sqrt().clamp_min(max(floor, 1e-300)))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64).to(dtype)
