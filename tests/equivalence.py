"""Do two ways of training give the same metrics, seed by seed?"""

from __future__ import annotations

import numpy as np
from scipy import stats

# Of the standard deviation between seeds: a fifth is what Cohen calls a small effect.
MARGIN = 0.2


def assert_equivalent(name: str, plain: np.ndarray, other: np.ndarray) -> None:
    """Show that the mean paired difference is small; too few seeds to tell is a failure as well.

    Two one-sided t tests at 5 %: the 90 % interval of the mean difference lies within `MARGIN`
    standard deviations of the plain values on either side of 0.

    Source: Schuirmann 1987, "A comparison of the two one-sided tests procedure".
    """
    differences = other - plain
    limit = MARGIN * plain.std(ddof=1)
    low, high = stats.t.interval(0.9, len(plain) - 1, differences.mean(), stats.sem(differences))
    assert -limit < low <= high < limit, (
        f"{name}: the mean difference lies in {low:.3g} to {high:.3g}; allowed: within {limit:.3g}"
    )
