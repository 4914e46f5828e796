"""Implementations of the mLSTM cell, one file each."""
