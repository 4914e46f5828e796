"""Data sets by name: found or downloaded, checked against their hash, and put on a regular time index.

The facts about each set (address, hash, licence, columns, splits, quirks) live in one catalogue,
``datasets/catalogue.toml``, which the wheel carries beside this file. A file is looked for in the folder
``$XLSTM_TS_DATA``, then in the user's cache, then at its address; wherever it was found, its sha256 decides
whether it is read. Some series need no file: they lie inside installed packages, which are located but not
imported, or they are simulated here from a seed.
"""

import copy
import difflib
import hashlib
import http.client
import importlib.util
import io
import os
import sys
import tempfile
import tomllib
import urllib.request
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

from xlstm_ts.errors import DatasetError, ParameterError

__all__ = [
    "DatasetInfo",
    "dataset_info",
    "list_datasets",
    "load_dataset",
    "simulate_sensors",
    "simulate_weather",
]

TRADING_DAY = "trading day"
DOWNLOAD_TIMEOUT_SECONDS = 60


@dataclass(frozen=True)
class DatasetInfo:
    """What the catalogue says about one data set.

    Attributes
    ----------
    name : str
        Name that `load_dataset` takes.
    kind : str
        Field that the series comes from: "weather", "sensor", "market", "energy" and others.
    source : {"file", "package", "simulated"}
        Where the values come from. Only "file" may need a download.
    step : str
        Pandas alias of the regular step, or "trading day" for a series with holiday gaps.
    rows : int
        Rows as published, before duplicates are dropped and gaps are filled.
    columns : list of str
        Names of the loaded columns, in the order of the file.
    licence : str
        Licence at the origin.
    quirks : list of str
        What one should know before using the series.
    splits : dict of str to int
        Rows of the parts "train", "validation" and "test" in the long-horizon protocol, one after the other
        from the first published row. Empty for the other sets.
    time_column : str
        Name of the time column in the published file.
    file : str
        File name; for "package" the path inside the package.
    address : str
        Where the file is published. Empty when it must be supplied by hand.
    sha256 : str
        Hash of the first `size` bytes.
    size : int
        Number of bytes that are read. A file that has grown at its origin is cut to it.
    sentinels : list of float
        Numbers that stand for a missing value in the published file.
    package : str
        Package that carries the file.
    index : {"time", "period"}
        Kind of index that the loaded frame has.
    """

    name: str
    kind: str
    source: str
    step: str
    rows: int
    columns: list[str]
    licence: str
    quirks: list[str]
    splits: dict[str, int] = field(default_factory=dict)
    time_column: str = ""
    file: str = ""
    address: str = ""
    sha256: str = ""
    size: int = 0
    sentinels: list[float] = field(default_factory=list)
    package: str = ""
    index: str = "time"


def load_dataset(name: str, *, raw: bool = False) -> pd.DataFrame:
    """Load a data set by its name.

    A file is taken from the folder ``$XLSTM_TS_DATA`` (sub-folders included), else from the user's cache,
    else downloaded into that cache. Its hash is checked every time.

    Parameters
    ----------
    name : str
        A name from `list_datasets`.
    raw : bool, default=False
        Return the file as published: every row in its order, time as an ordinary column, duplicated times and
        sentinels left in. The tables of the long-horizon literature are computed on this form. A simulated
        series has no published form and is the same either way.

    Returns
    -------
    DataFrame of float64, one row per time step
        In the units of the file, with a sorted index "time" without duplicates (of duplicated times the first
        row is kept) and missing values as NaN. A regular series has its `freq` set, and steps that the file
        lacks are rows of NaN; a series of trading days keeps its holiday gaps and has no `freq`. The dates of
        exchange_rate and national_illness are those of the file, one day and one week apart, and artificial.

    Raises
    ------
    DatasetError
        The name is unknown, the file can neither be found nor downloaded, or it is not the file that the
        hash in the catalogue promises.

    Examples
    --------
    >>> from xlstm_ts.datasets import load_dataset
    >>> load_dataset("airline")["passengers"].head(3).tolist()
    [112.0, 118.0, 132.0]
    """
    info = _lookup(name, "load_dataset")
    if info.source == "simulated":
        return _SIMULATORS[info.name]()
    published = _read_published(info)
    return published if raw else _tidy(published, info)


