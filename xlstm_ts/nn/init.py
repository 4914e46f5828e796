"""All initial weights, in one function that reads parameter names.

It draws from the generator that it is given, or from torch's global one if none is given (the layers do so when
they are made on their own, as torch's layers do). Dimensions: H heads, K head width.
"""

import math

import torch
from torch import Tensor, nn

ZERO = (
    *("recurrent_weights", "memory_gate_weight", "head_weight", "head_bias"),
    *("skip_weight", "forecast_weight", "covariate_weight"),
)


@torch.no_grad()
def initialise(module: nn.Module, generator: torch.Generator | None = None) -> None:
    """Set every parameter of a module to its initial value.

    Projections start small enough that a residual stack begins near the identity; norms start at 1 and biases at
    0; recurrent weights of sLSTM start at 0, so that the gates first learn from the input; the forget gates start at a
    spread of time scales: from one step to about 150 over the units of an sLSTM head, from 20 to 400 over the heads of
    an mLSTM.

    Parameters
    ----------
    module : nn.Module
        Changed in place.
    generator : torch.Generator, optional
        On the CPU. Default: torch's global one.
    """
    for path, parameter in module.named_parameters():
        name = path.rpartition(".")[2]
        if name == "gate_bias":
            parameter.zero_()
            parameter[1] = torch.linspace(5.0, -1.0, parameter.shape[-1])
        elif name == "memory_gate_bias":
            parameter[0] = torch.randn(parameter[0].shape, generator=generator).mul_(0.1)
            parameter[1] = torch.linspace(3.0, 6.0, parameter.shape[-1])
        elif name == "initial_tokens":
            parameter.copy_(torch.randn(parameter.shape, generator=generator).mul_(0.01))
        elif name in ZERO or name.startswith("bias"):
            parameter.zero_()
        elif name in ("norm_weight", "residual_weight") or (name == "weight" and parameter.dim() == 1):
            parameter.fill_(1.0)
        elif name in ("weight", "headwise_weight", "conv_weight") or name.startswith("weight_"):
            _normal(parameter, fan_in=_fan_in(name, parameter), generator=generator)
        else:
            raise AssertionError(f"initialise: no rule for parameter {path!r}")


def _fan_in(name: str, parameter: Tensor) -> int:
    # A head-wise weight is (H, in, out); all others are (out, in).
    return parameter.shape[-2] if name == "headwise_weight" else parameter.shape[-1]


def _normal(parameter: Tensor, *, fan_in: int, generator: torch.Generator | None) -> None:
    parameter.copy_(torch.randn(parameter.shape, generator=generator).mul_(math.sqrt(2 / (5 * fan_in))))
