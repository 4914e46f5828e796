"""The backbones: tokens and a state in, tokens and a state out."""
