"""Read noise in a recurrence: spreads of one leapfrog mode against exact moments and Monte Carlo.

The mode is alone on the chip, everything else is digital, the converters are ideal: what varies
between sequences is the noise of A's cells.
"""

import math

import numpy as np
import pytest

import ssm
from aimc_sim.cards import ReadNoiseSpec
from aimc_sim.noise import noise_split
from aimc_sim.specs import ChipSpec
from ssm.model import Layer, Model

pytestmark = pytest.mark.compiled

SIGMAS = 5.0
ALL_PARTS = ("encoder", "readout", "mixing", "decoder")
HOUR = 3600.0


def one_mode(radius, angle):
    """Return a model whose single head has the pole radius e^(i angle) and takes x as it is."""
    one = np.ones((1, 1))
    layer = Layer(
        pole=radius * np.exp(1j * angle) * one,
        drive=one,
        readout=one,
        mode_weight=2 * one,
        skip=np.zeros(1),
        mix_weight=one,
        mix_bias=np.zeros(1),
        norm_scale=np.ones(1),
        norm_shift=np.zeros(1),
    )
    return Model(
        one,
        np.zeros(1),
        (layer,),
        one,
        np.zeros(1),
        norm="none",
        disc="zoh",
        pool="last",
        gate="none",
    )


def noisy_chip(relative_std, noise_in_time="split", spectrum="white"):
    """Return exact cells with read noise of a given relative standard deviation alone."""
    noise = ReadNoiseSpec(
        sigma={"of": "r", "polynomial": [relative_std]}, spectrum=spectrum, relative=True
    )
    ideal = ChipSpec.preset("ideal")
    return ideal.replace(device=ideal.device.replace(read_noise=noise), noise_in_time=noise_in_time)


def run_states(model, spec, x, decay="tile", seconds=0.0, seed=1):
    """Return p and q after every step, (n, time, 2) float64."""
    deployment = ssm.deploy(model, spec, decay=decay, digital=ALL_PARTS, calibrate=x[:1])
    run = deployment.program(seed).wait(seconds).infer(x, return_states=True)
    return run.states[0, :, :, :, 0].astype(float)


def exact_moments(radius, angle, s, u):
    """Return mean (2,) and covariance (2, 2) of (p, q) after inputs u, for 0 <= angle <= pi/2.

    z = (p, q, 1); an access adds weight (1 + s xi) times one state to another, so that
    E[z z'] goes to T E[z z'] T' plus (weight s)^2 E[source^2] on the target's diagonal.
    """
    e, d = 2 * math.sin(angle / 2), 1 - radius
    second = np.diag([0.0, 0.0, 1.0])
    for value in u:
        for target, source, weight in ((0, 1, -e), (1, 0, e), (0, 0, -d), (1, 1, -d)):
            step = np.eye(3)
            step[target, source] += weight
            added = (weight * s) ** 2 * second[source, source]
            second = step @ second @ step.T
            second[target, target] += added
        step = np.eye(3)
        step[0, 2] = value
        second = step @ second @ step.T
    mean = second[:2, 2]
    return mean, second[:2, :2] - np.outer(mean, mean)


def monte_carlo(radius, angle, s, u, n, seed):
    """Return (p, q) after inputs u of n independent noisy runs, (n, 2)."""
    rng = np.random.default_rng(seed)
    e, d = 2 * math.sin(angle / 2), 1 - radius
    p, q = np.zeros(n), np.zeros(n)
    for value in u:
        xi = 1 + s * rng.standard_normal((4, n))
        p1 = p - e * xi[0] * q
        q1 = q + e * xi[1] * p1
        p, q = p1 - d * xi[2] * p1 + value, q1 - d * xi[3] * q1
    return np.stack([p, q], axis=1)


def assert_moments_agree(sample, mean, covariance):
    """Compare sample moments (n, 2) with exact ones at SIGMAS of their own sampling error."""
    n = len(sample)
    centred = sample - sample.mean(axis=0)
    error = np.sqrt(np.diag(covariance) / n)
    assert (np.abs(sample.mean(axis=0) - mean) < SIGMAS * error).all()
    for i, j in ((0, 0), (1, 1), (0, 1)):
        product = centred[:, i] * centred[:, j]
        deviation = abs(product.mean() - covariance[i, j])
        assert deviation < SIGMAS * product.std() / np.sqrt(n), (i, j)


@pytest.mark.parametrize(
    ("radius", "angle", "s"), [(0.98, 1.0, 0.05), (0.995, 0.2, 0.1), (0.9, math.pi / 2, 0.1)]
)
def test_white_noise_of_every_access_spreads_the_state_as_the_exact_moments_say(radius, angle, s):
    n, n_steps = 10_000, 20
    u = np.random.default_rng(2).random(n_steps).astype(np.float32)
    x = np.broadcast_to(u[None, :, None], (n, n_steps, 1))
    mean, covariance = exact_moments(radius, angle, s, u)
    # the spread is of the noise, not of rounding
    assert np.sqrt(np.diag(covariance)).min() > 1e-3 * np.abs(mean).max()
    assert_moments_agree(monte_carlo(radius, angle, s, u, n, seed=3), mean, covariance)
    found = run_states(one_mode(radius, angle), noisy_chip(s, "white"), x)[:, -1]
    assert_moments_agree(found, mean, covariance)


