"""Forecasting with xLSTM networks."""
