"""Windows against a naive loop, and that no training target lies in the validation period."""

import numpy as np
import pytest
import torch
from helpers import normal
from hypothesis import given
from hypothesis import strategies as st

from xlstm_ts.data.windows import ENOUGH_WHOLE, Windows, held_out_origins, split_by_target_time, training_origins

CPU = torch.device("cpu")


def draw_series(rows, channels=2, seed=0):
    values = normal(rows, channels, seed=seed).numpy()
    values[np.random.default_rng(seed).random(values.shape) < 0.3] = np.nan
    return values


def naive(series, rows, stop):
    """Look up rows one by one: (values, observed), 0 and False for what lies outside or is missing."""
    values = np.zeros((len(rows), series.shape[1]))
    observed = np.zeros(values.shape, dtype=bool)
    for j, row in enumerate(rows):
        for c in range(series.shape[1]):
            if 0 <= row < stop and row < len(series) and not np.isnan(series[row, c]):
                values[j, c], observed[j, c] = series[row, c], True
    return values, observed


@given(
    rows=st.integers(1, 20),
    context_length=st.integers(1, 25),
    horizon=st.integers(1, 8),
    data=st.data(),
)
def test_a_batch_equals_looking_up_every_row(rows, context_length, horizon, data):
    series = draw_series(rows)
    origins = np.array(data.draw(st.lists(st.integers(0, rows), min_size=1, max_size=5)))
    stop = data.draw(st.integers(0, rows))

    batch = Windows.of(series, context_length, horizon, CPU).batch(origins, stop)

    for b, origin in enumerate(origins):
        context = naive(series, range(origin - context_length, origin), rows)
        target = naive(series, range(origin, origin + horizon), stop)
        for got, expected in zip([part[b] for part in batch[:4]], [*context, *target], strict=True):
            np.testing.assert_array_equal(got.numpy(), expected.astype(got.numpy().dtype))


def test_values_are_float32_and_missing_ones_are_0_with_a_flag():
    windows = Windows.of(np.array([[0.1], [np.nan]]), 2, 1, CPU)

    assert windows.values.dtype == torch.float32
    assert windows.values[:, 0].tolist() == [pytest.approx(0.1), 0.0]
    assert windows.observed[:, 0].tolist() == [True, False]


def test_a_short_history_is_padded_on_the_left():
    context, observed = Windows.of(np.array([[1.0], [2.0], [3.0]]), 5, 1, CPU).contexts(np.array([0, 2, 3]))

    assert context[..., 0].tolist() == [[0, 0, 0, 0, 0], [0, 0, 0, 1, 2], [0, 0, 1, 2, 3]]
    assert observed[..., 0].sum(1).tolist() == [0, 2, 3]


def test_targets_after_stop_are_missing():
    windows = Windows.of(np.arange(10.0)[:, None], 2, 3, CPU)

    batch = windows.batch(np.array([5, 7, 8, 9]), stop=8)

    assert batch.target[..., 0].tolist() == [[5, 6, 7], [7, 0, 0], [0, 0, 0], [0, 0, 0]]
    assert batch.target_observed[..., 0].tolist() == [[True] * 3, [True, False, False], [False] * 3, [False] * 3]
    assert batch.context[..., 0].tolist() == [[3, 4], [5, 6], [6, 7], [7, 8]]


def test_a_window_is_usable_when_it_has_something_to_read_and_something_to_say():
    series = np.array([[np.nan], [np.nan], [1.0], [np.nan], [np.nan], [np.nan], [2.0], [3.0]])
    windows = Windows.of(series, 2, 2, CPU)

    usable = windows.usable(np.arange(9), 8)

    # Contexts with an observed value: those of origins 3, 4 (row 2), 7, 8; targets: of 1, 2, 5, 6, 7.
    assert usable.tolist() == [7]
    assert windows.usable(np.arange(9), 7).tolist() == []


@given(rows=st.integers(1, 20), context_length=st.integers(1, 6), horizon=st.integers(1, 6), data=st.data())
def test_usable_agrees_with_the_batch(rows, context_length, horizon, data):
    windows = Windows.of(draw_series(rows, seed=rows), context_length, horizon, CPU)
    stop = data.draw(st.integers(0, rows))
    origins = np.arange(rows + 1)

    batch = windows.batch(origins, stop)

    something = batch.context_observed.flatten(1).any(1) & batch.target_observed.flatten(1).any(1)
    assert windows.usable(origins, stop).tolist() == origins[something.numpy()].tolist()


def cut(rows, horizon, fraction):
    """The split of one series, as three numbers."""
    split = split_by_target_time([np.arange(rows)], horizon, fraction)
    return tuple(int(part[0]) for part in split)


def test_the_last_part_is_cut_into_two_halves():
    assert cut(100, 5, 0.2) == (80, 90, 100)
    assert cut(103, 5, 0.2) == (83, 93, 103)


@pytest.mark.parametrize(("rows", "horizon", "fraction"), [(100, 11, 0.2), (100, 1, 0.0), (3, 1, 0.5), (2, 1, 0.2)])
def test_nothing_is_cut_off_where_a_half_would_not_hold_a_horizon(rows, horizon, fraction):
    assert cut(rows, horizon, fraction) == (rows, rows, rows)


