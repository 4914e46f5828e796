"""The forecaster of the package in a backtest: all origins at once equal the slow loop."""

import numpy as np
import pandas as pd
import pytest
from fake_forecasters import hourly, panel

from xlstm_ts import XLSTMForecaster, backtest

SMALL = {
    "horizon": 4,
    "context_length": 8,
    "layout": "s",
    "hidden_size": 4,
    "num_heads": 1,
    "patch_length": 4,
    "max_epochs": 1,
    "steps_per_epoch": 2,
    "validation_fraction": 0,
    "random_state": 0,
}
LEVELS = [0.05, 0.5, 0.9]


class Slow:
    """The same forecaster without its short cut: it is updated and asked at every origin."""

    def __init__(self, model):
        self.model = model

    def clone(self):
        return Slow(self.model.clone())

    def get_tag(self, *args):
        return self.model.get_tag(*args)

    def fit(self, y, X=None, fh=None):
        self.model.fit(y, X=X)
        return self

    def update(self, y, X=None, update_params=False):
        self.model.update(y, X=X, update_params=update_params)

    def predict(self, fh, X=None):
        return self.model.predict(fh=fh, X=X)

    def predict_quantiles(self, fh, alpha, X=None):
        return self.model.predict_quantiles(fh=fh, alpha=alpha, X=X)


@pytest.mark.parametrize("seed", range(20))
def test_all_origins_at_once_equal_the_slow_loop(seed):
    rng = np.random.default_rng(seed)
    if seed % 4 == 0:
        y = panel((90, 90, 60), int(rng.integers(1, 3)), 1 + seed // 4 % 2)
    else:
        y = hourly(90, rng.choice([None, 2]))
    if seed % 3 == 1:
        y = y.mask(rng.random(y.shape) < 0.1)
    X = pd.DataFrame({"x": rng.normal(size=len(y))}, index=y.index) if seed % 2 else None
    model = XLSTMForecaster(**SMALL, backbone=["patch", "stacked", "mixer"][seed % 3])
    arguments = {
        "horizon": [4, 1, [1, 3], [2, 6]][seed % 4],  # the last one rolls forward
        "initial": int(rng.integers(50, 60)),
        "stride": int(rng.integers(3, 9)),
        "gap": int(rng.integers(0, 5)),
        "refit": [False, 3][rng.integers(2)],
        "window": str(rng.choice(["expanding", "sliding"])),
        "batch_size": int(rng.choice([2, 100])),
        "quantile_levels": LEVELS,
        "baselines": False,
    }

    frame = backtest({"fast": model, "slow": Slow(model)}, y, X, **arguments).frame

    fast, slow = (frame[frame["model"] == name].reset_index(drop=True) for name in ("fast", "slow"))
    assert len(fast) == len(slow) > 0
    columns = ["point", *LEVELS]
    scale = np.nanstd(y.to_numpy())
    np.testing.assert_allclose(fast[columns], slow[columns], rtol=0, atol=1e-5 * scale)
    pd.testing.assert_frame_equal(fast.drop(columns=["model", *columns]), slow.drop(columns=["model", *columns]))


def test_forty_random_walks_are_not_foreseen():
    from xlstm_ts import random_walk_canary

    found = random_walk_canary(
        XLSTMForecaster(**SMALL | {"max_epochs": 2, "steps_per_epoch": 10}), walks=40, length=300
    )

    assert abs(found.mean - 0.5) < 3 * found.standard_error
    assert len(found.accuracies) == 40
