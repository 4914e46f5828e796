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
# # Sensors: many stations, dropouts, and values that do not fit
#
# Four machines report their temperature. One sensor was installed late, each fails now and then, and some of what they
# report is wrong. One network learns from all of them. We clean what it learns from without looking ahead, choose two
# settings on the past, and flag values that lie outside the interval that was forecast for them half an hour before.
#
# The stations are simulated, so this runs anywhere.

# %%
import warnings

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sktime.forecasting.model_selection import ForecastingGridSearchCV
from sktime.performance_metrics.forecasting import MeanAbsoluteError
from sktime.split import SingleWindowSplitter

from xlstm_ts import OutlierLimiter, XLSTMForecaster, load_dataset

# sktime announces a new default with each of its composites; it does not concern us.
warnings.filterwarnings("ignore", message="The default of config ``remember_data``", category=FutureWarning)

# %% [markdown]
# ## A panel
#
# Many series are one frame with an index of two levels, station above time. The stations may begin and end at different
# times. A failed reading is NaN; where a logger wrote no row at all, `on_gap="mask"` puts one in.

# %%
wide = load_dataset("simulated_sensors").resample("30min").mean()
parts = {station: wide[[station]].set_axis(["temperature"], axis=1) for station in wide}
parts["station_2"] = parts["station_2"].dropna()  # this logger leaves failed readings out
parts["station_4"] = parts["station_4"]["2020-01-09":]  # this sensor came late
panel = pd.concat(parts, names=["station", "time"])
panel.groupby("station")["temperature"].agg(["size", "count", "mean", "std"]).round(2)

# %% [markdown]
# ## Clean, without looking ahead
#
# `OutlierLimiter` moves a value that lies too far from the median of the rows before it to the border of what they
# allow. It never looks at a later row: a filter over the whole series would show the network what comes, in training
# and in every test. In front of the forecaster it makes a pipeline, which sktime's tuners and evaluations take as one
# model.
#
# A single network serves all stations; each has its own level and scale. The clock is a covariate: machines that work
# by day have much of their day in common.

# %%
settings = {"horizon": 24, "hidden_size": 16, "max_epochs": 3, "calendar_features": ["day"], "random_state": 0}
forecaster = XLSTMForecaster(**settings, on_gap="mask")
pipeline = OutlierLimiter(window_length=97) * forecaster

# %% [markdown]
# ## Choose two settings on the past
#
# The last week is the test. Before it, the search fits each candidate up to half a day before the end, and scores that
# half day. One fold is little; it keeps this notebook short. `error_score="raise"` matters: by default sktime skips a
# fold that fails, in silence.

# %%
start = pd.Timestamp("2020-01-24")
times = panel.index.get_level_values("time")
known = panel[times < start]
search = ForecastingGridSearchCV(
    pipeline,
    cv=SingleWindowSplitter(fh=range(1, 25)),
    param_grid={"OutlierLimiter__max_deviations": [3.0, 6.0], "XLSTMForecaster__context_length": [96, 144]},
    scoring=MeanAbsoluteError(),
    backend=None,
    error_score="raise",
)
search.fit(known)
columns = ["params", "mean_test_MeanAbsoluteError", "rank_test_MeanAbsoluteError"]
search.cv_results_[columns].sort_values("rank_test_MeanAbsoluteError").round(3)

# %% [markdown]
# The search has fitted the best once more on all that is known. Here are the first two rows of its forecast, for each
# station:

# %%
search.predict_interval(fh=[1, 2], coverage=0.9).round(1)

# %% [markdown]
# ## Faults to find
#
# The stations have faults of their own, and nobody labels them. To know what is found, we add some: ten jumps of one
# reading, up or down by 4 degrees, and a sensor that sticks for half a day.

# %%
rng = np.random.default_rng(1)
later = panel[times >= start].copy()
broken = rng.choice(np.flatnonzero(later["temperature"].notna()), 10, replace=False)
later.iloc[broken, 0] += 4.0 * rng.choice([-1, 1], 10)
jumps = later.index[broken]
stuck = later.loc["station_1"].index[150:174]
later.loc[[("station_1", time) for time in stuck], "temperature"] = later.loc[("station_1", stuck[0]), "temperature"]
reported = pd.concat([known, later]).sort_index()

# %% [markdown]
# ## Flag what lies outside
#
# For every half hour of the week the model forecasts the next reading from what was reported until then, cleaned in the
# same causal way. `predict_origins` does that for all times and stations in a few passes. A reading outside the 99 %
# interval is flagged. It is compared as it was *reported*: cleaning is for what goes into a model, never for what
# judges it.

