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
# # Weather: several variables, covariates, the clock, and holes
#
# A weather station reports temperature, humidity and pressure every hour, with failures in between. We forecast
# temperature and humidity for the next day, give the network what else is known, and ask at which hours of the day it
# is better than repeating yesterday.
#
# The series here are simulated, so this runs anywhere. To use measurements, replace the first cell: a DataFrame with
# times as its index, one column per variable, and NaN where a value is missing.

# %%
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from xlstm_ts import XLSTMForecaster, load_dataset, plot_forecast

weather = load_dataset("simulated_weather")
weather.describe().round(1)

# %% [markdown]
# ## Failures
#
# Real stations fail. We take away what a failing one would not have reported: single hours, and an outage of three
# days. Nothing has to be filled. NaN means missing, the network is told which values it has seen, and neither training
# nor scores count what is not there. Only the *rows* have to be there; `on_gap="mask"` puts them in where they are not.

# %%
rng = np.random.default_rng(0)
target = weather[["temperature", "humidity"]].copy()
target = target.mask(rng.random(target.shape) < 0.05)
target.loc["2020-03-10":"2020-03-12"] = np.nan
target.isna().mean().round(3)

# %% [markdown]
# ## What else is known
#
# Columns of `X` are one of two kinds, and the difference matters:
#
# - **known ahead**: what you will have for the hours to come when you forecast, such as a holiday or somebody else's
#   forecast. `predict` asks for it.
# - **past only**: measurements. They end at the present, and `predict` does not need them. Name them in
#   `past_covariates`; nothing after the present is ever read of them.
#
# Pressure is a measurement. For the other kind we make up what a weather service says: the mean temperature of every
# day, which is off by 1.2 degrees, and its word for the sky, which is wrong one time in four. It must be what was
# *forecast* at the time: whoever trains on the temperature that came, trains for a world in which services never err.
#
# The clock needs no column: `calendar_features` reads the place in the day off the index.

# %%
day = weather.index.floor("D")
means = weather["temperature"].groupby(day).mean()
announced = means + 1.2 * rng.normal(size=len(means))
swing = weather["temperature"].groupby(day).agg(np.ptp)
sky = pd.Series(
    np.where(swing > swing.rolling(30, min_periods=1, center=True).median(), "clear", "cloudy"), swing.index
)
wrong = rng.random(len(sky)) < 0.25
sky = sky.where(~wrong, sky.map({"clear": "cloudy", "cloudy": "clear"}))
X = pd.DataFrame(
    {"pressure": weather["pressure"], "announced": announced[day].to_numpy(), "sky": sky[day].to_numpy()}, weather.index
)
X.iloc[::12].head(4)

# %% [markdown]
# ## Fit
#
# Ten weeks of the end of the year are kept aside. `context_length` is five days. The settings are small so that this
# notebook runs in a minute; give yours more epochs.

# %%
known, later = target[:"2020-10-20"], target["2020-10-21":]
settings = {"horizon": 24, "context_length": 120, "hidden_size": 32, "max_epochs": 4, "random_state": 0}
forecaster = XLSTMForecaster(past_covariates=["pressure"], calendar_features=["day"], **settings)
forecaster.fit(known, X=X[: known.index[-1]])

# %% [markdown]
# ## Forecast
#
# What the service says of the next day has to be given; pressure may be left out. A missing step or column is an
# error that names it.

# %%
levels = [0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95]
tomorrow = X.loc[later.index[:24], ["announced", "sky"]]
fan = forecaster.predict_quantiles(fh=range(1, 25), X=tomorrow, alpha=levels)
axes = plot_forecast(known, fan, actual=later[:24], title="Weather, 21 October")

# %% [markdown]
# ## From many moments on
#
# One day proves nothing. `predict_origins` forecasts from many past moments in a few passes, and of each it reads
# nothing later, but for the columns that are known ahead. We take every fifth hour of the ten weeks, so that every hour
# of the day has its turn, and compare with the same forecaster without covariates and with "tomorrow is like today".

# %%
whole = target.loc[: later.index[-1]]
origins = later.index[:-24:5]


def errors_of(model, X=None):
    table = model.predict_origins(whole, X, origins=origins, fh=range(1, 25), quantile_levels=[0.1, 0.9])
    truth = whole.stack().rename_axis(["time", "variable"]).rename("truth")
    table = table.join(truth, on=["time", "variable"]).dropna(subset="truth")  # what nobody measured is not scored
    table["inside"] = table["truth"].between(table[0.1], table[0.9])
    yesterday = (whole.shift(24).stack().rename_axis(["time", "variable"])).rename("naive")
    table = table.join(yesterday, on=["time", "variable"])
    return table.assign(error=(table["point"] - table["truth"]).abs(), naive=(table["naive"] - table["truth"]).abs())


plain = XLSTMForecaster(**settings).fit(known)
scores = {"with covariates and clock": errors_of(forecaster, X), "without": errors_of(plain)}
summary = pd.DataFrame(
    {
        name: table.groupby("variable")["error"].mean() / table.groupby("variable")["naive"].mean()
        for name, table in scores.items()
    }
)
summary.round(3)

# %% [markdown]
# The numbers are mean absolute errors, in units of that of repeating yesterday: below 1 is better. And do the intervals
# hold what they say? This should be near 0.8:

# %%
scores["with covariates and clock"].groupby("variable")["inside"].mean().round(3)

# %% [markdown]
# ## Skill by hour of day
#
# Skill is 1 minus that ratio: 0 is no better than yesterday, 1 is perfect. It depends on how far ahead one looks, and
# on the hour that one looks at: a clear night is easy, the afternoon depends on the clouds.

# %%
figure, (by_step, by_hour) = plt.subplots(1, 2, figsize=(11, 3.6), layout="constrained", sharey=True)
for (name, table), style in zip(scores.items(), ("-", "--"), strict=True):
    for variable, colour in (("temperature", "C3"), ("humidity", "C0")):
        part = table[table["variable"] == variable]
        for axes, key, labels in ((by_step, part["step"], True), (by_hour, part["time"].dt.hour, False)):
            means = part.groupby(key)[["error", "naive"]].mean()
            label = f"{variable}, {name}" if labels else None
            axes.plot(1 - means["error"] / means["naive"], style, color=colour, label=label)
by_step.set(xlabel="hours ahead", ylabel="skill against yesterday")
by_hour.set(xlabel="hour of day")
for axes in (by_step, by_hour):
    axes.axhline(0, color="0.6", lw=1)
by_step.legend(frameon=False, fontsize=8)

# %% [markdown]
# What the service says of a day helps around noon and far ahead. Just after midnight it does not: the mean of a day
# says little about its first hours, and it jumps there. Such a figure tells more than one mean: it shows where a better
# covariate would pay.
#
# Next: `05_sensors` has many series at once, and looks for the values that do not fit.
