"""Compiled kernels of the recurrence on the chip; arrays in, arrays out."""

from pathlib import Path

from aimc_sim.kernels._jit import cache_folder


def are_compiled() -> bool:
    """Return whether the machine code of the recurrent run is kept from an earlier start."""
    return any(cache_folder(Path(__file__).parent).rglob("*run_steps*.nbi"))
