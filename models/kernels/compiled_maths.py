"""Exponential and logarithm for compiled loops, in float32 and without branches, so that they use vector
instructions; and the bucket of a time gap.

Both coefficient sets are least-squares fits at Chebyshev nodes, made in float64, highest power first. A fit
with 1,000 nodes x gives the same coefficients again, to 1e-12 and 1e-10:

    x = np.cos(np.pi * (np.arange(1000) + 0.5) / 1000)

    f = (x - 1) / 2                                         # exp2 on [-1, 0]
    np.polyfit(f, np.exp2(f), 5, w=1 / np.exp2(f))
    r = np.sqrt(0.125) * x + np.sqrt(1.125) - 1             # log(1 + r) / r on [sqrt(0.5) - 1, sqrt(2) - 1]
    np.polyfit(r, np.log1p(r) / r, 8)

In exact arithmetic their largest relative errors are 7.7e-8 and 2.7e-8; the best polynomials of these degrees
(Remez) have 7.5e-8 and 2.6e-8.
"""

import numpy as np

from eddy.models.kernels.compiled import inlined

GAP_BUCKETS = 34
"""Bucket b > 0 holds the gaps g with 2^(b - 1) <= 1 + g/s < 2^b, the last one all gaps from 2^32 s (136
years) on; bucket 0 means that there is no previous event.
"""

ZERO, ONE = np.float32(0), np.float32(1)

NONE = np.float32(-np.inf)
"""The score of an item that may not be recommended."""

SQRT_HALF = np.float32(0.7071067811865476)
LOG2_E, LN_2 = np.float32(1.4426950408889634), np.float32(0.6931471805599453)
_MIN_EXPONENT, _MAX_EXPONENT = np.float32(-126.0), np.float32(127.0)
"""The exponents of float32's normal numbers. Powers are clipped to this range: what 2^-126 stands for is too
small to change any sum that it is added to.
"""


@inlined
def exp2(y: np.float32) -> np.float32:
    """2^y for y clipped to [-126, 127], with a relative error of at most 2.3e-7 (8 million random y); NaN is
    not expected. y = whole + f: the exponent's bits give 2^whole, a polynomial gives 2^f on (-1, 0].
    """
    y = y if y > _MIN_EXPONENT else _MIN_EXPONENT
    y = y if y < _MAX_EXPONENT else _MAX_EXPONENT
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
    """ln x for normal x > 0, with a relative error of at most 1.7e-7 (8 million random x); zero, denormal and
    negative numbers give nonsense. x = 2^exponent (1 + r) with 1 + r in [sqrt(1/2), sqrt(2)): the polynomial
    gives log(1 + r) / r.
    """
    bits = np.float32(x).view(np.int32)
    exponent = np.float32((bits >> np.int32(23)) - np.int32(126))
    m = np.int32((bits & np.int32(0x007FFFFF)) | np.int32(0x3F000000)).view(np.float32)  # in [.5, 1)
    below = m < SQRT_HALF
    r = (m + m if below else m) - ONE
    exponent = exponent - ONE if below else exponent
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
    """The bucket 0 … GAP_BUCKETS - 1 of one gap in ms, -1 = no previous event; the same as
    `eddy.models.tensors.gap_bucket` for many.
    """
    exponent = (np.float32(ONE + gap_ms / np.float32(1000)).view(np.int32) >> 23) - 127
    return min(max(int(exponent) + 1, 0), GAP_BUCKETS - 1)
