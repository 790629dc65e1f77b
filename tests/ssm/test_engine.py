"""The kernels of the GPU do what those of the CPU do, draw by draw.

Where there is no GPU, triton's interpreter runs the very same kernels with numpy.
"""

from __future__ import annotations

import os
import sys
import warnings
from importlib.util import find_spec

import numpy as np
import pytest
from small_models import random_input, random_model, relative_error

import ssm
from aimc_sim.errors import UsageError
from aimc_sim.kernels._jit import kernel
from aimc_sim.kernels.converters import quantise
from aimc_sim.kernels.philox import fill_normals, philox
from aimc_sim.specs import ChipSpec
from ssm.engine import choose_engine, missing_gpu, not_covered
from ssm.kernels import sequence

HERE = missing_gpu() is None
DEVICE = "cuda" if HERE else "cpu"
PCM = ChipSpec.preset("pcm-hermes2023-2dev")
RERAM = ChipSpec.preset("reram-wan2022")
CMO = ChipSpec.preset("cmo-hfox")
KEY, ADDRESS = (0x12345678, 0x9ABCDEF0), (7, 0xFFFFFF01, 0x80000003)


@pytest.fixture(scope="module")
def gpu():
    """The module that runs batches, on a GPU or in the interpreter."""
    if find_spec("triton") is None:
        pytest.skip("triton is not installed")
    if not HERE and "triton" in sys.modules:
        pytest.skip("triton was imported for a GPU before, and there is none")
    with pytest.MonkeyPatch.context() as patch:
        if not HERE:
            patch.setitem(os.environ, "TRITON_INTERPRET", "1")
        import engine_kernels
        import torch

        from ssm.gpu import run

        counted = torch.zeros(1, dtype=torch.int32, device=DEVICE)
        try:
            engine_kernels.count_up[(1,)](counted, 3)
        except Exception as error:
            if HERE:
                raise
            pytest.skip(f"triton's interpreter cannot loop with this numpy: {error}")
        assert int(counted) == 3
        yield run


def deployed(spec, form="leapfrog", decay="tile", **model):
    model = random_model(model.pop("seed", 0), **{"n_heads": 4, "n_modes": 16, "n_layers": 1,
                                                 **model})
    signal = random_input(8, 2, 20, model.d_input)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # modes near their noise limit
        return ssm.deploy(model, spec, form, decay=decay, calibrate=signal)


def on_gpu(gpu, programmed, x, first=0):
    """Return logits (chips, n, n_classes) and the number of clipped conversions."""
    d = programmed.deployment
    logits = np.zeros((programmed.chips, len(x), d.model.n_classes), np.float32)
    clipped = np.zeros((programmed.chips, len(x), d.network.analog.size), np.int64)
    gpu.run_batch(
        x, first, programmed.chip.draws, programmed._cells(), programmed.chip.aged(),
        programmed._corrections(), programmed.peripheries, d.network, d.converters,
        programmed._source(), logits, clipped, DEVICE,
    )
    return logits, int(clipped.sum())


def on_cpu(programmed, x, first=0):
    run = programmed.infer(x, first_sample=first)
    return run.logits.reshape(programmed.chips, len(x), -1), sum(
        clipped for clipped, _ in run.saturation.values()
    )


