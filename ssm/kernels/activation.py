"""GELU, the gate and the norms in float32, as loops that vectorise."""

from __future__ import annotations

import numpy as np

from aimc_sim.kernels._jit import FASTMATH_SUM, kernel
from aimc_sim.kernels.converters import round_whole

_ONE = np.float32(1.0)
_HALF = np.float32(0.5)
_LOG2_E = np.float32(1.44269504)
_LN2_HIGH = np.float32(0.693359375)
_LN2_LOW = np.float32(-2.12194440e-4)
_E0, _E1, _E2 = np.float32(1.9875691500e-4), np.float32(1.3981999507e-3), np.float32(8.3334519073e-3)
_E3, _E4, _E5 = np.float32(4.1665795894e-2), np.float32(1.6666665459e-1), np.float32(5.0000001201e-1)
_LOW, _HIGH = np.float32(-87.0), np.float32(88.0)
_BIAS = np.int32(127)
_23 = np.int32(23)
_SQRT_HALF = np.float32(0.70710678)
# erf to 1.5e-7: Abramowitz and Stegun 7.1.26
_P = np.float32(0.3275911)
_A1, _A2, _A3 = np.float32(0.254829592), np.float32(-0.284496736), np.float32(1.421413741)
_A4, _A5 = np.float32(-1.453152027), np.float32(1.061405429)


@kernel(inline=True)
def exponential(x):
    """Return e^x, float32, to 2 ulp, without a branch (Cephes expf); x is held in +-87."""
    x = min(max(x, _LOW), _HIGH)
    n = round_whole(x * _LOG2_E)
    r = x - n * _LN2_HIGH
    r = r - n * _LN2_LOW
    poly = ((((_E0 * r + _E1) * r + _E2) * r + _E3) * r + _E4) * r + _E5
    scale = np.int32((np.int32(n) + _BIAS) << _23).view(np.float32)
    return (poly * r * r + r + _ONE) * scale


@kernel()
def gelu(y):
    """y (n,) -> y Phi(y) in place, the exact (erf) GELU of Hendrycks and Gimpel, to 3e-7."""
    for i in range(y.size):
        a = abs(y[i]) * _SQRT_HALF
        t = _ONE / (_ONE + _P * a)
        tail = ((((_A5 * t + _A4) * t + _A3) * t + _A2) * t + _A1) * t * exponential(-a * a)
        upper = _ONE - _HALF * tail  # Phi(|y|)
        y[i] = y[i] * (upper if y[i] >= np.float32(0.0) else _ONE - upper)


@kernel()
def gate(mixed, n_heads, out):
    """out (H,) = first half of mixed (2 H,) * sigmoid(second half): the gated linear unit."""
    for h in range(n_heads):
        out[h] = mixed[h] / (_ONE + exponential(-mixed[n_heads + h]))


@kernel(fastmath=FASTMATH_SUM)
def normalise(x, scale, shift, epsilon, affine, out):
    """out (H,) = layer norm of x over the heads, or scale x + shift where `affine`."""
    n = x.size
    mean = np.float32(0.0)
    inverse = _ONE
    if not affine:
        for h in range(n):
            mean += x[h]
        mean /= np.float32(n)
        variance = np.float32(0.0)
        for h in range(n):
            variance += (x[h] - mean) * (x[h] - mean)
        inverse = _ONE / np.sqrt(variance / np.float32(n) + epsilon)
    for h in range(n):
        out[h] = (x[h] - mean) * inverse * scale[h] + shift[h]
