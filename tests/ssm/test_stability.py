"""A's modes on published cells: leapfrog keeps all of them, the other forms lose many."""

import numpy as np
import pytest
from small_models import PCM, random_input, random_model

import ssm
from aimc_sim.specs import ChipSpec

pytestmark = pytest.mark.compiled

DAY = 86400.0
CHUNK = 50  # chips at a time: memory stays below 10 MB


@pytest.fixture(scope="module")
def digits(digits_model):
    return ssm.load(digits_model), ssm.load_task("digits")


def count_unstable(model, spec, form, chips, decay="tile", seconds=DAY):
    """Return the number of modes outside the unit circle on every chip, (chips,)."""
    x = random_input(0, 2, 10, model.d_input)
    deployment = ssm.deploy(model, spec, form, decay=decay, calibrate=x)
    counts = []
    for first in range(0, chips, CHUNK):
        programmed = deployment.program(11, min(CHUNK, chips - first), first).wait(seconds)
        counts.append(programmed.unstable_modes())
    return np.concatenate(counts)


def spectral_radii(deployment, programmed, replica):
    """Return the modes' spectral radii, from the cells on their tiles and the maps of ssm.md.

    Independent of how the kernels order weights: weights come from each array's own cells.
    """
    g = programmed.chip.aged()[replica].astype(float)
    fresh = deployment.program(11, chips=3).chip.aged()[replica].astype(float)
    device = deployment.spec.device
    span = device.g_max_s - device.g_min_s
    radii = []
    for number, layer in enumerate(deployment.model.layers):
        cells = deployment.layout.array(f"layer {number} A").cell_index()
        pole = layer.pole.ravel()
        if deployment.form == "leapfrog":
            angle = np.arctan2(np.abs(pole.imag), np.abs(pole.real))
            exact = np.stack([2 * np.sin(angle / 2), 1 - np.abs(pole)], axis=1)
            scale = 2.0 ** np.ceil(np.log2(np.maximum(exact, 2.0**-16)) - 1e-12)
            w = (g[cells[0]] - device.g_min_s) / span * scale[:, None, :]
            for column in range(2):
                index = cells[0, :, :, column]
                w[:, :, column] /= (g[index] - device.g_min_s).sum() / (
                    fresh[index] - device.g_min_s
                ).sum()
            (d1, d2), (e2, e1) = w[:, :, 1].T, w[:, :, 0].T
            step = np.array(
                [[1 - d1, -(1 - d1) * e1], [(1 - d2) * e2, (1 - d2) * (1 - e1 * e2)]]
            ).transpose(2, 0, 1)
        else:
            r = pole - 1 if deployment.form == "delta" else pole
            largest = np.maximum(np.abs(r.real), np.abs(r.imag))
            scale = 2.0 ** np.ceil(np.log2(np.maximum(largest, 2.0**-16)) - 1e-12)
            gain = (g[cells] - device.g_min_s).sum() / (fresh[cells] - device.g_min_s).sum()
            w = (g[cells[0]] - g[cells[1]]) / span * scale[:, None, None] / gain
            step = w.transpose(0, 2, 1)  # x (state) @ w: columns of the weights are rows here
            if deployment.form == "delta":
                step = step + np.eye(2)
        radii.append(np.abs(np.linalg.eigvals(step)).max(axis=1))
    return np.concatenate(radii)


@pytest.mark.parametrize("form", ["leapfrog", "delta", "direct"])
def test_counted_modes_are_those_of_the_cells_themselves(form):
    model = random_model(seed=50, n_heads=10, n_modes=8)
    deployment = ssm.deploy(model, PCM, form, calibrate=random_input(0, 2, 10))
    programmed = deployment.program(11, chips=3).wait(DAY)
    expected = [(spectral_radii(deployment, programmed, k) >= 1).sum() for k in range(3)]
    np.testing.assert_array_equal(programmed.unstable_modes(), expected)
    assert sum(expected) == 0 if form == "leapfrog" else sum(expected) > 0


@pytest.mark.parametrize("decay", ["tile", "digital"])
def test_no_trained_mode_of_1000_pcm_chips_leaves_the_unit_circle_in_leapfrog_form(digits, decay):
    counts = count_unstable(digits[0], PCM, "leapfrog", 1000, decay)
    assert counts.shape == (1000,)
    assert counts.sum() == 0


def test_no_slow_mode_of_1000_pcm_chips_leaves_the_unit_circle_in_leapfrog_form():
    model = random_model(seed=51, n_heads=8, n_modes=8, n_layers=1, longest=0.9995)
    radius = np.abs(model.layers[0].pole)
    assert radius.max() > 0.999
    assert count_unstable(model, PCM, "leapfrog", 1000).sum() == 0


@pytest.mark.parametrize("name", ["reram-wan2022", "cmo-hfox"])
def test_other_cards_keep_leapfrog_modes_of_trained_models_inside_too(digits, name):
    counts = count_unstable(digits[0], ChipSpec.preset(name), "leapfrog", 100)
    assert counts.sum() == 0


@pytest.mark.parametrize(("form", "least"), [("direct", 0.15), ("delta", 0.05)])
def test_direct_and_delta_form_lose_many_slow_modes_on_every_chip(form, least):
    model = random_model(seed=51, n_heads=8, n_modes=8, n_layers=1, longest=0.9995)
    counts = count_unstable(model, PCM, form, 50)
    assert counts.min() > 0
    assert counts.mean() / 64 > least


def test_direct_form_loses_modes_of_the_trained_model_on_every_chip(digits):
    counts = count_unstable(digits[0], PCM, "direct", 20)
    assert counts.min() > 0


@pytest.mark.parametrize("form", ["leapfrog", "delta", "direct", "digital"])
def test_an_exact_chip_loses_no_mode(form):
    model = random_model(seed=51, n_heads=8, n_modes=8, n_layers=1, longest=0.9995)
    counts = count_unstable(model, ChipSpec.preset("ideal"), form, 2)
    assert counts.tolist() == [0, 0]


def right_answers(model, task, form, chips, n):
    """Return which samples each chip gets right after a day, (chips, n) of 0 and 1."""
    programmed = ssm.deploy(model, PCM, form).program(1, chips=chips).wait(DAY)
    logits = programmed.infer(task.x_test[:n]).logits
    finite = np.isfinite(logits).all(axis=-1)
    return ((logits.argmax(axis=-1) == task.y_test[:n]) & finite).astype(float)


@pytest.mark.parametrize(
    ("better", "worse", "chips", "n"), [("leapfrog", "delta", 6, 359), ("delta", "direct", 3, 100)]
)
def test_accuracy_after_a_day_is_best_in_leapfrog_form_then_delta_then_direct(
    digits, better, worse, chips, n
):
    first = right_answers(*digits, better, chips, n)
    gain = first - right_answers(*digits, worse, chips, n)  # the same digits: a paired comparison
    by_chip, by_sample = gain.mean(axis=1), gain.mean(axis=0)
    error = np.hypot(by_chip.std(ddof=1) / np.sqrt(chips), by_sample.std(ddof=1) / np.sqrt(n))
    assert gain.mean() > 2.5 * error, (gain.mean(), error)
    assert first.mean() > 0.9
