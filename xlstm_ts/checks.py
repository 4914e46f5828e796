"""Single parameters: read from text, checked, and the one form in which an impossible one is reported."""

import json
from collections.abc import Iterable
from numbers import Integral, Real
from typing import Any

from xlstm_ts.errors import ParameterError


def is_whole(value: Any, least: int = 1) -> bool:
    """Return whether a value is a whole number of at least `least` (numpy's count, booleans do not)."""
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= least


def is_between(value: Any, low: float, high: float) -> bool:
    """Return whether a value is a real number with low <= value < high."""
    return isinstance(value, Real) and not isinstance(value, bool) and low <= float(value) < high


def require(holds: bool, name: str, value: Any, expected: str) -> None:
    """Raise a ParameterError that names the parameter, its value and what was expected, unless `holds`."""
    if not holds:
        raise ParameterError(f"{name}={value!r} is impossible; expected {expected}.")


def read_settings(pairs: Iterable[str], where: str) -> dict[str, Any]:
    """Read ``key=value`` texts; a value is JSON, or else the text itself."""
    settings = {}
    for pair in pairs:
        name, found, value = pair.partition("=")
        if not found or not name:
            raise ParameterError(f"{where} {pair!r} is not of the form KEY=VALUE.")
        try:
            settings[name] = json.loads(value)
        except ValueError:
            settings[name] = value
    return settings
