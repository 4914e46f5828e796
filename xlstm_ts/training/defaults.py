"""What "auto" stands for: the shape of a network that suits a series, from its length, step and number of columns.

The rules were chosen on the validation parts of several series and checked on others; docs/guides/forecasting.md
shows them as a table, docs/benchmarks.md the figures.
"""

from typing import NamedTuple

SHORT, LONG = 96, 512
"""Steps of context at most: LONG for the mixer within the day, where it holds days or weeks; SHORT where there are no
long cycles, or where blocks read the context itself, of which they learn more by heart."""

HOURLY, QUARTERLY = 24, 96
"""Steps per day between which a single column, too, is better read by the mixer."""

SHARE = 4
"""Part of a series that a context may take: of longer ones too few windows would remain."""

PARTS = (1, 2 / 3, 1 / 3)
"""Shares of the longest context that networks read whose forecasts are averaged."""

WEEKS_OF_A_YEAR = 52
"""The one season of that size that does not lie within a day."""

SHORT_PATCH, LONG_PATCH, FEW_STEPS = 8, 16, 256
"""Steps per patch, of contexts below FEW_STEPS and from it on: tens of tokens."""


class Shape(NamedTuple):
    """What a network reads, and how."""

    backbone: str
    context_length: int
    patch_length: int
    layout: str


def choose_shapes(rows: int, channels: int, season: int, **given) -> list[Shape]:
    """Choose what is not given of the shapes of networks that are averaged; see `choose_shape`.

    One for each of PARTS of the context that `choose_shape` chooses, the longest first; fewer where they are the same.
    """
    longest = choose_shape(rows, channels, season, **given)
    lengths = [max(2, round(part * longest.context_length)) for part in PARTS]
    shapes = [choose_shape(rows, channels, season, context_length=length, **given) for length in lengths]
    return list(dict.fromkeys(shapes))


def choose_shape(
    rows: int,
    channels: int,
    season: int,
    *,
    backbone: str | None = None,
    context_length: int | None = None,
    patch_length: int | None = None,
    layout: str | None = None,
) -> Shape:
    """Choose what is not given of a shape.

    Parameters
    ----------
    rows : int
        Length of the longest series.
    channels : int
        C.
    season : int
        Steps per season that the distance between rows suggests; 1 if it suggests none.
    backbone, context_length, patch_length, layout : optional
        What is given.

    Returns
    -------
    Shape
        Blocks over the channels where there are several or a day has 24 to 96 steps, else over patches: one sLSTM
        block, or one and an mLSTM block. A quarter of the series as context, but two seasons where that is less and
        half the series holds them, and at most LONG or SHORT; in whole patches, rounded up, where these are read.
    """
    within_a_day = season >= HOURLY and season != WEEKS_OF_A_YEAR
    if backbone is None:
        backbone = "mixer" if channels > 1 or (within_a_day and season <= QUARTERLY) else "patch"
    if context_length is None:
        most = LONG if backbone == "mixer" and within_a_day else SHORT
        context_length = min(max(rows // SHARE, min(2 * season, rows // 2), 2), most)
    if patch_length is None:
        patch_length = min(SHORT_PATCH if context_length < FEW_STEPS else LONG_PATCH, context_length)
    if backbone == "patch":
        context_length = patch_length * -(-context_length // patch_length)
    if layout is None:
        layout = "s" if backbone == "mixer" else "sm"
    return Shape(backbone, context_length, patch_length, layout)
