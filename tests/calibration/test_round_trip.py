"""Measurements drawn from a card give its parameters back, within errors that are honest.

At a standard error's nominal 95 % a share of 0.90 to 0.99 of 200 repetitions covers the truth:
with 200 the share itself spreads by 1.5 %.
"""

from __future__ import annotations

import numpy as np
import pytest

from aimc_sim import ChipSpec
from aimc_sim.cards import (
    DeviceSpec,
    DriftSpec,
    ProgrammingSpec,
    PulseSpec,
    ReadNoiseSpec,
    RelaxationSpec,
    TelegraphSpec,
)
from aimc_sim.curves import Curve
from aimc_sim.errors import UsageError
from calibration import drift, programming, pulse, read_noise, relaxation
from calibration.converter import fit_converter
from calibration.drift import fit_drift
from calibration.fit import Fit
from calibration.programming import fit_programming
from calibration.pulse import fit_pulse
from calibration.read_noise import fit_read_noise
from calibration.relaxation import fit_relaxation
from calibration.synthetic import synthetic

pytestmark = pytest.mark.compiled

REPEATS = 200


def polynomial(*coefficients: float, unit_s: float = 1e-6) -> Curve:
    return Curve.model_validate(
        {"of": "g_us", "unit_s": unit_s, "polynomial": coefficients}
    )


def card(g_min: float = 1, g_max: float = 100, **parts: object) -> DeviceSpec:
    return DeviceSpec(name="test", g_min_s=g_min * 1e-6, g_max_s=g_max * 1e-6, **parts)


def assert_found(fit: Fit, truth: dict[str, float]) -> None:
    """Every named parameter is within 3 of its standard errors; each has one."""
    assert fit.converged
    for name, value in truth.items():
        found = fit.parameters[name]
        assert found.stderr > 0, name
        assert abs(found.value - value) < 3 * found.stderr, (name, found, value)


def assert_covered(fits: list[Fit], truth: dict[str, float]) -> None:
    """Errors of 1.96 standard errors cover the truth in 90 to 99 % of all repetitions."""
    assert len(fits) == REPEATS
    for name, value in truth.items():
        off = [abs(fit.parameters[name].value - value) / fit.parameters[name].stderr
               for fit in fits]
        share = np.mean(np.array(off) < 1.96)
        assert 0.90 <= share <= 0.99, (name, share)


PROGRAMMING = [
    (ChipSpec.preset("pcm-nandakumar2019").device,
     {"sigma.c0": 0.26348, "sigma.c1": 1.9650 / 25, "sigma.c2": -1.1731 / 625}),
    (ChipSpec.preset("cmo-hfox").device, {"sigma.c0": 0.0112185, "sigma.c1": 0.01129027}),
    (card(programming=ProgrammingSpec(mean=polynomial(-0.5, 0.02), sigma=polynomial(2.0))),
     {"mean.c0": -0.5, "mean.c1": 0.02, "sigma.c0": 2.0}),
]


@pytest.mark.parametrize(("device", "truth"), PROGRAMMING, ids=lambda x: getattr(x, "name", ""))
def test_programming_gives_its_card_back(device: DeviceSpec, truth: dict[str, float]) -> None:
    fit = fit_programming(synthetic("programming", device, n_cells=20_000, seed=1))
    assert_found(fit, truth)
    g = np.linspace(device.g_min_s, device.g_max_s, 9)[1:-1]
    found = fit.device().programming
    assert device.programming is not None and found is not None
    np.testing.assert_allclose(
        found.sigma.evaluate(g, device.g_max_s),
        device.programming.sigma.evaluate(g, device.g_max_s), rtol=0.05,
    )


def test_errors_of_programming_are_honest(monkeypatch: pytest.MonkeyPatch) -> None:
    device, truth = PROGRAMMING[2]
    # what takes the time and has no part in the errors, here and below
    monkeypatch.setattr(programming, "_held_out", lambda *_: ())
    monkeypatch.setattr(programming, "_tolerance", lambda _: programming._Band(1, 1, 1, -1))
    fits = [
        fit_programming(synthetic("programming", device, n_cells=400, seed=seed),
                        mean_order=1, sigma_order=0)
        for seed in range(REPEATS)
    ]
    assert_covered(fits, truth)


def relaxing(mean: Curve, sigma: Curve, later: Curve) -> DeviceSpec:
    return card(relaxation=RelaxationSpec(
        kind="added", times_s=(1.0, 1e4), mean=(mean, mean), sigma=(sigma, later)
    ))


RELAXATION = [
    (relaxing(polynomial(-0.2), polynomial(1.0), polynomial(1.0, 0.03)),
     {"mean.c0 at 1 s": -0.2, "sigma.c0 at 1e+04 s": 1.0, "sigma.c1 at 1e+04 s": 0.03}),
    (ChipSpec.preset("cmo-hfox").device,
     {"mean.c0 at 1e+04 s": -0.08900206 * np.log(1e4),
      "sigma.c0 at 1e+04 s": 0.04201137 * np.log(1e4) + 0.41183342}),
    (relaxing(polynomial(0.3, -0.02), polynomial(0.5, 0.05), polynomial(2.0, 0.05)),
     {"mean.c1 at 1 s": -0.02, "sigma.c1 at 1 s": 0.05, "sigma.c0 at 1e+04 s": 2.0}),
]


