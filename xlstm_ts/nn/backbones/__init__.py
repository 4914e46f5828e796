"""The backbones: scaled context and a state in, features and a state out."""

from xlstm_ts.nn.backbones.mixer import MixerBackbone
from xlstm_ts.nn.backbones.patch import PatchBackbone
from xlstm_ts.nn.backbones.protocol import Backbone
from xlstm_ts.nn.backbones.stacked import StackedBackbone

__all__ = ["Backbone", "MixerBackbone", "PatchBackbone", "StackedBackbone"]
