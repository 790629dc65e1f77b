"""Pictures of results: `plot_x(data, *, ax=None) -> Axes`, labelled with units, never shown.

Without `ax` a plot makes a figure of its own: `plot_budget(record).figure.savefig("budget.png")`.
"""

from __future__ import annotations

from aimc_sim.plotting.accuracy import plot_accuracy_over_time, plot_confusion
from aimc_sim.plotting.budgets import plot_budget
from aimc_sim.plotting.cards import (
    draw_card,
    plot_device,
    plot_device_over_time,
    plot_drift_exponent,
    plot_pulses,
    plot_read_noise,
    plot_spread,
)
from aimc_sim.plotting.conductances import plot_conductances
from aimc_sim.plotting.costs import pareto_set, plot_area, plot_energy, plot_pareto
from aimc_sim.plotting.fits import plot_fit, plot_residuals
from aimc_sim.plotting.look import COLOURS
from aimc_sim.plotting.placement import plot_placement
from aimc_sim.plotting.states import plot_states
from aimc_sim.plotting.svg import to_svg

__all__ = [
    "COLOURS",
    "draw_card",
    "pareto_set",
    "plot_accuracy_over_time",
    "plot_area",
    "plot_budget",
    "plot_conductances",
    "plot_confusion",
    "plot_device",
    "plot_device_over_time",
    "plot_drift_exponent",
    "plot_energy",
    "plot_fit",
    "plot_pareto",
    "plot_placement",
    "plot_pulses",
    "plot_read_noise",
    "plot_residuals",
    "plot_spread",
    "plot_states",
    "to_svg",
]