@pytest.mark.parametrize(("device", "truth"), RELAXATION)
def test_relaxation_gives_its_card_back(device: DeviceSpec, truth: dict[str, float]) -> None:
    fit = fit_relaxation(synthetic("relaxation", device, n_cells=5000, seed=2,
                                   targets_s=np.linspace(25e-6, 75e-6, 5000)))
    assert_found(fit, truth)
    assert fit.alternatives["power-law drift"] > fit.goodness["aic"]


def test_errors_of_relaxation_are_honest(monkeypatch: pytest.MonkeyPatch) -> None:
    device, truth = RELAXATION[2]
    monkeypatch.setattr(relaxation, "power_law_aic", lambda *_: (0.0, "power-law drift"))
    monkeypatch.setattr(relaxation, "_held_out", lambda *_: ())
    fits = [
        fit_relaxation(synthetic("relaxation", device, n_cells=200, seed=seed,
                                 targets_s=np.linspace(25e-6, 75e-6, 200)),
                       mean_order=1, sigma_order=1)
        for seed in range(REPEATS)
    ]
    assert_covered(fits, truth)


def drifting(mean: Curve, std: Curve, t0_s: float) -> DeviceSpec:
    return card(drift=DriftSpec(t0_s=t0_s, nu_mean=mean, nu_std=std))


LINE = Curve.model_validate({"of": "g_us", "polynomial": [0.09], "log_slope": -0.01})
LINE_STD = Curve.model_validate({"of": "g_us", "polynomial": [0.02], "log_slope": -0.003})
DRIFT = [
    (drifting(polynomial(0.05, unit_s=1.0), polynomial(0.01, unit_s=1.0), 20.0),
     {"nu_mean.c0": 0.05, "nu_std.c0": 0.01}, 20.0),
    (drifting(LINE, LINE_STD, 300.0),
     {"nu_mean.c0": 0.09, "nu_mean.ln g": -0.01, "nu_std.c0": 0.02, "nu_std.ln g": -0.003}, 300.0),
    (ChipSpec.preset("pcm-nandakumar2019").device,
     {"nu_mean.ln g": -0.0155, "nu_mean.low": 0.049, "nu_std.ln g": -0.0125,
      "nu_std.low": 0.008}, 20.0),
]


@pytest.mark.parametrize(("device", "truth", "t0_s"), DRIFT)
def test_drift_gives_its_card_back(
    device: DeviceSpec, truth: dict[str, float], t0_s: float
) -> None:
    fit = fit_drift(synthetic("drift", device, n_cells=4000, seed=3))
    assert_found(fit, truth)
    assert fit.parameters["t0"].value == pytest.approx(t0_s, rel=1e-3)


def test_errors_of_drift_are_honest(monkeypatch: pytest.MonkeyPatch) -> None:
    device, truth, _ = DRIFT[0]
    monkeypatch.setattr(drift, "_compare", lambda *_: (0.0, 1.0))
    monkeypatch.setattr(drift, "_held_out", lambda *_: ())
    fits = [
        fit_drift(synthetic("drift", device, n_cells=150, times_s=[100, 1e4], seed=seed),
                  t0_s=20.0)
        for seed in range(REPEATS)
    ]
    assert_covered(fits, truth)


def pulsing(set_mean: Curve, reset_mean: Curve, spread: float) -> DeviceSpec:
    return card(pulses=PulseSpec(
        set_mean=set_mean, set_sigma=polynomial(0.3), reset_mean=reset_mean,
        reset_sigma=polynomial(0.4), device_spread=spread,
    ))


PULSE = [
    (pulsing(polynomial(2.0), polynomial(-2.5), 0.2),
     {"set_mean.c0": 2.0, "set_sigma.c0": 0.3, "reset_mean.c0": -2.5, "reset_sigma.c0": 0.4,
      "device_spread": 0.2}),
    (pulsing(polynomial(3.0, -0.02), polynomial(-1.0, -0.01), 0.1),
     {"set_mean.c1": -0.02, "reset_mean.c0": -1.0, "reset_mean.c1": -0.01,
      "device_spread": 0.1}),
    (pulsing(polynomial(1.0), polynomial(-1.0), 0.3),
     {"set_mean.c0": 1.0, "reset_mean.c0": -1.0, "set_sigma.c0": 0.3, "reset_sigma.c0": 0.4,
      "device_spread": 0.3}),
]


@pytest.mark.parametrize(("device", "truth"), PULSE)
def test_pulses_give_their_card_back(device: DeviceSpec, truth: dict[str, float]) -> None:
    assert_found(fit_pulse(synthetic("pulse", device, n_cells=60, seed=4)), truth)