def test_a_frozen_mode_keeps_one_linear_map_for_the_whole_sequence():
    s, n, n_steps = 0.05, 1000, 30
    x = np.random.default_rng(4).random((n, n_steps, 1), np.float32)
    angle, radius = 1.0, 0.97
    e = 2 * math.sin(angle / 2)
    residuals = {}
    for kind in ("frozen", "white"):
        z = run_states(one_mode(radius, angle), noisy_chip(s, kind), x)
        before, after = z[:, :-1], z[:, 1:].copy()
        after[:, :, 0] -= x[:, 1:, 0]
        gram = before.transpose(0, 2, 1) @ before
        maps = np.linalg.solve(gram, before.transpose(0, 2, 1) @ after)  # (n, 2, 2), z @ map
        left = np.abs(after - before @ maps).max(axis=(1, 2)) / np.abs(z).max()
        residuals[kind] = left
        if kind == "frozen":
            e1 = -maps[:, 1, 0] / maps[:, 0, 0]  # -(1 - d1) e1 over 1 - d1
    assert residuals["frozen"].max() < 1e-5
    assert residuals["white"].min() > 1e-3
    # every sequence has its own e1, with the mean and the spread of the cells
    assert abs(e1.mean() - e) < SIGMAS * s * e / np.sqrt(n)
    assert e1.std() == pytest.approx(s * e, rel=SIGMAS / np.sqrt(2 * n))


def realised_e(model, spec, seconds, n, n_steps, skip):
    """Return e1 and e2 that every access showed, both (n, n_steps - skip), and the nominal e.

    With digital decay p1 and q1 follow from the next state, so each access can be read off.
    """
    pole = model.layers[0].pole[0, 0]
    d, e = 1 - abs(pole), 2 * math.sin(np.angle(pole) / 2)
    x = np.ones((n, n_steps, 1), np.float32)
    z = run_states(model, spec, x, "digital", seconds)
    p, q = z[:, skip - 1 : -1].transpose(2, 0, 1)
    after_p, after_q = z[:, skip:].transpose(2, 0, 1)
    p1, q1 = (after_p - 1) / (1 - d), after_q / (1 - d)
    assert min(np.abs(q).min(), np.abs(p1).min()) > 0.3  # else rounding drowns the noise
    return (p - p1) / q, (q1 - q) / p1, e


@pytest.mark.parametrize("noise_in_time", ["split", "white", "frozen"])
def test_one_over_f_noise_divides_into_a_part_per_sequence_and_a_part_per_step(noise_in_time):
    quality, n, n_steps, skip = 0.01, 1500, 60, 25
    spec = noisy_chip(quality, noise_in_time, "one_over_f").replace(step_period_s=1e-3)
    t_read = spec.device.read_noise.t_read_s
    total = math.log((HOUR + t_read) / (2 * t_read))
    step = math.log((1e-3 + t_read) / (2 * t_read))
    fast = {"split": step, "white": total, "frozen": 0.0}[noise_in_time]
    length = n_steps - skip
    e1, e2, e = realised_e(one_mode(0.6, 0.5), spec, HOUR, n, n_steps, skip)
    for found in (e1 / e, e2 / e):
        assert (
            abs(found.mean() - 1)
            < SIGMAS * quality * math.sqrt((total - fast) / n + fast / (n * length)) + 1e-6
        )
        within = found.var(axis=1, ddof=1).mean()
        between = found.mean(axis=1).var(ddof=1) - within / length
        if fast > 0:
            assert within == pytest.approx(
                quality**2 * fast, rel=SIGMAS * math.sqrt(2 / (n * length))
            )
            centred = found - found.mean(axis=1, keepdims=True)
            neighbours = (centred[:, 1:] * centred[:, :-1]).mean() / centred.var()
            # removing the mean of `length` white values leaves -1/length between any two
            assert abs(neighbours + 1 / length) < SIGMAS / math.sqrt(n * length)
        else:
            assert within < 1e-10
        spread = quality**2 * (total - fast + fast / length)
        assert between == pytest.approx(
            quality**2 * (total - fast), abs=SIGMAS * math.sqrt(2 / n) * spread
        )
        assert within + between == pytest.approx(
            quality**2 * total,
            abs=SIGMAS
            * (math.sqrt(2 / n) * spread + quality**2 * fast * math.sqrt(2 / (n * length))),
        )
    if fast > 0:  # the two accesses of a step draw apart
        both = np.corrcoef(
            (e1 - e1.mean(axis=1, keepdims=True)).ravel(),
            (e2 - e2.mean(axis=1, keepdims=True)).ravel(),
        )[0, 1]
        assert abs(both) < SIGMAS / math.sqrt(n * length)


@pytest.mark.parametrize("seconds", [0.0, 1e-6, 1.0, HOUR, 86400.0])
@pytest.mark.parametrize("name", ["pcm-nandakumar2019", "cmo-hfox", "reram-wan2022"])
def test_slow_and_fast_variance_add_up_to_the_total_at_any_time(name, seconds):
    spec = ChipSpec.preset(name)
    parts = {
        kind: noise_split(spec.replace(noise_in_time=kind), seconds)
        for kind in ("split", "white", "frozen")
    }
    total = parts["white"].fast ** 2
    assert parts["white"].slow == parts["frozen"].fast == 0
    assert parts["frozen"].slow ** 2 == pytest.approx(total)
    assert parts["split"].slow ** 2 + parts["split"].fast ** 2 == pytest.approx(total)


def test_noise_that_lasts_and_white_noise_spread_a_slow_mode_differently():
    s, n, n_steps = 0.02, 500, 100
    x = np.ones((n, n_steps, 1), np.float32)
    spreads = {
        kind: run_states(one_mode(0.99, 1.0), noisy_chip(s, kind), x)[:, -1, 0].std()
        for kind in ("frozen", "white")
    }
    assert spreads["frozen"] > 2 * spreads["white"]
