"""Scores, intervals, records and pictures behind the command line."""

from __future__ import annotations

import json

import numpy as np
import pytest

from aimc_sim.report import to_json
from aimc_sim.specs import ChipSpec
from ssm.ablation import error_free, is_timeless, non_idealities
from ssm.evaluate import accuracy, accuracy_bounds, relative_rms


def test_json_has_no_nan_and_plain_numbers():
    text = to_json({"a": np.float32(0.5), "b": np.array([1.0, np.inf]), "c": (np.int64(3), None)})
    assert json.loads(text) == {"a": 0.5, "b": [1.0, None], "c": [3, None]}


def test_answers_that_are_not_finite_are_wrong():
    logits = np.array([[[1.0, 0.0], [np.nan, 0.0], [np.inf, 0.0]]])
    assert accuracy(logits, np.array([0, 0, 0])) == pytest.approx([1 / 3])


def test_relative_rms_is_over_chips_and_samples_and_leaves_out_what_diverged():
    reference = np.array([[3.0, 4.0], [0.0, 5.0]])
    chips = np.stack([reference + 1.0, reference - 1.0])
    assert relative_rms(chips, reference) == pytest.approx(1 / np.sqrt(50 / 4))
    chips[0, 0, 0] = np.inf
    assert relative_rms(chips, reference) == pytest.approx(1 / np.sqrt(50 / 4))
    assert relative_rms(chips * np.nan, reference) is None
    assert relative_rms(chips, 0 * reference) is None


def test_bounds_cover_the_mean_over_chips_and_samples():
    # chips of accuracy 0.8 +- 0.05, each scored on the same 100 samples; 95 % of 1,000 intervals
    # cover 0.8 (binomial standard error 0.7 %), a little more because both parts are bounds
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(1000):
        chance = np.clip(0.8 + 0.05 * rng.standard_normal(5), 0, 1)
        common = rng.random(100)  # the samples' difficulty, common to all chips
        per_chip = (common < chance[:, None]).mean(axis=1)
        low, high = accuracy_bounds(per_chip, 100)
        hits += low <= 0.8 <= high
    assert hits > 950 - 5 * 7


def test_bounds_shrink_with_samples_and_never_leave_0_to_1():
    for mean in (0.0, 0.5, 1.0):
        wide = accuracy_bounds(np.array([mean]), 20)
        narrow = accuracy_bounds(np.array([mean]), 2000)
        assert 0 <= wide[0] <= narrow[0] <= mean <= narrow[1] <= wide[1] <= 1
        assert wide[1] - wide[0] > 0.1
    spread = accuracy_bounds(np.array([0.2, 0.9, 0.5]), 1000)
    assert spread[0] < 0.2
    assert spread[1] > 0.8


def test_error_free_cells_keep_the_converters():
    spec = ChipSpec.preset("pcm-nandakumar2019").replace(**{"adc.noise_lsb": 0.5})
    exact = error_free(spec)
    assert is_timeless(exact)
    assert not is_timeless(spec)
    assert exact.adc.bits == spec.adc.bits
    assert exact.device.g_max_s == spec.device.g_max_s
    assert list(non_idealities(exact)) == ["DAC", "ADC"]
    assert non_idealities(ChipSpec.preset("ideal")) == {}


def record_of_three_times() -> dict:
    rows = [
        {
            "at_s": at_s,
            "mean": mean,
            "std": 0.01,
            "low": mean - 0.02,
            "high": mean + 0.02,
            "per_chip": [mean - 0.01, mean + 0.01],
        }
        for at_s, mean in ((0.0, 0.97), (3600.0, 0.95), (86400.0, 0.9))
    ]
    return {
        "model": "m",
        "chip": "c",
        "form": "leapfrog",
        "n_chips": 2,
        "accuracy": {"float": 0.98, "quantized": 0.975, "chip": rows},
    }


def test_plot_of_accuracy_shows_interval_chips_and_times():
    from aimc_sim.plotting import plot_accuracy_over_time

    ax = plot_accuracy_over_time(record_of_three_times())
    assert ax.get_ylabel() == "accuracy [%]"
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["0 s", "1 h", "1 d"]
    assert list(ax.lines[0].get_ydata()) == pytest.approx([97, 95, 90])
    names = [text.get_text() for text in ax.get_legend().get_texts()]
    assert names == ["95 % interval", "c, mean", "as trained", "quantised"]


def test_plots_draw_into_the_axes_that_are_given():
    from matplotlib.figure import Figure

    from aimc_sim.devices import predict
    from aimc_sim.mapping import Request, place
    from aimc_sim.plotting import plot_accuracy_over_time, plot_device, plot_placement

    axes = Figure().subplots(1, 3)
    spec = ChipSpec.preset("cmo-hfox")
    layout = place([Request("w", 1, 300, 200), Request("a", 50, 2, 2, kind="short_tile")], spec)
    rows = predict(spec.device, (10e-6, 50e-6), (1.0, 3600.0), n_cells=50)
    assert plot_accuracy_over_time(record_of_three_times(), ax=axes[0]) is axes[0]
    assert plot_placement(layout, spec, ax=axes[1]) is axes[1]
    assert plot_device(rows, ax=axes[2]) is axes[2]
    assert f"{layout.n_tiles} tiles of cmo-hfox" in axes[1].get_title()
    assert axes[2].get_ylabel() == "conductance minus target [uS]"
    drawn = axes[2].containers[0].lines[0].get_ydata()  # of programming
    assert drawn == pytest.approx([1e6 * (r.programmed_mean_s - r.target_s) for r in rows[::2]])


def budget_record():
    """A record with a budget of two layers, one of which has no figure."""
    rows = [
        {
            "layer": layer, "cause": cause, "at_s": 3600.0, "signal_rms": 0.5,
            "relative_rms": share, "logit_rms": share,
        }
        for layer, cause, share in (
            ("encoder", "read noise", 0.1234), ("encoder", "all", 0.25),
            ("layer 0 A", "read noise", None), ("layer 0 A", "all", 1e-6),
        )
    ]
    return {"chip": "some chip", "budget": rows, "budget_samples": 7}


def test_the_picture_of_a_budget_names_layers_causes_and_figures():
    from aimc_sim.plotting import plot_budget

    ax = plot_budget(budget_record())
    assert [text.get_text() for text in ax.get_yticklabels()] == ["encoder", "layer 0 A"]
    assert [text.get_text() for text in ax.get_xticklabels()] == 2 * ["read noise", "all"]
    figures = [text.get_text() for text in ax.texts]
    assert figures[:8] == ["12.3", "25.0", "12.3", "25.0", "-", "0.00", "-", "0.00"]
    assert "1 h" in ax.get_title()


def test_the_tables_of_a_budget_have_a_dash_where_nothing_is_known():
    from aimc_sim.cli.outputs import as_text
    from aimc_sim.report import _budget_tables

    head, first, title, second = map(as_text, _budget_tables(budget_record()))
    assert "1 h, 7 sequences" in head
    assert first.splitlines()[2].split() == ["encoder", "0.5", "12.34", "25.00"]
    assert first.splitlines()[3].split() == ["layer", "0", "A", "0.5", "-", "0.00"]
    assert "logits" in title
    assert second.splitlines()[2].split() == ["encoder", "12.34", "25.00"]