def test_errors_of_pulses_are_honest(monkeypatch: pytest.MonkeyPatch) -> None:
    """With 12 ramps of a polarity, where the spread between them is known to 15 %."""
    device, truth = PULSE[0]
    monkeypatch.setattr(pulse, "_held_out", lambda *_: ())
    fits = [
        fit_pulse(synthetic("pulse", device, n_cells=12, n_reads=20, seed=seed),
                  mean_order=0, sigma_order=0)
        for seed in range(REPEATS)
    ]
    assert_covered(fits, truth)
    spread = np.array([fit.parameters["device_spread"].value for fit in fits])
    # a bias above a quarter of one fit's own scatter would be one of every fit
    assert abs(spread.mean() - 0.2) < 0.25 * spread.std()


def reading(
    sigma: float, white: float, exponent: float = 1.0, telegraph: TelegraphSpec | None = None
) -> DeviceSpec:
    noise = ReadNoiseSpec(
        relative=False, sigma=polynomial(sigma), white=polynomial(white), exponent=exponent
    )
    return card(read_noise=noise, telegraph=telegraph)


JUMPS = TelegraphSpec(
    fraction=1.0, relative=False, amplitude=polynomial(1.5), tau_high_s=0.05, tau_low_s=0.1
)
NOISE = [
    (reading(0.1, 0.3),
     {"exponent": 1.0, "sigma at 50.5 uS": 0.1, "white at 50.5 uS": 0.3, "fraction": 0.0}),
    (reading(0.1, 0.2, 1.2),
     {"exponent": 1.2, "sigma at 50.5 uS": 0.1, "white at 50.5 uS": 0.2}),
    (reading(0.02, 0.2, 1.0, JUMPS),
     {"amplitude at 50.5 uS": 1.5, "tau_high at 50.5 uS": 0.05, "tau_low at 50.5 uS": 0.1,
      "sigma at 50.5 uS": 0.02, "white at 50.5 uS": 0.2, "fraction": 1.0}),
]


def at_50(fit: Fit) -> Fit:
    """The mean of the reads is not quite 50.5 uS: name it so."""
    named = {name if " at " not in name else name.split(" at ")[0] + " at 50.5 uS": value
             for name, value in fit.parameters.items()}
    return fit.replace(parameters=named)


@pytest.mark.parametrize(("device", "truth"), NOISE)
def test_read_noise_gives_its_card_back(device: DeviceSpec, truth: dict[str, float]) -> None:
    fit = fit_read_noise(synthetic("read-noise", device, n_cells=4, n_reads=10_000, seed=5))
    assert_found(at_50(fit), truth)


@pytest.mark.parametrize("case", [0, 2], ids=["1/f", "jumps"])
def test_errors_of_read_noise_are_honest(case: int, monkeypatch: pytest.MonkeyPatch) -> None:
    device, truth = NOISE[case]
    monkeypatch.setattr(read_noise, "_held_out", lambda *_: [])
    monkeypatch.setattr(read_noise, "_noise_spec", lambda *_: None)
    monkeypatch.setattr(read_noise, "_later", lambda *_: [])
    fits = [
        at_50(fit_read_noise(synthetic("read-noise", device, n_cells=1, n_reads=4000 + 4000 * case,
                                       seed=seed)))
        for seed in range(REPEATS)
    ]
    assert_covered(fits, {name: value for name, value in truth.items() if name != "fraction"})


INL = 0.3 * np.sin(np.arange(16.0))


def converting(gain: float, noise: float) -> dict[str, float]:
    """Return what the line and the tables of a converter with this gain and INL are."""
    line = np.polynomial.polynomial.polyfit(np.arange(16), INL, 1)
    rest = (INL - np.polynomial.polynomial.polyval(np.arange(16), line)) / (1 + line[1])
    return {
        "gain": gain * (1 + line[1]), "offset": 3.0 + gain * line[0], "noise": noise,
        **{f"inl[{k}]": rest[k] for k in range(16)},
        **{f"dnl[{k}]": rest[k] - rest[k - 1] for k in range(1, 16)},
    }


@pytest.mark.parametrize(("gain", "noise", "seed"), [(1.0, 0.1, 0), (0.5, 0.02, 1), (2.0, 0.5, 2)])
def test_converters_give_their_line_and_tables_back(gain: float, noise: float, seed: int) -> None:
    table = synthetic("converter", None, n_cells=50, gain=gain, offset=3.0, inl=INL, noise=noise,
                      seed=seed)
    assert_found(fit_converter(table), converting(gain, noise))


def test_errors_of_converters_are_honest() -> None:
    fits = [
        fit_converter(synthetic("converter", None, n_cells=20, gain=2.0, offset=3.0, inl=INL,
                                noise=0.1, seed=seed))
        for seed in range(REPEATS)
    ]
    assert_covered(fits, converting(2.0, 0.1))


def test_a_card_without_the_part_is_refused() -> None:
    with pytest.raises(UsageError, match="has no pulses part"):
        synthetic("pulse", card())
    with pytest.raises(UsageError, match="Did you mean 'drift'"):
        synthetic("drif", card())
