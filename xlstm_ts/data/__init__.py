"""Frames to arrays and back: no torch modules here."""