def list_datasets() -> pd.DataFrame:
    """List the data sets and where each of them is. Reads no data file.

    Returns
    -------
    DataFrame indexed by name
        Columns: kind, step, rows (as published), columns (their number), licence, needs_download (the
        values come from a file that is not part of an installed package), found (the path, "simulated", or
        "not here").

    Raises
    ------
    DatasetError
        ``$XLSTM_TS_DATA`` is set and is no folder.
    """
    places = _files_in(_cache_folder()) | _files_in(_data_folder())
    rows = [
        {
            "name": info.name,
            "kind": info.kind,
            "step": info.step,
            "rows": info.rows,
            "columns": len(info.columns),
            "licence": info.licence,
            "needs_download": info.source == "file",
            "found": _where(info, places),
        }
        for info in _catalogue().values()
    ]
    return pd.DataFrame(rows).set_index("name")


def dataset_info(name: str) -> DatasetInfo:
    """Look up what the catalogue says about a data set: address, hash, licence, splits, quirks.

    Parameters
    ----------
    name : str
        A name from `list_datasets`.

    Returns
    -------
    DatasetInfo
        A copy; changing it changes nothing here.

    Raises
    ------
    DatasetError
        The name is unknown.

    Examples
    --------
    >>> from xlstm_ts.datasets import dataset_info
    >>> dataset_info("etth1").splits
    {'train': 8640, 'validation': 2880, 'test': 2880}
    """
    return copy.deepcopy(_lookup(name, "dataset_info"))


def simulate_weather(
    n_steps: int = 8760, *, freq: str = "h", random_state: int | np.random.Generator | None = 0
) -> pd.DataFrame:
    """Simulate the weather of one place in the temperate zone, from 2020-01-01 on.

    Temperature is an annual cycle (coldest on 20 January), a daily cycle that is larger in summer and smaller
    under the clouds of a front, autocorrelated noise, and cold fronts: random events, one in five days on
    average, after which it is several degrees colder and recovers over two days. Pressure wanders around
    1013 hPa and dips at each front. Humidity follows from the temperature and a slowly wandering dew point,
    so that it falls by day and rises by night. Nothing is missing.

    Parameters
    ----------
    n_steps : int, default=8760
        Number of rows.
    freq : str, default="h"
        Pandas alias of a fixed step, such as "h", "10min" or "D".
    random_state : int, Generator or None, default=0
        Seed, or a generator to draw from; None draws a fresh seed. A longer simulation with the same seed
        begins with the shorter one.

    Returns
    -------
    DataFrame of shape (n_steps, 3)
        temperature in degrees Celsius, humidity in per cent (relative), pressure in hPa.

    Raises
    ------
    ParameterError
        `n_steps` is no positive whole number, or `freq` no fixed step.

    Examples
    --------
    >>> from xlstm_ts.datasets import simulate_weather
    >>> simulate_weather(48).shape
    (48, 3)
    """
    index, step_hours = _simulated_index(n_steps, freq, "simulate_weather")
    # One stream per part, so that the draws of a part do not depend on the length of the others.
    noise_rng, front_rng, pressure_rng, moisture_rng = np.random.default_rng(random_state).spawn(4)

    summer = _annual_cycle(index)
    front = _fronts(n_steps, step_hours, front_rng)
    pressure = 1013 + _red_noise(n_steps, 6.0, 60 / step_hours, pressure_rng) - 9 * front["clouds"]
    cloudless = np.exp(-front["clouds"])
    daily = (4.5 + 2.5 * summer) * cloudless * -np.cos(2 * np.pi * (_hour_of_day(index) - 3) / 24)
    seasonal = 10 + 9.5 * summer
    temperature = seasonal + daily - 5 * front["cold"] + _red_noise(n_steps, 1.5, 12 / step_hours, noise_rng)

    dew_noise = _red_noise(n_steps, 1.8, 36 / step_hours, moisture_rng)
    dew_point = seasonal - 6 + 4 * front["clouds"] - 4 * front["cold"] + dew_noise
    return pd.DataFrame(
        {
            "temperature": temperature,
            "humidity": _relative_humidity(temperature, dew_point),
            "pressure": pressure,
        },
        index=index,
    )


