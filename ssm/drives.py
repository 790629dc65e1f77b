"""What drives the rows of a deployed model: how much of full scale, on calibration signals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import expit

from ssm.forms import leapfrog_cells
from ssm.kernels.network import A_PRODUCT, C_PRODUCT
from ssm.model import gelu
from ssm.places import has_states

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ssm.deploy import Deployment
    from ssm.model import Layer

    Real = NDArray[np.float64]

_SEQUENCES, _STEPS = 4, 512  # of the calibration signal: their mean square is known to percents
# mean over inputs spread evenly over the range: of x^2, of |x| and of the ones in a code
_EVEN = {"amplitude": 1 / 3, "pulse_width": 1 / 2, "bit_serial": 1 / 2}


@dataclass(frozen=True, eq=False)
class Drives:
    """Mean over time of what every row draws, as a share of driving it at full scale all the time.

    A row at V = x V_full draws x^2 of that; a row driven for a share |x| of the time |x|; one
    driven bit by bit the share of ones. inputs (n_in,); per layer accesses (2, 3, K) of A, rows
    p and q (or Re and Im) in the order of accesses, zeros where a row rests or no state is;
    states (2, K) and skips (H,) of C; mixes (H,); decodes (H,). source : where they come from,
    in words. assumed : no signal was looked at.
    """

    inputs: Real
    accesses: list[Real]
    states: list[Real]
    skips: list[Real]
    mixes: list[Real]
    decodes: Real
    source: str
    assumed: bool = False


def access_rows(form: str, decay: str) -> tuple[tuple[int, ...], ...]:
    """Return which rows of a block of A each access drives: 0 (p, Re) and 1 (q, Im)."""
    if form == "leapfrog":
        return ((1,), (0,)) if decay == "digital" else ((1,), (0,), (1,))
    return () if form == "digital" else ((0, 1),)


def even_drives(d: Deployment) -> Drives:
    """Return the drives of inputs that are spread evenly over the range of every DAC."""
    mean = _EVEN[d.spec.dac.mode]
    heads, there = d.network.n_heads, [has_states(layer) for layer in d.model.layers]
    driven = np.zeros((2, 3, 1))
    for k, rows in enumerate(access_rows(d.form, d.decay)):
        driven[list(rows), k] = mean
    each = [np.full(heads, mean)] * len(there)
    return Drives(
        np.full(d.network.n_in, mean), [driven * own[:, None] for own in there],
        [mean * own for own in there], each, each, np.full(heads, mean),
        "inputs spread evenly over the range of every DAC, an assumption", assumed=True,
    )


def measured_drives(d: Deployment) -> Drives:
    """Return the drives that the error-free model shows on the start of the calibration signal."""
    model, c = d.model, d.converters
    x = d.signal[:_SEQUENCES, :_STEPS].astype(float)
    full, state_full = (float(limit) if limit > 0 else 1.0 for limit in
                        (c.dac_limit, c.state_dac_limit))
    width = int(c.planes[0])
    accesses, states, skips, mixes = [], [], [], []
    h = x @ model.encoder_weight + model.encoder_bias
    for k, layer in enumerate(model.layers):
        u = model.normalise(layer, h) if model.norm == "pre" else h
        own = slice(d.network.mode_first[k], d.network.mode_first[k + 1])
        step = c.state_step.reshape(2, -1)[:, own].astype(float) * state_full
        driven, held = _drive_states(d, layer, u, step)
        accesses.append(driven)
        states.append(held)
        skips.append(_share(d, u, c.skip_step[k] * full, width, int(c.planes[1 + C_PRODUCT])))
        y = gelu(layer.respond(u)[0])
        mixes.append(_share(d, y, c.mix_step[k] * full, width, width))
        y = y @ layer.mix_weight + layer.mix_bias
        if model.gate == "glu":
            y = y[..., : model.n_heads] * expit(y[..., model.n_heads :])
        h = model.normalise(layer, h + y) if model.norm == "post" else h + y
    pooled = h.mean(axis=1, keepdims=True) if model.pool == "mean" else h[:, -1:]
    return Drives(
        _share(d, x, c.input_step * full, width, width), accesses, states, skips, mixes,
        _share(d, pooled, c.decode_step * full, width, width),
        f"the error-free model on {len(x)} calibration sequences of {x.shape[1]} steps",
    )


def _share(d: Deployment, x: Real, full: Real, width: int, drives: int) -> Real:
    """Return the mean over samples and steps of what inputs x (n, time, ...) draw, see Drives.

    width : bits of the magnitude of their codes. drives : of the product, at least as many where
    bits go one by one.
    """
    size = np.minimum(np.abs(x) / full, 1.0)
    mode = d.spec.dac.mode
    if mode == "pulse_width":
        drawn = size
    elif mode == "bit_serial":
        codes = np.rint(size * (2**width - 1)).astype(np.int64)
        drawn = sum((codes >> k & 1).astype(float) for k in range(width)) / drives
    else:
        drawn = size**2
    return np.asarray(drawn.mean(axis=(0, 1)))


def _drive_states(d: Deployment, layer: Layer, u: Real, full: Real) -> tuple[Real, Real]:
    """Return what the accesses of A draw, (2, 3, K), and the states on C's rows, (2, K).

    u : (n, time, H). full : (2, K) largest states of the DACs.
    """
    n, n_steps, _ = u.shape
    modes = layer.pole.size
    gain = layer.mode_weight * layer.readout * layer.drive
    leapfrog = d.form == "leapfrog"
    cells = leapfrog_cells(layer.pole, gain) if leapfrog else None
    p, q = np.zeros((n, modes)), np.zeros((n, modes))
    pole = layer.pole.ravel()
    drawn, held = np.zeros((2, 3, modes)), np.zeros((2, modes))

    of_states = int(d.converters.planes[1 + A_PRODUCT])

    def one(x: Real, row: int, product: int = A_PRODUCT) -> Real:
        drives = int(d.converters.planes[1 + product])
        return _share(d, x[:, None], full[row], of_states, drives)

    for k in range(n_steps):
        if cells is not None:
            e, decay, sign = cells.e.ravel(), cells.d.ravel(), cells.sign.ravel()
            drawn[1, 0] += one(q, 1)
            p = p - e * q
            drawn[0, 1] += one(p, 0)
            q = q + e * p
            if d.decay != "digital":
                drawn[1, 2] += one(q, 1)
            p, q = sign * (1 - decay) * p, sign * (1 - decay) * q
        else:
            if d.form != "digital":
                drawn[0, 0] += one(p, 0)
                drawn[1, 0] += one(q, 1)
            p, q = pole.real * p - pole.imag * q, pole.real * q + pole.imag * p
        p = p + np.repeat(u[:, k], layer.pole.shape[1], axis=1)
        held[0] += one(p, 0, C_PRODUCT)
        held[1] += one(q, 1, C_PRODUCT)
    there = has_states(layer)
    return drawn * there[:, None] / n_steps, held * there / n_steps
