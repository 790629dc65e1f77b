"""The model of scale counts what deployments have, and finds rates that it was not told."""

from __future__ import annotations

from dataclasses import asdict, replace

import numpy as np
import pytest

from benchmarks import scale_h100
from benchmarks.scale_check import CAMPAIGNS, plan
from benchmarks.scale_h100 import h100_rates
from benchmarks.scale_memory import deploy, measure, of_matrix, signal
from benchmarks.scale_model import Rates, Sizes, Work, fit_rates, matrix_b
from benchmarks.scale_page import text, write_page
from benchmarks.scale_points import FITTED, PREDICTED, Point

RATES = Rates(1e-3, 2e-8, 1e-8, 1e-6, 2e-9, 1e-9, 4e-9, 1e-10, 2e-10, 5e-8, 2.0**23)


@pytest.mark.compiled
@pytest.mark.parametrize(
    "work",
    [
        Work(6, 8), Work(6, 8, layers=3, noisy=False, lasting=True), Work(6, 8, form="digital"),
        Work(6, 8, form="direct"), Work(300, 4), Work(3, 520),
    ],
    ids=lambda work: f"{work.form} {work.layers} x {work.heads} x {work.states}",
)
def test_counts_on_paper_are_those_of_a_deployment(work):
    deployment = deploy(work)
    assert work.conversions == deployment.conversions()["per_step"]
    assert work.weights == deployment.network.weight_first[-1]
    assert work.cells == deployment.layout.n_cells
    assert 2 * work.modes == deployment.converters.state_step.size


@pytest.mark.compiled
def test_conversions_on_paper_are_those_that_a_run_counts():
    work = Work(6, 8, layers=2, chips=3, batch=2, steps=5)
    run = deploy(work).program(0, work.chips).infer(signal(work))
    at_end = work.runs * work.n_out  # of the decoder
    assert run.counts["adc_conversions"] == work.runs * work.steps * work.conversions + at_end


def test_the_time_of_a_run_is_proportional_to_chips_sequences_and_nearly_to_steps():
    def seconds(**changes):
        return RATES.run_s(replace(Work(steps=50), **changes)) - RATES.call_s

    read = RATES.weight_s * Work().weights
    assert seconds(lasting=True) == pytest.approx(
        seconds() + RATES.lasting_s * Work().weights
    )
    assert seconds(chips=7) == pytest.approx(7 * seconds())
    assert seconds(batch=7, lasting=True) == pytest.approx(7 * seconds(lasting=True))
    # without noise that lasts, weights are read once a chip, however many and long its sequences
    assert seconds(batch=7) - read == pytest.approx(7 * (seconds() - read))
    assert seconds(steps=350) - read == pytest.approx(7 * (seconds() - read))


def test_rates_are_found_from_exact_times_and_predict_other_shapes():
    seconds = np.array([RATES.run_s(work) for work in FITTED.values()])
    found = fit_rates(list(FITTED.values()), seconds, RATES.cache_b, RATES.cell_s)
    for work in PREDICTED.values():
        assert found.run_s(work) == pytest.approx(RATES.run_s(work), rel=1e-6)


def test_a_cache_keeps_what_fits_in_half_of_it_and_nothing_that_is_larger_than_all_of_it():
    work = Work(512, 64)
    size = work.bytes_of_a_step
    assert work.bytes_from_memory(2 * size) == 0
    assert work.bytes_from_memory(size) == size
    assert work.bytes_from_memory(size / 5) == size
    assert 0 < work.bytes_from_memory(1.5 * size) < size


def test_no_rate_is_negative_where_times_scatter():
    rng = np.random.default_rng(0)
    works = list(FITTED.values())
    seconds = np.array([RATES.run_s(work) for work in works]) * rng.uniform(0.5, 2, len(works))
    found = fit_rates(works, seconds, 2.0**23, 0.0)
    assert min(asdict(found).values()) >= 0


def test_what_is_predicted_was_not_fitted():
    assert not set(PREDICTED.values()) & set(FITTED.values())


def test_a_prediction_is_good_within_a_fifth():
    assert Point("p", "s", False, 1.19, 1.0).good
    assert not Point("p", "s", False, 1.21, 1.0).good
    assert not Point("p", "s", False, 0.79, 1.0).good


def test_the_rates_of_the_gpu_come_near_what_they_were_fitted_to():
    ratios = [h100_rates().run_s(work) / found for work, found in scale_h100.FITTED.values()]
    assert np.median(np.abs(np.log(ratios))) < 0.1
    assert 0.7 < min(ratios) <= max(ratios) < 1.2


def test_a_model_of_a_hundred_million_weights_is_among_the_campaigns():
    works = [Work(**shape) for shape in CAMPAIGNS.values()]
    largest = max(works, key=lambda work: work.weights * work.runs * work.steps)
    assert largest.weights > 1e8
    assert (largest.chips, largest.batch, largest.steps) == (10**6, 10**4, 10**4)
    found = plan(largest, RATES, Sizes(100.0, 30.0, 1000.0, 400.0))
    # one chip at a time in memory, however many there are
    assert found["process_b"] == pytest.approx(100.0 * largest.weights + 30.0 * largest.cells)
    assert found["journal_b"] == 400.0 * largest.chips


def test_a_page_gets_new_tables_between_its_markers_and_keeps_its_text(tmp_path):
    path = tmp_path / "page.md"
    path.write_text(
        "above\n<!-- figures:begin -->\n1 old row\n<!-- figures:end -->\nbetween\n"
        "<!-- campaigns:begin -->\n<!-- campaigns:end -->\nbelow\n"
    )
    work, sizes = Work(), Sizes(100.0, 30.0, 1000.0, 400.0)
    data = {
        "machine": {"date": "today", "cpu": "a", "cores": 2, "vectors": ["b"], "numpy": "1",
                    "numba": "2", "clock": "c", "load_average": None},
        "rates": asdict(RATES), "sizes": asdict(sizes),
        "points": [asdict(Point("far", "s", False, 1.5, 1.0)),
                   asdict(Point("near", "B", False, 1100.0, 1000.0))],
        "campaigns": {"small": plan(work, RATES, sizes)},
    }
    for _ in range(2):  # the second time over the first
        write_page(path, data)
    page = path.read_text()
    assert "1 old row" not in page
    assert [line for line in page.splitlines() if line in {"above", "between", "below"}] == [
        "above", "between", "below"
    ]
    assert page.count("| far |  | 1.5 s | 1 s | 1.50 |") == 1
    assert "| near |  | 1.1 kB | 1 kB | 1.10 |" in page
    assert "1 of 2 predictions within 20 %" in page
    assert page.count("| small |") == 1
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("value", "unit", "expected"),
    [(3.2e-9, "s", "3.2 ns"), (90.0, "s", "1.5 min"), (3.156e10, "s", "1,000 y"),
     (5.24e6, "B", "5.24 MB"), (460.0, "B", "460 B")],
)
def test_figures_of_a_page_have_three_digits_and_a_unit(value, unit, expected):
    assert text(value, unit) == expected


@pytest.mark.compiled
@pytest.mark.parametrize(("n_in", "n_out"), [(256, 256), (64, 512)])
def test_memory_of_a_batch_grows_with_its_outputs_and_not_with_cells(n_in, n_out):
    """Within a fifth; cells x batch would be 60 times as much."""
    batch = 16_384
    grown = measure(of_matrix(n_in, n_out, batch))
    assert grown == pytest.approx(matrix_b(n_in, n_out, batch), rel=0.2)