def simulate_sensors(
    n_steps: int = 4320,
    n_stations: int = 4,
    *,
    freq: str = "10min",
    dropout: float = 0.02,
    random_state: int | np.random.Generator | None = 0,
) -> pd.DataFrame:
    """Simulate temperature sensors on machines that work by day, with the faults of real sensors.

    All stations share a daily cycle, weaker at weekends, and a slow common disturbance; each has its own mean
    level (40 to 70 degrees), its own gain on what is shared, and its own noise. Faults are per station: a
    drift (a random walk of about one degree in a week), level shifts (one in ten days on average, some three
    degrees, which stay), spikes of one step (one in two days on average, some eight degrees), and missing
    values, one half single steps and the other half blocks of twelve steps on average.

    Parameters
    ----------
    n_steps : int, default=4320
        Number of rows; the default is 30 days.
    n_stations : int, default=4
        Number of columns.
    freq : str, default="10min"
        Pandas alias of a fixed step, such as "10min" or "h".
    dropout : float in [0, 1), default=0.02
        Expected share of missing values. It changes only which values are missing, not the others.
    random_state : int, Generator or None, default=0
        Seed, or a generator to draw from; None draws a fresh seed. A longer simulation with the same seed
        begins with the shorter one.

    Returns
    -------
    DataFrame of shape (n_steps, n_stations)
        Columns station_1, station_2 and so on, in degrees Celsius, NaN where a value is missing.

    Raises
    ------
    ParameterError
        `n_steps` or `n_stations` is no positive whole number, `freq` no fixed step, or `dropout` not in
        [0, 1).

    Examples
    --------
    >>> from xlstm_ts.datasets import simulate_sensors
    >>> simulate_sensors(144, 2, dropout=0.0).isna().sum().tolist()
    [0, 0]
    """
    index, step_hours = _simulated_index(n_steps, freq, "simulate_sensors")
    _check_count(n_stations, "n_stations", "simulate_sensors")
    if not 0 <= dropout < 1:
        raise ParameterError(
            f"simulate_sensors: dropout={dropout!r} is not a share in [0, 1). "
            "Give the expected share of missing values, for instance 0.02."
        )
    station_rng, common_rng, noise_rng, fault_rng, missing_rng = np.random.default_rng(random_state).spawn(5)

    level = station_rng.uniform(40, 70, n_stations)
    gain = station_rng.uniform(0.5, 1.5, n_stations)
    shared = _working_day(index) + _red_noise(n_steps, 1.0, 24 / step_hours, common_rng)
    noise = noise_rng.normal(0, 0.3, (n_steps, n_stations))
    values = level + gain * shared[:, np.newaxis] + noise + _faults((n_steps, n_stations), step_hours, fault_rng)
    values[_missing((n_steps, n_stations), dropout, missing_rng)] = np.nan
    return pd.DataFrame(values, index=index, columns=[f"station_{i + 1}" for i in range(n_stations)])


_SIMULATORS = {"simulated_weather": simulate_weather, "simulated_sensors": simulate_sensors}


@cache
def _catalogue() -> dict[str, DatasetInfo]:
    with _catalogue_path().open("rb") as stream:
        tables = tomllib.load(stream)
    return {name: DatasetInfo(name=name, **table) for name, table in tables.items()}


def _catalogue_path() -> Path:
    """Find the catalogue beside this file (in a wheel) or beside the package (in a checkout)."""
    candidates = [
        Path(__file__).with_name("catalogue.toml"),
        Path(__file__).parents[1] / "datasets" / "catalogue.toml",
    ]
    for path in candidates:
        if path.is_file():
            return path
    raise DatasetError(
        f"datasets: the catalogue is missing; expected it at {candidates[0]} or {candidates[1]}. "
        "The installation is incomplete: install xlstm-ts again."
    )


