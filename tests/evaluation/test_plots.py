import numpy as np
import pandas as pd
import pytest

from xlstm_ts.errors import DataError, ParameterError
from xlstm_ts.evaluation.plots import fan_of_quantiles, model_styles, new_figure, plot_forecast, plot_times, time_label

LEVELS = [0.1, 0.25, 0.5, 0.75, 0.9]


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    import matplotlib.pyplot as plt

    plt.close("all")


def series(index):
    return pd.Series(np.arange(len(index), dtype=float), index=index)


def quantile_forecast(index, variables=(0,)):
    columns = pd.MultiIndex.from_product([variables, LEVELS])
    values = 100 + np.tile(LEVELS, len(variables)) * np.arange(1, len(index) + 1)[:, np.newaxis]
    return pd.DataFrame(values, index=index, columns=columns)


def lines(ax):
    return {line.get_label(): line for line in ax.lines}


INDEXES = {
    "hourly": pd.date_range("2024-01-01", periods=60, freq="h"),
    "time zone": pd.date_range("2024-03-30", periods=60, freq="h", tz="Europe/Berlin"),
    "sessions": pd.bdate_range("2024-01-01", periods=63).delete([5, 20, 41]),
    "months": pd.period_range("2020-01", periods=60, freq="M"),
    "integers": pd.RangeIndex(60),
}


@pytest.mark.parametrize("index", INDEXES.values(), ids=INDEXES)
def test_history_median_and_bands_are_drawn_at_their_times(index):
    y = series(index)
    forecast = quantile_forecast(index[50:])

    ax = plot_forecast(y[:50], forecast, title="Title")

    times = plot_times(index)
    np.testing.assert_array_equal(lines(ax)["observed"].get_xdata(), times[20:50])
    np.testing.assert_array_equal(lines(ax)["observed"].get_ydata(), y[20:50])
    np.testing.assert_array_equal(lines(ax)["median"].get_xdata(), times[49:])
    np.testing.assert_array_equal(lines(ax)["median"].get_ydata(), [49, *forecast[0][0.5]])
    assert [band.get_label() for band in ax.collections] == ["80 % interval", "50 % interval"]
    outer = ax.collections[0].get_paths()[0].vertices
    assert outer[:, 1].max() == pytest.approx(100 + 0.9 * 10)
    assert "actual" not in lines(ax)
    assert ax.get_title(loc="left") == "Title"
    ax.figure.canvas.draw()


def test_values_of_y_in_the_forecast_period_are_drawn_as_actual():
    index = INDEXES["sessions"]
    y = series(index)

    for ax in (
        plot_forecast(y, quantile_forecast(index[50:])),
        plot_forecast(y[:50], quantile_forecast(index[50:]), actual=y),
    ):
        np.testing.assert_array_equal(lines(ax)["actual"].get_ydata(), y[49:])
        assert lines(ax)["observed"].get_ydata()[-1] == 49


def test_history_and_axes_can_be_given():
    index = INDEXES["hourly"]
    panel = new_figure(4, 3).subplots()

    ax = plot_forecast(series(index[:50]), quantile_forecast(index[50:]), history=7, ax=panel)

    assert ax is panel
    assert len(lines(ax)["observed"].get_xdata()) == 7


def test_point_forecasts_and_intervals_are_understood():
    index = INDEXES["months"]
    y = series(index[:50])
    intervals = pd.DataFrame(
        {("y", 0.5, "lower"): 4.0, ("y", 0.5, "upper"): 6.0, ("y", 0.9, "lower"): 1.0, ("y", 0.9, "upper"): 9.0},
        index=index[50:53],
    )

    points = plot_forecast(y, pd.Series([1.0, 2.0], index=index[50:52]))
    bands = plot_forecast(y, intervals)

    np.testing.assert_array_equal(lines(points)["forecast"].get_ydata(), [49, 1, 2])
    assert [band.get_label() for band in bands.collections] == ["90 % interval", "50 % interval"]
    assert bands.collections[0].get_paths()[0].vertices[:, 1].min() == 1.0


def test_each_variable_has_its_panel():
    index = INDEXES["hourly"]
    y = pd.DataFrame({"a": 1.0, "b": 2.0}, index=index[:50])

    panels = plot_forecast(y, quantile_forecast(index[50:], ["b", "a"]))

    assert [panel.get_ylabel() for panel in panels] == ["b", "a"]
    assert [lines(panel)["observed"].get_ydata()[-1] for panel in panels] == [2.0, 1.0]