CASES = {
    "four products of leapfrog, noise of both kinds": (PCM, {}),
    "two products of leapfrog": (RERAM, {"decay": "digital", "norm": "pre"}),
    "A in logic": (CMO, {"form": "digital", "gate": "none", "pool": "last", "n_modes": 64,
                            "n_heads": 2}),
    "direct, two features": (PCM, {"form": "direct", "d_input": 2, "n_modes": 32, "n_heads": 3}),
    "delta, heads that fill no groups, affine norm": (
        RERAM, {"form": "delta", "n_modes": 3, "norm_kind": "affine"},
    ),
    "converters with noise, offsets of columns": (
        RERAM.replace(compensation="affine", **{"adc.noise_lsb": 0.5}), {"n_modes": 2},
    ),
    "converters that are not linear, leapfrog": (
        CMO.replace(**{
            "dac.gain_sigma": 0.02, "dac.offset_lsb": 0.4, "dac.inl_lsb": [0.0, 0.6, -0.5, 0.0],
            "adc.gain_sigma": 0.02, "adc.offset_lsb": 0.4, "adc.inl_lsb": [0.0, 0.7, -0.6, 0.0],
        }), {"n_layers": 2},
    ),
    "successive approximation, direct": (
        RERAM.replace(**{"adc.unit_mismatch": 0.1, "dac.gain_sigma": 0.05, "adc.bits": 6}),
        {"form": "direct", "n_modes": 3},
    ),
    "parallel cells": (RERAM.replace(cells_per_weight=3, parallel="fill"), {"form": "digital"}),
    "faults and lines that resist": (
        CMO.replace(
            faults={"stuck_low": 0.1, "dead_rows": 0.1},
            wires={"r_wl_ohm": 5.0, "r_bl_ohm": 8.0}, **{"tile.rows": 64, "tile.cols": 64},
        ),
        {"n_modes": 2, "n_heads": 3, "decay": "digital"},
    ),
    "several row parts of the mixing matrix": (
        RERAM.replace(**{"tile.rows": 5}), {"form": "digital", "n_modes": 2, "n_heads": 7},
    ),
}


@pytest.mark.compiled
@pytest.mark.parametrize("name", CASES)
def test_logits_and_clipped_conversions_are_those_of_the_cpu(gpu, name):
    spec, changes = CASES[name]
    d = deployed(spec, **changes)
    assert not_covered(d) is None
    programmed = d.program(3, 1, first_chip=2).wait(3600.0)
    x = random_input(1, 1, 3, d.model.d_input)
    expected, outside = on_cpu(programmed, x, 5)
    found, outside_too = on_gpu(gpu, programmed, x, 5)
    # none of these few hundred conversions lies on a rounding edge
    assert relative_error(found, expected) < 1e-6
    assert outside == outside_too


@pytest.mark.compiled
def test_a_chip_without_errors_agrees_with_the_model_to_1e_6(gpu):
    d = deployed(ChipSpec.preset("ideal"), "delta", n_modes=5, n_layers=2)
    x = random_input(2, 2, 6)
    found, _ = on_gpu(gpu, d.program(), x)
    assert relative_error(found[0], d.model.logits(x)) < 1e-6


@pytest.mark.compiled
def test_a_sequence_is_the_same_in_any_batch_and_on_any_chip(gpu):
    d = deployed(CMO, "digital", n_modes=2, n_heads=2)
    x = random_input(3, 2, 2)
    together, _ = on_gpu(gpu, d.program(4, 2).wait(60.0), x)
    alone, _ = on_gpu(gpu, d.program(4, 1, first_chip=1).wait(60.0), x[1:], 1)
    np.testing.assert_array_equal(together[1, 1], alone[0, 0])
    assert (together[0, 1] != alone[0, 0]).any()


@pytest.mark.compiled
@pytest.mark.parametrize("spec", [PCM, CMO], ids=["pcm", "cmo"])
def test_weights_of_a_sequence_are_the_cpus_to_float32_rounding(gpu, spec):
    d = deployed(spec, n_modes=8)
    p = d.program(1).wait(86_400.0)
    cells, source = p._cells(), p._source()
    expected = sequence.sequence_weights(
        0, 9, p.chip.draws, cells, p._telegraphs()[0], p.chip.aged()[0], p._corrections()[0],
        p.peripheries[0], d.network, d.converters, source,
    )
    engine = gpu._Engine(
        p.chip.draws, cells, p.chip.aged(), p._corrections(), p.peripheries, d.network,
        d.converters, source, DEVICE,
    )
    assert engine.lasting  # slow noise is a draw of the sequence
    w, v = engine._read(engine.table(np.zeros(1, np.int64), np.array([9])))
    for found, wanted in ((w, expected.w), (v, expected.v)):
        np.testing.assert_allclose(
            found[0].cpu().numpy(), wanted, rtol=1e-5, atol=1e-6 * np.abs(wanted).max()
        )


@kernel()
def _words(counter, out):
    c1, c2, c3 = np.uint64(7), np.uint64(0xFFFFFF01), np.uint64(0x80000003)
    for k in range(counter.size):
        words = philox(
            np.uint64(counter[k]), c1, c2, c3, np.uint64(0x12345678), np.uint64(0x9ABCDEF0)
        )
        out[0, k], out[1, k], out[2, k], out[3, k] = words


