"""A model on tiles: exact where cells are exact, placed as the spec says, refused by name."""

import numpy as np
import pytest
import torch
from checkpoints import s4block_state, s4d_state, with_batch_norm
from small_models import (
    IDEAL,
    PCM,
    random_input,
    random_model,
    relative_error,
    relative_rms,
)

import ssm
from aimc_sim.errors import CapacityError, InputError, UsageError
from aimc_sim.specs import ChipSpec, TileSpec
from ssm.forms import state_form
from ssm.layouts import read_model

pytestmark = pytest.mark.compiled

FORMS = [
    ("leapfrog", "tile"),
    ("leapfrog", "digital"),
    ("delta", "tile"),
    ("direct", "tile"),
    ("digital", "tile"),
]
ALL_PARTS = ("encoder", "readout", "mixing", "decoder")
MODELS = {
    "post-norm": {},
    "pre-norm": {"norm": "pre"},
    "no norm": {"norm": "none", "n_layers": 1},
    "affine post-norm": {"norm_kind": "affine"},
    "affine pre-norm": {"norm": "pre", "norm_kind": "affine"},
    "last step": {"pool": "last"},
    "no gate": {"gate": "none", "n_classes": 11},
    "several inputs": {"d_input": 5, "norm": "pre"},
    "real poles": {"real_share": 0.5, "n_modes": 7},
    "one mode, one head": {"n_heads": 1, "n_modes": 1, "norm": "none"},
    "three layers": {"n_layers": 3, "disc": "bilinear", "pool": "last"},
}
BITS = {"dac.bits": 8, "adc.bits": 8}


@pytest.fixture(scope="module")
def digits(digits_model):
    task = ssm.load_task("digits")
    return ssm.load(digits_model), task.x_test[:120], task.y_test[:120]


def build(state, norm="post", disc="zoh", pool="mean"):
    tensors = {key: value.double().numpy() for key, value in state.items()}
    return read_model(tensors, norm=norm, disc=disc, pool=pool, gate=None, asked="load test")


def deployed_logits(model, x, spec=IDEAL, form="leapfrog", seed=0, **options):
    options = {"calibrate": x, **options}
    return ssm.deploy(model, spec, form, **options).program(seed).infer(x).logits


@pytest.mark.parametrize(("form", "decay"), FORMS)
@pytest.mark.parametrize("kind", MODELS)
def test_ideal_chip_answers_as_the_float_model_in_every_form(kind, form, decay):
    changes = MODELS[kind]
    model = random_model(seed=3, **changes)
    x = random_input(4, 3, 60, model.d_input)
    logits = deployed_logits(model, x, form=form, decay=decay)
    assert relative_error(logits, model.logits(x)) < 1e-5


def test_models_of_these_tests_have_poles_on_both_sides_of_the_imaginary_axis():
    poles = np.concatenate([layer.pole.ravel() for layer in random_model(seed=3).layers])
    assert (poles.real < 0).any()
    assert (poles.real > 0).any()
    assert (poles.imag < 0).any()


def test_a_pole_at_zero_is_a_mode_without_memory():
    model = random_model(seed=5, n_layers=1)
    pole = model.layers[0].pole.copy()
    pole[0, 0] = 0.0
    layer = model.layers[0].__class__(**{**vars(model.layers[0]), "pole": pole})
    model = model.replace(layers=(layer,))
    x = random_input(6, 2, 30)
    for form, decay in FORMS:
        logits = deployed_logits(model, x, form=form, decay=decay)
        assert relative_error(logits, model.logits(x)) < 1e-5


@pytest.mark.parametrize(("form", "decay"), FORMS)
@pytest.mark.parametrize(
    ("make", "facts"),
    [
        (s4d_state, {"norm": "pre", "disc": "bilinear", "pool": "last"}),
        (s4d_state, {"norm": "post", "disc": "zoh", "pool": "mean"}),
        (s4block_state, {"norm": "pre", "disc": "bilinear", "pool": "mean"}),
        (s4block_state, {"norm": "post", "disc": "zoh", "pool": "last"}),
    ],
)
def test_foreign_checkpoints_answer_alike_after_784_steps_of_three_inputs(make, facts, form, decay):
    model = build(make(seed=3), **facts)
    assert model.d_input == 3
    x = torch.randn(2, 784, 3, generator=torch.Generator().manual_seed(4)).numpy()
    logits = deployed_logits(model, x, form=form, decay=decay)
    assert relative_error(logits, model.logits(x.astype(float))) < 1e-5


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_a_folded_batch_norm_answers_alike(norm):
    model = build(with_batch_norm(s4d_state(seed=7)), norm)
    x = random_input(8, 2, 50, 3)
    assert relative_error(deployed_logits(model, x), model.logits(x)) < 1e-5


