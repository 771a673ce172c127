"""Exponential and logarithm for compiled loops, in float32 and without branches, so that they use vector
instructions; and the bucket of a time gap.
"""

import numpy as np

from eddy.models.kernels.compiled import inlined

GAP_BUCKETS = 34
"""Time gaps are told apart by powers of two of a second, up to centuries; bucket 0 = no previous event."""

ZERO, ONE, NONE = np.float32(0), np.float32(1), np.float32(-np.inf)
"""The last is the score of what may not be recommended."""

HALF_SQRT = np.float32(0.7071067811865476)
LOG2_E, LN_2 = np.float32(1.4426950408889634), np.float32(0.6931471805599453)
_LEAST, _MOST = np.float32(-126.0), np.float32(127.0)
"""Powers of two beyond are taken for these: less than the least is zero beside any sum."""


@inlined
def exp2(y: np.float32) -> np.float32:
    """2^y, relative error 1e-7; a polynomial on (-1, 0] and the exponent's bits."""
    y = y if y > _LEAST else _LEAST
    y = y if y < _MOST else _MOST
    whole = np.int32(np.ceil(y))
    f = y - np.float32(whole)
    power = np.float32(0.0009381164727398943)
    power = power * f + np.float32(0.00918687437906556)
    power = power * f + np.float32(0.055278135020202034)
    power = power * f + np.float32(0.24017158845693357)
    power = power * f + np.float32(0.6931421710941408)
    power = power * f + np.float32(0.999999923213575)
    return power * np.int32((whole + np.int32(127)) << np.int32(23)).view(np.float32)


@inlined
def log(x: np.float32) -> np.float32:
    """ln x for normal x > 0, relative error 1e-7; a polynomial about 1 and the exponent's bits."""
    bits = np.float32(x).view(np.int32)
    exponent = np.float32((bits >> np.int32(23)) - np.int32(126))
    m = np.int32((bits & np.int32(0x007FFFFF)) | np.int32(0x3F000000)).view(np.float32)  # in [.5, 1)
    low = m < HALF_SQRT
    r = (m + m if low else m) - ONE
    exponent = exponent - ONE if low else exponent
    q = np.float32(0.08743945352823133)
    q = q * r + np.float32(-0.1437733056802685)
    q = q * r + np.float32(0.1494909547621239)
    q = q * r + np.float32(-0.16560695991989915)
    q = q * r + np.float32(0.1995697748306309)
    q = q * r + np.float32(-0.25002153460955395)
    q = q * r + np.float32(0.3333418333852389)
    q = q * r + np.float32(-0.49999987032284904)
    q = q * r + np.float32(0.9999999742674378)
    return q * r + exponent * LN_2


@inlined
def gap_bucket(gap_ms: np.float32) -> int:
    """`eddy.models.tensors.gap_bucket` of one gap."""
    exponent = (np.float32(ONE + gap_ms / np.float32(1000)).view(np.int32) >> 23) - 127
    return min(max(int(exponent) + 1, 0), GAP_BUCKETS - 1)
