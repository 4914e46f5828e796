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
# # Stocks: an honest look at a share
#
# Many articles claim to foresee the direction of share prices seven times out of ten. This notebook forecasts one
# share with everything an honest evaluation needs: the calendar of the exchange, returns, directions with a test,
# trading after costs. Then it rebuilds the usual trap, in which noise alone gives seven out of ten, and catches it.
#
# It runs in less than a minute and needs no download.

# %%
import numpy as np
import pandas as pd
from sklearn.linear_model import LinearRegression

from xlstm_ts import XLSTMForecaster, backtest, check_leakage, load_dataset, random_walk_canary
from xlstm_ts.evaluation.markets import direction, evaluate_trading, in_returns, trading_positions

# %% [markdown]
# ## The series and its calendar
#
# Google's closing price from August 2004 to October 2008. There are no rows on weekends and holidays; one step is one
# session. The forecaster learns from the past which days are sessions and dates its forecasts accordingly.

# %%
close = load_dataset("goog")["close"]
model = XLSTMForecaster(horizon=5, context_length=64, max_epochs=10, random_state=0)
model.fit(close[:"2008-06-30"])
model.calendar_

# %% [markdown]
# The Fourth of July 2008 was a Friday. The next sessions after the end of June leave it out:

# %%
sessions = model.predict(fh=[1, 2, 3, 4, 5])
sessions

# %% [markdown]
# ## From every day of a year
#
# `backtest` fits a fresh copy on the first 700 sessions and then forecasts from every later one, with nothing that was
# not known on that day. The last value and last week's value stand beside it.

# %%
result = backtest(model, close, horizon=5, initial=700, stride=1)
result.summary()[["MAE", "MASE", "CRPS", "skill", "DM_p", "coverage_80", "coverage_90"]].round(3)

# %% [markdown]
# `skill` is how much smaller the error is than that of the seasonal naive forecast. Almost all of it is reached by the
# last value too, and that is the one to compare with, because a price is close to a random walk. The same in words:

# %%
for sentence in result.describe():
    print(sentence)

# %%
result.plot()

# %% [markdown]
# ## Returns
#
# Errors in dollars weigh expensive days more. `in_returns` expresses the same forecasts as log-returns since the
# origin. A price is an increasing function of its return, so quantiles carry over exactly.

# %%
in_returns(result).summary(["MAE", "CRPS", "coverage_80"]).round(4)

# %% [markdown]
# ## Direction
#
# How often was the sign of the change right? The limits and the test use only origins whose changes do not overlap;
# the test of Pesaran and Timmermann also takes into account that a forecast which always says "up" is right in every
# rising market.

# %%
direction(result).loc["XLSTMForecaster"].round(3)

# %% [markdown]
# If 50 % lies between `low` and `high`, or `p_value` is not small, nothing was foreseen.
#
# ## Trading
#
# Long if the forecast rises, short if it falls, traded one session after the forecast, for 0.05 % cost and 0.05 %
# slippage. Beside it: holding the share all the time, and a thousand strategies with random signs that turn as often.

# %%
trading = evaluate_trading(close, trading_positions(result))
trading.table[["total_return", "sharpe", "sharpe_low", "sharpe_high", "max_drawdown", "turnover", "costs"]].round(3)

# %%
trading.plot()

# %% [markdown]
# The limits of the Sharpe ratio are wide: a year of daily returns says little about any strategy. This is the share of
# random strategies that did at least as well:

# %%
trading.p_value

# %% [markdown]
# ## The trap
#
# Now the usual article. The prices are noisy, so they are smoothed first; a model learns the next change of the smooth
# series from its last ones; it is tested on later days that it has not been trained on. It looks clean, and yet every
# smoothed value has been computed from days that came after it. We let it foresee random walks, which nobody can.


# %%
def smooth(values):
    """Average over nine days around each day: four of them lie in its future."""
    kernel = np.ones(9)
    return np.convolve(values, kernel, "same") / np.convolve(np.ones(len(values)), kernel, "same")


def smooth_so_far(values):
    """Average over the last nine days."""
    return pd.Series(values).rolling(9, min_periods=1).mean().to_numpy()


def foresee(prices, smoother):
    """Forecast the next change of the smoothed series from its last five, and the times of the forecasts."""
    changes = np.diff(smoother(np.log(prices.to_numpy())))
    inputs = np.stack([changes[lag : len(changes) - 5 + lag] for lag in range(5)], axis=1)
    target = changes[5:]
    train = len(target) // 2
    forecast = LinearRegression().fit(inputs[:train], target[:train]).predict(inputs[train:])
    return pd.Series(forecast, index=prices.index[-len(forecast) :]), target[train:]


def claimed_accuracy(prices):
    forecast, smoothed_truth = foresee(prices, smooth)
    return float((np.sign(forecast) == np.sign(smoothed_truth)).mean())


trap = random_walk_canary(claimed_accuracy)
print(trap)

# %% [markdown]
# About four out of five, on forty random walks. Scored on the true changes instead of the smoothed ones the claim
# shrinks, and is still far beyond luck: the inputs know the next days.

# %%
trap_on_true_changes = random_walk_canary(lambda prices: foresee(prices, smooth)[0])
print(trap_on_true_changes)

# %% [markdown]
# Its twin smooths with past days only, and foresees what there is to foresee:

# %%
twin = random_walk_canary(lambda prices: foresee(prices, smooth_so_far)[0])
print(twin)

# %% [markdown]
# `check_leakage` finds the fault without any walk: it changes everything after a day, and looks whether an earlier
# output moves.

# %%
print(check_leakage(lambda y: smooth(y.to_numpy()), close))
print(check_leakage(lambda y: smooth_so_far(y.to_numpy()), close))
print(check_leakage(model.clone().set_params(validation_fraction=0, max_epochs=2), close[-300:]))

# %% [markdown]
# Put your own chain of steps, from the prices to the forecast, into a function and ask both before you believe a score.

# %%
assert trap.caught
assert trap_on_true_changes.caught
assert not twin.caught
assert pd.Timestamp("2008-07-04") not in sessions.index
