"""Compensation in the recurrence: which column a weight lies in, and what each form gains."""

import numpy as np
import pytest
from small_models import IDEAL, PCM, random_input, random_model

import ssm
from aimc_sim import compensation
from aimc_sim.converters import no_periphery
from aimc_sim.kernels.moving import NO_TELEGRAPH
from aimc_sim.specs import ChipSpec
from ssm.kernels import sequence
from ssm.kernels.network import C_PRODUCT, PER_LAYER
from ssm.kernels.weights import no_cells, no_correction
from ssm.ranges import buffer_sizes, empty_record, ideal_converters
from ssm.wiring import wire as wiring_of

pytestmark = pytest.mark.compiled

HOUR = 3600.0
SMALL = {"tile.rows": 4, "tile.cols": 8}
GROUPED = {
    "tile.rows": 16, "tile.idle": "g_min", "tile.drive": "parallel",
    "short_tile.rows": 6, "short_tile.idle": "g_min", "short_tile.drive": "parallel",
}
LAYOUTS = [("leapfrog", {}), ("leapfrog", GROUPED), ("leapfrog", SMALL), ("delta", GROUPED),
           ("direct", {}), ("digital", SMALL)]


def deployed(form, changes, **options):
    model = random_model(seed=3, n_heads=5, n_modes=3, d_input=6, norm="pre")
    return ssm.deploy(
        model, IDEAL.replace(**changes), form, calibrate=random_input(1, 2, 8, 6), **options
    )


def recorded(d, network, w):
    """Return the largest magnitude at every row and every column in four steps of ideal logic."""
    cells, draws, source = no_cells(w.astype(np.float32))
    record = empty_record(network, True)
    sequence.run_batch(
        random_input(2, 1, 4, 6), 0, draws, cells, [NO_TELEGRAPH], np.zeros((1, 1), np.float32),
        [no_correction(w)], [no_periphery()], network, ideal_converters(network), record, source,
        *buffer_sizes(network), np.zeros((1, 1, d.model.n_classes), np.float32),
        np.zeros((1, 1, 0, 2, network.sign.size), np.float32),
        np.zeros((1, 1, network.analog.size), np.int64),
    )
    rows = [record.inputs, record.states, record.skips.ravel(), record.mixes.ravel()]
    return np.concatenate([*rows, record.decodes]), record.outputs


def products_of_a(d):
    numbers = np.arange(d.network.analog.size)
    kinds = (numbers - 1) % PER_LAYER
    return (kinds < C_PRODUCT) & (numbers > 0) & (numbers < numbers[-1])


@pytest.mark.parametrize(("form", "changes"), LAYOUTS)
def test_a_weight_alone_in_its_column_gives_weight_times_row(form, changes):
    d = deployed(form, changes)
    # where C is digital the recorded states are those that A reads
    readout = (np.arange(d.network.analog.size) - 1) % PER_LAYER == C_PRODUCT
    wiring = wiring_of(d.network, d.converters)
    rng = np.random.default_rng(6)
    w = rng.uniform(0.5, 1.0, d.weights.exact.size)
    of_a = products_of_a(d)
    checked = 0
    for product in np.flatnonzero(d.network.analog):
        # the leapfrog form reads q twice a step, and C reads other states than it does
        kind = (product - 1) % PER_LAYER
        twice = form == "leapfrog" and ((of_a[product] and kind in (0, 3)) or readout[product])
        analog = d.network.analog & ~readout if of_a[product] else d.network.analog
        network = d.network._replace(analog=analog)
        own = np.arange(*d.network.weight_first[product : product + 2])
        there = wiring.column[own] >= 0
        np.testing.assert_array_equal(there, wiring.row[own] >= 0)
        for k in rng.choice(own[there], 3):
            alone = w.copy()
            alone[wiring.column == wiring.column[k]] = 0.0
            alone[k] = w[k]
            rows, outputs = recorded(d, network, alone)
            expected = np.float32(w[k]) * rows[wiring.row[k]]
            if twice:
                assert 0 < outputs[wiring.column[k]] < 1.00001 * expected
            else:
                assert outputs[wiring.column[k]] == pytest.approx(expected, rel=1e-5)
            checked += expected > 0
    assert checked > 2 * d.network.analog.sum()


