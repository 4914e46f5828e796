"""Nothing here needs a network; tests on the published files run where $XLSTM_TS_DATA holds them."""

import hashlib
import io
import os
import re
import shutil
import subprocess
import sys
import urllib.error
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from xlstm_ts import datasets
from xlstm_ts.datasets import (
    DatasetInfo,
    dataset_info,
    list_datasets,
    load_dataset,
    simulate_sensors,
    simulate_weather,
)
from xlstm_ts.errors import DatasetError, ParameterError

REPOSITORY = Path(datasets.__file__).parents[1]
DATA_AT_START = os.environ.get("XLSTM_TS_DATA")

# 02:00 is missing, 03:00 comes twice, the rows are not sorted, and -9999 stands for missing.
TOY_CSV = b"""when,a b,\xef\xbf\xbd
2020-01-01 01:00,1,10
2020-01-01 00:00,0,-9999
2020-01-01 03:00,3,30
2020-01-01 03:00,4,40
"""


def toy_info(**changes):
    fields = {
        "name": "toy",
        "kind": "sensor",
        "source": "file",
        "step": "h",
        "rows": 4,
        "columns": ["a b", "µ"],
        "licence": "none needed",
        "quirks": [],
        "time_column": "when",
        "file": "toy.csv",
        "address": "https://example.org/toy.csv",
        "sha256": hashlib.sha256(TOY_CSV).hexdigest(),
        "size": len(TOY_CSV),
        "sentinels": [-9999.0],
    }
    return DatasetInfo(**(fields | changes))


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Keep the user's cache and data folder out of every test, and the network too."""

    def no_network(request, timeout):
        raise AssertionError(f"a test asked for {request.full_url}")

    monkeypatch.delenv("XLSTM_TS_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(datasets.urllib.request, "urlopen", no_network)
    return tmp_path / "cache" / "xlstm_ts" / "datasets"


@pytest.fixture
def catalogue(monkeypatch):
    """A catalogue with the toy set alone, which a test may change."""
    entries = {"toy": toy_info()}
    monkeypatch.setattr(datasets, "_catalogue", lambda: entries)
    return entries


@pytest.fixture
def data_folder(tmp_path, monkeypatch):
    folder = tmp_path / "data"
    (folder / "deep" / "down").mkdir(parents=True)
    monkeypatch.setenv("XLSTM_TS_DATA", str(folder))
    return folder


@pytest.fixture
def published_files(monkeypatch):
    if not DATA_AT_START:
        pytest.skip("XLSTM_TS_DATA is not set")
    monkeypatch.setenv("XLSTM_TS_DATA", DATA_AT_START)


def serve(monkeypatch, content):
    """Answer every download with `content`; returns the list of requested addresses."""
    requested = []

    def urlopen(request, timeout):
        requested.append(request.full_url)
        return io.BytesIO(content)

    monkeypatch.setattr(datasets.urllib.request, "urlopen", urlopen)
    return requested


def test_a_file_is_sorted_cleaned_and_put_on_a_regular_index(catalogue, data_folder):
    (data_folder / "deep" / "down" / "toy.csv").write_bytes(TOY_CSV)

    frame = load_dataset("toy")

    expected = pd.DataFrame(
        {"a b": [0, 1, np.nan, 3], "µ": [np.nan, 10, np.nan, 30]},
        index=pd.date_range("2020-01-01", periods=4, freq="h", name="time", unit=frame.index.unit),
    )
    pd.testing.assert_frame_equal(frame, expected)
    assert frame.index.freqstr == "h"


def test_raw_is_the_file_as_published(catalogue, data_folder):
    (data_folder / "toy.csv").write_bytes(TOY_CSV)

    frame = load_dataset("toy", raw=True)

    pd.testing.assert_frame_equal(frame, pd.read_csv(io.BytesIO(TOY_CSV)))


def test_trading_days_keep_their_gaps_and_get_no_freq(catalogue, data_folder):
    catalogue["toy"] = toy_info(step="trading day")
    (data_folder / "toy.csv").write_bytes(TOY_CSV)

    frame = load_dataset("toy")

    assert len(frame) == 3
    assert frame.index.freq is None


@pytest.mark.parametrize("where", ["data", "cache"])
def test_a_wrong_hash_names_file_hashes_and_remedy(catalogue, data_folder, cache, where):
    folder = {"data": data_folder, "cache": cache}[where]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "toy.csv"
    changed = TOY_CSV.replace(b"40", b"41")
    path.write_bytes(changed)

    with pytest.raises(DatasetError) as caught:
        load_dataset("toy")

    message = str(caught.value)
    assert str(path) in message
    assert catalogue["toy"].sha256 in message
    assert hashlib.sha256(changed).hexdigest() in message
    assert {"data": "$XLSTM_TS_DATA", "cache": "Delete it"}[where] in message


def test_another_file_of_the_same_name_does_not_hide_the_right_one(catalogue, data_folder):
    (data_folder / "deep" / "toy.csv").write_bytes(b"something else")
    (data_folder / "toy.csv").write_bytes(TOY_CSV)

    assert len(load_dataset("toy")) == 4


def test_a_file_that_grew_is_cut_to_the_rows_of_the_hash(catalogue, data_folder):
    (data_folder / "toy.csv").write_bytes(TOY_CSV + b"2020-01-01 04:00,5,50\n")

    assert len(load_dataset("toy", raw=True)) == 4


def test_a_data_folder_that_does_not_exist_is_named(catalogue, monkeypatch, tmp_path):
    monkeypatch.setenv("XLSTM_TS_DATA", str(tmp_path / "nowhere"))

    with pytest.raises(DatasetError, match=r"nowhere.*is not a folder"):
        load_dataset("toy")


def test_a_download_is_kept_and_used_the_next_time(catalogue, cache, monkeypatch):
    requested = serve(monkeypatch, TOY_CSV)

    first = load_dataset("toy")
    second = load_dataset("toy")

    pd.testing.assert_frame_equal(first, second)
    assert requested == ["https://example.org/toy.csv"]
    assert [path.name for path in cache.iterdir()] == ["toy.csv"]


def test_a_download_with_a_wrong_hash_is_not_kept(catalogue, cache, monkeypatch):
    serve(monkeypatch, b"<html>moved</html>")

    with pytest.raises(DatasetError, match=r"https://example.org/toy.csv sent 18 bytes.*Nothing was kept"):
        load_dataset("toy")
    assert not cache.exists()


def test_a_failed_download_names_address_reason_and_remedy(catalogue, monkeypatch):
    def urlopen(request, timeout):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(datasets.urllib.request, "urlopen", urlopen)

    with pytest.raises(DatasetError, match=r"https://example.org/toy.csv.*no route to host.*XLSTM_TS_DATA"):
        load_dataset("toy")


def test_a_set_without_address_must_be_supplied_by_hand(catalogue):
    catalogue["toy"] = toy_info(address="")

    with pytest.raises(DatasetError, match=r"has no address.*XLSTM_TS_DATA"):
        load_dataset("toy")


def test_a_cache_that_cannot_be_written_is_named(catalogue, tmp_path, monkeypatch):
    serve(monkeypatch, TOY_CSV)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))

    with pytest.raises(DatasetError, match=r"cannot be written.*XDG_CACHE_HOME"):
        load_dataset("toy")


