"""Modules: layers, blocks, backbones and the forecasting network."""
