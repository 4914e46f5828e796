"""Backtests, metrics, plots and reports, for any sktime forecaster."""
