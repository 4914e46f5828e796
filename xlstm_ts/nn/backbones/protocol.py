"""What every backbone offers, so that the network need not know which one it holds."""

from typing import Any, Protocol

from torch import Tensor


class Backbone(Protocol):
    """Scaled context and a state in, features at the end of the context and the state after it out."""

    groups: int
    """G: 1 if a feature vector speaks for all channels, the number of channels if each has its own."""

    width: int
    """D, width of a feature vector."""

    def __call__(
        self, values: Tensor, observed: Tensor, state: Any | None = None, covariates: Tensor | None = None
    ) -> tuple[Tensor, Any]:
        """Read a piece of context.

        Parameters
        ----------
        values : Tensor of shape (B, T, C)
            Scaled values, 0 where not observed.
        observed : Tensor of shape (B, T, C), bool
            Which values were seen.
        state : optional
            What an earlier call returned. Default: the empty history.
        covariates : Tensor of shape (B, T, E), optional
            Features of covariates beside the values; where the backbone was made for some.

        Returns
        -------
        features : Tensor of shape (B, G, D)
            What is known at the end of the piece.
        state
            To be given to the next call; two pieces with carried state equal one.
        """
        ...

    def features(self, values: Tensor, observed: Tensor, covariates: Tensor | None = None) -> Tensor:
        """Return the features alone, after the empty history: what a call returns, for less work."""
        ...
