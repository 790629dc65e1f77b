"""What a fit says of itself, and the card it makes."""

from __future__ import annotations

import numpy as np
import pytest

from aimc_sim.cards import (
    DeviceSpec,
    DriftSpec,
    ProgrammingSpec,
    ReadNoiseSpec,
    RelaxationSpec,
    TelegraphSpec,
)
from aimc_sim.curves import Curve
from aimc_sim.errors import InputError
from aimc_sim.specs import ChipSpec, presets
from calibration.fit import (
    Checked,
    Fit,
    Panel,
    Parameter,
    Source,
    correlation_of,
    covariance_from_bootstrap,
    covariance_from_hessian,
    goodness,
)
from calibration.merging import in_microsiemens
from calibration.plotting import plot_fit, plot_residuals
from calibration.report import make_record, to_html


def flat(value: float) -> Curve:
    return Curve.model_validate({"of": "g_us", "unit_s": 1e-6, "polynomial": [value]})


def make_fit(**changes) -> Fit:
    x = np.linspace(1, 100, 300)
    z = np.random.default_rng(1).normal(size=300)
    fit = Fit(
        kind="programming",
        model="normal & even",
        parameters={"mean": Parameter(0.5, 0.1, "uS"), "sigma": Parameter(2.0, 0.05, "uS")},
        correlation=np.array([[1.0, -0.4], [-0.4, 1.0]]),
        n=300,
        dropped={"empty": 3},
        goodness=goodness(-100.0, 2, 300, 1.02),
        part={"programming": ProgrammingSpec(sigma=flat(2.0), mean=flat(0.5))},
        converged=True,
        alternatives={"lognormal": 210.0},
        heldout=(Checked("std", 2.0, 2.2, 0.1, "uS"),),
        residuals=(x, z),
        x_label="target (uS)",
        panels=(Panel("spread", "target (uS)", "sigma (uS)", x[::60], x[::60], x[::60] / 9, x, x),),
        g_range_s=(1e-6, 100e-6),
        source=Source("lab/data.csv", "ab" * 32, 303, "2026-01-02", "aimc-sim calibrate x"),
    )
    return fit.replace(**changes)


def test_report_says_values_errors_correlations_and_the_held_out_check():
    text = make_fit(notes=("points at a limit count as censored",)).report()
    assert "sigma:             2 +- 0.05 uS (2.50 %)" in text
    assert "C(mean, sigma) = -0.4000" in text
    assert "lognormal: aic 210 (+6)" in text
    assert "(+2.0 errors)" in text
    assert "3 (empty)" in text
    assert "note: points at a limit" in text
    assert "did not converge" not in text
    assert "did not converge" in make_fit(converged=False).report()


def test_a_new_card_holds_the_part_the_range_and_where_it_came_from():
    card = make_fit().device(name="mine")
    assert (card.name, card.g_min_s, card.g_max_s) == ("mine", 1e-6, 100e-6)
    assert card.g_range_s == (1e-6, 100e-6)
    assert card.programming == make_fit().part["programming"]
    (line,) = card.provenance
    for word in ("n = 300", "lab/data.csv", "ab" * 32, "2026-01-02", "1 to 100 uS"):
        assert word in line


def test_fits_of_several_kinds_merge_and_a_second_of_one_kind_replaces_the_first():
    first = make_fit().device(name="mine")
    spec = RelaxationSpec(kind="added", times_s=(1.0, 9.0), sigma=(flat(1.0), flat(2.0)))
    relaxed = make_fit(kind="relaxation", part={"relaxation": spec}, time_range_s=(1.0, 9.0))
    both = relaxed.device(first)
    assert both.programming == first.programming and both.relaxation == spec
    assert both.time_range_s == (0.0, 9.0)
    assert len(both.provenance) == 2
    again = relaxed.device(both)
    assert len(again.provenance) == 2 and again.name == "mine"


