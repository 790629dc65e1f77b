"""The recurrent run: draws depend on the seed and on what is drawn, and steps add up to runs."""

import numba
import numpy as np
import pytest
from small_models import IDEAL, PCM, random_input, random_model, relative_error

import ssm
from aimc_sim.errors import CapacityError, InputError, UsageError
from aimc_sim.specs import ChipSpec

pytestmark = pytest.mark.compiled

ROUNDING = 1e-5  # of the largest logit
WAN = ChipSpec.preset("reram-wan2022")
CMO = ChipSpec.preset("cmo-hfox")


def noisy_deployment(model):
    """Return a deployment on a chip with every kind of noise, and its input."""
    x = random_input(41, 6, 40, model.d_input)
    return ssm.deploy(model, PCM.replace(**{"adc.noise_lsb": 0.5}), calibrate=x), x


@pytest.fixture(scope="module")
def noisy():
    return noisy_deployment(random_model(seed=40, d_input=2))


def answer(deployment, x, seed=5, seconds=3600.0, chips=1, first_chip=0, **options):
    programmed = deployment.program(seed, chips=chips, first_chip=first_chip).wait(seconds)
    return programmed.infer(x, **options).logits


@pytest.mark.parametrize("form", ["leapfrog", "delta", "direct", "digital"])
def test_one_and_two_threads_give_the_same_bits(form):
    if numba.config.NUMBA_NUM_THREADS < 2:
        pytest.skip("this process may use one thread only")
    model = random_model(seed=40)
    x = random_input(41, 7, 40)
    deployment = ssm.deploy(model, PCM, form, calibrate=x)
    before = numba.get_num_threads()
    try:
        answers = []
        for n in (1, 2):
            ssm.set_threads(n)
            assert numba.get_num_threads() == n
            answers.append(answer(deployment, x, chips=3))
    finally:
        ssm.set_threads(before)
    np.testing.assert_array_equal(answers[0], answers[1])


def test_inferring_twice_gives_the_same_bits(noisy):
    deployment, x = noisy
    programmed = deployment.program(5).wait(60.0)
    first = programmed.infer(x).logits
    programmed.infer(x[:2])
    programmed.unstable_modes()
    np.testing.assert_array_equal(programmed.infer(x).logits, first)


def test_a_new_deployment_and_program_give_the_same_bits(noisy):
    deployment, x = noisy
    again, _ = noisy_deployment(random_model(seed=40, d_input=2))
    np.testing.assert_array_equal(answer(again, x), answer(deployment, x))


def test_pieces_of_a_batch_draw_what_the_whole_draws(noisy):
    deployment, x = noisy
    whole = answer(deployment, x)
    pieces = np.concatenate(
        [
            answer(deployment, x[:1]),
            answer(deployment, x[1:4], first_sample=1),
            answer(deployment, x[4:], first_sample=4),
        ]
    )
    assert relative_error(pieces, whole) < ROUNDING
    unnumbered = answer(deployment, x[1:4])
    assert relative_error(unnumbered, whole[1:4]) > 100 * ROUNDING


def test_a_prefix_of_the_samples_is_answered_as_before(noisy):
    deployment, x = noisy
    assert relative_error(answer(deployment, x[:3]), answer(deployment, x)[:3]) < ROUNDING


def test_chip_two_is_the_same_alone_and_among_three(noisy):
    deployment, x = noisy
    three = answer(deployment, x, chips=3)
    assert three.shape == (3, 6, 3)
    alone = answer(deployment, x, first_chip=2)
    assert alone.shape == (6, 3)
    assert relative_error(alone, three[2]) < ROUNDING
    assert relative_error(three[1], three[2]) > 100 * ROUNDING


def test_other_seeds_are_other_chips(noisy):
    deployment, x = noisy
    answers = [answer(deployment, x, seed=seed) for seed in (0, 1, 2**32, 2**64 - 1)]
    for k, one in enumerate(answers):
        for other in answers[k + 1 :]:
            assert relative_error(one, other) > 100 * ROUNDING


@pytest.mark.parametrize("spec", [PCM, WAN, CMO], ids=lambda spec: spec.name)
def test_two_waits_are_one_long_wait(spec):
    x = random_input(41, 4, 30)
    deployment = ssm.deploy(random_model(seed=40), spec, calibrate=x)
    one = deployment.program(5).wait(7200.0)
    two = deployment.program(5).wait(3600.0).wait(3600.0)
    assert one.time_s == two.time_s == 7200.0
    np.testing.assert_array_equal(two.infer(x).logits, one.infer(x).logits)
    between = deployment.program(5).wait(3600.0)
    first = between.infer(x).logits  # a read in between changes nothing either
    np.testing.assert_array_equal(between.wait(3600.0).infer(x).logits, one.infer(x).logits)
    assert relative_error(first, one.infer(x).logits) > 10 * ROUNDING