def test_a_package_that_is_not_installed_is_named(catalogue):
    catalogue["toy"] = toy_info(source="package", package="no_such_package")

    with pytest.raises(DatasetError, match="pip install no_such_package"):
        load_dataset("toy")
    assert list_datasets().loc["toy", "found"] == "not here"


@pytest.mark.parametrize("function", [load_dataset, dataset_info])
def test_an_unknown_name_brings_close_names_and_all_names(function):
    with pytest.raises(DatasetError, match=r"'etth3'.*Did you mean .*'etth1'.*Known names:.*goog"):
        function("etth3")


def test_list_tells_where_each_set_is(catalogue, data_folder, cache):
    assert list_datasets().loc["toy", "found"] == "not here"
    cache.mkdir(parents=True)
    (cache / "toy.csv").write_bytes(b"not read")
    assert list_datasets().loc["toy", "found"] == str(cache / "toy.csv")
    (data_folder / "deep" / "toy.csv").write_bytes(b"not read")
    assert list_datasets().loc["toy", "found"] == str(data_folder / "deep" / "toy.csv")


def test_list_has_one_row_per_set():
    table = list_datasets()

    assert {"etth1", "weather", "nyc_taxi", "vix", "goog", "airline", "simulated_weather"} <= set(table.index)
    assert table.columns.tolist() == [
        "kind",
        "step",
        "rows",
        "columns",
        "licence",
        "needs_download",
        "found",
    ]
    assert table.loc["weather", "columns"] == 21
    assert table["needs_download"].sum() == 13
    assert not table.index.duplicated().any()