def _lookup(name: str, caller: str) -> DatasetInfo:
    catalogue = _catalogue()
    if name in catalogue:
        return catalogue[name]
    close = difflib.get_close_matches(str(name).lower(), catalogue, n=3)
    hint = f" Did you mean {' or '.join(repr(match) for match in close)}?" if close else ""
    raise DatasetError(f"{caller}: no data set is called {name!r}.{hint} Known names: {', '.join(catalogue)}.")


def _read_published(info: DatasetInfo) -> pd.DataFrame:
    if info.source == "file":
        return pd.read_csv(io.BytesIO(_fetch(info)), encoding="utf-8")
    # What pip installed is not hashed again: other versions of the package may carry other line ends.
    path = _package_file(info)
    if path is None:
        raise DatasetError(
            f"load_dataset: {info.name!r} is a file of the package {info.package!r} ({info.file}), which is "
            f"not installed or does not carry it. Install it with `pip install {info.package}`."
        )
    if path.suffix == ".npz":
        with np.load(path) as archive:
            return pd.DataFrame(archive[archive.files[0]])
    return pd.read_csv(path, encoding="utf-8")


def _tidy(published: pd.DataFrame, info: DatasetInfo) -> pd.DataFrame:
    """Turn a published file into a frame of floats on a clean time index."""
    frame = published.drop(columns=info.time_column).astype(float)
    frame.columns = pd.Index(info.columns)
    frame = frame.mask(frame.isin(info.sentinels))
    frame.index = _time_index(published[info.time_column], info)
    frame = frame.sort_index(kind="stable")
    frame = frame[~frame.index.duplicated(keep="first")]
    is_regular = info.index == "time" and info.step != TRADING_DAY
    return frame.asfreq(info.step) if is_regular else frame


def _time_index(times: pd.Series, info: DatasetInfo) -> pd.Index:
    if info.index == "period":
        return pd.PeriodIndex(times.astype(str), freq=info.step, name="time")
    return pd.DatetimeIndex(pd.to_datetime(times), name="time")


def _fetch(info: DatasetInfo) -> bytes:
    """Return the checked content of a file from the first place that has it."""
    cached = _cache_folder() / info.file
    copies = _copies_in(_data_folder(), info.file)
    if copies:
        return _first_intact(copies, info, "Replace it by the published file, or take it out of $XLSTM_TS_DATA.")
    if cached.is_file():
        return _first_intact([cached], info, "Delete it, and it is downloaded again.")
    return _download(info, cached)


def _first_intact(copies: list[Path], info: DatasetInfo, remedy: str) -> bytes:
    """Read the first copy with the right hash: other files may bear the same name."""
    found = {}
    for path in copies:
        try:
            with path.open("rb") as stream:
                content = stream.read(info.size)
        except OSError as error:
            raise DatasetError(f"load_dataset: {path} cannot be read ({error}). Check its permissions.") from error
        found[path] = hashlib.sha256(content).hexdigest()
        if found[path] == info.sha256:
            return content
    listed = ", ".join(f"{path} has sha256 {digest}" for path, digest in found.items())
    raise DatasetError(
        f"load_dataset: the file of {info.name!r} is not the published one: {listed}; "
        f"expected {info.sha256} over its first {info.size} bytes. Nothing was loaded. {remedy}"
    )


def _download(info: DatasetInfo, target: Path) -> bytes:
    by_hand = (
        f"put the file {info.file} (sha256 {info.sha256}) into a folder and set the environment variable "
        "XLSTM_TS_DATA to that folder"
    )
    if not info.address:
        raise DatasetError(
            f"load_dataset: {info.file} of {info.name!r} is not here, and it has no address to download it "
            f"from. To load it, {by_hand}."
        )
    try:
        content = _read_address(info)
    except (OSError, http.client.HTTPException) as error:
        raise DatasetError(
            f"load_dataset: {info.name!r} could not be downloaded from {info.address} ({error}). "
            f"Try again with a network connection, or {by_hand}."
        ) from error
    digest = hashlib.sha256(content).hexdigest()
    if digest != info.sha256:
        raise DatasetError(
            f"load_dataset: {info.address} sent {len(content)} bytes with sha256 {digest} for {info.name!r}; "
            f"expected {info.size} bytes with sha256 {info.sha256}. Nothing was kept. Try again; if that "
            f"does not help, the file has changed at its origin: {by_hand}."
        )
    _write_atomically(content, target)
    return content


