"""Tables as users have them: rows with a time, read from CSV or Parquet, and tables written.

What is found out rather than said (which column is the time, how its days and months are ordered, where rows are
sorted) is told; what cannot be found out without a guess is an error that names the option which says it.
"""

import difflib
import re
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from xlstm_ts.datasets import dataset_info, load_dataset
from xlstm_ts.errors import DataError, DatasetError, DataTypeError, ParameterError
from xlstm_ts.evaluation.plots import time_label

PARQUET = (".parquet", ".pq")
SEPARATORS = ",;\t"
HEAD = 2**16  # bytes that the form of a CSV file is read from
CANDIDATES = 1000  # rows by which a column of times is known
SHOWN = 12  # columns that a message lists

YEAR_FIRST = r"\d{4}(?:[-/.]\d{1,2}|\d{4}(?!\d))"  # 2024-01, 2024/1/31, 20240131
YEAR_LAST = (  # 31.01.2024, 1/31/24 2:30 PM
    r"\d{1,2}(?P<separator>[-/.])\d{1,2}(?P=separator)(?P<year>\d{4}|\d{2})"
    r"(?:(?P<gap>[ T])(?P<minutes>\d{1,2}:\d{2})(?P<seconds>:\d{2}(?P<fraction>\.\d+)?)?(?P<half> [AaPp][Mm])?)?$"
)
OFFSET = r"([+-]\d{2}:?\d{2}|Z)$"


@dataclass(frozen=True)
class TableForm:
    """What a user says of a file's columns.

    Parameters
    ----------
    time : str, optional
        The column of times. Default: the only one that holds times.
    time_format : str, optional
        How times are written, as ``"%d.%m.%Y %H:%M"``. Default: found out, where only one reading is possible.
    series : sequence of str
        Columns that tell the series of a panel apart.
    missing : sequence of str
        Values that stand for missing ones, beside empty cells and the usual names such as NA.
    """

    time: str | None = None
    time_format: str | None = None
    series: Sequence[str] = ()
    missing: Sequence[str] = ()


def read_table(source: str, form: TableForm, say: Callable[[str], object]) -> pd.DataFrame:
    """Read a table and put its times, below its series, into the index.

    Parameters
    ----------
    source : str
        A file in CSV (separated by comma, semicolon or tab) or Parquet, by its ending; or a data set by name.
    form : TableForm
        What its columns are.
    say : callable
        Receives what was found out, as text.

    Returns
    -------
    DataFrame
        In the order of time; columns as they were read.

    Raises
    ------
    DataError
        There is no such file, it is no table, or not exactly one of its columns holds times that can be read.
    """
    frame = _read(source)
    frame = frame.rename(columns={name: str(name) for name in frame.columns})
    if form.missing:
        frame = frame.mask(frame.isin([*form.missing, *_as_numbers(form.missing)]))
    for name in form.series:
        check_columns(frame, [name], source, "--series")
    time = form.time or _find_time(frame, source)
    check_columns(frame, [time], source, "--time")
    index = _read_times(frame[time], form.time_format, source, say)
    frame = frame.set_index(index.rename(time)).drop(columns=time)
    first, last = time_label(index.min()), time_label(index.max())
    say(f"{source}: {len(frame):,} rows from {first} to {last}, by the column {time!r}.")
    if form.series:
        frame = frame.set_index(list(form.series), append=True).reorder_levels([*form.series, time])
        return frame.sort_index(kind="stable")
    if not index.is_monotonic_increasing:
        say(f"{source}: its rows were not in the order of time, and are sorted.")
        frame = frame.sort_index(kind="stable")
    return frame


