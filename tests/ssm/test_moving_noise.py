"""Noise that moves during a run: streams, threads and pieces see the same process."""

from __future__ import annotations

import numba
import numpy as np
import pytest
from small_models import random_input, random_model

import ssm
from aimc_sim.cards import TelegraphSpec
from aimc_sim.specs import ChipSpec

pytestmark = pytest.mark.compiled

HOUR = 3600.0


def jumps_of(amplitude):
    """Return telegraph noise of 0.4 of the cells, of a mean relative amplitude."""
    return TelegraphSpec(
        fraction=0.4, amplitude={"of": "r", "polynomial": [amplitude]}, amplitude_spread=0.3,
        tau_high_s=8e-6, tau_low_s=3e-6, tau_spread=1.5,
    )


def moving_chip(card="pcm-nandakumar2019", **changes):
    """Return a published card with telegraph noise beside its own, all of it moving."""
    spec = ChipSpec.preset(card)
    changes = {"noise_in_time": "spectrum", "spectrum_from_steps": 3, **changes}
    return spec.replace(device=spec.device.replace(telegraph=jumps_of(0.1)), **changes)


def deployed(spec, form="leapfrog", n=5, n_steps=30, **options):
    model = random_model(seed=40)
    x = random_input(41, n, n_steps, model.d_input)
    return ssm.deploy(model, spec, form, calibrate=x, **options), x


def logits(deployment, x, seed=5, **options):
    return deployment.program(seed).wait(HOUR).infer(x, **options).logits


@pytest.mark.parametrize("card", ["pcm-nandakumar2019", "cmo-hfox"])
@pytest.mark.parametrize("form", ["leapfrog", "direct"])
def test_steps_of_a_stream_are_those_of_a_sequence_bit_for_bit(card, form):
    deployment, x = deployed(moving_chip(card), form)
    programmed = deployment.program(5).wait(HOUR)
    state = None
    for k in range(x.shape[1]):
        y, state = programmed.step(x[:, k], state)
    np.testing.assert_array_equal(y, programmed.infer(x).logits)


def test_a_step_leaves_the_state_passed_in_as_it_was():
    deployment, x = deployed(moving_chip())
    programmed = deployment.program(5).wait(HOUR)
    state = None
    for k in range(8):
        _, state = programmed.step(x[:, k], state)
    first, _ = programmed.step(x[:, 8], state)
    again, _ = programmed.step(x[:, 8], state)
    np.testing.assert_array_equal(first, again)


def test_threads_pieces_and_turns_see_the_same_noise():
    deployment, x = deployed(moving_chip())
    whole = logits(deployment, x)
    pieces = [logits(deployment, x[:2]), logits(deployment, x[2:], first_sample=2)]
    np.testing.assert_array_equal(np.concatenate(pieces), whole)
    chips = deployment.program(5, chips=2).wait(HOUR).infer(x).logits
    np.testing.assert_array_equal(chips[0], whole)
    turn = deployment.program(5, first_chip=1).wait(HOUR).infer(x).logits
    np.testing.assert_array_equal(chips[1], turn)
    if numba.config.NUMBA_NUM_THREADS > 1:
        ssm.set_threads(2)
        try:
            np.testing.assert_array_equal(logits(deployment, x), whole)
        finally:
            ssm.set_threads(1)


def test_noise_moves_within_a_sequence_and_between_sequences():
    spec = moving_chip(**{"dac.bits": "ideal", "adc.bits": "ideal"})
    deployment, x = deployed(spec)
    same = np.repeat(x[:1], 4, axis=0)
    runs = logits(deployment, same)
    assert len(np.unique(runs[:, 0])) == 4
    other = logits(deployment, same, seed=6)
    assert not np.array_equal(other, runs)


@pytest.mark.parametrize("noise_in_time", ["split", "frozen", "white"])
def test_telegraph_noise_enters_every_mode(noise_in_time):
    loud = moving_chip(noise_in_time=noise_in_time)
    quiet = loud.replace(device=loud.device.replace(telegraph=None))
    (with_jumps, x), (without, _) = deployed(loud), deployed(quiet)
    assert not np.array_equal(logits(with_jumps, x), logits(without, x))
    # jumps of no height leave the bits of all other noise as they are
    still = loud.device.replace(telegraph=jumps_of(0.0))
    silent, _ = deployed(loud.replace(device=still))
    np.testing.assert_array_equal(logits(silent, x), logits(without, x))


def test_weights_in_digital_logic_do_not_move():
    deployment, x = deployed(moving_chip(), digital=("mixing", "encoder", "decoder"))
    programmed = deployment.program(5).wait(HOUR)
    _, state = programmed.step(x[:, 0])
    before = state.weights[0].w.copy()
    for k in range(1, 20):
        _, state = programmed.step(x[:, k], state)
    cells = deployment.weights.plus[0] >= 0
    after = state.weights[0].w
    np.testing.assert_array_equal(after[~cells], before[~cells])
    assert (after[cells] != before[cells]).mean() > 0.5


def test_moving_weights_keep_their_mean_and_have_the_variance_of_the_whole_process():
    # one sequence a value: weights 20 steps into a run, against the frozen noise of single reads
    spec = moving_chip("cmo-hfox", spectrum_from_steps=2)
    deployment, x = deployed(spec, n=1, n_steps=21)
    n = 400
    programmed = deployment.program(5).wait(HOUR)
    state = None
    for k in range(21):
        _, state = programmed.step(np.repeat(x[:, k], n, axis=0), state)
    moved = np.array([w.w for w in state.weights], float)
    weights = deployment.weights
    reads = np.array([programmed.chip.read(0, 10_000 + i) for i in range(n)], float)
    scale = weights.scale[0].astype(float)
    minus = np.where(weights.minus[0] >= 0, reads[:, weights.minus[0]], spec.device.g_min_s)
    single = (reads[:, weights.plus[0]] - minus) * scale
    inside = np.abs(single - single.mean(axis=0)).min(axis=0) > 0  # neither digital nor at rest
    assert inside.sum() > 100
    error = np.sqrt((moved.var(axis=0) + single.var(axis=0)) / n)[inside]
    deviation = (moved.mean(axis=0) - single.mean(axis=0))[inside] / error
    assert np.abs(deviation).max() < 5.0
    ratio = moved.var(axis=0)[inside].sum() / single.var(axis=0)[inside].sum()
    assert ratio == pytest.approx(1.0, rel=0.05)