def test_a_series_that_ends_with_missing_values_starts_the_fan_at_its_last_value():
    index = INDEXES["hourly"]
    y = series(index[:50])
    y.iloc[-3:] = np.nan

    ax = plot_forecast(y, quantile_forecast(index[50:]))

    assert lines(ax)["median"].get_xdata()[0] == plot_times(index)[46]
    assert lines(ax)["median"].get_ydata()[0] == 46


def test_forecast_of_a_series_without_any_value_is_drawn():
    index = INDEXES["hourly"]

    ax = plot_forecast(series(index[:50]) * np.nan, quantile_forecast(index[50:]))

    assert len(lines(ax)["median"].get_xdata()) == 10


def test_levels_are_paired_from_the_outside_in():
    times = pd.RangeIndex(1)

    uneven = fan_of_quantiles(times, [0.9, 0.2], np.array([[9.0, 2.0]]), np.array([5.0]))
    odd = fan_of_quantiles(times, [0.3], np.array([[3.0]]))

    assert [(label, low[0], high[0]) for label, low, high in uneven.bands] == [("0.2 to 0.9 quantile", 2, 9)]
    assert (uneven.centre_label, uneven.centre.tolist()) == ("forecast", [5.0])
    assert (odd.centre_label, odd.centre.tolist(), odd.bands) == ("0.3 quantile", [3.0], ())


def test_baselines_never_take_the_colour_of_a_model_nor_each_other_s_dashes():
    styles = model_styles(["last_value", "mine", "seasonal_naive", "other", "drift", "climatology"])

    assert len({style["color"] for style in styles.values()}) == 6
    assert len({style["ls"] for style in styles.values() if "ls" in style}) == 4
    assert styles["mine"]["color"] == model_styles(["mine"])["mine"]["color"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (pd.Timestamp("2024-01-02"), "2024-01-02"),
        (pd.Timestamp("2024-01-02 03:00", tz="Europe/Berlin"), "2024-01-02 03:00"),
        (pd.Period("2024-01", "M"), "2024-01"),
        (7, "7"),
    ],
)
def test_time_labels_are_short(value, text):
    assert time_label(value) == text


def test_figures_show_themselves_in_a_notebook_and_survive_pickling():
    import pickle

    figure = pickle.loads(pickle.dumps(new_figure(2, 1)))

    assert figure._repr_png_().startswith(b"\x89PNG")


HOURS = INDEXES["hourly"]


@pytest.mark.parametrize(
    ("y", "forecast", "arguments", "error", "message"),
    [
        (series(HOURS), [1, 2], {}, DataError, "forecast is a list"),
        (series(HOURS), series(HOURS[:0]), {}, DataError, "no rows"),
        (series(HOURS), pd.concat({"s": series(HOURS)}), {}, DataError, "panel"),
        ([1, 2], series(HOURS), {}, DataError, "y is a list"),
        (series(range(9)), series(HOURS), {}, DataError, "cannot share an axis"),
        (series(HOURS.tz_localize("UTC")), series(HOURS), {}, DataError, "cannot share an axis"),
        (series(HOURS), series(HOURS), {"history": 0}, ParameterError, "history=0"),
        (series(HOURS), series(HOURS), {"ax": [None, None]}, ParameterError, "ax has 2 axes"),
        (pd.DataFrame({"a": series(HOURS), "b": 1.0}), series(HOURS), {}, DataError, "not among the columns"),
        (
            series(HOURS),
            pd.DataFrame([[1.0]], index=HOURS[:1], columns=pd.MultiIndex.from_tuples([("a", "b", "c", "d")])),
            {},
            DataError,
            "4 column levels",
        ),
        (
            pd.DataFrame([[1.0]], index=HOURS[:1], columns=pd.MultiIndex.from_tuples([("a", 0.5)])),
            series(HOURS),
            {},
            DataError,
            "observed series first and the forecast second",
        ),
    ],
)
def test_what_cannot_be_drawn_is_refused(y, forecast, arguments, error, message):
    with pytest.raises(error, match=message):
        plot_forecast(y, forecast, **arguments)