def check_columns(frame: pd.DataFrame, names: Iterable[str], source: str, option: str) -> None:
    """Raise a DataError unless a table has some columns; it names those that there are."""
    there = [str(name) for name in frame.columns]
    for name in names:
        if name not in there:
            close = difflib.get_close_matches(name, there, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            listed = ", ".join(there[:SHOWN]) + (", ..." if len(there) > SHOWN else "")
            raise DataError(f"{source}: there is no column {name!r} ({option}).{hint} Its columns: {listed}.")


def to_numbers(frame: pd.DataFrame, names: Sequence[str], source: str) -> pd.DataFrame:
    """Return some columns as float64; a DataTypeError names the first cell that is no number."""
    table = {}
    for name in names:
        column = frame[name]
        numbers = pd.to_numeric(column, errors="coerce")
        bad = (numbers.isna() & column.notna()).to_numpy()
        if bad.any():
            row = int(bad.argmax())
            raise DataTypeError(
                f"{source}: the column {name!r} holds {str(column.iloc[row])[:40]!r} at {_shown(frame.index[row])} "
                f"({int(bad.sum()):,} such cells), where numbers are expected. Leave cells empty where a value is "
                "missing, or say what stands for missing with --missing."
            )
        table[name] = numbers.astype("float64")
    return pd.DataFrame(table, index=frame.index)


def check_writable(path: str | Path, option: str) -> Path:
    """Try to open a file for writing, and leave no trace of the attempt.

    Raises
    ------
    ParameterError
        It cannot be written; `option` is what to say something else with.
    """
    path = Path(path)
    existed = path.exists()
    try:
        path.open("ab").close()
    except OSError as error:
        raise ParameterError(
            f"{str(path)!r} cannot be written ({error.strerror}). Give another file, in a folder that exists, with "
            f"{option}."
        ) from error
    if not existed:
        path.unlink()
    return path


def check_table_file(path: str | Path, option: str) -> Path:
    """Return the path of a table that can be written here, or raise a ParameterError."""
    path = check_writable(path, option)
    if path.suffix in PARQUET:
        _require_pyarrow(str(path))
    return path


def write_table(table: pd.DataFrame, path: str | Path) -> None:
    """Write a table without its index, as Parquet or CSV by the ending of the file."""
    if Path(path).suffix in PARQUET:
        table.to_parquet(path, index=False)
    else:
        Path(path).write_text(to_csv(table), encoding="utf-8")


def to_csv(table: pd.DataFrame) -> str:
    """Return a table as CSV, with ten digits: a price of a billion keeps its units."""
    return table.to_csv(index=False, float_format="%.10g", lineterminator="\n")


# Reading


def _read(source: str) -> pd.DataFrame:
    path = Path(source)
    if not path.exists():
        try:
            dataset_info(source)
        except DatasetError as error:
            raise DataError(
                f"{source}: there is no such file, nor a data set of that name. Check the name and the folder, or see "
                "xlstm-ts datasets."
            ) from error
        return load_dataset(source).reset_index()
    if not path.is_file():
        raise DataError(f"{source}: this is no file. Name the table itself, a file in CSV or Parquet.")
    try:
        if path.suffix in PARQUET:
            _require_pyarrow(source)
            frame = pd.read_parquet(path)
            return frame if isinstance(frame.index, pd.RangeIndex) else frame.reset_index()
        return _read_csv(path)
    except (ValueError, OSError) as error:  # whatever pandas and pyarrow find wrong with a file
        if isinstance(error, DataError | ParameterError):
            raise
        kind = "Parquet" if path.suffix in PARQUET else "CSV"
        raise DataError(
            f"{source}: this cannot be read as {kind}: {error}. Give a table with one header row."
        ) from error


def _read_csv(path: Path) -> pd.DataFrame:
    with path.open("rb") as stream:
        head = stream.read(HEAD)
    try:
        pd.read_csv(path, nrows=0, encoding="utf-8-sig")
    except UnicodeDecodeError:
        encoding = "cp1252"
    else:
        encoding = "utf-8-sig"
    text = head.decode(encoding, errors="replace")
    separator = max(SEPARATORS, key=text.partition("\n")[0].count)
    # In "12,5;13,0" commas are decimal.
    comma = separator != "," and re.search(rf"(?:^|{separator})-?\d+,\d+(?:{separator}|\r?$)", text, re.MULTILINE)
    return pd.read_csv(path, sep=separator, decimal="," if comma else ".", encoding=encoding, low_memory=False)


def _require_pyarrow(source: str) -> None:
    try:
        import pyarrow  # noqa: F401
    except ImportError as error:
        raise ParameterError(
            f"{source}: Parquet needs pyarrow, which the extra `parquet` installs: pip install 'xlstm-ts[parquet]'. "
            "CSV needs nothing."
        ) from error


def _as_numbers(texts: Iterable[str]) -> list[float]:
    return pd.to_numeric(pd.Series(list(texts)), errors="coerce").dropna().tolist()


# Times


def _find_time(frame: pd.DataFrame, source: str) -> str:
    found = [name for name in frame.columns if _holds_times(frame[name])]
    if len(found) == 1:
        return found[0]
    listed = ", ".join(map(str, (found or list(frame.columns))[:SHOWN]))
    if not found:
        raise DataError(
            f"{source}: no column holds times (of {listed}). Name one with --time, and if need be how it is written "
            "with --time-format; whole numbers at equal distances are times, too."
        )
    raise DataError(f"{source}: more than one column holds times: {listed}. Say which with --time.")


def _holds_times(column: pd.Series) -> bool:
    if isinstance(column.dtype, pd.DatetimeTZDtype | pd.PeriodDtype) or column.dtype.kind == "M":
        return True
    if not _is_text(column):
        return False
    cells = column.dropna().head(CANDIDATES).astype(str).str.strip()
    return len(cells) > 0 and all(re.match(YEAR_FIRST, cell) or re.match(YEAR_LAST, cell) for cell in cells)


def _is_text(column: pd.Series) -> bool:
    return pd.api.types.is_object_dtype(column) or pd.api.types.is_string_dtype(column)


def _read_times(column: pd.Series, written: str | None, source: str, say: Callable[[str], object]) -> pd.Index:
    """Return a column as an index of times, periods or whole numbers."""
    if column.isna().any():
        row = int(column.isna().argmax())
        raise DataError(
            f"{source}: row {row + 1} has no time in the column {column.name!r}. Fill it in, or drop the row."
        )
    if written is None and not _is_text(column):
        if column.dtype.kind == "f":
            raise DataError(
                f"{source}: the column {column.name!r} holds {column.iloc[0]!r}, which is no time. Times are dates, or "
                "whole numbers at equal distances; name the right column with --time."
            )
        return pd.Index(column)
    text = column.astype(str).str.strip()
    forms = [written] if written is not None else _forms_of(text)
    readings = {form: times for form in forms if (times := _read_as(text, form)) is not None}
    if not readings:
        raise DataError(
            f"{source}: {text.iloc[0]!r} and what follows in the column {column.name!r} cannot all be read as times. "
            "Say how they are written with --time-format, for instance '%d.%m.%Y %H:%M'."
        )
    if len(readings) > 1:
        ordered = {form: times for form, times in readings.items() if _is_ordered(times)}
        if len(ordered) != 1:
            either = " or ".join(repr(form) for form in readings)
            raise DataError(
                f"{source}: {text.iloc[0]!r} in the column {column.name!r} can be read as {either}. Say which with "
                "--time-format."
            )
        readings = ordered
    ((form, index),) = readings.items()
    if written is None and form != "ISO8601":
        say(f"{source}: {text.iloc[0]!r} in the column {column.name!r} is read as {form!r}.")
    if index.tz is not None and text.str.extract(OFFSET)[0].nunique() > 1:
        say(f"{source}: its times have more than one distance from UTC, and are taken as UTC.")
    return index


def _forms_of(text: pd.Series) -> list[str]:
    """Return the forms in which times may be written; where the day comes last it is the ISO's."""
    first = re.match(YEAR_LAST, text.iloc[0])
    if first is None:
        return ["ISO8601"]
    separator, year, clock = first["separator"], "%Y" if len(first["year"]) == 4 else "%y", ""
    if first["minutes"]:
        seconds = f":%S{'.%f' if first['fraction'] else ''}" if first["seconds"] else ""
        clock = f"{first['gap']}{'%I' if first['half'] else '%H'}:%M{seconds}{' %p' if first['half'] else ''}"
    return [separator.join([*days, year]) + clock for days in (("%d", "%m"), ("%m", "%d"))]


def _read_as(text: pd.Series, form: str) -> pd.DatetimeIndex | None:
    """Return times that are written in a form, in UTC where their distances from it differ; None for others."""
    for utc in (False, True):
        with suppress(ValueError):
            return pd.DatetimeIndex(pd.to_datetime(text, format=form, utc=utc))
        if text.str.extract(OFFSET)[0].isna().all():
            break
    return None


def _is_ordered(times: pd.Index) -> bool:
    return times.is_monotonic_increasing or times.is_monotonic_decreasing


def _shown(key: object) -> str:
    return ", ".join(map(str, key)) if isinstance(key, tuple) else str(key)
