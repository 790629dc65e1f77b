"""What a read finds of a cell: the mean and variance of noise that a range clips."""

from __future__ import annotations

import math

import numpy as np

from aimc_sim.kernels._jit import kernel
from aimc_sim.kernels.moving import LASTING, WHITE

_ZERO = np.float32(0.0)
_ONE = np.float32(1.0)
_REACH = np.float32(25.0)  # square of the five sigma beyond which a limit shifts 5e-8 sigma
# variance [S^2] below which a cell has no noise to speak of: the reciprocal of less overflows
_LEAST = np.float32(1e-36)
_FAR = 8.0  # sigmas beyond which a normal has no float64 share left to clip
_ROOT_HALF = math.sqrt(0.5)
_PHI_0 = 1 / math.sqrt(2 * math.pi)


@kernel()
def clipped_normal(mean, variance, floor, ceiling):
    """Return mean and variance of clip(N(mean, variance), floor, ceiling), float32.

    With alpha, beta the limits in standard deviations from the mean and D = (g - mean)/sigma,
        E[D] = alpha Phi(alpha) + beta Phi(-beta) + phi(alpha) - phi(beta)
        E[D^2] = alpha^2 Phi(alpha) + beta^2 Phi(-beta) + Phi(beta) - Phi(alpha)
                 + alpha phi(alpha) - beta phi(beta)
    """
    sigma = math.sqrt(variance)
    alpha, beta = (floor - mean) / sigma, (ceiling - mean) / sigma
    if alpha >= _FAR:
        return floor, _ZERO
    if beta <= -_FAR:
        return ceiling, _ZERO
    first, second = 0.0, 1.0
    if alpha > -_FAR:  # leaving out a limit out of reach saves a quarter of the time
        below, low = 0.5 * math.erfc(-alpha * _ROOT_HALF), _PHI_0 * math.exp(-0.5 * alpha * alpha)
        first += alpha * below + low
        second += (alpha * alpha - 1) * below + alpha * low
    if beta < _FAR:
        above, high = 0.5 * math.erfc(beta * _ROOT_HALF), _PHI_0 * math.exp(-0.5 * beta * beta)
        first += beta * above - high
        second += (beta * beta - 1) * above - beta * high
    spread = max(second - first * first, 0.0)
    return np.float32(mean + sigma * first), np.float32(variance * spread)


@kernel(inline=True)
def meets_a_limit(mean, variance, floor, ceiling):
    """Return whether a cell lies within five sigma of a limit, or beyond it."""
    nearest = min(mean - floor, ceiling - mean)
    return nearest * abs(nearest) < _REACH * variance


@kernel(inline=True)
def rectified(mean, variance, floor, ceiling):
    """Return mean and variance of a read of a cell with Gaussian noise, all float32.

    Those of the noise itself, unless the cell meets a limit.
    """
    if variance > _LEAST and meets_a_limit(mean, variance, floor, ceiling):
        return clipped_normal(mean, variance, floor, ceiling)
    return min(max(mean, floor), ceiling), variance


@kernel()
def expect_reads(
    base, noise_s, white_s, fast, bands, floor, ceiling, telegraph, mean, variance, moving, jump
):
    """Fill what a read of every cell finds: mean [S] and white variance [S^2], (n_cells,) float32.

    base : [S] with the noise that lasts, not clipped. noise_s times the factor fast, and white_s,
    are standard deviations of what is new at the read. moving : (n_cells,) [S^2] variance per
    square factor of the bands that move, `bands` their factor together; (0,) where there are none.
    telegraph : the cells with telegraph noise; jump (n,) [S] from their lower to their upper
    level, where it moves.

    A limit clips white and moving noise together; they share what it leaves of the variance.
    """
    n_near = 0
    for i in range(base.size):  # without a branch: 4 x as fast as the exact moments for all
        sigma, slow = noise_s[i] * fast, noise_s[i] * bands
        white = sigma * sigma + white_s[i] * white_s[i]
        mean[i], variance[i] = min(max(base[i], floor), ceiling), white
        n_near += meets_a_limit(base[i], white + slow * slow, floor, ceiling)
    if moving.size > 0:
        for i in range(base.size):
            moving[i] = noise_s[i] * noise_s[i]
    if n_near > 0:
        for i in range(base.size):
            slow = noise_s[i] * bands
            total = variance[i] + slow * slow
            if total > _LEAST and meets_a_limit(base[i], total, floor, ceiling):
                mean[i], left = clipped_normal(base[i], total, floor, ceiling)
                variance[i] *= left / total
                if moving.size > 0:
                    moving[i] *= left / total
    for t in range(telegraph.cell.size):
        if telegraph.kind[t] == LASTING:
            continue
        i, share = telegraph.cell[t], telegraph.share[t]
        sigma, slow = noise_s[i] * fast, noise_s[i] * bands
        white = sigma * sigma + white_s[i] * white_s[i]
        total = white + slow * slow
        low = base[i] - share * telegraph.amplitude_s[t]
        below, left_below = rectified(low, total, floor, ceiling)
        above, left_above = rectified(low + telegraph.amplitude_s[t], total, floor, ceiling)
        keep = _ZERO
        if total > _LEAST:
            keep = (left_below + share * (left_above - left_below)) / total
        jump[t] = above - below
        mean[i] = below + share * jump[t]
        variance[i] = white * keep
        if telegraph.kind[t] == WHITE:
            variance[i] += share * (_ONE - share) * jump[t] * jump[t]
        if moving.size > 0:
            moving[i] = noise_s[i] * noise_s[i] * keep
