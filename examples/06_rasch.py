"""MVM error and effective bits of the standard setting of Rasch et al. (2023), part by part.

    python examples/06_rasch.py [--chips N]

Weights and inputs are standard normal, 512 x 512; a tile of 512 rows; weights scaled column by
column to the range of the cells, every input vector to its largest element; 8-bit DACs and ADCs;
an output range of 10 times the current of one cell at its largest conductance under full drive;
output noise of 0.04 of that current; read noise 0.0175 sqrt(sum |w| x^2) in the same units, new
at every read; phase-change cells (programming, drift, 1/f noise) with global drift compensation.
The voltage drop along wires is left out. Source: doi 10.1038/s41467-023-40770-4.
"""

import argparse
from dataclasses import replace

import numpy as np

import aimc_sim as aimc

SIZE = 512
OUTPUT_BOUND, OUTPUT_NOISE, READ_NOISE, BITS = 10.0, 0.04, 0.0175, 8
TIMES = {"0 s": 0.0, "1 h": 3600.0, "1 day": 86400.0}


def standard_chip() -> aimc.ChipSpec:
    """Return the chip of the standard setting; its output bound is the matrix' (see below)."""
    chip = aimc.ChipSpec.preset("pcm-nandakumar2019")
    steps = OUTPUT_BOUND / (2 ** (BITS - 1) - 1)
    # a cell's sigma is 0.0175 sqrt(r) of g_max, relative to its own g: 0.0175/sqrt(r)
    return chip.replace(
        **{
            "name": "rasch2023",
            "tile": aimc.TileSpec(rows=SIZE, cols=2 * SIZE),
            "dac": aimc.DacSpec(bits=BITS),
            "adc": aimc.AdcSpec(bits=BITS, noise_lsb=OUTPUT_NOISE / steps),
            "device.read_noise.white": {"of": "r", "power": [READ_NOISE, -0.5]},
            "compensation": "global",
        }
    )


def exact_cells(chip: aimc.ChipSpec, *, read_noise: bool) -> aimc.ChipSpec:
    """Return the chip with cells that hold their target, with 0.0175 sqrt(r) read noise or none."""
    noise = {
        "sigma": {"of": "r", "power": [READ_NOISE, 0.5], "unit_s": chip.device.g_max_s},
        "relative": False,
        "spectrum": "white",
    }
    return chip.replace(
        **{
            "device.programming": None,
            "device.drift": None,
            "device.read_noise": noise if read_noise else None,
        }
    )


def standard_matrix(chip: aimc.ChipSpec, seed: int) -> aimc.AnalogMatrix:
    """Return a standard normal matrix on a sampled chip, every ADC with the output bound."""
    w = np.random.default_rng(seed).normal(size=(SIZE, SIZE))
    mapped = aimc.map_matrix(w, chip)
    # in units of weight: a cell at g_max stands for the largest weight of its column
    bound = OUTPUT_BOUND * np.abs(w).max(axis=0)
    return replace(mapped, adc_range=np.broadcast_to(bound, mapped.adc_range.shape)).program(seed)


def standard_inputs(seed: int) -> np.ndarray:
    """Return 512 standard normal input vectors."""
    return np.random.default_rng((seed, 1)).normal(size=(SIZE, SIZE))


def rounded(values: np.ndarray, axis: int) -> np.ndarray:
    """Return values on the symmetric grid of 4 bits, its end at the largest along an axis."""
    step = np.abs(values).max(axis=axis, keepdims=True) / 7
    return np.rint(values / step) * step


def fixed_point_error(seed: int) -> float:
    """Return the MVM error of an exact product of weights and inputs rounded to 4 bits."""
    w, x = np.random.default_rng(seed).normal(size=(SIZE, SIZE)), standard_inputs(seed)
    difference = rounded(x, 1) @ rounded(w, 0) - x @ w
    return float(np.linalg.norm(difference, axis=1).mean() / np.linalg.norm(x @ w, axis=1).mean())


def main() -> None:
    """Print MVM error and effective bits, mean over chips +- its standard error."""
    parser = argparse.ArgumentParser(description="MVM error of the standard setting")
    parser.add_argument("--chips", type=int, default=4, help="sampled chips, at least two")
    chips = parser.parse_args().chips
    full = standard_chip()
    cases = {
        "converters, output noise": (exact_cells(full, read_noise=False), 0.0),
        "and read noise": (exact_cells(full, read_noise=True), 0.0),
    }
    cases |= {f"and PCM cells, {name}": (full, time) for name, time in TIMES.items()}
    print(f"{chips} chips{'':20}MVM error, %    effective bits")
    for name, (chip, time_s) in cases.items():
        found = []
        for seed in range(chips):
            matrix = standard_matrix(chip, seed).wait(time_s)
            x = standard_inputs(seed)
            found.append(
                (100 * aimc.mvm_error(matrix, x).value, aimc.effective_bits(matrix, x).value)
            )
        mean = np.mean(found, axis=0)
        error = np.std(found, axis=0, ddof=1) / np.sqrt(chips)
        print(f"{name:25}{mean[0]:8.2f} +- {error[0]:.2f}{mean[1]:10.3f} +- {error[1]:.3f}")
    digital = 100 * np.mean([fixed_point_error(seed) for seed in range(chips)])
    print(f"weights and inputs rounded to 4 bits, exact product: {digital:.2f} %")


if __name__ == "__main__":
    main()