def _read_address(info: DatasetInfo) -> bytes:
    request = urllib.request.Request(info.address, headers={"User-Agent": "xlstm-ts"})
    with urllib.request.urlopen(request, timeout=DOWNLOAD_TIMEOUT_SECONDS) as response:
        return response.read(info.size)


def _write_atomically(content: bytes, target: Path) -> None:
    """Write to a temporary folder beside the target first, so that nobody ever sees half a file."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:
            part = Path(folder) / target.name
            part.write_bytes(content)
            os.replace(part, target)
    except OSError as error:
        raise DatasetError(
            f"load_dataset: {target} cannot be written ({error}). Free some space there, or set the "
            "environment variable XDG_CACHE_HOME to a folder that can be written."
        ) from error


def _data_folder() -> Path | None:
    """Return the folder of $XLSTM_TS_DATA, None where it is unset or empty."""
    value = os.environ.get("XLSTM_TS_DATA")
    if not value:
        return None
    folder = Path(value).expanduser()
    if not folder.is_dir():
        raise DatasetError(
            f"datasets: the environment variable XLSTM_TS_DATA is {value!r}, which is not a folder. "
            "Set it to the folder that holds the data files, or unset it to use the cache."
        )
    return folder


def _cache_folder() -> Path:
    if value := os.environ.get("XDG_CACHE_HOME"):
        base = Path(value)
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    elif sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    else:
        base = Path.home() / ".cache"
    return base / "xlstm_ts" / "datasets"


def _copies_in(folder: Path | None, file_name: str) -> list[Path]:
    return [] if folder is None else sorted(path for path in folder.rglob(file_name) if path.is_file())


def _files_in(folder: Path | None) -> dict[str, Path]:
    """Map the names of all files below a folder to their paths."""
    if folder is None:
        return {}
    return {name: Path(parent, name) for parent, _, names in os.walk(folder) for name in names}


def _package_file(info: DatasetInfo) -> Path | None:
    """Locate a file inside an installed package without importing the package."""
    spec = importlib.util.find_spec(info.package)
    folders = spec.submodule_search_locations if spec else None
    candidates = [Path(folder) / info.file for folder in folders or []]
    return next((path for path in candidates if path.is_file()), None)


def _where(info: DatasetInfo, places: dict[str, Path]) -> str:
    if info.source == "simulated":
        return "simulated"
    path = places.get(info.file) if info.source == "file" else _package_file(info)
    return str(path) if path else "not here"


def _simulated_index(n_steps: int, freq: str, caller: str) -> tuple[pd.DatetimeIndex, float]:
    """Return the index and the length of a step in hours."""
    _check_count(n_steps, "n_steps", caller)
    try:
        probe = pd.date_range("2020-01-01", periods=8, freq=freq)
    except ValueError:
        probe = pd.DatetimeIndex([])
    hours = np.unique(np.diff(probe) / np.timedelta64(1, "h"))
    if len(hours) != 1 or hours[0] <= 0:
        raise ParameterError(
            f"{caller}: freq={freq!r} is not a step of fixed length. Give a pandas alias such as 'h', '10min' or 'D'."
        )
    return pd.date_range(probe[0], periods=n_steps, freq=freq, name="time"), float(hours[0])


def _check_count(value: int, name: str, caller: str) -> None:
    if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or value < 1:
        raise ParameterError(f"{caller}: {name}={value!r} is not a whole number of at least 1.")


def _hour_of_day(index: pd.DatetimeIndex) -> np.ndarray:
    return np.asarray(index.hour + index.minute / 60 + index.second / 3600)


def _annual_cycle(index: pd.DatetimeIndex) -> np.ndarray:
    """-1 on 20 January, +1 half a year later."""
    day_of_year = np.asarray(index.dayofyear) + _hour_of_day(index) / 24
    return -np.cos(2 * np.pi * (day_of_year - 20) / 365.25)


def _working_day(index: pd.DatetimeIndex) -> np.ndarray:
    """Daily cycle of a machine in degrees: warmest at 15:00, at weekends less than half as strong."""
    # The day turns at 09:00, where the cycle crosses zero, so that its strength changes without a jump.
    working = (index - pd.Timedelta(hours=9)).dayofweek < 5
    strength = np.where(working, 6.0, 2.5)
    return strength * -np.cos(2 * np.pi * (_hour_of_day(index) - 3) / 24)


def _red_noise(n_steps: int, scale: float, memory_steps: float, rng: np.random.Generator) -> np.ndarray:
    """Stationary AR(1) noise with standard deviation `scale` that forgets in `memory_steps`."""
    phi = np.exp(-1 / memory_steps)
    shocks = scale * rng.standard_normal(n_steps)
    shocks[1:] *= np.sqrt(1 - phi**2)
    return _decaying_sum(shocks, phi)


def _decaying_sum(shocks: np.ndarray, phi: float) -> np.ndarray:
    """x[t] = phi x[t-1] + shocks[t]."""
    # Imported here: it takes longer than all other imports of a caller who only reads files.
    from scipy.signal import lfilter

    return lfilter([1.0], [1.0, -phi], shocks)


def _fronts(n_steps: int, step_hours: float, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Traces of random fronts, about 1 at the front: clouds for half a day, cold air for two days."""
    arrivals, strength = rng.random((n_steps, 2)).T
    events = np.where(arrivals < 1 - np.exp(-step_hours / 120), 0.5 + strength, 0.0)
    return {
        "clouds": _decaying_sum(events, np.exp(-step_hours / 12)),
        "cold": _decaying_sum(events, np.exp(-step_hours / 48)),
    }


