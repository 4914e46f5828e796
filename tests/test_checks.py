"""Parameters that come as text."""

import pytest

from xlstm_ts.checks import read_settings
from xlstm_ts.errors import ParameterError


def test_settings_are_json_or_text():
    read = read_settings(["a=1", "b=null", "layout=sm", "rate=1e-3", "resample=1h", 'names=["x", "y=z"]'], "--set")

    assert read == {"a": 1, "b": None, "layout": "sm", "rate": 1e-3, "resample": "1h", "names": ["x", "y=z"]}


@pytest.mark.parametrize("pair", ["width", "=3", ""])
def test_a_setting_without_key_or_value_is_refused(pair):
    with pytest.raises(ParameterError, match=f"--set '{pair}' is not of the form KEY=VALUE"):
        read_settings([pair], "--set")
