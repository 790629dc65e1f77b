"""A trained model loses little by balanced truncation, without retraining."""

import os

import numpy as np
import pytest

import ssm
from aimc_sim.errors import UsageError
from ssm.reduction import modes_of

N_IMAGES = 500


@pytest.fixture(scope="module")
def model(shared):
    path = shared / "models" / "mnist196" / "model.pt"
    return ssm.load(path, norm="post", disc="zoh", pool="mean")


@pytest.fixture(scope="module")
def images(shared):
    folder = os.environ.get("AIMC_DATA", shared / "data" / "datasets")
    try:
        task = ssm.load_task("smnist-14x14", folder)
    except UsageError as error:
        pytest.skip(f"no MNIST: {error}")
    return task.x_test[:N_IMAGES], task.y_test[:N_IMAGES]


def answers(model, x):
    """Return the classes that the model gives, its heads as convolutions (float64)."""
    from scipy.special import erf, expit

    n_steps = x.shape[1]
    result = []
    for begin in range(0, len(x), 250):
        h = x[begin : begin + 250].astype(float) @ model.encoder_weight + model.encoder_bias
        for layer in model.layers:
            kernel = np.stack(
                [modes_of(layer, head).impulse_response(n_steps) for head in range(model.n_heads)]
            )
            spectrum = np.fft.rfft(h, 2 * n_steps, axis=1) * np.fft.rfft(kernel, 2 * n_steps).T
            y = np.fft.irfft(spectrum, 2 * n_steps, axis=1)[:, :n_steps] + h * layer.skip
            y = y * 0.5 * (1 + erf(y / np.sqrt(2))) @ layer.mix_weight + layer.mix_bias
            h = h + y[..., : model.n_heads] * expit(y[..., model.n_heads :])
            h = h - h.mean(axis=-1, keepdims=True)
            h = h / np.sqrt((h**2).mean(axis=-1, keepdims=True) + model.norm_epsilon)
            h = h * layer.norm_scale + layer.norm_shift
        result.append((h.mean(axis=1) @ model.decoder_weight + model.decoder_bias).argmax(axis=1))
    return np.concatenate(result)


def test_the_answers_counted_here_are_those_of_the_model(model, images):
    x = images[0][:8]
    np.testing.assert_array_equal(answers(model, x), model.logits(x).argmax(axis=1))


def test_half_of_the_states_and_a_quarter_lose_little_without_retraining(model, images):
    x, y = images
    score = {1.0: (answers(model, x) == y).mean()}
    for keep in (0.5, 0.25):
        pruned = ssm.prune(model, keep, n_steps=x.shape[1])
        assert pruned.n_states <= keep * model.n_states
        score[keep] = (answers(pruned, x) == y).mean()
    # the same images before and after: 0.5 and 6 points, and a standard error of the difference
    assert score[0.5] > score[1.0] - 0.005 - 0.003
    assert score[0.25] > score[1.0] - 0.06
