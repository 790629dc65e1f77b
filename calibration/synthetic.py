"""Measurements that a card's device would give, to test fits by what they must find."""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from aimc_sim.cards import DeviceSpec
from aimc_sim.chip import Chip
from aimc_sim.errors import UsageError, nearest
from aimc_sim.mapping import Request, place
from aimc_sim.randomness import Purpose
from aimc_sim.specs import ChipSpec
from calibration.fit import Source
from calibration.tables import KINDS, Table

_TIMES_S = (1.0, 10.0, 100.0, 1e3, 1e4, 1e5)
_PARTS = {
    "programming": ("programming",), "relaxation": ("relaxation",), "drift": ("drift",),
    "read-noise": ("read_noise", "telegraph"), "pulse": ("pulses",), "converter": (),
}


def synthetic(
    kind: str,
    device: DeviceSpec | None,
    *,
    n_cells: int = 1000,
    targets_s: Sequence[float] | None = None,
    times_s: Sequence[float] | None = None,
    n_reads: int = 10_000,
    period_s: float = 1e-3,
    seed: int = 0,
    gain: float = 1.0,
    offset: float = 0.0,
    inl: Sequence[float] | None = None,
    noise: float = 0.0,
) -> Table:
    """Return measurements of one kind that simulated cells of a card would give.

    The cells have the parts of the card that the kind measures and no other: relaxation and
    drift start from exact targets, reads have no noise but in read-noise. Programming,
    relaxation and drift are those of `aimc_sim.Chip`; read noise is a series with the card's
    spectrum from 1/(4 n_reads period_s) up, and jumps in continuous time; pulses follow the
    card's law from one end of the range to the other.

    Parameters
    ----------
    kind : programming, relaxation, drift, read-noise, pulse or converter.
    n_cells : cells; ramps of each polarity of pulse; repeats of each code of converter.
    targets_s : conductances that cells in turn are given [S]; None: evenly over the range,
        a different one for each cell (read-noise: all in the middle).
    times_s : after programming, of relaxation and drift; None: those of the card's table, or
        decades from 1 s to 1e5 s.
    n_reads, period_s : of read-noise; n_reads also the most pulses of a ramp.
    seed : of all draws.
    gain, offset, inl, noise : of converter, output = offset + gain (code + inl[code]) + noise xi;
        the length of inl is the number of codes (None: 16 codes without INL). No device needed.

    Raises UsageError for an unknown kind, or a card without the part.

    Examples
    --------
    >>> from aimc_sim import ChipSpec
    >>> table = synthetic("drift", ChipSpec.preset("pcm-nandakumar2019").device, n_cells=3)
    >>> len(table), sorted(table.columns)
    (18, ['cell', 'conductance_s', 'initial_s', 'time_s'])
    """
    if kind not in KINDS:
        guess = nearest(kind, KINDS)
        raise UsageError(
            f"draw measurements of kind '{kind}'", "there is no such kind",
            (f"did you mean '{guess}'? " if guess else "") + f"known are {', '.join(KINDS)}",
        )
    generator = np.random.Generator(np.random.Philox(key=[seed, int(Purpose.PROBE)]))
    if kind == "converter":
        return _table(kind, _converter(generator, n_cells, gain, offset, inl, noise), device, seed)
    if device is None or all(getattr(device, part) is None for part in _PARTS[kind]):
        named = "no card" if device is None else f"the card '{device.name}'"
        raise UsageError(
            f"draw {kind} measurements", f"{named} has no {' or '.join(_PARTS[kind])} part",
            "choose a card that has it",
        )
    only = _with(device, _PARTS[kind])
    if kind == "pulse":
        return _table(kind, _pulses(only, generator, n_cells, n_reads), device, seed)
    if targets_s is not None:
        targets = np.resize(np.asarray(targets_s, float), n_cells)
    elif kind == "read-noise":
        targets = np.full(n_cells, 0.5 * (device.g_min_s + device.g_max_s))
    else:
        targets = device.g_min_s + (np.arange(n_cells) + 0.5) / n_cells * (
            device.g_max_s - device.g_min_s
        )
    if kind == "read-noise":
        data = _reads(only, generator, targets, n_reads, period_s)
    elif kind == "programming":
        data = {"target_s": targets, "measured_s": _chip(only, targets, seed).read().astype(float)}
    else:
        data = _histories(only, targets, seed, times_s)
    return _table(kind, data, device, seed)


def _with(device: DeviceSpec, parts: tuple[str, ...]) -> DeviceSpec:
    """Return the card with these parts alone."""
    every = {part for parts in _PARTS.values() for part in parts}
    return device.model_copy(update=dict.fromkeys(every - set(parts)))


def _table(
    kind: str, data: dict[str, np.ndarray], device: DeviceSpec | None, seed: int
) -> Table:
    name = "converter" if device is None else device.name
    digest = hashlib.sha256()
    for column in data.values():
        digest.update(np.ascontiguousarray(column, float).tobytes())
    n = len(next(iter(data.values())))
    date = dt.datetime.now(dt.UTC).date().isoformat()
    return Table(
        kind=kind, columns={key: np.asarray(value, float) for key, value in data.items()},
        n_rows=n, source=Source(f"synthetic, card '{name}', seed {seed}", digest.hexdigest(), n,
                                date),
        units={"output": "LSB"} if kind == "converter" else {},
    )


def _chip(device: DeviceSpec, targets: np.ndarray, seed: int) -> Chip:
    spec = ChipSpec(name=device.name, device=device)
    layout = place([Request("cells", 1, 1, len(targets), pair=False)], spec)
    return Chip(spec, layout, targets.astype(np.float32), seed)


