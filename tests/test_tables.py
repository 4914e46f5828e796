"""Tables as users have them: what is found out about a file is right, and what would be a guess is refused."""

import numpy as np
import pandas as pd
import pytest

from xlstm_ts.errors import DataError, DataTypeError
from xlstm_ts.tables import TableForm, read_table, to_csv, to_numbers, write_table


def read(text, tmp_path, form=None, encoding="utf-8"):
    """Return the frame of a CSV file and what was said of it."""
    path = tmp_path / "t.csv"
    path.write_bytes(text.encode(encoding))
    said = []
    return read_table(str(path), form or TableForm(), said.append), said


TIMES = {
    "ISO": (["2024-01-31", "2024-02-01"], "2024-01-31"),
    "ISO with hours": (["2024-01-31T13:00:00", "2024-01-31T14:00:00"], "2024-01-31 13:00"),
    "year first": (["1990/1/1 0:00", "1990/1/2 0:00"], "1990-01-01"),
    "digits and dashes": (["2024-01", "2024-02"], "2024-01-01"),
    "day first": (["31.01.2024 13:00", "31.01.2024 14:00"], "2024-01-31 13:00"),
    "day first, by the order of the rows": (["30/12/2023", "01/01/2024", "02/01/2024"], "2023-12-30"),
    "month first": (["01/30/2024", "01/31/2024", "02/01/2024"], "2024-01-30"),
    "two digits and a half day": (["1/31/24 1:30 PM", "1/31/24 2:30 PM"], "2024-01-31 13:30"),
    "UTC": (["2024-01-31T13:00:00Z", "2024-01-31T14:00:00Z"], "2024-01-31 13:00+00:00"),
}


@pytest.mark.parametrize(("times", "first"), TIMES.values(), ids=TIMES)
def test_times_are_read_as_they_were_meant(times, first, tmp_path):
    frame, _ = read("a,when\n" + "".join(f"{k},{time}\n" for k, time in enumerate(times)), tmp_path)

    assert frame.index.name == "when"
    assert frame.index[0] == pd.Timestamp(first)
    assert frame["a"].tolist() == list(range(len(times)))


def test_times_whose_distance_from_utc_changes_are_utc_and_that_is_said(tmp_path):
    frame, said = read("t,a\n2024-03-31T01:00+01:00,1\n2024-03-31T03:00+02:00,2\n", tmp_path)

    assert list(frame.index) == [pd.Timestamp("2024-03-31T00:00Z"), pd.Timestamp("2024-03-31T01:00Z")]
    assert "more than one distance from UTC" in said[0]


def test_the_form_of_times_can_be_said(tmp_path):
    text = "t,a\n01/02/2024,1\n02/02/2024,2\n"

    frame, _ = read(text, tmp_path, TableForm(time_format="%m/%d/%Y"))

    assert list(frame.index.month) == [1, 2]
    with pytest.raises(DataError, match="cannot all be read as times"):
        read(text, tmp_path, TableForm(time_format="%Y"))


def test_whole_numbers_are_times_where_they_are_named(tmp_path):
    frame, _ = read("step,a\n10,1\n20,2\n", tmp_path, TableForm(time="step"))

    assert frame.index.tolist() == [10, 20]
    with pytest.raises(DataError, match="which is no time"):
        read("step,a\n10.5,1\n20,2\n", tmp_path, TableForm(time="step"))


def test_rows_are_brought_into_the_order_of_time_and_that_is_said(tmp_path):
    frame, said = read("t,a\n2024-01-03,3\n2024-01-01,1\n2024-01-02,2\n", tmp_path)

    assert frame["a"].tolist() == [1, 2, 3]
    assert "sorted" in said[-1]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1252"])
def test_semicolons_decimal_commas_and_encodings_are_found(encoding, tmp_path):
    frame, _ = read("Zeit;Temp (°C)\n01.12.2024 10:00;12,5\n13.12.2024 10:00;-3,25\n", tmp_path, encoding=encoding)

    assert frame["Temp (°C)"].tolist() == [12.5, -3.25]


def test_what_stands_for_missing_can_be_said(tmp_path):
    frame, _ = read("t,a,b\n2024-01-01,1,2\n2024-01-02,-9999,-9999.0\n2024-01-03,broken,3\n", tmp_path)
    with pytest.raises(DataTypeError, match=r"the column 'a' holds 'broken' at 2024-01-03 00:00:00 \(1 such cells\)"):
        to_numbers(frame, ["a"], "t.csv")

    frame, _ = read((tmp_path / "t.csv").read_text(), tmp_path, TableForm(missing=("-9999", "broken")))

    numbers = to_numbers(frame, ["a", "b"], "t.csv")
    np.testing.assert_array_equal(numbers, [[1, 2], [np.nan, np.nan], [np.nan, 3]])
    assert list(numbers.dtypes) == [np.float64, np.float64]


def test_series_come_first_in_the_index_and_each_is_in_the_order_of_time(tmp_path):
    text = "t,site,a\n2024-01-02,y,4\n2024-01-02,x,2\n2024-01-01,x,1\n2024-01-01,y,3\n"

    frame, _ = read(text, tmp_path, TableForm(series=("site",)))

    assert frame.index.names == ["site", "t"]
    assert frame["a"].tolist() == [1, 2, 3, 4]
    with pytest.raises(DataError, match=r"no column 'place' \(--series\)"):
        read(text, tmp_path, TableForm(series=("place",)))


def test_tables_are_written_with_the_units_of_a_billion(tmp_path):
    table = pd.DataFrame({"t": ["2024-01-01"], "a": [1_000_000_001.0]})

    write_table(table, tmp_path / "t.csv")

    assert (tmp_path / "t.csv").read_text() == to_csv(table) == "t,a\n2024-01-01,1000000001\n"


def test_parquet_is_read_and_written(tmp_path):
    pytest.importorskip("pyarrow")
    table = pd.DataFrame({"a": [1.5, 2.5]}, index=pd.date_range("2024-01-01", periods=2, name="t"))
    write_table(table.reset_index(), tmp_path / "t.parquet")
    table.to_parquet(tmp_path / "indexed.parquet")

    for name in ("t.parquet", "indexed.parquet"):
        frame = read_table(str(tmp_path / name), TableForm(), lambda text: None)
        pd.testing.assert_frame_equal(frame, table, check_freq=False)
