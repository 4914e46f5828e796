"""Kill fits with SIGKILL, in the midst of steps and of writes, until as many kills were made as are asked for.

    python tests/training/killed_fits.py 200

Each kill falls on a random call of what a fit goes through (a step, or opening, writing, syncing or moving a file). A
fit is called again until it ends, and must end with the same weights and history as one that nobody disturbed. The file
may never be damaged, and only what a writer left half written may lie beside it.
"""

import os
import signal
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from xlstm_ts import XLSTMForecaster, archive
from xlstm_ts.training import checkpoint, loop

torch.set_num_threads(1)  # a process that has computed with several threads must not fork
checkpoint.PAUSE = 0  # write after every epoch, whatever it costs
archive.PIECE = 4096
SERIES = pd.Series(
    np.sin(np.arange(350) / 3) + np.random.default_rng(0).normal(size=350) * 0.3,
    index=pd.period_range("2000-01", periods=350, freq="M"),
)
KINDS = (
    {"backbone": "patch", "layout": "sm", "patch_length": 4},
    {"backbone": "stacked", "layout": "s"},
    {"backbone": "mixer", "layout": "m", "refit_on_all": True},
    {"backbone": "mixer", "layout": "s", "learning_rate": 0.1, "patience": 1},
)


def fit(kind, path):
    """Fit, and return the outcome in bytes."""
    model = XLSTMForecaster(
        horizon=3,
        context_length=12,
        hidden_size=8,
        num_heads=2,
        max_epochs=6,
        steps_per_epoch=3,
        batch_size=8,
        random_state=0,
        checkpoint=path,
        **KINDS[kind],
    ).fit(SERIES)
    weights = [value.numpy().tobytes() for value in model.network_.state_dict().values()]
    history = model.history_.drop(columns="seconds").to_numpy().tobytes()
    return b"".join([*weights, history, model.predict(fh=[1, 5]).to_numpy().tobytes()])


def die_at(number):
    """Let this process be killed in the n-th of the calls that count."""
    calls = [0]

    def counted(original):
        def call(*arguments, **options):
            calls[0] += 1
            if calls[0] == number:
                if original is os.write:  # some of it came through
                    original(arguments[0], bytes(arguments[1])[: len(arguments[1]) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
            return original(*arguments, **options)

        return call

    loop.step = counted(loop.step)
    for name in ("open", "write", "fsync", "replace", "unlink"):
        setattr(archive.os, name, counted(getattr(os, name)))


def in_child(work):
    """Do something in a process of its own; say whether it came to its end."""
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        raise SystemExit("a fit raised an error")
    return os.WIFEXITED(status)


def main(kills, folder):
    """Kill that often; return the number of fits that came to their end."""
    random = np.random.default_rng(kills)
    made = fits = torn = 0
    whole = [fit(kind, None) for kind in range(len(KINDS))]
    while made < kills:
        kind, path, outcome = fits % len(KINDS), folder / "fit.ckpt", folder / "outcome"
        while True:
            number = int(random.integers(1, 60))
            last = made == kills

            def work(kind=kind, number=number, last=last, path=path, outcome=outcome):
                if not last:
                    die_at(number)
                outcome.write_bytes(fit(kind, path))

            if in_child(work):
                break
            made += 1
        fits += 1
        if outcome.read_bytes() != whole[kind]:
            raise SystemExit(f"fit {fits} of kind {kind} ended otherwise")
        left = {one.name for one in folder.iterdir()} - {"outcome"}
        if strange := [name for name in left if not (name.startswith(".fit.ckpt") and name.endswith(".part"))]:
            raise SystemExit(f"left over: {strange}")
        for name in left:
            torn += 1
            (folder / name).unlink()
    print(f"{made} kills, {fits} fits, all with the same bits; {torn} writes were torn, and no file was damaged")


if __name__ == "__main__":
    if len(sys.argv) > 2:
        main(int(sys.argv[1]), Path(sys.argv[2]))
    else:
        with tempfile.TemporaryDirectory() as name:
            main(int(sys.argv[1]), Path(name))