def _histories(
    device: DeviceSpec, targets: np.ndarray, seed: int, times_s: Sequence[float] | None
) -> dict[str, np.ndarray]:
    relaxation = device.relaxation
    if times_s is None:
        own = () if relaxation is None else relaxation.times_s
        times_s = own or _TIMES_S
    chip = _chip(device, targets, seed)
    floor, ceiling = chip.limits_s
    reads = np.stack([np.clip(chip.aged_at(t)[0], floor, ceiling) for t in times_s], axis=1)
    n, k = len(targets), len(times_s)
    return {
        "cell": np.repeat(np.arange(n), k),
        "time_s": np.tile(np.asarray(times_s, float), n),
        "conductance_s": reads.ravel().astype(float),
        "initial_s": np.repeat(targets, k),
    }


def _reads(
    device: DeviceSpec, generator: np.random.Generator, targets: np.ndarray, n: int,
    period_s: float,
) -> dict[str, np.ndarray]:
    noise, jumps = device.read_noise, device.telegraph
    y = np.tile(targets[:, None], (1, n))
    if noise is not None:
        scale = targets if noise.relative else np.ones(len(targets))
        sigma = noise.sigma.evaluate(targets, device.g_max_s) * scale
        white = sigma if noise.spectrum == "white" else np.zeros(len(targets))
        if noise.spectrum == "one_over_f":
            y = y + sigma[:, None] * _pink(generator, len(targets), n, period_s, noise.exponent)
            if noise.white is not None:
                white = noise.white.evaluate(targets, device.g_max_s) * scale
        y = y + white[:, None] * generator.standard_normal(y.shape)
    if jumps is not None:
        scale = targets if jumps.relative else np.ones(len(targets))
        amplitude = jumps.amplitude.evaluate(targets, device.g_max_s) * scale
        for k in range(len(targets)):
            spread = generator.standard_normal(3)
            if generator.random() >= jumps.fraction:
                continue
            high = jumps.tau_high_s * float(np.exp(jumps.tau_spread * spread[0]))
            low = jumps.tau_low_s * float(np.exp(jumps.tau_spread * spread[1]))
            size = amplitude[k] * np.exp(jumps.amplitude_spread * spread[2])
            upper = _levels(generator, n, period_s, high, low)
            y[k] += size * (upper - high / (high + low))
    return {
        "cell": np.repeat(np.arange(len(targets)), n),
        "time_s": np.tile(np.arange(n) * period_s, len(targets)),
        "conductance_s": y.ravel(),
    }


def _pink(
    generator: np.random.Generator, n_cells: int, n: int, period_s: float, exponent: float
) -> np.ndarray:
    """Return series (n_cells, n) with the one-sided spectrum f^-exponent, f in Hz.

    Cut from periodic ones four times as long, so that a series' ends are free of each other.
    """
    long = 4 * n
    f = np.fft.rfftfreq(long, period_s)
    size = np.zeros(len(f))
    size[1:] = np.sqrt(f[1:] ** -exponent * long / (4 * period_s))
    shape = (n_cells, len(f))
    line = generator.standard_normal(shape) + 1j * generator.standard_normal(shape)
    return np.fft.irfft(line * size, long, axis=1)[:, :n]


def _levels(
    generator: np.random.Generator, n: int, period_s: float, high_s: float, low_s: float
) -> np.ndarray:
    """Return whether the upper level is held at n moments: dwell times are exponential."""
    upper = bool(generator.random() < high_s / (high_s + low_s))
    result = np.empty(n)
    at, end = 0, n * period_s
    time = 0.0
    while time < end:
        time += generator.exponential(high_s if upper else low_s)
        until = min(n, int(np.ceil(time / period_s)))
        result[at:until] = upper
        at, upper = until, not upper
    return result


def _pulses(
    device: DeviceSpec, generator: np.random.Generator, n_ramps: int, most: int
) -> dict[str, np.ndarray]:
    part = device.pulses
    assert part is not None
    parts: list[dict[str, np.ndarray]] = []
    for sign, mean, sigma in (
        (1, part.set_mean, part.set_sigma), (-1, part.reset_mean, part.reset_sigma)
    ):
        start, stop = (device.g_min_s, device.g_max_s)[::sign]
        own = np.maximum(1 + part.device_spread * generator.standard_normal(n_ramps), 0.0)
        g = np.full(n_ramps, start)
        ramp = [g]
        while len(ramp) <= min(most, 1000):
            step = own * mean.evaluate(g, device.g_max_s)
            step += sigma.evaluate(g, device.g_max_s) * generator.standard_normal(n_ramps)
            g = g + step
            ramp.append(g)
        values = np.stack(ramp, axis=1)
        inside = np.cumprod((values - stop) * sign < 0, axis=1).astype(bool)
        # the pulse that reaches the end counts: without it only small steps were left there
        inside[:, 1:] = inside[:, :-1]
        number, pulse = np.nonzero(inside)
        parts.append({
            "ramp": number, "pulse": pulse, "conductance_s": values[inside],
            "polarity": np.full(len(number), sign),
        })
    return {key: np.concatenate([one[key] for one in parts]) for key in parts[0]}


def _converter(
    generator: np.random.Generator, repeats: int, gain: float, offset: float,
    inl: Sequence[float] | None, noise: float,
) -> dict[str, Any]:
    table = np.zeros(16) if inl is None else np.asarray(inl, float)
    code = np.repeat(np.arange(len(table)), repeats)
    output = offset + gain * (code + table[code]) + noise * generator.standard_normal(len(code))
    return {"code": code, "output": output}