def test_every_file_has_address_hash_and_size():
    files = [info for info in datasets._catalogue().values() if info.source == "file"]

    for info in files:
        assert info.address.startswith("https://"), info.name
        assert info.address.endswith("/" + info.file), info.name
        assert re.fullmatch("[0-9a-f]{64}", info.sha256), info.name
        assert info.size > 0, info.name
        assert info.quirks, info.name


def test_info_is_a_copy():
    dataset_info("etth1").splits.clear()

    assert dataset_info("etth1").splits == {"train": 8640, "validation": 2880, "test": 2880}


def test_goog_is_daily_with_holiday_gaps():
    frame = load_dataset("goog")

    assert frame.shape == (1047, 6)
    assert frame.index[0] == pd.Timestamp("2004-08-19")
    assert frame.index[-1] == pd.Timestamp("2008-10-14")
    assert frame.index.freq is None
    assert frame.loc["2004-08-19", ["open", "close"]].tolist() == [100.0, 100.34]
    assert (frame.dtypes == "float64").all()
    assert "date" in load_dataset("goog", raw=True)


def test_airline_is_monthly_periods():
    frame = load_dataset("airline")

    assert frame.shape == (144, 1)
    assert frame["passengers"].iloc[0] == 112
    assert isinstance(frame.index, pd.PeriodIndex)
    assert frame.index[0] == pd.Period("1949-01", freq="M")
    assert load_dataset("airline", raw=True).columns.tolist() == ["Date", "Passengers"]


@pytest.mark.parametrize(
    ("name", "rows", "first", "freq"),
    [("lynx", 114, 269.0, "Y-DEC"), ("shampoo_sales", 36, 266.0, "M"), ("solar", 289, 0.0, "30min")],
)
def test_series_of_sktime_need_no_download(name, rows, first, freq):
    frame = load_dataset(name)

    assert frame.shape == (rows, 1)
    assert frame.iloc[0, 0] == first
    assert frame.index.freqstr == freq


def test_importing_and_listing_stays_light():
    code = (
        "import sys, xlstm_ts.datasets as d;"
        "d.list_datasets(); d.load_dataset('goog'); d.load_dataset('lynx');"
        "heavy = {'sktime', 'matplotlib', 'torch', 'scipy'} & set(sys.modules); assert not heavy, heavy"
    )

    subprocess.run([sys.executable, "-c", code], check=True, cwd=REPOSITORY)


@pytest.mark.parametrize("simulate", [simulate_weather, simulate_sensors])
def test_simulations_depend_on_their_seed_alone(simulate):
    before = np.random.get_state()[1].copy()  # noqa: NPY002 -- the global state is what must not move

    first, again, other = simulate(500), simulate(500), simulate(500, random_state=1)

    pd.testing.assert_frame_equal(first, again)
    assert not first.equals(other)
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002


@pytest.mark.parametrize("simulate", [simulate_weather, simulate_sensors])
def test_a_longer_simulation_begins_with_the_shorter_one(simulate):
    pd.testing.assert_frame_equal(simulate(900).iloc[:300], simulate(300), check_freq=False)


@pytest.mark.parametrize(
    ("simulate", "name"), [(simulate_weather, "simulated_weather"), (simulate_sensors, "simulated_sensors")]
)
def test_simulated_sets_are_the_defaults(simulate, name):
    frame = load_dataset(name)

    pd.testing.assert_frame_equal(frame, simulate())
    assert (len(frame), frame.columns.tolist()) == (dataset_info(name).rows, dataset_info(name).columns)
    assert frame.index.freqstr == dataset_info(name).step