@pytest.mark.parametrize(("form", "decay"), FORMS)
def test_trained_mnist_model_answers_alike_on_the_ideal_chip(shared, form, decay):
    folder = shared / "models" / "mnist196"
    model = ssm.load(folder / "model.pt", norm="post", disc="zoh", pool="mean")
    with np.load(folder / "io.npz") as file:
        x, expected = file["x"][:4], file["logits_f64"][:4]
    logits = deployed_logits(model, x, form=form, decay=decay)
    assert relative_error(logits, expected) < 1e-5


@pytest.mark.parametrize(("form", "decay"), FORMS)
def test_8_bit_converters_on_ideal_cells_lose_little(digits, form, decay):
    model, x, y = digits
    expected = model.logits(x)
    logits = deployed_logits(model, x, IDEAL.replace(**BITS), form, decay=decay)
    assert 1e-3 < relative_rms(logits, expected) < 0.15
    right = (expected.argmax(axis=1) == y).mean()
    assert (logits.argmax(axis=1) == y).mean() > right - 0.02


def quantised(x, step, limit):
    return step * np.clip(np.rint(x / step), -limit, limit)


def test_converters_act_on_every_product_of_leapfrog_as_written():
    model = random_model(seed=31, n_heads=1, n_modes=5, n_layers=1, norm="none", longest=0.99)
    x = random_input(32, 1, 80)
    spec = IDEAL.replace(**{"dac.bits": 7, "adc.bits": 6})
    deployment = ssm.deploy(model, spec, digital=ALL_PARTS, calibrate=x)
    states = deployment.program(0).infer(x, return_states=True).states[0, 0]
    cells = state_form(model.layers[0], "leapfrog")
    e, d = cells.blocks[:, 0].T
    converters = deployment.converters
    adc_step = converters.adc_step[converters.adc_first[1] : converters.adc_first[5]]
    adc_step = adc_step.reshape(4, 5).astype(float)
    dac_step = converters.state_step.reshape(2, -1).astype(float)
    h = x[0] @ model.encoder_weight + model.encoder_bias

    def access(product, weight, state, which):
        return quantised(weight * quantised(state, dac_step[which], 63), adc_step[product], 31)

    p, q = np.zeros(5), np.zeros(5)
    for k in range(80):
        p = p - access(0, e, q, 1)
        q = q + access(1, e, p, 0)
        p, q = p - access(2, d, p, 0), q - access(3, d, q, 1)
        p, q = cells.sign * p + h[k], cells.sign * q
        # one rounding to the other side would be a whole step of 3 % of the range
        np.testing.assert_allclose(states[k], [p, q], rtol=0, atol=1e-4 * np.abs(states).max())


@pytest.mark.parametrize("form", ["leapfrog", "delta", "direct", "digital"])
def test_more_bits_come_nearer_to_the_float_model(form):
    model = random_model(seed=9, n_heads=8, n_modes=6, longest=0.99)
    x = random_input(10, 20, 80)
    expected = model.logits(x)
    errors = [
        relative_rms(
            deployed_logits(model, x, IDEAL.replace(**{"dac.bits": b, "adc.bits": b}), form),
            expected,
        )
        for b in (5, 8, 11, 14)
    ]
    # three bits are a factor of 8; rounding in a recurrence is not exactly proportional
    assert all(fine < coarse / 3 for coarse, fine in zip(errors, errors[1:], strict=False)), errors


def test_a_state_register_holds_multiples_of_its_step_within_its_bits():
    model = random_model(seed=9, precision={"state": 6})
    x = random_input(10, 4, 60)
    deployment = ssm.deploy(model, IDEAL, calibrate=x)
    states = deployment.program(0).infer(x, return_states=True).states
    codes = states[0] / deployment.converters.register_step.reshape(2, -1)
    assert deployment.converters.state_limit == 31
    np.testing.assert_allclose(codes, np.round(codes), rtol=0, atol=1e-4)
    assert 4 < np.abs(codes).max() <= 31
    fine = relative_error(
        deployed_logits(random_model(seed=9, precision={"state": 16}), x), model.logits(x)
    )
    coarse = relative_error(deployed_logits(model, x), model.logits(x))
    assert fine < coarse / 20
    assert fine < 1e-2