def test_series_of_a_panel_are_cut_at_the_same_time():
    times = [np.arange(100), np.arange(50, 100), np.arange(0, 60), np.arange(95, 100)]

    split = split_by_target_time(times, 3, 0.2)

    # Of 215 rows 42 are cut off, 21 and 21: times from 81 on and from 92 on.
    assert split.train.tolist() == [81, 31, 60, 0]
    assert split.stop.tolist() == [92, 42, 60, 0]
    assert split.end.tolist() == [100, 50, 60, 5]


@given(rows=st.integers(2, 400), horizon=st.integers(1, 60), fraction=st.floats(0, 0.9))
def test_no_period_sees_the_targets_of_another(rows, horizon, fraction):
    train, stop, end = cut(rows, horizon, fraction)

    assert 0 < train <= stop <= end == rows
    assert stop - train == end - stop
    windows = Windows.of(np.zeros((rows, 1)), 1, horizon, CPU)
    training = training_origins(train, horizon)
    targets = windows.batch(training, train).target_observed[..., 0].numpy()
    read = (training[:, None] + np.arange(horizon))[targets]
    assert read.size == 0 or read.max() < train
    for first, last in ((train, stop), (stop, end)):
        held_out = held_out_origins(first, last, horizon)
        assert len(held_out) == (0 if first == last else last - first - horizon + 1)
        if len(held_out):
            assert held_out[0] == first
            assert held_out[-1] + horizon == last


def test_windows_of_several_series_read_no_neighbour_and_end_where_theirs_ends():
    parts = [np.array([[1.0], [2.0], [3.0]]), np.array([[10.0], [np.nan]]), np.array([[100.0]])]
    windows, starts = Windows.of_many(parts, 3, 2, CPU, ahead=2)
    ends = starts + np.array([3, 2, 1])

    batch = windows.batch(np.concatenate([ends, starts + 1]), stop=len(windows.values))

    assert starts.tolist() == [0, 5, 9]
    assert batch.context[..., 0].tolist() == [
        [1, 2, 3],
        [0, 10, 0],
        [0, 0, 100],
        [0, 0, 1],
        [0, 0, 10],
        [0, 0, 100],
    ]
    assert batch.target[..., 0].tolist() == [[0, 0], [0, 0], [0, 0], [2, 3], [0, 0], [0, 0]]
    assert batch.target_observed.flatten(1).sum(1).tolist() == [0, 0, 0, 2, 0, 0]


@given(sizes=st.lists(st.integers(1, 9), min_size=1, max_size=4), context_length=st.integers(1, 8), data=st.data())
def test_windows_of_many_series_equal_those_of_each(sizes, context_length, data):
    parts = [draw_series(size, seed=size) for size in sizes]
    features = [draw_series(size + 3, channels=3, seed=size) for size in sizes]
    features = [np.nan_to_num(part).astype(np.float32) for part in features]
    known = np.array([True, False, True])
    options = {"ahead": 3, "known": known}
    windows, starts = Windows.of_many(parts, context_length, 3, CPU, features=features, **options)
    chosen = data.draw(st.integers(0, len(sizes) - 1))
    origins = np.arange(sizes[chosen] + 1)
    stops = np.repeat(starts + np.array([len(part) for part in parts]), np.diff([*starts, len(windows.values)]))

    alone, _ = Windows.of_many([parts[chosen]], context_length, 3, CPU, features=[features[chosen]], **options)
    got = windows.batch(starts[chosen] + origins, stops)

    for part, expected in zip(got, alone.batch(origins, sizes[chosen]), strict=True):
        assert torch.equal(part, expected)
    assert (windows.usable(starts[chosen] + origins, stops) - starts[chosen]).tolist() == alone.usable(
        origins, sizes[chosen]
    ).tolist()


def test_only_what_is_known_ahead_is_read_beyond_the_origin():
    features = np.arange(1, 15, dtype=np.float32).reshape(7, 2)  # rows 0..6: (1, 2), (3, 4), ...
    windows, _ = Windows.of_many(
        [np.zeros((4, 1))], 2, 3, CPU, ahead=3, features=[features], known=np.array([False, True])
    )

    context, future = windows.features(np.array([4, 1]))
    later, beyond = windows.features(np.array([4]), shift=1)

    assert context.tolist() == [[[5, 6], [7, 8]], [[0, 0], [1, 2]]]
    assert future[..., 0].tolist() == [[10, 12, 14], [4, 6, 8]]
    assert later.tolist() == [[[7, 8], [0, 10]]]  # the first column of row 4 is not known at the origin
    assert beyond[..., 0].tolist() == [[12, 14, 0]]


@given(stop=st.integers(1, 100), horizon=st.integers(1, 60))
def test_training_windows_are_whole_where_the_series_allows_and_have_a_target_where_not(stop, horizon):
    origins = training_origins(stop, horizon)

    if stop - horizon >= ENOUGH_WHOLE:
        assert origins.tolist() == list(range(1, stop - horizon + 1))
    else:
        assert origins.tolist() == list(range(1, stop))