# %%
best = search.best_params_
limiter = OutlierLimiter(97, best["OutlierLimiter__max_deviations"]).fit(known)
model = search.best_forecaster_.forecaster_
cleaned = limiter.fit_transform(reported)
cleaned = pd.concat({key: part.droplevel(0).asfreq("30min") for key, part in cleaned.groupby(level=0)})
cleaned.index.names = reported.index.names
step_before = pd.date_range(start - pd.Timedelta("30min"), wide.index[-2], freq="30min")
table = model.predict_origins(cleaned, origins=step_before, fh=[1], quantile_levels=[0.005, 0.5, 0.995])
table = table.join(reported["temperature"], on=["series", "time"]).dropna(subset="temperature")
table["flag"] = ~table["temperature"].between(table[0.005], table[0.995])
flags = table[table["flag"]].set_index(["series", "time"]).index

planted = jumps.union([("station_1", time) for time in stuck])
quiet = table[~table.set_index(["series", "time"]).index.isin(planted)]
print(f"jumps found: {flags.isin(jumps).sum()} of {len(jumps)}")
print(f"flags among the {len(stuck)} stuck readings: {sum(key in flags for key in planted.difference(jumps))}")
print(f"flags among all other readings: {quiet['flag'].sum()} of {len(quiet)} ({quiet['flag'].mean():.1%})")

# %% [markdown]
# A jump is found. Among all other readings more are flagged than the one in a hundred that a 99 % interval leaves out:
# the simulation has spikes and shifts of level of its own, and the readings after them. A sensor that sticks does not
# jump, so one step ahead nothing looks wrong until it comes back. For such faults count equal values in a row.

# %%
figure, rows = plt.subplots(4, 1, figsize=(11, 8), sharex=True, layout="constrained")
for axes, (station, part) in zip(rows, table.groupby("series"), strict=True):
    axes.fill_between(part["time"], part[0.005], part[0.995], color="C0", alpha=0.25, lw=0, label="99 % interval")
    axes.plot(part["time"], part["temperature"], color="0.3", lw=0.8, label="reported")
    found = part[part["flag"]]
    axes.plot(found["time"], found["temperature"], "o", color="C3", ms=4, label="flagged")
    own = part[part["time"].isin([time for key, time in jumps if key == station])]
    axes.plot(own["time"], own["temperature"], "o", mfc="none", color="k", ms=9, label="jump that we added")
    axes.set_title(station, loc="left", fontsize=9)
rows[0].legend(ncols=4, frameon=False, fontsize=8, loc="lower right", bbox_to_anchor=(1, 1))
rows[0].axvspan(stuck[0], stuck[-1], color="0.9")
rows[-1].set_ylabel("degrees")
plt.setp(rows[-1].get_xticklabels(), rotation=0)

# %% [markdown]
# ## A station that the network has never seen
#
# `pretrain` learns from some stations; `fit` then takes the network to another one, of which little is known yet. We
# give it three days of station 4, and for comparison train another network on these three days alone. Both forecast the
# next twelve hours, every three hours of the week that follows.

# %%
context = best["XLSTMForecaster__context_length"]
newcomer = parts["station_4"].asfreq("30min")
begun = newcomer["2020-01-21":"2020-01-23"]
others = known.drop("station_4", level=0)
models = {
    "pretrained on three others": XLSTMForecaster(context_length=context, **settings)
    .set_params(on_gap="mask")
    .pretrain(others),
    "three days alone": XLSTMForecaster(context_length=context, **settings, validation_fraction=0),
}
origins = pd.date_range(begun.index[-1], periods=50, freq="3h")
errors = {}
for name, model in models.items():
    table = model.fit(begun).predict_origins(newcomer["2020-01-21":], origins=origins, fh=range(1, 25))
    errors[name] = np.abs(table["point"].to_numpy() - newcomer["temperature"].reindex(table["time"]).to_numpy())
yesterday = newcomer["temperature"].shift(48)
errors["yesterday again"] = (yesterday - newcomer["temperature"]).abs().reindex(table["time"]).to_numpy()
pd.Series({name: np.nanmean(values) for name, values in errors.items()}, name="mean absolute error").round(2)

# %% [markdown]
# What the other stations taught carries over to one that was never in the training. A network that knows three days
# alone is worse than repeating yesterday.