def test_simulated_weather_has_plausible_cycles():
    frame = simulate_weather(8760)
    temperature = frame["temperature"]

    by_hour = temperature.groupby(frame.index.hour).mean()
    by_month = temperature.groupby(frame.index.month).mean()

    assert by_hour.idxmax() in (14, 15, 16)
    assert by_month.idxmin() in (1, 2)
    assert by_month.idxmax() in (7, 8)
    assert by_month.max() - by_month.min() > 14
    assert frame["humidity"].between(5, 100).all()
    assert frame["pressure"].between(950, 1060).all()
    assert np.corrcoef(temperature.diff()[1:], frame["humidity"].diff()[1:])[0, 1] < -0.5
    assert not frame.isna().any(axis=None)


@pytest.mark.parametrize("dropout", [0.0, 0.02, 0.5])
def test_sensor_dropouts_have_the_share_asked_for(dropout):
    frame = simulate_sensors(20_000, dropout=dropout)

    assert frame.isna().mean().mean() == pytest.approx(dropout, rel=0.1)


def test_sensor_dropouts_change_no_other_value():
    complete, gappy = simulate_sensors(2000, dropout=0.0), simulate_sensors(2000, dropout=0.3)

    pd.testing.assert_frame_equal(complete.where(gappy.notna()), gappy)


def test_sensors_drop_out_singly_and_in_blocks():
    missing = simulate_sensors(5000, 1, dropout=0.1).isna()["station_1"]

    lengths = missing.groupby((missing != missing.shift()).cumsum()).sum()

    assert (lengths == 1).any()
    assert (lengths > 5).any()


def test_stations_share_their_cycle():
    frame = simulate_sensors(3000)

    correlation = frame.diff(6).corr(method="spearman").to_numpy()

    assert frame.columns.tolist() == ["station_1", "station_2", "station_3", "station_4"]
    assert correlation.min() > 0.7


@pytest.mark.parametrize("freq", ["h", "10min", "D", "W-SUN"])
def test_simulations_take_any_fixed_step(freq):
    assert simulate_weather(1, freq=freq).index.freqstr == freq
    assert np.isfinite(simulate_sensors(40, 2, freq=freq, dropout=0)).all(axis=None)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: simulate_weather(0), "n_steps=0"),
        (lambda: simulate_weather(2.5), "n_steps=2.5"),
        (lambda: simulate_weather(freq="MS"), "freq='MS'"),
        (lambda: simulate_weather(freq="B"), "freq='B'"),
        (lambda: simulate_weather(freq="often"), "freq='often'"),
        (lambda: simulate_sensors(n_stations=0), "n_stations=0"),
        (lambda: simulate_sensors(dropout=1.0), "dropout=1.0"),
    ],
    ids=["no steps", "half a step", "months", "business days", "nonsense", "no stations", "all missing"],
)
def test_impossible_simulations_are_refused(call, message):
    with pytest.raises(ParameterError, match=re.escape(message)):
        call()


PUBLISHED = [
    # name, rows, first time, last time, freq, NaN
    ("etth1", 17420, "2016-07-01 00:00", "2018-06-26 19:00", "h", 0),
    ("etth2", 17420, "2016-07-01 00:00", "2018-06-26 19:00", "h", 0),
    ("ettm1", 69680, "2016-07-01 00:00", "2018-06-26 19:45", "15min", 0),
    ("ettm2", 69680, "2016-07-01 00:00", "2018-06-26 19:45", "15min", 0),
    ("weather", 52704, "2020-01-01 00:10", "2021-01-01 00:00", "10min", 50 + 30 + 1 + 9 * 21),
    ("exchange_rate", 7588, "1990-01-01", "2010-10-10", "D", 0),
    ("national_illness", 966, "2002-01-01", "2020-06-30", "W-TUE", 0),
    ("machine_temperature", 22683, "2013-12-02 21:15", "2014-02-19 15:25", "5min", 0),
    ("ambient_temperature", 7888, "2013-07-04 00:00", "2014-05-28 15:00", "h", 7888 - 7267),
    ("nyc_taxi", 10320, "2014-07-01 00:00", "2015-01-31 23:30", "30min", 0),
    ("brent", 9958, "1987-05-20", "2026-08-18", None, 0),
    ("wti", 10226, "1986-01-02", "2026-08-18", None, 0),
    ("vix", 9235, "1990-01-02", "2026-07-23", None, 0),
]


