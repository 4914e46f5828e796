"""Implementations of the parts of blocks around the cells, one file each."""