def _relative_humidity(temperature: np.ndarray, dew_point: np.ndarray) -> np.ndarray:
    """Relative humidity in per cent from two temperatures in degrees Celsius (Magnus formula)."""

    def vapour_pressure(celsius: np.ndarray) -> np.ndarray:
        return np.exp(17.62 * celsius / (243.12 + celsius))

    return np.clip(100 * vapour_pressure(dew_point) / vapour_pressure(temperature), 5, 100)


def _faults(shape: tuple[int, int], step_hours: float, rng: np.random.Generator) -> np.ndarray:
    """Drift, lasting level shifts and spikes of one step, in degrees."""
    size_rng, time_rng = rng.spawn(2)
    walk, shift_size, spike_size = np.moveaxis(size_rng.standard_normal((*shape, 3)), -1, 0)
    shift_draw, spike_draw = np.moveaxis(time_rng.random((*shape, 2)), -1, 0)
    days = step_hours / 24
    shifts = 3.0 * shift_size * (shift_draw < 1 - np.exp(-days / 10))
    spikes = 8.0 * spike_size * (spike_draw < 1 - np.exp(-days / 2))
    drift = np.sqrt(days / 7) * walk
    return np.cumsum(drift + shifts, axis=0) + spikes


def _missing(shape: tuple[int, int], dropout: float, rng: np.random.Generator) -> np.ndarray:
    """Mask of missing values, one half of `dropout` as single steps, one half as blocks."""
    block_length = 12
    single_draw, start_draw, length_draw = np.moveaxis(rng.random((*shape, 3)), -1, 0)
    # A step is free of blocks with probability exp(-starts per step * block_length).
    starts = start_draw < -np.log(1 - dropout / 2) / block_length
    lengths = np.ceil(np.log1p(-length_draw) / np.log(1 - 1 / block_length))
    position = np.arange(shape[0])[:, np.newaxis]
    block_end = np.maximum.accumulate(np.where(starts, position + lengths, 0), axis=0)
    return (position < block_end) | (single_draw < dropout / (2 - dropout))