def test_read_noise_differs_between_sequences_that_carry_the_same_input(noisy):
    deployment, x = noisy
    logits = answer(deployment, np.repeat(x[:1], 4, axis=0))
    assert np.unique(logits, axis=0).shape[0] == 4
    silent = ssm.deploy(deployment.model, IDEAL, calibrate=x)
    logits = answer(silent, np.repeat(x[:1], 4, axis=0))
    assert np.unique(logits, axis=0).shape[0] == 1


@pytest.mark.parametrize("pool", ["mean", "last"])
@pytest.mark.parametrize("form", ["leapfrog", "delta", "direct", "digital"])
@pytest.mark.parametrize("spec", [IDEAL, PCM], ids=lambda spec: spec.name)
def test_the_last_step_of_a_stream_answers_as_the_whole_sequence(spec, form, pool):
    model = random_model(seed=42, d_input=2, pool=pool)
    x = random_input(43, 3, 25, 2)
    programmed = ssm.deploy(model, spec, form, calibrate=x).program(6).wait(100.0)
    state = None
    for k in range(25):
        y, state = programmed.step(x[:, k], state)
        if k == 9:
            early = y
    assert state.step == 25
    # the compiler may fuse a step's operations differently than the sequence's
    assert relative_error(y, programmed.infer(x).logits) < 1e-6
    assert relative_error(early, programmed.infer(x[:, :10]).logits) < 1e-6


def test_streams_that_start_at_another_sample_draw_its_noise(noisy):
    deployment, x = noisy
    programmed = deployment.program(5)
    state = None
    for k in range(x.shape[1]):
        y, state = programmed.step(x[2:4, k], state, first_sample=2)
    assert relative_error(y, programmed.infer(x).logits[2:4]) < 1e-6


def test_a_step_leaves_the_state_that_it_was_given_as_it_was(noisy):
    deployment, x = noisy
    programmed = deployment.program(5)
    _, state = programmed.step(x[:, 0])
    states, pooled = state.states.copy(), state.pooled.copy()
    one, after = programmed.step(x[:, 1], state)
    two, _ = programmed.step(x[:, 1], state)
    np.testing.assert_array_equal(one, two)
    np.testing.assert_array_equal(state.states, states)
    np.testing.assert_array_equal(state.pooled, pooled)
    assert (state.step, after.step) == (1, 2)
    assert np.abs(after.states - states).max() > 0


def test_a_single_stream_takes_a_plain_vector(noisy):
    deployment, x = noisy
    programmed = deployment.program(5)
    y, state = programmed.step(x[0, 0])
    assert y.shape == (1, 3)
    expected, _ = programmed.step(x[:1, 0])
    np.testing.assert_array_equal(y, expected)
    assert state.states.shape == (1, 2, 24)


def test_states_are_kept_on_request_alone(noisy):
    deployment, x = noisy
    programmed = deployment.program(5, chips=2)
    assert programmed.infer(x).states is None
    kept = programmed.infer(x, return_states=True)
    assert kept.states.shape == (2, 6, 40, 2, 24)
    assert np.isfinite(kept.states).all()
    np.testing.assert_array_equal(kept.logits, programmed.infer(x).logits)


def test_conversions_and_steps_are_counted():
    spec = IDEAL.replace(tile={"rows": 4, "cols": 16})
    model = random_model(seed=0, n_heads=6, n_modes=5, n_layers=1)
    x = random_input(0, 3, 20)
    run = ssm.deploy(model, spec, calibrate=x).program(0, chips=2).infer(x)
    # encoder 6, A 4 x 30, C 6 heads in 3 row parts, mixing 12 in 2; decoder 3 in 2 at the end
    assert run.counts["steps"] == 2 * 3 * 20
    assert run.counts["adc_conversions"] == 2 * 3 * (20 * (6 + 120 + 18 + 24) + 6)


def test_answers_that_are_not_finite_count_as_wrong_and_as_diverged():
    logits = np.array([[0.0, 1.0], [np.nan, 2.0], [3.0, 0.0], [0.0, np.inf]], np.float32)
    run = ssm.Run(logits, None, {}, 0.0)
    assert run.diverged == 2
    assert run.accuracy(np.array([1, 1, 1, 1])) == pytest.approx([0.25])
    two = ssm.Run(np.stack([logits, logits[::-1]]), None, {}, 0.0)
    assert two.diverged == 4
    np.testing.assert_allclose(two.accuracy(np.array([1, 1, 0, 1])), [0.5, 0.25])


