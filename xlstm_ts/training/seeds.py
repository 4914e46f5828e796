"""One seed per fit, from what scikit-learn calls a random state."""

import numpy as np
from sklearn.utils import check_random_state

from xlstm_ts.errors import ParameterError


def draw_seed(random_state) -> int:
    """Return the seed of a fit: from an int or a RandomState, or, for None, fresh from the system.

    No global generator is read, which `None` would mean to scikit-learn.

    Raises
    ------
    ParameterError
        `random_state` is none of these.
    """
    if random_state is None:
        return int(np.random.SeedSequence().generate_state(1)[0])
    try:
        return int(check_random_state(random_state).randint(2**31 - 1))
    except ValueError as error:
        raise ParameterError(
            f"random_state={random_state!r} is impossible; expected a whole number, 0 or above, a RandomState, or None."
        ) from error
