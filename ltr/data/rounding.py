"""Decimal rounding of arrays that agrees with Python's ``round``."""

from __future__ import annotations

import numpy as np

BOX_DIGITS = 1
"""Boxes of relay frames are kept to 0.1 px."""
CONFIDENCE_DIGITS = 4


def round_decimal(values: np.ndarray, digits: int) -> np.ndarray:
    """``round(x, digits)`` of every element as float64, correctly rounded like Python's.

    ``numpy.round`` multiplies first and so takes 5.55, which is a little less than its digits say, to 5.6;
    published states hold 5.5. Here only the few values near such a tie take the slow way.
    """
    values = np.asarray(values, np.float64)
    large = ~(np.abs(values) < 2.0**52)  # nothing after the point to round; NaN and infinite ones too
    small = np.where(large, 0.0, values)
    scaled = small * 10**digits
    whole = np.rint(scaled)
    rounded = np.where(large, values, whole / 10**digits + 0.0)  # no negative zeros
    doubtful = np.abs(np.abs(scaled - whole) - 0.5) <= 1e-6 + 1e-12 * np.abs(scaled)
    if doubtful.any():
        rounded[doubtful] = [round(x, digits) + 0.0 for x in small[doubtful].tolist()]
    return rounded