def test_a_cell_has_one_history():
    pcm = ChipSpec.preset("pcm-nandakumar2019").device
    spec = RelaxationSpec(kind="added", times_s=(1.0,), sigma=(flat(1.0),))
    card = make_fit(part={"relaxation": spec}).device(pcm)
    assert card.drift is None and card.relaxation == spec
    assert any("the drift of the card before is left out" in line for line in card.caveats)
    one = {"of": "g_us", "polynomial": [0.05]}
    drift = DriftSpec(t0_s=1.0, nu_mean=Curve.model_validate(one), nu_std=Curve.model_validate(one))
    rram = ChipSpec.preset("cmo-hfox").device
    assert make_fit(part={"drift": drift}).device(rram).relaxation is None


def test_where_a_part_came_from_is_told_as_long_as_the_card_has_it():
    spec = RelaxationSpec(kind="added", times_s=(1.0,), sigma=(flat(1.0),))
    relaxed = make_fit(kind="relaxation", part={"relaxation": spec}).device(make_fit().device())
    one = Curve.model_validate({"of": "g_us", "polynomial": [0.05]})
    drift = DriftSpec(t0_s=1.0, nu_mean=one, nu_std=one)
    card = make_fit(kind="drift", part={"drift": drift}).device(relaxed)
    assert card.relaxation is None
    assert [line.split(":")[0] for line in card.provenance] == ["programming", "drift"]


def test_reads_without_jumps_take_the_place_of_earlier_telegraph_noise():
    """The new reads hold all the noise there is: an earlier fit's jumps would come on top."""
    noise = ReadNoiseSpec(relative=False, sigma=flat(0.1), t_read_s=1e-3)
    jumps = TelegraphSpec(
        fraction=0.5, relative=False, amplitude=flat(1.0), tau_high_s=1.0, tau_low_s=1.0
    )
    first = make_fit(kind="read-noise", part={"read_noise": noise, "telegraph": jumps}).device()
    card = make_fit(kind="read-noise", part={"read_noise": noise}).device(first)
    assert card.telegraph is None and len(card.provenance) == 1
    assert any("the telegraph of the card before is left out" in line for line in card.caveats)
    assert make_fit().device(first).telegraph == jumps


def test_programming_takes_the_place_of_a_total_error():
    wan = ChipSpec.preset("reram-wan2022").device
    card = make_fit().device(wan)
    assert card.relaxation is None and card.programming is not None
    assert card.read_noise is not None


@pytest.mark.parametrize("name", presets())
def test_a_card_in_microsiemens_is_the_same_card(name):
    """Every curve, at 50 conductances, before and after r = g/g_max is written out."""
    device = ChipSpec.preset(name).device
    moved = in_microsiemens(device)
    g = np.linspace(device.g_min_s, device.g_max_s, 50)
    seen = 0
    for part in ("programming", "drift", "relaxation", "read_noise"):
        old, new = getattr(device, part), getattr(moved, part)
        if old is None:
            continue
        scale = device.g_max_s / (getattr(old, "g_reference_s", None) or device.g_max_s)
        for field in type(old).model_fields:
            pairs = zip(*(
                [value] if isinstance(value, Curve) else value
                for value in (getattr(old, field), getattr(new, field))
                if isinstance(value, (Curve, tuple))
            ), strict=True)
            for before, after in pairs:
                if isinstance(before, Curve):
                    seen += 1
                    # pieces of fitted cards, of nine digits, meet to 1e-8
                    assert after.evaluate(g, 7.0) == pytest.approx(
                        before.evaluate(g, device.g_max_s) * scale, rel=2e-8, abs=1e-15
                    )
    assert seen > 0 or name == "ideal"


def test_a_wider_range_leaves_the_base_as_it_was_and_holds_it_beyond():
    pcm = ChipSpec.preset("pcm-nandakumar2019").device
    wide = make_fit().device(pcm)
    assert (wide.g_min_s, wide.g_max_s) == (pcm.g_min_s, 100e-6)
    g = np.array([2e-6, 20e-6, pcm.g_max_s, 99e-6])
    old, new = (card.read_noise.sigma.evaluate(np.minimum(g, pcm.g_max_s), card.g_max_s)
                if card is pcm else card.read_noise.sigma.evaluate(g, card.g_max_s)
                for card in (pcm, wide))
    assert new == pytest.approx(old)
    assert any("keep their value there" in line for line in wide.caveats)


