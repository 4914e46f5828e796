"""The mean of the forecasts of several networks, which read the ends of one context.

Networks that differ in how far they look back err differently, and their mean errs less than they do on average
(as in N-BEATS, Oreshkin et al. 2020, arXiv 1905.10437, section 3.4). Quantiles are averaged level by level, which
keeps them in order and the shape of the distributions (Vincent 1912; Ratcliff 1979).
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from xlstm_ts.errors import ParameterError
from xlstm_ts.nn.network import ForecastNetwork, NetworkConfig, NetworkState
from xlstm_ts.nn.scaling import LocScale

ALIKE = ("channels", "horizon", "loss", "quantile_levels", "known")
"""What the members of an average have in common."""


class NetworkAverage(nn.Module):
    """Networks whose quantiles, or points, are averaged.

    Parameters
    ----------
    configs : sequence of NetworkConfig
        One for each member. They may differ in all but channels, horizon, loss, levels and covariates.

    Attributes
    ----------
    members : ModuleList of ForecastNetwork
        In the order of `configs`.

    Raises
    ------
    ParameterError
        There is no member, or they do not forecast the same.
    """

    def __init__(self, configs: Sequence[NetworkConfig]):
        super().__init__()
        if not configs:
            raise ParameterError("NetworkAverage: configs is empty; expected one network or more.")
        for name in ALIKE:
            values = {getattr(config, name) for config in configs}
            if len(values) > 1:
                raise ParameterError(f"NetworkAverage: {name} differs, {values}; networks that are averaged share it.")
        self.configs = tuple(configs)
        self.members = nn.ModuleList(ForecastNetwork(config) for config in configs)
        lengths = [config.context_length for config in configs]
        self._longest = lengths.index(max(lengths))

    @property
    def config(self) -> NetworkConfig:
        """The shape of the member which reads furthest back."""
        return self.configs[self._longest]

    @classmethod
    def of(cls, networks: Sequence[ForecastNetwork]) -> "NetworkAverage":
        """Return the average of networks, which become its members."""
        with torch.device("meta"):
            average = cls([network.config for network in networks])
        average.members = nn.ModuleList(networks)
        return average

    def forward(
        self,
        values: Tensor,
        observed: Tensor,
        state: None = None,
        *,
        covariates: Tensor | None = None,
        future: Tensor | None = None,
        scale: LocScale | None = None,
        carry: bool = False,
    ) -> tuple[Tensor, NetworkState]:
        """Read the last steps of a context, each member as many as it was made for; see `ForecastNetwork.forward`.

        Nothing can be carried: members would need it from different steps on.

        Returns
        -------
        forecast : Tensor of shape (B, L, C, Q)
            Mean quantiles, increasing along Q, or the mean point.
        state : NetworkState
            That of the member which reads furthest back.
        """
        if state is not None or carry:
            raise ParameterError("NetworkAverage: a state cannot be carried; give whole contexts and carry=False.")
        forecasts, states = [], []
        for member in members_of(self):
            end = slice(-member.config.context_length, None)
            part = None if covariates is None else covariates[:, end]
            options = {"covariates": part, "future": future, "scale": scale, "carry": False}
            forecast, after = member(values[:, end], observed[:, end], **options)
            forecasts.append(member.quantiles(forecast))
            states.append(after)
        return torch.stack(forecasts).mean(0), states[self._longest]

    def quantiles(self, forecast: Tensor) -> Tensor:
        """Return a forecast as it is: it is one of quantiles already."""
        return forecast


def members_of(network: ForecastNetwork | NetworkAverage) -> list[ForecastNetwork]:
    """Return the networks that are averaged: of one network, itself."""
    if not isinstance(network, NetworkAverage):
        return [network]
    return [member for member in network.members if isinstance(member, ForecastNetwork)]
