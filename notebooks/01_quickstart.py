# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Quickstart: a forecast with honest intervals
#
# In half a minute: load a series, fit an xLSTM, forecast two weeks with intervals, look at them, move on when new
# values arrive, and check on the past whether the forecasts deserve trust.
#
# This file is a notebook in the percent format of jupytext. Run it as a script, cell by cell in an editor, or turn it
# into a notebook with `jupytext --to ipynb 01_quickstart.py`.

# %%
from xlstm_ts import XLSTMForecaster, backtest, load_dataset, plot_forecast

# %% [markdown]
# ## A series
#
# Google's closing prices from 2004 to 2008, which need no download. There are no rows on weekends and holidays. Such a
# series has no fixed step, and that is fine here: one step is one trading session.
#
# Your own series can stand here too: a pandas Series with times as its index, and NaN where a value is missing.

# %%
close = load_dataset("goog")["close"]
close.tail()

# %% [markdown]
# ## Fit
#
# We pretend that it is the end of July 2008, and keep what came later aside. `horizon` is how many steps one forecast
# covers: ten sessions are two weeks. `context_length` is how many past steps the network reads. With `random_state`
# the same run gives the same numbers again.
#
# The forecaster sets the end of the known prices aside by itself: to stop training in time, and to calibrate its
# intervals.

# %%
known = close[:"2008-07-31"]
forecaster = XLSTMForecaster(horizon=10, context_length=64, random_state=0)
forecaster.fit(known)

# %% [markdown]
# ## Forecast
#
# `fh` lists the steps ahead. The point forecast is the median: the price should end above it as often as below. An
# interval with a coverage of 0.8 should hold four out of five prices.
#
# Look at the dates: the forecaster has learned from the past which days are sessions.

# %%
steps = list(range(1, 11))
forecaster.predict(fh=steps)

# %%
forecaster.predict_interval(fh=steps, coverage=0.8)

# %% [markdown]
# ## Look at it
#
# Quantiles give the whole fan. `plot_forecast` draws it beside the end of the series, and the prices that were kept
# aside above it.

# %%
levels = [0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95]
fan = forecaster.predict_quantiles(fh=steps, alpha=levels)
later = close["2008-08-01":"2008-08-14"]
plot_forecast(known, fan, actual=later, title="Google, two weeks of August 2008")

# %% [markdown]
# ## New values arrive
#
# Two weeks later the prices are known. `update` appends them, and the next forecast starts from the new end. With
# `update_params=False` the network stays as it is and only reads the new prices, which takes no time. With
# `update_params=True` it also learns from them in a few small steps.

# %%
forecaster.update(later, update_params=False)
next_fan = forecaster.predict_quantiles(fh=steps, alpha=levels)
plot_forecast(close[:"2008-08-14"], next_fan, actual=close["2008-08-15":"2008-08-28"], title="Two weeks later")

# %% [markdown]
# ## Can it be trusted?
#
# One picture proves nothing. `backtest` fits a fresh copy on the earlier prices, and forecasts from many later days
# with nothing that was not known on that day. Two naive forecasts always run beside it: the last price goes on
# (`last_value`), and the last week repeats itself (`seasonal_naive`).

# %%
result = backtest(forecaster, close, horizon=10, origins=60)
result.summary()[["MAE", "MASE", "pinball", "coverage_80", "coverage_90"]].round(3)

# %% [markdown]
# How to read the columns:
#
# - **MAE** is the mean absolute error, in dollars. **MASE** is the same in units of a naive error, so that it can be
#   compared between series. **pinball** judges the whole fan. For all three, lower is better.
# - **coverage_80** is the share of prices inside the interval that should hold 80 % of them. Near 0.8 is honest.
#
# A price is close to a random walk: the last value is about as good a point forecast as can be had, and this table
# shows it. What is worth having is the interval. The naive intervals come from quieter years and hold far too few
# prices of 2008; those of the forecaster grow with the unrest of the last weeks.

# %%
result.plot()

# %% [markdown]
# Upper row: forecasts from three days. Lower left: the error by steps ahead. Lower right: the share of prices at or
# below each quantile. On the dotted line the quantiles are honest. A line above it at 0.5 says that the prices fell
# more often than expected: no forecaster here saw 2008 coming.
#
# Where a series has structure, such as the daily cycle of a temperature, the point forecast gains as well:
# `xlstm-ts demo` shows three series side by side.
