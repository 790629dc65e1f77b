"""Errors that are new at every access, in training and on the simulated chip."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from small_models import random_input, random_model

import ssm
from aimc_sim import ChipSpec
from aimc_sim.errors import UsageError
from ssm.onchips import OnChips
from ssm.reading import StateErrors
from ssm.trainable import Trainable

N_STEPS, N_SEQUENCES = 60, 6


def with_read_noise(share):
    """Return an ideal chip whose cells read that share of their range wrong, anew every time."""
    ideal = ChipSpec.preset("ideal")
    sigma = {"of": "r", "unit_s": ideal.device.g_max_s, "polynomial": [share]}
    noise = {"spectrum": "white", "sigma": sigma}
    card = ideal.device.model_dump() | {"name": "reads badly", "read_noise": noise}
    return ideal.replace(device=type(ideal.device)(**card), state_bits="ideal")


def spread_in_training(model, spec, at_s, form, x, n_draws, digital=()):
    """Return the standard deviation of the logits over draws, their weights without errors."""
    chips = OnChips([spec], at_s, digital)
    chips.disturbance.strength = 0.0
    module = Trainable([model], None, chips, form)
    x = torch.as_tensor(x, dtype=torch.float32)
    module.set_row_ranges(x)
    torch.manual_seed(0)
    with torch.no_grad():
        module.eval()
        exact = module(x)
        module.train()
        drawn = torch.stack([module(x) - exact for _ in range(n_draws)])
    return float(drawn.square().mean().sqrt())


@pytest.mark.compiled
@pytest.mark.parametrize("form", ["leapfrog", "digital"])
def test_read_noise_moves_logits_in_training_as_on_the_chip(form):
    """Of cells alone, which err in nothing else, 40 reads.

    2,880 logits a side, correlated in tens: a spread is known to 4 %; states of the mean step and
    sequence stand for all of them in training.
    """
    spec = with_read_noise(0.01)
    model, x = random_model(3, n_heads=8, n_modes=8), random_input(1, N_SEQUENCES, N_STEPS)
    chip = ssm.deploy(model, spec, form, calibrate=x).program(0).wait(100.0)
    reads = np.stack(
        [chip.infer(x, first_sample=N_SEQUENCES * k).logits for k in range(40)]
    )
    found = np.sqrt(reads.var(axis=0, ddof=1).mean())
    assert spread_in_training(model, spec, 100.0, form, x, 40) == pytest.approx(found, rel=0.15)


@pytest.mark.compiled
@pytest.mark.parametrize("form", ["leapfrog", "digital"])
@pytest.mark.parametrize("bits", [{"adc.bits": 8}, {"dac.bits": 8}, {"state_bits": 12}])
def test_converters_move_logits_in_training_as_on_the_chip(form, bits):
    """Rounding is no noise on the chip, whose logits are compared with exact ones.

    360 logits, of which those of a sequence go together: a spread is known to 7 %.
    """
    spec = ChipSpec.preset("ideal").replace(**bits)
    model = random_model(3, n_heads=8, n_modes=8).replace(pool="last")
    x = random_input(1, 120, N_STEPS)
    chip = ssm.deploy(model, spec, form, calibrate=x).program(0)
    found = np.sqrt(np.square(chip.infer(x).logits - model.logits(x)).mean())
    drawn = spread_in_training(model, spec, 0.0, form, x, 4)
    assert drawn == pytest.approx(found, rel=0.2)


def test_parts_in_logic_err_neither_as_written_nor_as_read():
    spec = ChipSpec.preset("reram-wan2022")
    model, x = random_model(2), random_input(1, 4, 20)
    parts = ("encoder", "readout", "mixing", "decoder")
    module = Trainable([model], None, OnChips([spec], 0.0, parts), "digital")
    x = torch.as_tensor(x, dtype=torch.float32)
    module.set_row_ranges(x)
    registers = 2.0**-15  # what is left: states of 16 bits
    with torch.no_grad():
        exact = module.eval()(x)
        assert float((module.train()(x) - exact).abs().max()) < 100 * registers
    for part in parts:
        rest = tuple(each for each in parts if each != part)
        module = Trainable([model], None, OnChips([spec], 0.0, rest), "digital")
        module.set_row_ranges(x)
        with torch.no_grad():
            assert float((module.train()(x) - exact).abs().max()) > 100 * registers, part
    with pytest.raises(UsageError, match="no such part"):
        ssm.fine_tune(
            model, (np.zeros((4, 20, 1)), np.arange(4) % 3), chip=spec, digital=["mixin"], epochs=1
        )


def test_a_chip_without_noise_and_converters_adds_nothing_at_an_access():
    spec = ChipSpec.preset("ideal").replace(state_bits="ideal")
    model, x = random_model(2), random_input(1, 4, 20)
    assert spread_in_training(model, spec, 0.0, "leapfrog", x, 2) < 1e-6


def test_noise_of_states_has_the_spectrum_of_the_modes_it_passes():
    """One mode driven by white noise, step by step, against the noise of its spectrum.

    4,000 sequences: a variance is known to sqrt(2/n) = 2.2 %, two of them differ by five times
    sqrt(2) of that; a covariance over 100 steps to less.
    """
    pole, n_steps, n = 0.88 * np.exp(0.4j), 200, 4000
    matrix = torch.tensor([[pole.real, -pole.imag], [pole.imag, pole.real]], dtype=torch.float32)
    readout, sigma = torch.tensor([1.0, -0.5]), torch.tensor([1.0, 0.3])
    generator = torch.Generator().manual_seed(1)
    state, seen = torch.zeros(n, 2), []
    for _ in range(n_steps):
        state = state @ matrix.T + torch.randn(n, 2, generator=generator) * sigma
        seen.append(state @ readout)
    seen = torch.stack(seen, dim=1)
    torch.manual_seed(0)
    errors = StateErrors(
        matrix[None, None, None], readout[None, None, None], torch.eye(2)[None, None, None],
        (sigma**2).expand(n_steps, 1, 1, 1, 2),
    )
    drawn = errors.draw(n)[..., 0, 0]
    whole = float(seen[:, 100:].var())
    for step in (0, 3, 20, 199):
        theirs = float(seen[:, step].var())
        assert float(drawn[:, step].var()) == pytest.approx(theirs, rel=10 / np.sqrt(n)), step
    for lag in (1, 5, 12):
        ours, theirs = (
            float((x[:, 100 + lag :] * x[:, 100 : n_steps - lag]).mean()) for x in (drawn, seen)
        )
        assert ours == pytest.approx(theirs, abs=0.05 * whole), lag