def test_a_fit_that_did_not_converge_makes_no_card():
    with pytest.raises(InputError, match="did not converge on 300 points"):
        make_fit(converged=False).device()
    with pytest.raises(InputError, match="holds no part of a device"):
        make_fit(part={}).device()


def test_the_covariance_of_a_quadratic_cost_is_its_inverse_hessian():
    h = np.array([[4.0, 1.0], [1.0, 9.0]])
    best = np.array([1.0, -2.0])

    def cost(x):
        return 0.5 * (x - best) @ h @ (x - best)

    found = covariance_from_hessian(cost, best, np.array([0.4, 0.1]))
    assert found == pytest.approx(np.linalg.inv(h), rel=1e-6)
    assert covariance_from_hessian(lambda x: x[0] ** 2, best, np.ones(2)) is None
    assert covariance_from_hessian(lambda x: x[0] ** 2 - x[1] ** 2, best, np.ones(2)) is None


def test_the_bootstrap_keeps_points_of_a_cell_together():
    """Equal points of a cell hold one cell's worth: the variance is that of the cells' mean."""
    rng = np.random.default_rng(2)
    means = rng.normal(size=200)
    cell = np.repeat(np.arange(200), 5)
    data = means[cell]
    found = covariance_from_bootstrap(
        lambda k: np.array([data[k].mean()]), cell, resamples=400, seed=3
    )[0, 0]
    # 400 resamples: a variance to sqrt(2/400) = 7 %, four of them
    assert found == pytest.approx(means.var() / 200, rel=0.28)


def test_correlation_of_a_covariance():
    assert correlation_of(np.array([[4.0, 3.0], [3.0, 9.0]])) == pytest.approx(
        np.array([[1.0, 0.5], [0.5, 1.0]])
    )
    assert correlation_of(np.diag([1.0, 0.0])) == pytest.approx(np.eye(2))


def test_pictures_have_points_errors_the_curve_and_labels_with_units():
    fit = make_fit()
    ax = plot_fit(fit)
    assert ax.get_xlabel() == "target (uS)" and ax.get_ylabel() == "sigma (uS)"
    assert ax.lines[0].get_xydata() == pytest.approx(
        np.column_stack([fit.panels[0].curve_x, fit.panels[0].curve_y])
    )
    assert len(ax.containers) == 1
    rest = plot_residuals(fit)
    assert "300 of 300 points" in rest.get_legend_handles_labels()[1]
    assert plot_residuals(fit.replace(residuals=None)).texts


def test_the_page_holds_its_pictures_and_escapes_what_it_is_told():
    fit = make_fit(notes=("<script>",))
    page = to_html(fit, card="name = 'x'")
    assert page.count("<svg") == 2
    assert "normal &amp; even" in page and "&lt;script&gt;" in page
    assert page.count("<script>") == 1  # the page's own
    assert "prefers-color-scheme:dark" in page and 'name="viewport"' in page
    assert not any(text in page for text in ("http://local", "<img", "src="))
    ids = [part.split('"')[0] for part in page.split(' id="')[1:]]
    assert len(ids) == len(set(ids))
    assert "var(--blue)" in page and "#0072b2" not in page.split("</style>")[1].lower()
    assert to_html(fit) == to_html(fit)


def test_the_record_holds_what_programs_need():
    record = make_record(make_fit(), command="aimc-sim calibrate ...")
    assert record["schema"] == "aimc-sim.calibrate/1"
    assert record["parameters"]["sigma"] == {"value": 2.0, "stderr": 0.05, "unit": "uS"}
    assert record["heldout"][0]["deviation"] == pytest.approx(2.0)
    assert record["goodness"]["aic"] == pytest.approx(204.0)
    assert record["source"]["sha256"] == "ab" * 32


def test_one_measured_conductance_still_gives_a_range():
    card = make_fit(g_range_s=(50e-6, 50e-6)).device()
    assert isinstance(card, DeviceSpec) and (card.g_min_s, card.g_max_s) == (0.0, 50e-6)
    assert any("one conductance was measured" in line for line in card.caveats)