def test_states_on_request_are_those_of_the_float_model():
    model = random_model(seed=15, n_layers=1)
    x = random_input(16, 2, 40)
    layer = model.layers[0]
    states = ssm.deploy(model, IDEAL, "direct", calibrate=x).program(0)
    found = states.infer(x, return_states=True).states
    assert found.shape == (1, 2, 40, 2, layer.pole.size)
    _, last = model.logits(x, return_states=True)
    expected = (last[0] / layer.drive).reshape(2, -1)  # our input weight is 1
    np.testing.assert_allclose(
        found[0, :, -1, 0] + 1j * found[0, :, -1, 1],
        expected,
        rtol=0,
        atol=1e-5 * np.abs(expected).max(),
    )


@pytest.mark.parametrize("g_min_s", [0.0, 5e-6])
@pytest.mark.parametrize(("form", "decay"), FORMS)
def test_idle_cells_at_g_min_cancel_on_an_exact_device(form, decay, g_min_s):
    wide = {"idle": "g_min", "drive": "parallel"}
    spec = IDEAL.replace(
        tile=TileSpec(rows=32, cols=32, **wide),
        short_tile=TileSpec(rows=8, cols=64, **wide),
        **{"device.g_min_s": g_min_s},
    )
    model = random_model(seed=17, n_heads=5, n_modes=3)
    x = random_input(18, 3, 50)
    deployment = ssm.deploy(model, spec, form, decay=decay, calibrate=x)
    assert deployment.network.group_c == 4  # 32 rows for heads of 7
    assert deployment.network.group_a == (1 if form == "digital" else 4)
    logits = deployment.program(0).infer(x).logits
    assert relative_error(logits, model.logits(x)) < 1e-5


def test_idle_cells_of_a_noisy_device_disturb_the_modes_beside_them():
    # 64 modes share rows: 63 idle cells of 1.8 % of the scale each, beside one of about 6 %
    tile = {"rows": 128, "cols": 128, "idle": "g_min", "drive": "parallel"}
    quiet = ChipSpec.preset("reram-wan2022").replace(**{"dac.bits": "ideal", "adc.bits": "ideal"})
    model = random_model(seed=17, n_heads=8, n_modes=16, longest=0.99)
    x = random_input(18, 8, 50)
    expected = model.logits(x)
    errors = []
    for spec in (quiet, quiet.replace(short_tile=tile)):
        deployment = ssm.deploy(model, spec, digital=ALL_PARTS, calibrate=x)
        chips = deployment.program(0, chips=10).wait(86400.0)
        errors.append(relative_rms(chips.infer(x).logits, expected))
    assert errors[1] > 1.5 * errors[0]