def test_unstable_states_diverge_openly():
    model = random_model(seed=44, n_layers=1)
    layer = model.layers[0].__class__(
        **{**vars(model.layers[0]), "pole": 4 * np.ones_like(model.layers[0].pole)}
    )
    model = model.replace(layers=(layer,), norm="none")
    x = random_input(45, 2, 200)
    programmed = ssm.deploy(model, IDEAL, "direct", calibrate=x[:, :5]).program(0)
    assert programmed.unstable_modes().tolist() == [12]
    assert programmed.infer(x).diverged == 2


def test_cells_hold_what_the_seed_says_before_any_time_passes(noisy):
    deployment, _ = noisy
    programmed = deployment.program(5, chips=2)
    target = deployment.target_s
    error = (programmed.chip.programmed_s - target) / PCM.device.g_max_s
    assert programmed.chip.programmed_s.min() >= 0
    assert 0.005 < error.std() < 0.05
    assert abs(np.corrcoef(error)[0, 1]) < 5 / np.sqrt(error.shape[1])


@pytest.mark.parametrize("chips", [0, -1])
def test_no_chip_at_all_is_refused(noisy, chips):
    with pytest.raises(UsageError, match=f"Program {chips} chips. That is none. Ask for at least"):
        noisy[0].program(0, chips=chips)


def test_more_chips_than_memory_are_refused_before_the_attempt(noisy):
    with pytest.raises(CapacityError, match="GiB are free. Program fewer chips at once"):
        noisy[0].program(0, chips=10**9)


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_a_seed_out_of_range_is_refused(noisy, seed):
    with pytest.raises(UsageError, match=f"Use seed {seed}"):
        noisy[0].program(seed)


@pytest.mark.parametrize("seconds", [-1.0, np.nan])
def test_time_does_not_run_backwards(noisy, seconds):
    programmed = noisy[0].program(0).wait(10.0)
    with pytest.raises(UsageError, match=f"Wait {seconds} s. Time does not run backwards"):
        programmed.wait(seconds)
    assert programmed.time_s == 10.0


def test_a_time_that_the_card_does_not_cover_is_refused():
    deployment = ssm.deploy(random_model(seed=0), WAN, calibrate=random_input(0, 1, 5))
    with pytest.raises(UsageError, match="Read 'reram-wan2022'.*Choose a time in that range"):
        deployment.program(0).wait(30 * 86400.0)


@pytest.mark.parametrize("shape", [(4, 9, 1), (4, 9), (0, 9, 2), (4, 0, 2)])
def test_data_of_another_shape_are_refused(noisy, shape):
    with pytest.raises(InputError, match=r"reads 2 feature.*Give an array \(n, time, 2\)"):
        noisy[0].program(0).infer(np.zeros(shape))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_data_that_are_not_finite_are_refused(noisy, value):
    deployment, x = noisy
    x = x.copy()
    x[2, 3, 1] = value
    programmed = deployment.program(0)
    with pytest.raises(InputError, match="NaN, infinite"):
        programmed.infer(x)
    with pytest.raises(InputError, match="NaN, infinite"):
        programmed.step(x[:, 3])


@pytest.mark.parametrize("kind", [complex, object, str])
def test_data_that_are_no_real_numbers_are_refused(noisy, kind):
    with pytest.raises(InputError, match="no real numbers"):
        noisy[0].program(0).infer(np.ones((1, 4, 2)).astype(kind))


def test_numbers_beyond_single_precision_are_refused(noisy):
    with pytest.raises(InputError):
        noisy[0].program(0).infer(np.full((1, 4, 2), 1e300))


def test_a_step_of_another_number_of_streams_is_refused(noisy):
    deployment, x = noisy
    programmed = deployment.program(0)
    _, state = programmed.step(x[:, 0])
    with pytest.raises(InputError, match="Step 2 streams. The state is of 6 streams"):
        programmed.step(x[:2, 1], state)
    with pytest.raises(InputError, match="reads 2 feature"):
        programmed.step(np.zeros((6, 3)), state)


@pytest.mark.parametrize("n", [0, -1, 10**6])
def test_a_number_of_threads_that_there_is_not_is_refused(n):
    with pytest.raises(UsageError, match=f"Use {n} threads. This process may use 1 to"):
        ssm.set_threads(n)


def test_chips_and_runs_show_themselves_on_one_line(noisy):
    deployment, x = noisy
    chips = deployment.program(seed=4, chips=2).wait("1d")
    assert chips.time_s == 86400.0
    assert repr(chips).endswith("form leapfrog; 2 chips of seed 4, 1 d after programming")
    assert repr(chips.infer(x[:3])).startswith("run of 2 x 3 x ")
    for thing in (deployment.model, deployment, chips.infer(x[:1])):
        assert "array(" not in repr(thing)
