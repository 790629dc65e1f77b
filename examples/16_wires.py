"""What wire resistance does to an array, and how well its read noise is followed behind it."""

from __future__ import annotations

import numpy as np

from aimc_sim import wires

OHM = 1.0
LOWEST_S, HIGHEST_S = 1e-6, 100e-6


def main() -> None:
    """Print the loss of current, and errors of what is made of noise, for growing arrays."""
    print(f"{OHM:g} ohm a segment, cells uniform in {LOWEST_S:g} .. {HIGHEST_S:g} S")
    print("lines  current lost  slope off (mean, max)")
    for size in (16, 32, 64):
        network = array(size)
        effective = wires.effective(network)
        exact = np.empty((size, size))
        drives, senses = wires.cell_voltages(network)
        for i in range(size):
            exact[i] = drives[i, i] * senses[np.arange(size), i, np.arange(size)]
        drive, sense = wires.own_voltages(network)
        off = np.abs(drive * sense / exact - 1)
        lost = 1 - effective.sum() / network.g.sum()
        print(f"{size:5}  {100 * lost:10.2f} %  {100 * off.mean():8.2f} % {100 * off.max():6.2f} %")
    print("\nstandard deviation of 2 % read noise at the outputs, relative error (rms)")
    print("lines  inputs    first order (floor)  diagonal   as used  without wires")
    rng = np.random.default_rng(1)
    for size in (16, 32):
        for kind in ("signed", "positive"):
            x = rng.standard_normal((8, size)) if kind == "signed" else rng.random((8, size))
            network = array(size)
            e = wires.noise_error(network, 0.02 * network.g, x, n_draws=400)
            print(
                f"{size:5}  {kind:8}  {100 * e.linear:7.2f} % ({100 * e.floor:.2f} %)"
                f"  {100 * e.diagonal:9.3f} % {100 * e.used:7.3f} % {100 * e.ideal:9.2f} %"
            )


def array(size: int) -> wires.Network:
    """Return a square array of random cells."""
    g_s = np.random.default_rng(0).uniform(LOWEST_S, HIGHEST_S, (size, size))
    return wires.make_network(g_s, r_wl_ohm=OHM, r_bl_ohm=OHM)


if __name__ == "__main__":
    main()