@pytest.mark.parametrize("form", ["leapfrog", "delta", "direct", "digital"])
@pytest.mark.parametrize("kind", ["column", "affine"])
def test_a_chip_without_errors_needs_no_correction(form, kind):
    d = deployed(form, {"compensation": kind})
    x = random_input(7, 3, 20, 6)
    plain = deployed(form, {}).program().infer(x).logits
    np.testing.assert_allclose(d.program().infer(x).logits, plain, rtol=1e-4, atol=1e-5)


def test_single_cells_of_a_are_mended_one_by_one():
    # a column of the leapfrog form is one cell: its gain takes the programming error with it
    quiet = {"device.read_noise": None, "dac.bits": "ideal", "adc.bits": "ideal"}
    model = random_model(seed=3)
    d = ssm.deploy(model, PCM.replace(compensation="column", **quiet))
    programmed = d.program(seed=4).wait(HOUR)
    gain = programmed._corrections()[0].gain
    a = products_of_a(d)[d.weights.product]
    w = programmed._static_weights(0, gain)
    np.testing.assert_allclose(w[a], d.weights.exact[a], rtol=1e-4)
    plain = programmed._static_weights(0, np.ones_like(gain))
    assert (np.abs(plain[a] / d.weights.exact[a] - 1) > 0.05).mean() > 0.5


def test_offsets_are_subtracted_after_the_converters(monkeypatch):
    # offsets of the decoder alone reach the logits unchanged
    model = random_model(seed=3, n_classes=3)
    convert = compensation._convert
    shift = np.array([0.5, -1.0, 0.25])

    def shifted(*arguments):
        reads = convert(*arguments)
        reads[:, -3:] += shift
        return reads

    d = ssm.deploy(model, IDEAL.replace(compensation="affine"))
    x = random_input(7, 2, 12)
    plain = d.program().infer(x).logits
    monkeypatch.setattr(compensation, "_convert", shifted)
    programmed = d.program()
    found = programmed.infer(x).logits
    np.testing.assert_allclose(found, plain - shift, rtol=1e-4, atol=1e-4)
    state = None
    for t in range(12):
        y, state = programmed.step(x[:, t], state)
    np.testing.assert_allclose(y, found, rtol=1e-4, atol=1e-4)


def test_corrections_do_not_depend_on_which_chips_run_together():
    model = random_model(seed=3)
    d = ssm.deploy(model, PCM.replace(compensation="affine", **{"adc.noise_lsb": 0.5}))
    x = random_input(7, 2, 12)
    both = d.program(seed=1, chips=2).wait(HOUR).infer(x).logits
    second = d.program(seed=1, first_chip=1).wait(HOUR).infer(x).logits
    np.testing.assert_array_equal(both[1], second)


@pytest.mark.parametrize(("kind", "reads"), [("none", 0), ("global", 20), ("column", 14 * 30)])
def test_a_run_counts_calibration_reads(kind, reads):
    # global: encoder, decoder, and of two layers e, d, C and mixing, twice each; column: 14
    # products with 30 patterns each
    spec = PCM.replace(compensation=kind, compensation_reads=30)
    programmed = ssm.deploy(random_model(seed=3), spec).program(chips=2)
    counts = programmed.infer(random_input(7, 5, 4)).counts
    assert counts["calibration_reads"] == 2 * reads
    assert counts["uncorrected_columns"] == 0


def test_row_parts_are_calibrated_each_for_itself():
    spec = IDEAL.replace(compensation="column", compensation_reads=30, **{"tile.rows": 4})
    model = random_model(seed=3, n_heads=4, n_modes=3)  # C has 7 rows, all others 4 or fewer
    counts = ssm.deploy(model, spec).program().infer(random_input(7, 1, 4)).counts
    assert counts["calibration_reads"] == 30 * 16


def test_columns_that_say_nothing_are_counted():
    wan = ChipSpec.preset("reram-wan2022")
    device = wan.device.replace(
        relaxation={"kind": "added", "std_offset_s": wan.device.g_max_s}, read_noise=None
    )
    spec = wan.replace(device=device, compensation="column")
    programmed = ssm.deploy(random_model(seed=3), spec, "direct").program(chips=3)
    with pytest.warns(UserWarning, match="some columns keep gain 1"):
        counts = programmed.wait(2.0).infer(random_input(7, 1, 4)).counts
    assert counts["uncorrected_columns"] > 0