def _address(torch, values):
    return torch.from_numpy(np.array(values, np.uint32).view(np.int32)).to(DEVICE)


def test_random_words_and_normals_are_the_cpus(gpu):
    import engine_kernels
    import torch

    n = 256
    counter = np.arange(n) * 977
    expected = np.empty((4, n), np.uint64)
    _words(counter, expected)
    z = np.empty(n, np.float32)
    fill_normals(z, 0, n, *(np.uint64(word) for word in (*KEY, *ADDRESS)))
    words = torch.empty((4, n), dtype=torch.int32, device=DEVICE)
    normals, four = (torch.empty(n, device=DEVICE) for _ in range(2))
    at = _address(torch, [*ADDRESS, *KEY])
    engine_kernels.draw_all[(1,)](at, words, normals, four, N=n)
    np.testing.assert_array_equal(words.cpu().numpy().view(np.uint32), expected)
    # the same steps; an interpreter without fused multiply-add rounds once more
    for found in (normals, four):
        np.testing.assert_allclose(found.cpu().numpy(), z, rtol=0, atol=0 if HERE else 2e-6)


@kernel()
def _round(x, out):
    for k in range(x.size):
        out[k] = quantise(x[k], np.float32(0.5), np.float32(2.0), np.float32(127.0))


def test_a_state_that_diverged_stays_visible(gpu):
    import engine_kernels
    import torch

    x = np.array([np.nan, np.inf, -np.inf, 1.3, -0.25, 0.75, 63.6, -70.0], np.float32)
    expected = np.empty_like(x)
    _round(x, expected)
    found = torch.empty(8, device=DEVICE)
    engine_kernels.round_all[(1,)](torch.from_numpy(x).to(DEVICE), found, N=8)
    np.testing.assert_array_equal(found.cpu().numpy(), expected)
    assert np.isnan(expected[0])


REASONS = {
    "idle cells": (PCM.replace(**{"tile.idle": "g_min", "tile.drive": "parallel"}), {}),
    "longer than a tile": (RERAM.replace(**{"tile.rows": 16}), {}),
    "bit by bit": (RERAM.replace(**{"dac.mode": "bit_serial"}), {}),
    "moves with the steps": (PCM.replace(noise_in_time="spectrum"), {}),
    "telegraph": (
        RERAM.replace(**{"device.telegraph": {
            "fraction": 0.1, "tau_high_s": 1e-3, "tau_low_s": 1e-3,
            "amplitude": {"of": "r", "polynomial": [0.01]},
        }}), {},
    ),
    "drives are noisy": (RERAM.replace(**{"dac.noise_lsb": 0.3}), {}),
}


@pytest.mark.compiled
@pytest.mark.parametrize("reason", REASONS)
def test_what_the_gpu_does_not_do_is_named(reason):
    spec, changes = REASONS[reason]
    assert reason in str(not_covered(deployed(spec, **changes)))


@pytest.mark.compiled
def test_states_of_every_step_are_left_to_the_cpu():
    assert "every step" in str(not_covered(deployed(RERAM), traced=True))


@pytest.mark.compiled
@pytest.mark.skipif(HERE, reason="there is a GPU")
def test_without_a_gpu_the_cpu_runs_and_one_line_says_so():
    programmed = deployed(RERAM).program(1)
    x = random_input(1, 2, 5)
    with pytest.warns(UserWarning, match="the CPU runs this instead of a GPU: ") as seen:
        run = programmed.infer(x, engine="cuda")
    assert len(seen) == 1
    assert "\n" not in str(seen[0].message)
    assert run.engine == "cpu"
    np.testing.assert_array_equal(run.logits, programmed.infer(x).logits)


@pytest.mark.compiled
@pytest.mark.skipif(HERE, reason="there is a GPU")
def test_auto_says_nothing_where_nobody_meant_a_gpu():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert choose_engine("auto", deployed(RERAM)) == "cpu"


@pytest.mark.compiled
def test_an_unknown_engine_is_refused():
    with pytest.raises(UsageError, match="Choose one of cpu, cuda, auto"):
        deployed(RERAM).program().infer(random_input(1, 1, 2), engine="gpu")
