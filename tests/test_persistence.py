"""Model files: what comes back is equal to the bit, what is damaged does not come back, and nothing in them runs."""

import ast
import datetime as dt
import hashlib
import io
import json
import os
import stat
import sys
import warnings
import zipfile
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import safetensors.numpy
from helpers import monthly, tiny_forecaster

from xlstm_ts import XLSTMForecaster, XLSTMRegressor, archive, backtest, persistence
from xlstm_ts.data.calendar import EasterOffset, FixedDate, TradingCalendar, WeekdayFrom
from xlstm_ts.errors import BackendError, ModelFileError, ParameterError, XLSTMError
from xlstm_ts.forecaster import ShortSeriesWarning

# Cases: a forecaster, what it is fitted on, and what it is updated with


def hourly(rows=60, zone=None, unit="ns"):
    index = pd.date_range("2024-03-29", periods=rows, freq="h", tz=zone, unit=unit)
    return pd.Series(np.sin(np.arange(rows) / 4) + np.arange(rows) / 50, index=index, name="load")


def trading(rows=300):
    market = TradingCalendar(
        holidays=(EasterOffset(-2), FixedDate(12, 25, moves=((5, -1),)), WeekdayFrom(0, 9, 1)),
        one_offs=(pd.Timestamp("2020-07-07"),),
        time_of_day=pd.Timedelta("16h"),
    )
    index = market.sessions_after(pd.Timestamp("2020-01-01"), rows)
    walk = np.random.default_rng(0).normal(size=rows).cumsum()
    return pd.Series(100 + walk, index=index, name="price"), market


def panel(keys=("u", "v"), levels=None):
    parts = [monthly(40 + 3 * j, seed=j) for j in range(len(keys))]
    return pd.concat(dict(zip(keys, parts, strict=True)), names=levels or ["key", "time"]).rename_axis(
        levels or ["key", "time"]
    )


