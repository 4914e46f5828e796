"""Implementations of the sLSTM cell, one file each."""
