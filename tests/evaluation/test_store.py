"""A backtest that is interrupted goes on where it stopped."""

import importlib.util
import json

import numpy as np
import pandas as pd
import pytest
from fake_forecasters import AllAtOnce, Walker, forget, hourly, panel

from xlstm_ts.errors import DataError, ParameterError
from xlstm_ts.evaluation.backtest import backtest

HAS_PYARROW = importlib.util.find_spec("pyarrow") is not None


class Interrupted(AllAtOnce):
    """Stops the whole run after some calls, as Ctrl-C would."""

    calls_left = 2

    def predict_origins(self, *args, **kwargs):
        if Interrupted.calls_left == 0:
            raise KeyboardInterrupt
        Interrupted.calls_left -= 1
        return super().predict_origins(*args, **kwargs)


@pytest.fixture(autouse=True)
def _forget():
    forget()


def run(store, y=None, model=None, **arguments):
    y = hourly(80) if y is None else y
    settings = {"horizon": 3, "initial": 50, "stride": 2, "refit": 4, "batch_size": 3} | arguments
    return backtest(AllAtOnce() if model is None else model, y, **settings, store=store)


def same(first, second):
    pd.testing.assert_frame_equal(first.frame, second.frame, check_exact=True)
    pd.testing.assert_frame_equal(first.failures, second.failures)


def test_an_interrupted_backtest_goes_on_where_it_stopped(tmp_path):
    store = tmp_path / "results.csv"
    Interrupted.calls_left = 3
    with pytest.raises(KeyboardInterrupt):
        run(store, model={"m": Interrupted()})
    assert not store.exists()
    forget()

    Interrupted.calls_left = 99
    resumed = run(store, model={"m": Interrupted()})

    # Folds of 2, 2, 2 and 1 batches; three batches were there, so one fold was done and half of the next.
    assert len(AllAtOnce.asked_with) == 4
    assert len(Walker.fitted_on) == 3
    same(resumed, run(None, model={"m": Interrupted()}))
    assert store.is_file()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["results.csv", "results.csv.json"]


def test_a_finished_store_is_read_and_nothing_computed(tmp_path):
    first = run(tmp_path / "r.csv")
    forget()

    again = run(tmp_path / "r.csv")

    same(first, again)
    assert Walker.fitted_on == []
    pd.testing.assert_frame_equal(first.seconds, again.seconds)
    pd.testing.assert_frame_equal(first.summary(), again.summary())


def test_the_table_is_the_frame_of_the_result(tmp_path):
    result = run(tmp_path / "r.csv")

    table = pd.read_csv(tmp_path / "r.csv", float_precision="round_trip", parse_dates=["origin", "time"])

    assert list(table.columns) == [str(column) for column in result.frame]
    np.testing.assert_array_equal(table["point"], result.frame["point"])
    np.testing.assert_array_equal(table["0.05"], result.frame[0.05])
    np.testing.assert_array_equal(table["time"].to_numpy(), result.frame["time"].to_numpy())


def test_panels_and_failures_survive_the_store(tmp_path):
    y = panel((80, 60), columns=2, levels=2)
    fails_at = [hourly(80).index[55]]
    arguments = {"y": y, "model": AllAtOnce(fails_at), "error_score": np.nan}

    first, again = (run(tmp_path / "r.csv", **arguments) for _ in range(2))

    same(first, again)
    assert len(first.failures) == 1
    same(first, run(None, **arguments))


@pytest.mark.parametrize(
    "change",
    [
        {"y": hourly(80, seed=9)},
        {"model": AllAtOnce(fails_at=[])},
        {"horizon": 2},
        {"stride": 3},
        {"gap": 1},
        {"quantile_levels": [0.1, 0.9]},
        {"batch_size": 4},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_store_of_another_configuration_is_refused(tmp_path, change):
    run(tmp_path / "r.csv")

    with pytest.raises(ParameterError, match="another configuration"):
        run(tmp_path / "r.csv", **change)


def test_an_interrupted_store_of_another_configuration_is_refused(tmp_path):
    Interrupted.calls_left = 1
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "r.csv", model={"m": Interrupted()})

    with pytest.raises(ParameterError, match="another configuration"):
        run(tmp_path / "r.csv", model={"m": Interrupted()}, horizon=2)


def test_a_file_that_is_no_store_is_left_alone(tmp_path):
    (tmp_path / "r.csv").write_text("mine")

    with pytest.raises(ParameterError, match=r"exists and is no store"):
        run(tmp_path / "r.csv")
    assert (tmp_path / "r.csv").read_text() == "mine"
    with pytest.raises(ParameterError, match="cannot be written"):
        run(tmp_path / "r.csv" / "deeper.csv")


def test_a_damaged_table_is_noticed(tmp_path):
    run(tmp_path / "r.csv")
    lines = (tmp_path / "r.csv").read_text().splitlines()
    (tmp_path / "r.csv").write_text("\n".join(lines[:-5]))

    with pytest.raises(DataError, match="rows where"):
        run(tmp_path / "r.csv")


def test_half_a_part_does_not_count(tmp_path):
    Interrupted.calls_left = 2
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "r.csv", model={"m": Interrupted()})
    parts = tmp_path / "r.csv.parts"
    written = sorted(path.name for path in parts.iterdir())
    assert written == ["000000.csv", "000000.json", "000001.csv", "000001.json", "configuration.json"]
    (parts / "000001.csv").rename(parts / ".half.csv")  # as if it had never been moved to its place

    Interrupted.calls_left = 99
    resumed = run(tmp_path / "r.csv", model={"m": Interrupted()})

    same(resumed, run(None, model={"m": Interrupted()}))


def test_folds_in_threads_write_their_own_parts(tmp_path):
    arguments = {"backend": "threading", "backend_params": {"n_jobs": 2}}

    same(run(tmp_path / "r.csv", **arguments), run(None))
    assert set(json.loads((tmp_path / "r.csv.json").read_text())) == {"fingerprint", "batches"}


@pytest.mark.skipif(not HAS_PYARROW, reason="needs pyarrow")
def test_parquet_gives_the_same(tmp_path):
    y = panel((80, 60), levels=2)

    first, again = (run(tmp_path / "r.parquet", y=y) for _ in range(2))

    same(first, again)
    assert pd.read_parquet(tmp_path / "r.parquet")["point"].tolist() == first.frame["point"].tolist()


@pytest.mark.skipif(HAS_PYARROW, reason="needs an installation without pyarrow")
def test_parquet_without_pyarrow_says_what_to_install(tmp_path):
    with pytest.raises(ParameterError, match=r"xlstm-ts\[parquet\]"):
        run(tmp_path / "r.parquet")
    assert Walker.fitted_on == []
