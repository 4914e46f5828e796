"""Modules: layers, blocks, backbones and the forecasting network."""

from xlstm_ts.nn.blocks import BlockStack, parse_layout
from xlstm_ts.nn.init import initialise
from xlstm_ts.nn.layers import MLSTM, SLSTM
from xlstm_ts.nn.network import ForecastNetwork, NetworkConfig

__all__ = ["MLSTM", "SLSTM", "BlockStack", "ForecastNetwork", "NetworkConfig", "initialise", "parse_layout"]