def covariates(index):
    place = np.arange(len(index))
    table = {"price": np.where(place % 7 == 3, np.nan, place / 10.0), "kind": np.array(["a", "b", "c"])[place % 3]}
    return pd.DataFrame(table | {"flow": np.cos(place), "year": 2018 + place // 12}, index=index)


def missing(frame):
    return frame + np.where(np.arange(len(frame)) % 5 == 2, np.nan, 0.0)[:, None]


WEEKLY = pd.date_range("2020-01-05", periods=48, freq="W-SUN")
CASES = {
    "patch": ({}, monthly()["a"]),
    "stacked": ({"backbone": "stacked", "layout": "ms"}, monthly(columns=2)),
    "mixer": ({"backbone": "mixer", "layout": "m"}, monthly(columns=3)),
    "classic": ({"layout": "l", "num_blocks": 2, "decomposition": 3}, monthly()),
    "ratio": ({"layout": "2:1", "linear_skip": False, "conv_width": 0}, monthly()),
    "student_t": ({"loss": "student_t"}, monthly()),
    "mae": ({"loss": "mae"}, monthly()),
    "mse": ({"loss": "mse", "validation_fraction": 0.5}, monthly(120)),
    "huber": ({"loss": "huber", "backbone": "mixer"}, monthly()),
    "calibrated": ({"validation_fraction": 0.6}, monthly(150)["a"]),
    "calibrated columns": ({"validation_fraction": 0.6, "refit_on_all": True}, monthly(150, columns=2)),
    "adaptive": ({"validation_fraction": 0.6, "calibrate": "adaptive"}, monthly(150)["a"]),
    "missing": ({}, missing(monthly(columns=2))),
    "constant": ({}, monthly()["a"] * 0 + 7.5),
    "auto": ({"context_length": "auto", "patch_length": "auto", "backbone": "auto", "layout": "auto"}, monthly()["a"]),
    "several": ({"context_length": (8, 16), "validation_fraction": 0.4, "refit_on_all": True}, monthly(columns=2)),
    "several points": ({"context_length": [8, 4, 8], "loss": "mae"}, monthly()),
    "levels as array": ({"quantile_levels": np.array([0.25, 0.5, 0.75])}, monthly()["a"]),
    "random state": ({"random_state": np.random.RandomState(3)}, monthly()["a"]),
    "integers": ({}, monthly()["a"].set_axis(range(48))),
    "odd integers": ({}, monthly()["a"].set_axis(np.arange(10, 202, 4, dtype=np.int32))),
    "weeks": ({}, pd.Series(monthly()["a"].to_numpy(), index=WEEKLY)),
    "seconds": ({}, hourly(unit="s")),
    "zone": ({"calendar_features": ["day"]}, hourly(zone="Europe/Berlin")),
    "utc": ({"calendar_features": ["day", "week"]}, hourly(zone="UTC", unit="us")),
    "fixed zone": ({}, hourly(zone=dt.timezone(dt.timedelta(hours=5, minutes=30)))),
    "holidays": ({"calendar_features": "auto", "holidays": "DE"}, hourly(zone="Europe/Berlin")),
    "sessions": ({}, trading()[0]),
    "calendar": ({"calendar": trading()[1]}, trading()[0]),
    "offset": ({"calendar": "B"}, pd.Series(np.arange(60.0) % 7, pd.bdate_range("2024-01-01", periods=60))),
    "offset object": (
        {"calendar": pd.offsets.Week(weekday=6)},
        pd.Series(monthly()["a"].to_numpy(), index=WEEKLY),
    ),
    "listed": ({"calendar": trading(400)[0].index}, trading()[0]),
    "panel": ({}, panel()),
    "panel of whole numbers": ({"loss": "mae"}, panel(keys=(3, 1, 2))),
    "hierarchy": ({}, panel(keys=(("x", 1), ("x", 2), ("y", 1)), levels=["region", "shop", "time"])),
    "panel of times": ({}, panel(keys=(pd.Timestamp("2020-01-01"), pd.Timestamp("2021-01-01")))),
    "columns of numbers": ({}, monthly(columns=2).set_axis([3, 5], axis=1)),
    "mixed columns": ({}, monthly(columns=2).set_axis(["x", 5], axis=1)),
    "nameless": ({}, monthly()["a"].rename(None)),
    "gaps": ({"on_gap": "mask"}, hourly().drop(hourly().index[[7, 8, 20]])),
    "resampled": ({"resample": "2h"}, hourly(120)),
}
WITH_X = {
    "known": ({}, monthly()["a"]),
    "mixer": ({"backbone": "mixer", "past_covariates": ["flow"]}, monthly(columns=2)),
    "stacked": ({"backbone": "stacked", "past_covariates": ("flow", "price")}, monthly()),
    "index of names": ({"past_covariates": pd.Index(["flow"]), "calendar_features": ["year"]}, monthly()),
    "calibrated": ({"validation_fraction": 0.6, "loss": "student_t"}, monthly(150)["a"]),
}


@contextmanager
def quiet():
    """Short series are warned of; that is not what is looked at here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ShortSeriesWarning)
        yield


def fitted(settings, y, X=None):
    return tiny_forecaster(**settings).fit(y, X=X)


def saved(model, folder, **options):
    path = Path(folder) / "model.xlstm"
    model.save_model(path)
    return type(model).load_model(path, **options)


def split(y, rows=6):
    """Return all but the last rows of each series, and these."""
    if not isinstance(y.index, pd.MultiIndex):
        return y.iloc[:-rows], y.iloc[-rows:]
    above = list(range(y.index.nlevels - 1))
    last = y.groupby(level=above).cumcount(ascending=False) < rows
    return y[~last], y[last]


def same_forecasts(one, other, X=None):
    fh = [-2, 0, 1, 2, 3, 5]
    for forecast in (
        lambda model: model.predict(fh=fh, X=X),
        lambda model: model.predict_interval(fh=fh, X=X, coverage=[0.5, 0.8]),
        lambda model: model.predict_quantiles(fh=[1, 4], X=X, alpha=[0.02, 0.6]),
        lambda model: model.predict_var(fh=[2], X=X),
    ):
        expected, got = forecast(one), forecast(other)
        pd.testing.assert_index_equal(got.index, expected.index, exact=True)
        kind = pd.testing.assert_series_equal if isinstance(expected, pd.Series) else pd.testing.assert_frame_equal
        kind(got, expected, check_exact=True, check_freq=True)


def same_parameters(one, other):
    ours, theirs = one.get_params(), other.get_params()
    assert list(ours) == list(theirs)
    for name, value in ours.items():
        assert type(theirs[name]) is type(value), name
        if isinstance(value, np.random.RandomState):
            assert value.randint(1000, size=5).tolist() == theirs[name].randint(1000, size=5).tolist()
        elif isinstance(value, np.ndarray | pd.Index):
            assert (theirs[name].dtype, list(theirs[name])) == (value.dtype, list(value))
        else:
            assert theirs[name] == value, name


@pytest.mark.parametrize("name", CASES)
def test_a_loaded_forecaster_is_the_saved_one(name, tmp_path):
    if name == "holidays":
        pytest.importorskip("holidays")
    settings, y = CASES[name]
    known, new = split(y)
    with quiet():
        model = fitted(settings, known)
        loaded = saved(model, tmp_path)
    assert type(loaded) is XLSTMForecaster
    same_parameters(model, loaded)
    pd.testing.assert_frame_equal(loaded.history_, model.history_)
    assert (loaded.calibrated_, loaded.best_epoch_) == (model.calibrated_, model.best_epoch_)
    if model.calibration_coverage_ is None:
        assert loaded.calibration_coverage_ is None
    else:
        pd.testing.assert_frame_equal(loaded.calibration_coverage_, model.calibration_coverage_, check_exact=True)
    assert str(loaded.calendar_) == str(model.calendar_)
    pd.testing.assert_index_equal(loaded.cutoff, model.cutoff)
    same_forecasts(model, loaded)
    one, other = (pd.DataFrame(each.predict_residuals()) for each in (model, loaded))
    pd.testing.assert_frame_equal(other, one, check_exact=True)

    times = new.index.get_level_values(-1).unique()
    options = {"origins": times[::2], "fh": [1, 2]}
    one, other = (each.predict_origins(y, **options) for each in (model, loaded))
    pd.testing.assert_frame_equal(other, one, check_exact=True)

    with quiet():
        for update_params in (False, True):
            for each in (model, loaded):
                each.update(new if update_params else split(new, 2)[0], update_params=update_params)
            same_forecasts(model, loaded)


@pytest.mark.parametrize("name", WITH_X)
def test_a_loaded_forecaster_reads_covariates_as_the_saved_one(name, tmp_path):
    settings, y = WITH_X[name]
    X = covariates(y.index)
    known, new = split(y, 10)
    with quiet():
        model = fitted(settings, known, X)
        loaded = saved(model, tmp_path)
        same_parameters(model, loaded)
        same_forecasts(model, loaded, X=X)
        for each in (model, loaded):
            each.update(new[:2], X=X)
        same_forecasts(model, loaded, X=X)


def test_static_covariates_of_a_panel_come_back(tmp_path):
    y = panel(keys=("u", "v", "w"))
    size = y.index.get_level_values("key").map({"u": "small", "v": "large", "w": "small"})
    X = pd.DataFrame({"size": size, "seen": np.arange(len(y)) / 9.0}, index=y.index)
    model = fitted({"static_covariates": ["size"], "past_covariates": ["seen"]}, y, X)
    loaded = saved(model, tmp_path)

    pd.testing.assert_frame_equal(loaded.predict(fh=[0, 1, 2]), model.predict(fh=[0, 1, 2]), check_exact=True)


def test_a_backtest_of_a_loaded_forecaster_is_that_of_the_saved_one(tmp_path):
    y = monthly(80)["a"]
    model = tiny_forecaster().fit(y[:60])
    results = [backtest(each, y, horizon=3, origins=5, refit=None).frame for each in (model, saved(model, tmp_path))]

    pd.testing.assert_frame_equal(*results, check_exact=True)


def test_a_pretrained_forecaster_comes_back(tmp_path):
    model = tiny_forecaster().pretrain(panel())
    loaded = saved(model, tmp_path)
    y = monthly(seed=9)

    pd.testing.assert_frame_equal(loaded.fit(y).predict(fh=[1, 2]), model.fit(y).predict(fh=[1, 2]), check_exact=True)


def test_the_horizon_of_fit_comes_back(tmp_path):
    for fh in ([1, 3], pd.period_range("2022-01", periods=2, freq="M")):
        model = tiny_forecaster().fit(monthly(), fh=fh)
        pd.testing.assert_frame_equal(saved(model, tmp_path).predict(), model.predict(), check_exact=True)


@pytest.mark.parametrize("kind", ["frame", "array", "windows"])
def test_a_loaded_regressor_is_the_saved_one(kind, tmp_path):
    y = monthly(columns=2)
    X, target = y, y["a"].to_numpy() * [[1.0], [-2.0]]
    X, target = {
        "frame": (X, y["a"]),
        "array": (X.to_numpy(), target.T),
        "windows": (np.stack([X.to_numpy()[k : k + 4] for k in range(40)]), target.T[4:44]),
    }[kind]
    model = XLSTMRegressor(context_length=4, hidden_size=8, num_heads=2, max_epochs=1, random_state=0)
    model.fit(X[:-8], target[:-8])
    loaded = saved(model, tmp_path)

    assert loaded.get_params() == model.get_params()
    assert np.array_equal(loaded.predict(X[-8:]), model.predict(X[-8:]))  # the rows before these are remembered
    assert np.array_equal(loaded.predict(X[3:9]), model.predict(X[3:9]))


def test_the_device_is_where_the_user_says(tmp_path):
    model = tiny_forecaster(device="cpu").fit(monthly())
    model.device = "cuda:7"  # as if fitted where there is one
    loaded = saved(model, tmp_path)

    assert loaded.device == "cuda:7"
    assert next(loaded.network_.parameters()).device.type == "cpu"
    assert not loaded.network_.training
    with pytest.raises(BackendError, match="cuda:99"):
        XLSTMForecaster.load_model(tmp_path / "model.xlstm", device="cuda:99")


def test_a_panel_of_many_series_shares_its_times(tmp_path):
    y = pd.concat({f"s{k}": monthly(30, seed=k) for k in range(200)}, names=["key", "time"])
    model = tiny_forecaster().fit(y)
    loaded = saved(model, tmp_path)

    config, weights = contents(tmp_path / "model.xlstm")
    assert len(config["shared"]) == 1
    assert len(weights) < 60
    assert len({id(one.axis) for one in loaded._panel.series}) == 1


# What cannot be kept


class OddCalendar(TradingCalendar):
    """A subclass, whose code would be lost."""


@pytest.mark.parametrize(
    "calendar",
    [
        pd.offsets.CustomBusinessDay(holidays=["2024-01-01"]),
        pd.offsets.BusinessDay(normalize=True),
        OddCalendar(),
    ],
    ids=["offset with holidays", "offset with an option", "own class"],
)
def test_what_a_file_cannot_hold_is_an_error_before_anything_is_written(calendar, tmp_path):
    model = tiny_forecaster().fit(monthly())
    model.calendar = calendar

    with pytest.raises(ModelFileError, match=r"save_model: the parameter calendar holds .* sktime's save"):
        model.save_model(tmp_path / "model.xlstm")
    assert os.listdir(tmp_path) == []


def test_an_attribute_of_unknown_kind_is_named(tmp_path):
    model = tiny_forecaster().fit(monthly())
    model.note_ = {"deep": [object()]}

    with pytest.raises(ModelFileError, match="the attribute note_ holds <object"):
        model.save_model(tmp_path / "model.xlstm")


def test_a_forecaster_must_be_fitted_to_be_saved(tmp_path):
    with pytest.raises(Exception, match="not been fitted"):
        tiny_forecaster().save_model(tmp_path / "model.xlstm")


# Damaged and hostile files


@pytest.fixture(scope="module")
def small():
    """Return a fitted forecaster, its forecast, and the bytes of its file."""
    import tempfile

    model = tiny_forecaster().fit(monthly()["a"])
    forecast = model.predict(fh=[1, 2, 3])
    with tempfile.TemporaryDirectory() as folder:
        model.save_model(Path(folder) / "a")
        model.save_model(Path(folder) / "b")
        data = (Path(folder) / "a").read_bytes()
        assert data == (Path(folder) / "b").read_bytes()
    return model, forecast, data


def contents(path):
    with zipfile.ZipFile(path) as zipped:
        return json.loads(zipped.read("config.json")), safetensors.numpy.load(zipped.read("weights.safetensors"))


def load_bytes(data, folder):
    path = Path(folder) / "hostile.xlstm"
    path.write_bytes(data)
    return XLSTMForecaster.load_model(path)


def sealed(body):
    """Return what passes for a whole file: the seal is right."""
    return body + b"sha256 " + hashlib.sha256(body).hexdigest().encode()


def rezipped(config, weights, **options):
    """Return a file of other contents whose every sha256 is right."""
    config = config if isinstance(config, bytes) else json.dumps(config).encode()
    return archive._pack(config, weights, persistence.MODEL_FILE, "test")


def test_the_parts_can_be_checked_without_us(small, tmp_path):
    pd.testing.assert_series_equal(load_bytes(small[2], tmp_path).predict(), small[1], check_exact=True)
    with zipfile.ZipFile(io.BytesIO(small[2])) as zipped:
        assert zipped.testzip() is None
        sums = dict(line.split()[::-1] for line in zipped.read("SHA256SUMS").decode().splitlines())
        assert sums == {name: hashlib.sha256(zipped.read(name)).hexdigest() for name in sums}
        assert sorted(sums) == ["config.json", "weights.safetensors"]


def test_no_flipped_bit_loads(small, tmp_path):
    data = small[2]
    random = np.random.default_rng(0)
    places = [*range(40), *range(len(data) - 200, len(data)), *random.integers(len(data), size=400)]
    for place in places:
        damaged = bytearray(data)
        damaged[place] ^= 1 << random.integers(8)
        with pytest.raises(ModelFileError, match=r"hostile\.xlstm (is damaged|is not a whole model file)"):
            load_bytes(bytes(damaged), tmp_path)


def test_no_truncated_file_loads(small, tmp_path):
    data = small[2]
    for size in [0, 1, 22, 71, 100, len(data) - 1, *np.random.default_rng(1).integers(len(data), size=300)]:
        with pytest.raises(ModelFileError, match=r"hostile\.xlstm is"):
            load_bytes(data[:size], tmp_path)
    with pytest.raises(ModelFileError):
        load_bytes(data + b"x", tmp_path)


def test_random_changes_of_a_sealed_file_end_in_a_typed_error_or_a_model(small, tmp_path):
    """Who makes a file makes its sums, too: then the parser stands alone."""
    data = small[2]
    random = np.random.default_rng(2)
    with zipfile.ZipFile(io.BytesIO(data)) as zipped:
        config, weights = zipped.read("config.json"), zipped.read("weights.safetensors")
    for turn in range(300):
        parts = [bytearray(config), bytearray(weights), bytearray(data[: -archive.SEAL_LENGTH])]
        part = parts[turn % 3]
        for place in random.integers(len(part), size=1 + turn % 4):
            part[place] = random.integers(256)
        changed = sealed(bytes(parts[2])) if turn % 3 == 2 else rezipped(bytes(parts[0]), bytes(parts[1]))
        with suppress(ModelFileError):
            load_bytes(changed, tmp_path)


def test_a_newer_format_says_so(small, tmp_path):
    config, weights = raw(small)
    config |= {"format": 2, "xlstm_ts": "9.1", "state": "whatever"}

    with pytest.raises(ModelFileError, match=r"format 2, written by xlstm_ts 9\.1; .* Upgrade xlstm_ts"):
        load_bytes(rezipped(config, weights), tmp_path)


def raw(small):
    with zipfile.ZipFile(io.BytesIO(small[2])) as zipped:
        return json.loads(zipped.read("config.json")), zipped.read("weights.safetensors")


def test_a_file_of_another_class_is_refused(small, tmp_path):
    (tmp_path / "model").write_bytes(small[2])
    with pytest.raises(ModelFileError, match="holds a model of the class 'XLSTMForecaster', not XLSTMRegressor"):
        XLSTMRegressor.load_model(tmp_path / "model")


HOSTILE = {
    "a class to import": ("state", {"subprocess.Popen": ["true"]}, "names 'subprocess.Popen'"),
    "a builtin": ("state", {"eval": "1"}, "names 'eval'"),
    "nesting": ("state", json.loads("[" * 500 + "]" * 500), "nested too deeply"),
    "endless blocks": ("num_blocks", 10**9, "more blocks than arrays"),
    "an endless layout": ("layout", "1000000000:1", "more blocks than arrays"),
    "a huge network": ("hidden_size", 10**7, "not of the shape"),
    "an array beyond its pool": ("array", ["float64", 0, [10**6, 10**6], [0, 1]], "outside its pool"),
    "an array before its pool": ("array", ["float64", -3, [2], [0]], "outside its pool"),
    "no parameter": ("parameter", 1, "no parameter 'evil'"),
    "a zone on the disk": ("state", {"tzinfo": ["name", "../../etc/passwd"]}, "no model|not a model|model that"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_contents_are_refused(name, small, tmp_path):
    what, value, message = HOSTILE[name]
    config, weights = raw(small)
    if what == "state":
        config["state"]["_seed"] = value
    elif what == "array":
        config["state"]["_seed"] = {"array": value}
    elif what == "parameter":
        config["parameters"]["evil"] = value
    else:
        config["state"]["network_"]["ForecastNetwork"][1]["NetworkConfig"][what] = value
    with pytest.raises(ModelFileError, match=message):
        load_bytes(rezipped(config, weights), tmp_path)


def test_bombs_are_refused(small, tmp_path):
    config, weights = raw(small)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as zipped:
        zipped.writestr("config.json", b" " * 10**7)
        zipped.writestr("weights.safetensors", weights)
        zipped.writestr("SHA256SUMS", b"")
        zipped.comment = bytes(archive.SEAL_LENGTH)
    with pytest.raises(ModelFileError, match="zip of other entries"):
        load_bytes(sealed(buffer.getvalue()[: -archive.SEAL_LENGTH]), tmp_path)

    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as zipped:
        for k in range(500):
            zipped.writestr(f"../{k}", b"")
        zipped.comment = bytes(archive.SEAL_LENGTH)
    with pytest.raises(ModelFileError, match="zip of another form"):
        load_bytes(sealed(buffer.getvalue()[: -archive.SEAL_LENGTH]), tmp_path)

    header = (2**60).to_bytes(8, "little")
    with pytest.raises(ModelFileError, match="too many arrays"):
        load_bytes(rezipped(config, header + weights), tmp_path)


def test_nothing_runs_while_a_file_is_read(small, tmp_path):
    """No import, no eval, no process, and no other file: with an audit hook on all of a load."""
    (tmp_path / "model").write_bytes(small[2])
    XLSTMForecaster.load_model(tmp_path / "model")  # what is imported once, is imported now
    seen = []
    watching = [True]

    def hook(event, arguments):
        if watching[0] and event in ("import", "exec", "compile", "os.system", "subprocess.Popen", "pickle.find_class"):
            seen.append((event, arguments[:1]))

    sys.addaudithook(hook)
    try:
        XLSTMForecaster.load_model(tmp_path / "model")
    finally:
        watching[0] = False
    assert [event for event in seen if event[0] != "compile"] == []


def test_the_source_has_no_way_to_run_what_it_reads():
    sources = [Path(module.__file__).read_text(encoding="utf-8") for module in (archive, persistence)]
    nodes = [node for source in sources for node in ast.walk(ast.parse(source))]
    names = {node.id for node in nodes if isinstance(node, ast.Name)}
    names |= {alias.name for node in nodes if isinstance(node, ast.Import | ast.ImportFrom) for alias in node.names}
    called = {ast.unparse(node.func) for node in nodes if isinstance(node, ast.Call)}

    assert not names & {"pickle", "eval", "exec", "compile", "__import__", "import_module", "marshal", "joblib"}
    assert not called & {"torch.load", "np.load", "pd.read_pickle"}


# Paths and failed writes


@pytest.fixture
def model(small):
    return small[0]


def test_paths_that_cannot_be_files_are_named(model, tmp_path):
    with pytest.raises(ModelFileError, match="is a folder"):
        model.save_model(tmp_path)
    with pytest.raises(ModelFileError, match=r"there is no folder .*nowhere"):
        model.save_model(tmp_path / "nowhere" / "model.xlstm")
    with pytest.raises(ParameterError, match="path=3"):
        model.save_model(3)
    with pytest.raises(ParameterError, match="path="):
        model.save_model("a\0b")
    with pytest.raises(ModelFileError, match="is a folder, not a model file"):
        XLSTMForecaster.load_model(tmp_path)
    with pytest.raises(ModelFileError, match=r"absent\.xlstm cannot be read \(No such file"):
        XLSTMForecaster.load_model(tmp_path / "absent.xlstm")
    with pytest.raises(ParameterError, match="path=None"):
        XLSTMForecaster.load_model(None)
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_a_pipe_is_no_model_file(model, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ModelFileError, match="a device or a pipe"):
        XLSTMForecaster.load_model(tmp_path / "pipe")
    with pytest.raises(ModelFileError, match="a device or a pipe"):
        model.save_model(tmp_path / "pipe")


@pytest.mark.skipif(os.name == "nt", reason="modes and links of POSIX")
def test_mode_follows_the_umask_and_links_stay(model, tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "deep" / "target")
    before = os.umask(0o027)
    try:
        model.save_model(tmp_path / "plain")
        model.save_model(tmp_path / "link")
    finally:
        os.umask(before)

    assert stat.S_IMODE((tmp_path / "plain").stat().st_mode) == 0o640
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "deep" / "target").read_bytes() == (tmp_path / "plain").read_bytes()
    assert sorted(os.listdir(tmp_path)) == ["deep", "link", "plain"]
    assert os.listdir(tmp_path / "deep") == ["target"]


class Failing:
    """Counts calls of functions of `os`, and lets the n-th fail."""

    def __init__(self, monkeypatch, error, n):
        self.calls, self.error, self.n = [], error, n
        for name in ("open", "write", "fsync", "close", "replace"):
            monkeypatch.setattr(archive.os, name, self.wrap(name, getattr(os, name)))

    def wrap(self, name, original):
        def call(*arguments, **options):
            self.calls.append(name)
            if len(self.calls) == self.n:
                if name == "write":
                    original(arguments[0], bytes(arguments[1])[: len(arguments[1]) // 2])  # some got through
                if name == "close":
                    original(*arguments)
                raise self.error
            return original(*arguments, **options)

        return call


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt(), MemoryError()])
@pytest.mark.parametrize("before", [b"old", None])
def test_a_write_that_fails_anywhere_leaves_what_was_there(error, before, small, tmp_path, monkeypatch):
    model, _, whole = small
    path = tmp_path / "model.xlstm"
    monkeypatch.setattr(archive, "PIECE", 4000)
    failed = []
    for n in range(1, 100):
        if before is not None:
            path.write_bytes(before)
        elif path.exists():
            path.unlink()
        with monkeypatch.context() as patch:
            failing = Failing(patch, error, n)
            try:
                model.save_model(path)
                done = True
            except (ModelFileError, KeyboardInterrupt, MemoryError) as raised:
                done, kind = False, type(raised)
        assert done or kind is (ModelFileError if isinstance(error, OSError) else type(error))
        done = done or "replace" in failing.calls[: n - 1]  # stopped when the new file was in place
        assert os.listdir(tmp_path) == (["model.xlstm"] if done or before else [])
        if done:
            assert path.read_bytes() == whole
        elif before:
            assert path.read_bytes() == before
        if len(failing.calls) < n:
            break
        if not done:
            failed.append(failing.calls[n - 1])
    assert len(failing.calls) < n
    assert failed[:2] == ["open", "write"]
    assert failed.count("write") > 2
    assert {"fsync", "close", "replace"} <= set(failed)
    assert failed[-1] == "replace"


def test_errors_of_files_are_ours_and_of_the_system():
    assert issubclass(ModelFileError, XLSTMError)
    assert issubclass(ModelFileError, OSError)
