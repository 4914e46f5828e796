"""The whole of sktime's contract suite for forecasters, nothing left out."""

import pytest
from sktime.utils.estimator_checks import check_estimator, parametrize_with_checks

from xlstm_ts.forecaster import XLSTMForecaster


# sktime's own scenarios and doubles emit its deprecation notices; our warnings are tested in test_forecaster.py.
@pytest.mark.filterwarnings("default")
@parametrize_with_checks([XLSTMForecaster], obj_varname="forecaster", check_varname="name")
def test_sktime_contract(forecaster, name):
    results = check_estimator(forecaster, tests_to_run=name, raise_exceptions=True, verbose=False)

    assert results
    assert set(results.values()) == {"PASSED"}
