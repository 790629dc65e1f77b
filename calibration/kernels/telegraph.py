"""Two-level hidden Markov chains seen through normal noise: likelihood and its maximum.

Level 1 lies above level 0. Rabiner, Proc. IEEE 77:257, 1989 (doi:10.1109/5.18626), with the
forward variables scaled to sum to one at every sample.
"""

from __future__ import annotations

import numpy as np

from aimc_sim.kernels._jit import kernel


@kernel(inline=True)
def emit(y, level, inverse):
    """Return the normal density of y about a level, less its factor 1/(sigma sqrt(2 pi))."""
    z = (y - level) * inverse
    return np.exp(np.float64(-0.5) * z * z)


@kernel()
def telegraph_log_likelihood(y, low, high, sigma, up, down):
    """Return ln p(y) of (n,) samples. up, down : chance of a jump between two samples."""
    inverse = np.float64(1.0) / sigma
    tiny = np.float64(1e-300)
    share = up / (up + down)
    total = np.float64(0.0)
    prior1 = share
    for t in range(y.size):
        a0 = (np.float64(1.0) - prior1) * emit(y[t], low, inverse)
        a1 = prior1 * emit(y[t], high, inverse)
        scale = max(a0 + a1, tiny)
        total += np.log(scale)
        p1 = a1 / scale
        prior1 = p1 * (np.float64(1.0) - down) + (np.float64(1.0) - p1) * up
    return total - y.size * (np.log(sigma) + np.float64(0.9189385332046727))


@kernel()
def telegraph_step(y, low, high, sigma, up, down, prior, post, sums):
    """One step of expectation and maximisation (Baum-Welch).

    prior, post : (n,) chance of the upper level given what came before, and given all samples.
    sums : (9,) filled with log-likelihood, expected jumps up and down, samples low and high that
        a jump could leave, sums of post, post y, y, and of squared residuals.
    """
    n = y.size
    one = np.float64(1.0)
    inverse = one / sigma
    tiny = np.float64(1e-300)
    total = np.float64(0.0)
    p1 = up / (up + down)
    for t in range(n):
        prior[t] = p1
        a0 = (one - p1) * emit(y[t], low, inverse)
        a1 = p1 * emit(y[t], high, inverse)
        scale = max(a0 + a1, tiny)
        total += np.log(scale)
        q = a1 / scale
        post[t] = q  # filtered, smoothed on the way back
        p1 = q * (one - down) + (one - q) * up
    jumps_up = np.float64(0.0)
    jumps_down = np.float64(0.0)
    from_low = np.float64(0.0)
    from_high = np.float64(0.0)
    for k in range(1, n):
        t = n - 1 - k
        q = post[t]
        later = post[t + 1]
        before = prior[t + 1]
        ratio1 = later / max(before, tiny)
        ratio0 = (one - later) / max(one - before, tiny)
        rise = (one - q) * up * ratio1
        stay1 = q * (one - down) * ratio1
        fall = q * down * ratio0
        jumps_up += rise
        jumps_down += fall
        smooth = min(stay1 + fall, one)
        post[t] = smooth
        from_high += smooth
        from_low += one - smooth
    s1 = np.float64(0.0)
    sy1 = np.float64(0.0)
    sy = np.float64(0.0)
    for t in range(n):
        s1 += post[t]
        sy1 += post[t] * y[t]
        sy += y[t]
    new_high = sy1 / max(s1, tiny)
    new_low = (sy - sy1) / max(n - s1, tiny)
    squares = np.float64(0.0)
    for t in range(n):
        squares += post[t] * (y[t] - new_high) ** 2 + (one - post[t]) * (y[t] - new_low) ** 2
    sums[0] = total - n * (np.log(sigma) + np.float64(0.9189385332046727))
    sums[1] = jumps_up
    sums[2] = jumps_down
    sums[3] = from_low
    sums[4] = from_high
    sums[5] = s1
    sums[6] = new_low
    sums[7] = new_high
    sums[8] = squares