@pytest.mark.parametrize("rows", [2, 4])
@pytest.mark.parametrize("drive", ["serial", "parallel"])
@pytest.mark.parametrize("form", ["leapfrog", "delta"])
def test_short_tiles_of_two_and_four_rows_answer_alike(form, drive, rows):
    spec = IDEAL.replace(short_tile=TileSpec(rows=rows, cols=16, idle="g_min", drive=drive))
    model = random_model(seed=19, n_heads=3, n_modes=3)
    x = random_input(20, 2, 40)
    deployment = ssm.deploy(model, spec, form, calibrate=x)
    assert deployment.network.group_a == (rows // 2 if drive == "parallel" else 1)
    logits = deployment.program(0).infer(x).logits
    assert relative_error(logits, model.logits(x)) < 1e-5


@pytest.mark.parametrize("idle", ["off", "g_min"])
@pytest.mark.parametrize("bits", ["ideal", 12])
def test_matrices_taller_than_a_tile_are_summed_in_parts(idle, bits):
    spec = IDEAL.replace(
        tile=TileSpec(rows=4, cols=16, idle=idle, drive="parallel"),
        **{"dac.bits": bits, "adc.bits": bits},
    )
    model = random_model(seed=21, n_heads=6, n_modes=5, d_input=9, longest=0.99)
    x = random_input(22, 3, 40, 9)
    deployment = ssm.deploy(model, spec, calibrate=x)
    parts = {a.request.name: a.n_parts for a in deployment.layout.arrays}
    assert parts["layer 0 C"] == 3  # 11 rows on tiles of 4
    assert parts["encoder"] == 3
    assert parts["decoder"] == 2
    logits = deployment.program(0).infer(x).logits
    assert relative_error(logits, model.logits(x)) < (1e-5 if bits == "ideal" else 2e-2)


def test_cells_tiles_and_utilisation_add_up():
    spec = IDEAL.replace(tile=TileSpec(rows=32, cols=16), short_tile=TileSpec(rows=2, cols=16))
    model = random_model(seed=23, n_heads=6, n_modes=5)
    deployment = ssm.deploy(model, spec, calibrate=random_input(24, 2, 10))
    layout = deployment.layout
    pairs = 6 + 2 * (6 * 11 + 6 * 12) + 6 * 3  # encoder, C and mixing of two layers, decoder
    cells = 2 * pairs + 2 * (30 * 4)  # A: e and d of both states, single cells
    assert layout.n_used() == layout.n_cells == cells == deployment.target_s.size
    n_short = layout.tile_kinds.count("short_tile")
    assert n_short == 2 * -(-30 * 2 // 16)
    available = n_short * 32 + (layout.n_tiles - n_short) * 512
    assert layout.utilisation(spec) == pytest.approx(cells / available)
    on_tiles = {rectangle.tile for rectangle in layout.rectangles}
    assert on_tiles == set(range(layout.n_tiles))
    text = str(deployment)
    for part in (
        f"{layout.n_tiles} tiles",
        f"{cells} cells",
        "form leapfrog",
        f"{100 * cells / available:.1f} %",
        "layer 1 mixing",
        "30 x (2 x 2)",
    ):
        assert part in text, text


def test_no_two_weights_share_a_cell():
    spec = IDEAL.replace(tile=TileSpec(rows=8, cols=16), short_tile=TileSpec(rows=6, cols=10))
    layout = ssm.deploy(random_model(seed=23), spec, calibrate=random_input(24, 1, 5)).layout
    places = np.concatenate(
        [np.stack([a.tile.ravel(), a.element.ravel()], axis=1) for a in layout.arrays]
    )
    assert len(np.unique(places, axis=0)) == len(places)


def test_products_of_a_per_mode_are_two_or_four_as_the_form_says():
    model, x = random_model(seed=0), random_input(0, 1, 7)
    for (form, decay), products in zip(FORMS, (4, 2, 2, 2, 0), strict=True):
        deployment = ssm.deploy(model, IDEAL, form, decay=decay, calibrate=x)
        assert deployment.products_per_mode == products
        counts = deployment.program(0).infer(x).counts
        assert counts["steps"] == 7
        assert counts["state_products"] == 7 * 24 * products


def test_one_tile_too_few_is_refused():
    model, x = random_model(seed=0), random_input(0, 1, 5)
    need = ssm.deploy(model, IDEAL, calibrate=x).layout.n_tiles
    ssm.deploy(model, IDEAL.replace(max_tiles=need), calibrate=x)
    with pytest.raises(
        CapacityError, match=rf"It needs {need} tiles, the chip has {need - 1}\. Use a smaller"
    ):
        ssm.deploy(model, IDEAL.replace(max_tiles=need - 1), calibrate=x)


def test_a_block_of_a_that_a_tile_cannot_hold_is_refused_with_the_size_it_needs():
    spec = IDEAL.replace(short_tile=TileSpec(rows=1, cols=64))
    with pytest.raises(
        CapacityError, match="Map 'layer 0 A'.*2 x 2 cells must stay whole.*at least 2 rows"
    ):
        ssm.deploy(random_model(seed=0), spec, calibrate=random_input(0, 1, 5))


@pytest.mark.parametrize("digital", [("encoder", "decoder"), ALL_PARTS, ("mixing",), ("readout",)])
def test_parts_in_digital_logic_take_no_cells_and_no_errors(digital):
    model, x = random_model(seed=25), random_input(26, 2, 30)
    deployment = ssm.deploy(model, IDEAL, digital=digital, calibrate=x)
    names = " ".join(name for name, _, _ in deployment.placements())
    words = {"encoder": "encoder", "decoder": "decoder", "mixing": "mixing", "readout": " C"}
    for part, word in words.items():
        assert (word in names) == (part not in digital)
    assert relative_error(deployment.program(0).infer(x).logits, model.logits(x)) < 1e-5
    assert f"in digital logic: {', '.join(digital)}" in str(deployment)


def test_everything_in_digital_logic_is_free_of_the_devices_errors():
    model, x = random_model(seed=25), random_input(26, 2, 30)
    # one matrix stays: a chip without a single cell is no chip
    digital = ("encoder", "readout", "mixing")
    wide = PCM.replace(state_bits="ideal")
    exact = ssm.deploy(model, wide, "digital", digital=digital, calibrate=x)
    run = exact.program(3).infer(x, return_states=True)
    ideal = ssm.deploy(model, IDEAL, "digital", calibrate=x).program(0)
    expected = ideal.infer(x, return_states=True)
    np.testing.assert_allclose(
        run.states, expected.states, rtol=0, atol=1e-5 * np.abs(expected.states).max()
    )
    assert relative_error(run.logits, expected.logits) > 1e-4


def test_without_calibration_data_a_probe_sets_the_ranges_and_says_so():
    deployment = ssm.deploy(random_model(seed=0), IDEAL)
    assert "converter ranges from a fixed probe signal" in str(deployment)
    given = ssm.deploy(random_model(seed=0), IDEAL, calibrate=random_input(0, 5, 9))
    assert "converter ranges from 5 given sequences" in str(given)


def test_a_model_that_names_its_task_is_calibrated_on_its_training_data():
    deployment = ssm.deploy(random_model(seed=0, task="digits"), IDEAL)
    assert "64 training sequences of task 'digits'" in deployment.calibration


def test_ranges_do_not_depend_on_the_order_of_the_calibration_data():
    model, x = random_model(seed=27), random_input(28, 6, 30)
    spec = IDEAL.replace(**BITS)
    one = ssm.deploy(model, spec, calibrate=x).converters
    other = ssm.deploy(model, spec, calibrate=x[::-1]).converters
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a, b)


def test_unknown_words_are_answered_with_the_nearest_known():
    model, x = random_model(seed=0), random_input(0, 1, 5)
    with pytest.raises(UsageError, match="Use form 'leapfrg'.*Did you mean 'leapfrog'"):
        ssm.deploy(model, IDEAL, "leapfrg", calibrate=x)
    with pytest.raises(UsageError, match="Keep 'readot' digital.*Did you mean 'readout'"):
        ssm.deploy(model, IDEAL, digital=["readot"], calibrate=x)
    with pytest.raises(UsageError, match="Use decay 'analog'. It is unknown. Choose tile or"):
        ssm.deploy(model, IDEAL, decay="analog", calibrate=x)


@pytest.mark.parametrize("shape", [(3, 10, 2), (3, 10), (0, 10, 1), (3, 0, 1)])
def test_calibration_data_of_another_shape_are_refused(shape):
    with pytest.raises(
        InputError,
        match=r"Calibrate with data of shape.*reads 1 feature.*"
        r"Give an array \(n, time, 1\)",
    ):
        ssm.deploy(random_model(seed=0), IDEAL, calibrate=np.zeros(shape))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_calibration_data_that_are_not_finite_are_refused(value):
    x = random_input(0, 2, 5)
    x[1, 3] = value
    with pytest.raises(InputError, match="NaN, infinite"):
        ssm.deploy(random_model(seed=0), IDEAL, calibrate=x)


def test_calibration_data_that_are_no_numbers_are_refused():
    x = np.full((2, 5, 1), "a", dtype=object)
    with pytest.raises(InputError, match="Calibrate"):
        ssm.deploy(random_model(seed=0), IDEAL, calibrate=x)


def test_a_pole_outside_the_unit_circle_cannot_be_put_in_leapfrog_form():
    model = random_model(seed=5, n_layers=1)
    layer = model.layers[0].__class__(
        **{**vars(model.layers[0]), "pole": model.layers[0].pole * 1.5}
    )
    with pytest.raises((InputError, UsageError), match="unit circle"):
        ssm.deploy(model.replace(layers=(layer,)), IDEAL, calibrate=random_input(0, 1, 5))
