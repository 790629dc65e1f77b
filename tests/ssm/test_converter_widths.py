"""Models whose states have another width than their activations, behind one kind of DAC."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from small_models import IDEAL, random_input, random_model

import ssm
from aimc_sim.compensation import patterns
from aimc_sim.converters import draw_periphery
from aimc_sim.kernels.converters import distort
from ssm.ablation import without
from ssm.kernels.network import A_PRODUCT, C_PRODUCT, MIX_PRODUCT
from ssm.wiring import wire

ACT, STATE = 6, 4
X = random_input(2, 4, 30, 3)


def narrow_model(act=ACT, state=STATE):
    """Return a model with learned steps of `state` bits that cover its states."""
    model = random_model(seed=3, n_heads=5, n_modes=3, d_input=3, longest=0.98)
    layers = tuple(
        dataclasses.replace(layer, state_step=np.full((*layer.pole.shape, 2), 2.0 ** (3 - state)))
        for layer in model.layers
    )
    return model.replace(layers=layers, precision={"act": act, "state": state})


def deployed(form="delta", act=ACT, state=STATE, **changes):
    spec = IDEAL.replace(**{"dac.bits": 8, "adc.bits": 8, **changes})
    return ssm.deploy(narrow_model(act, state), spec, form, calibrate=X)


@pytest.mark.compiled
@pytest.mark.parametrize(("act", "state"), [(6, 4), (4, 6)])
def test_calibration_patterns_are_codes_of_the_rows_own_width(act, state):
    d = deployed(act=act, state=state)
    wiring = wire(d.network, d.converters)
    driven = patterns(wiring, 0, 200) / wiring.dac_step
    codes = np.rint(driven)
    np.testing.assert_allclose(driven, codes, atol=1e-5)
    largest = np.abs(codes).max(axis=0)
    n_in, n_states = d.network.n_in, d.converters.state_step.size
    states = np.zeros(codes.shape[1], bool)
    states[n_in : n_in + n_states] = True
    for own, bits in ((states, state), (~states, act)):
        limit = 2 ** (bits - 1) - 1
        assert largest[own].max() == limit
        # of 200 uniform codes the chance to lie within 9/10 of the range is 1e-9
        assert (largest[own] > 0.9 * limit - 1).all()


@pytest.mark.compiled
@pytest.mark.parametrize(("act", "state"), [(8, 3), (4, 6)])
def test_calibration_finds_the_gains_of_columns_that_sum_states_of_another_width(act, state):
    d = deployed(act=act, state=state, compensation="column",
                 **{"adc.bits": 12, "adc.gain_sigma": 0.05, "adc.headroom": 1.5})
    programmed = d.program(1)
    column = wire(d.network, d.converters).column
    there = column >= 0
    found = programmed.corrections.each[0].gain[there]
    assert not programmed.corrections.left_alone.any()
    # cells are exact: what is left is the rounding of 12 bits in 100 reads
    np.testing.assert_allclose(found, programmed.peripheries[0].adc_gain[column[there]], rtol=3e-3)


@pytest.mark.compiled
@pytest.mark.parametrize("dac", [8, "ideal"])
def test_a_fixed_adc_range_is_in_currents_of_every_rows_own_full_scale(dac):
    wide, fixed = 3.0, {}
    for state in (4, 6):
        d = deployed(state=state, **{"dac.bits": dac, "adc.range": wide})
        fixed[state] = d.converters
    first = fixed[4].adc_first
    c = slice(first[1 + C_PRODUCT], first[2 + C_PRODUCT])
    # the same ranges of states in 7 and in 31 codes: full scale is 7/8 and 31/32 of them
    ranges = [each.adc_step[c] * each.adc_limit for each in fixed.values()]
    np.testing.assert_allclose(ranges[0], ranges[1], rtol=0.15)
    # and as many currents as were asked for: no column of C needs more than its cells full on
    largest = deployed(**{"dac.bits": dac}).converters
    rows = 2 * 3 + 1
    assert (ranges[0] * rows / wide > 0.9 * largest.adc_step[c] * largest.adc_limit).all()


@pytest.mark.compiled
@pytest.mark.parametrize("bits", [4, 6, 8])
def test_errors_of_a_dac_are_the_same_voltages_however_few_of_its_codes_are_used(bits):
    spec = IDEAL.replace(
        **{"dac.bits": 8, "dac.offset_lsb": 2.0, "dac.noise_lsb": 1.0,
           "dac.inl_lsb": (0.0, 3.0, 0.0, -3.0, 0.0)}
    )
    limit, n, none = np.float32(2 ** (bits - 1) - 1), 5, np.zeros(0, np.int64)
    words = (np.uint64(1), np.uint64(2))
    periphery = draw_periphery(spec, words, 0, n, none, none, none, limit, np.float32(127))
    full_scale = np.float32(3.0)
    step = np.full(n, full_scale / limit, np.float32)
    x = step * limit * np.array([-1.0, -1.0, 0.0, 1.0, 1.0], np.float32)
    z = np.linspace(-1, 1, n).astype(np.float32)
    zero = np.uint64(0)
    driven = x.copy()
    distort(np.uint64(n), step, zero, zero, limit, periphery, z, driven)
    # INL is zero at both ends and in the middle: offset and noise are left, in 127ths of the range
    wanted = x + full_scale / 127 * (periphery.dac_offset + z)
    np.testing.assert_allclose(driven, wanted, rtol=1e-5, atol=1e-6)
    if bits == 8:
        quarter = step * 64
        driven = quarter.copy()
        distort(np.uint64(n), step, zero, zero, limit, periphery, z, driven)
        assert (np.abs(driven - quarter) > 0.2 * full_scale / 127).any()


@pytest.mark.compiled
@pytest.mark.parametrize("form", ["digital", "delta"])
def test_a_finer_dac_with_the_same_errors_changes_nothing_for_codes_of_the_model(form):
    errors = {"dac.gain_sigma": 0.02, "dac.offset_lsb": 1.0, "dac.noise_lsb": 1.0,
              "dac.inl_lsb": (0.0, 2.0, 0.0, -2.0, 0.0)}
    d = deployed(form, **errors)
    finer = ssm.deploy(d.model, without(d.spec, ["DAC"]), form, calibrate=X)
    assert finer.spec.dac.bits == 16
    assert finer.converters.dac_limit == d.converters.dac_limit == 31
    found, expected = (each.program(1).infer(X).logits for each in (finer, d))
    clean = deployed(form).program(1).infer(X).logits
    size = np.abs(expected - clean).mean()
    assert np.abs(found - expected).mean() < 0.05 * size  # float32 may turn a rounding


@pytest.mark.compiled
def test_bits_go_one_by_one_only_as_far_as_an_input_has_any():
    amplitude = deployed(act=3, state=6, **{"adc.bits": "ideal"})
    serial = deployed(act=3, state=6, **{"adc.bits": "ideal", "dac.mode": "bit_serial"})
    planes = serial.converters.planes
    assert planes[0] == planes[-1] == planes[1 + MIX_PRODUCT] == 2  # codes -3 .. 3
    assert planes[1 + A_PRODUCT] == planes[1 + C_PRODUCT] == 5
    assert (amplitude.converters.planes == 1).all()
    found, expected = (each.program(1).infer(X) for each in (serial, amplitude))
    scale = np.abs(expected.logits).max()
    np.testing.assert_allclose(found.logits, expected.logits, atol=0.05 * scale)
    assert np.median(np.abs(found.logits - expected.logits)) < 2e-3 * scale
    outputs = np.diff(serial.converters.adc_first) * planes * serial.network.analog
    each_run = outputs[:-1].sum() * X.shape[1] + outputs[-1]
    assert found.counts["adc_conversions"] == len(X) * each_run
    assert sum(total for _, total in found.saturation.values()) == len(X) * each_run


@pytest.mark.compiled
def test_what_dacs_cover_leaves_the_registers_as_wide_as_the_states():
    spec = IDEAL.replace(**{"dac.bits": 8, "adc.bits": 8})
    model = random_model(seed=3, n_heads=5, n_modes=3, d_input=3, longest=0.98)
    largest, most = (
        ssm.deploy(model, spec.replace(**changes), calibrate=X).converters
        for changes in ({}, {"dac.range": "percentile", "dac.percentile": 50.0})
    )
    assert (most.state_step < largest.state_step).mean() > 0.5
    np.testing.assert_array_equal(most.register_step, largest.register_step)


@pytest.mark.compiled
def test_ranges_of_single_bits_are_those_of_the_parts_on_tiles():
    """What logic computes is not rounded to the bits of a DAC while ranges are looked for."""
    spec = IDEAL.replace(**{"dac.bits": 3, "adc.bits": 8, "dac.mode": "bit_serial"})
    model = random_model(seed=3, n_heads=5, n_modes=3, d_input=3, longest=0.98)
    digital = ("encoder", "readout", "mixing")
    serial = ssm.deploy(model, spec, "digital", calibrate=X, digital=digital)
    last = slice(*serial.converters.adc_first[-2:])
    # the decoder's input by exact logic, in codes -3 .. 3 of the largest, bit by bit
    bare = IDEAL.replace(state_bits=16)
    exact = ssm.deploy(model, bare, "digital", calibrate=X, digital=digital)
    traced = exact.program().infer(X, return_layers=True).layers[0]
    pooled = traced[:, :, -1].mean(axis=1)
    full = np.abs(pooled).max()
    codes = np.rint(3 * pooled / full).astype(int)
    bits = np.stack([np.sign(codes) * (np.abs(codes) >> plane & 1) for plane in range(2)])
    wanted = np.abs(bits @ model.decoder_weight).max(axis=(0, 1)) * full / 3
    found = serial.converters.adc_step[last] * serial.converters.adc_limit
    np.testing.assert_allclose(found, wanted, rtol=2e-3)
