"""Hostile input ends in the right answer, or in one of our errors that names the remedy: the table, entry by entry."""

import numpy as np
import pandas as pd
import pytest
from hostile_table import FIT, LATER, Exactly, Raises

from xlstm_ts import errors
from xlstm_ts.training import loop


@pytest.mark.parametrize(("call", "outcome"), FIT.values(), ids=FIT)
def test_what_fit_is_given(call, outcome, monkeypatch):
    if isinstance(outcome, Raises):  # bad input is named before any work
        monkeypatch.setattr(loop, "epoch", lambda *arguments, **options: pytest.fail("training had begun"))
    check(call, outcome, method="fit")


@pytest.mark.parametrize(("call", "outcome"), LATER.values(), ids=LATER)
def test_what_a_fitted_forecaster_is_given(call, outcome):
    check(call, outcome, method="")


def check(call, outcome, method):
    if isinstance(outcome, Raises):
        with pytest.raises(getattr(errors, outcome.kind)) as caught:
            call()
        message = str(caught.value)
        assert [words for words in outcome.words if words not in message] == [], message
        assert message.startswith(f"XLSTMForecaster.{method}") or outcome.kind == "ParameterError", message
    elif isinstance(outcome, Exactly):
        assert np.array_equal(call(), outcome.value)
    else:
        got, expected = call(), outcome()
        assert type(got) is type(expected)
        np.testing.assert_allclose(np.asarray(got, dtype=float), np.asarray(expected, dtype=float), rtol=1e-5)
        if isinstance(got, pd.Series | pd.DataFrame):
            assert got.index.equals(expected.index)
            names = [
                part.columns if isinstance(part, pd.DataFrame) else pd.Index([part.name]) for part in (got, expected)
            ]
            assert names[0].equals(names[1])


def test_the_table_is_long_enough():
    assert len(FIT) + len(LATER) >= 120