@pytest.mark.usefixtures("published_files")
@pytest.mark.parametrize(("name", "rows", "first", "last", "freq", "missing"), PUBLISHED)
def test_published_file(name, rows, first, last, freq, missing):
    info = dataset_info(name)

    frame, raw = load_dataset(name), load_dataset(name, raw=True)

    assert frame.shape == (rows, len(info.columns))
    assert raw.shape == (info.rows, len(info.columns) + 1)
    assert (frame.index[0], frame.index[-1]) == (pd.Timestamp(first), pd.Timestamp(last))
    assert frame.index.freq == (None if freq is None else pd.tseries.frequencies.to_offset(freq))
    assert frame.isna().sum().sum() == missing
    assert frame.index.is_monotonic_increasing
    assert frame.index.is_unique
    assert (frame.dtypes == "float64").all()
    assert sum(info.splits.values()) <= info.rows
    assert os.path.samefile(list_datasets().loc[name, "found"], next(Path(DATA_AT_START).rglob(info.file)))


@pytest.mark.usefixtures("published_files")
def test_weather_masks_its_sentinels_and_repairs_its_names():
    frame, raw = load_dataset("weather"), load_dataset("weather", raw=True)

    assert (raw == -9999).sum().sum() == 81
    assert frame.min().min() > -100
    assert frame["max. PAR (µmol/m²/s)"].isna().sum() == 30 + 9
    assert not any("\ufffd" in column for column in frame.columns)


@pytest.mark.usefixtures("published_files")
def test_the_hourly_transformer_is_the_quarter_hourly_one_on_the_hour():
    fine, hourly = load_dataset("ettm1"), load_dataset("etth1")

    pd.testing.assert_frame_equal(fine.asfreq("h"), hourly)


@pytest.mark.usefixtures("published_files")
def test_published_values():
    assert load_dataset("etth1")["OT"].iloc[0] == 30.5310001373291
    assert load_dataset("machine_temperature").loc["2014-01-07 02:00", "value"] == pytest.approx(94.423406)
    assert load_dataset("wti").loc["2020-04-20", "price"] < 0
    assert load_dataset("vix")["close"].iloc[-1] == 18.7


def test_the_wheel_carries_the_catalogue(tmp_path):
    pytest.importorskip("hatchling")
    source, wheels, unpacked = tmp_path / "source", tmp_path / "wheels", tmp_path / "unpacked"
    source.mkdir()
    for path in REPOSITORY.iterdir():
        if path.is_file():
            shutil.copy(path, source)
    for folder in ("xlstm_ts", "datasets"):
        shutil.copytree(REPOSITORY / folder, source / folder, ignore=shutil.ignore_patterns("__pycache__"))
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(wheels)]
    subprocess.run(build, cwd=source, check=True, capture_output=True)
    with zipfile.ZipFile(next(wheels.glob("*.whl"))) as archive:
        archive.extractall(unpacked)

    code = (
        "import sys, xlstm_ts.datasets as d; assert d.__file__.startswith(sys.argv[1]), d.__file__;"
        "assert str(d._catalogue_path()).startswith(sys.argv[1]);"
        "print(len(d.list_datasets()), d.load_dataset('simulated_sensors').shape)"
    )
    environment = os.environ | {"PYTHONPATH": str(unpacked)}
    run = [sys.executable, "-P", "-c", code, str(unpacked)]
    printed = subprocess.run(run, cwd=tmp_path, env=environment, check=True, capture_output=True, text=True).stdout

    assert printed.strip() == f"{len(list_datasets())} (4320, 4)"
