"""A model on a chip whose lines resist: the recurrence sees effective conductances."""

from __future__ import annotations

import numpy as np
import pytest
from small_models import random_model

import aimc_sim as aimc
import ssm
from aimc_sim import wires
from ssm.ablation import error_free, non_idealities, without
from ssm.inference import ProgrammedModel

OHMS = {"r_wl_ohm": 5.0, "r_bl_ohm": 8.0, "r_driver_ohm": 100.0}
pytestmark = pytest.mark.compiled


def chip(preset="pcm-nandakumar2019", **more):
    return aimc.ChipSpec.preset(preset).replace(**{"tile.rows": 64, "tile.cols": 64, **more})


def deploy(spec, **more):
    model = random_model(0)
    signal = np.random.default_rng(1).random((2, 30, model.d_input), np.float32)
    return ssm.deploy(model, spec, calibrate=signal, **more), signal


def sequence_weights(programmed, sample=0):
    return programmed._start(1, sample).weights[0]


@pytest.mark.parametrize("form", ["leapfrog", "direct"])
def test_weights_of_a_run_are_read_through_the_wires_of_their_tiles(form):
    spec = chip("ideal", wires={**OHMS, "pairs": "separate"})
    deployment, _ = deploy(spec, form=form)
    programmed = deployment.program(1)
    tile, element = deployment.layout.addresses
    seen = np.zeros(tile.size)
    for number, kind in enumerate(deployment.layout.tile_kinds):
        part = spec.short_tile if kind == "short_tile" else spec.tile
        own = tile == number
        g = np.zeros((part.rows, part.cols))
        g.flat[element[own]] = programmed.chip.programmed_s[0][own]
        seen[own] = wires.effective_conductance(g, **OHMS).flat[element[own]]
    found = deployment.weights
    g_min = spec.device.g_min_s
    minus = np.where(found.minus >= 0, seen[found.minus], g_min)
    wanted = ((seen[found.plus] - minus) * found.scale).sum(axis=0)
    wanted = np.where(found.plus[0] >= 0, wanted, found.exact)
    w = sequence_weights(programmed).w
    np.testing.assert_allclose(w, wanted, atol=3e-6 * np.abs(wanted).max())
    assert np.abs(w - found.exact).max() > 1e-3 * np.abs(wanted).max()


@pytest.mark.parametrize("kind", ["split", "spectrum"])
def test_lines_without_resistance_change_no_bit_of_a_run(kind):
    none = {"r_wl_ohm": 0.0, "r_bl_ohm": 0.0}
    runs = []
    for each in (None, none):
        deployment, signal = deploy(chip(wires=each, noise_in_time=kind))
        runs.append(deployment.program(2, chips=2).wait(60.0).infer(signal).logits)
    assert (runs[0] == runs[1]).all()


def test_noise_of_a_run_is_scaled_as_single_reads_are():
    # white, slow and moving parts by the slope of each cell: the per-cell path is Chip.expected
    deployment, _ = deploy(
        chip(wires=OHMS, noise_in_time="spectrum", compensation="none")
    )
    programmed = deployment.program(4).wait(3600.0)
    reads = programmed.chip.expected()
    weights, found = sequence_weights(programmed), deployment.weights
    analog = found.plus[0] >= 0
    plus, minus = found.plus[0], found.minus[0]
    variance, strength = (
        (each[plus] + np.where(minus >= 0, each[minus], 0.0)) * found.scale[0] ** 2
        for each in (reads.variance, reads.moving)
    )
    np.testing.assert_allclose(weights.v[analog], variance[analog], rtol=1e-5, atol=1e-20)
    bare, _ = deploy(chip(noise_in_time="spectrum", compensation="none"))
    assert weights.v.sum() < 0.99 * sequence_weights(bare.program(4).wait(3600.0)).v.sum()
    found_strength = weights.moving.strength[: analog.size]
    np.testing.assert_allclose(found_strength[analog], np.sqrt(strength[analog]), rtol=1e-5)


def test_wires_are_a_non_ideality_of_their_own():
    spec = chip(wires=OHMS)
    assert "wires" in non_idealities(spec)
    bare = without(spec, ["wires"])
    assert "wires" not in non_idealities(bare)
    assert not error_free(spec).wires.resists
    assert "wires" not in non_idealities(chip())
    node = without(chip(wires={"node_nm": 22}), ["wires"])
    assert not node.wires.resists
    runs = []
    for each in (bare, chip()):  # without wires the other draws are as they were
        deployment, signal = deploy(each)
        runs.append(deployment.program(2).infer(signal).logits)
    assert (runs[0] == runs[1]).all()


def test_a_saved_chip_answers_through_its_wires_bit_for_bit(tmp_path):
    deployment, signal = deploy(chip(wires={**OHMS, "pairs": "separate"}))
    programmed = deployment.program(3).wait(100.0)
    programmed.save(tmp_path / "chip.npz")
    again = ssm.load_chip(tmp_path / "chip.npz")
    assert (programmed.infer(signal).logits == again.infer(signal).logits).all()


@pytest.mark.parametrize("compensation", ["global", "affine"])
def test_compensation_mends_part_of_what_wires_do(compensation):
    def error(wired, how) -> float:
        deployment, signal = deploy(chip("ideal", wires=wired, compensation=how))
        programmed: ProgrammedModel = deployment.program(3)
        w = sequence_weights(programmed).w
        return float(np.linalg.norm(w - deployment.weights.exact))

    lossy = {"r_wl_ohm": 40.0, "r_bl_ohm": 40.0}
    if compensation == "global":  # a gain since programming: wires are there from the start
        assert error(lossy, "global") == pytest.approx(error(lossy, "none"), rel=1e-6)
    else:
        assert error(lossy, "affine") < 0.7 * error(lossy, "none")
