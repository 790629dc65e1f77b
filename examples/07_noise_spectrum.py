"""How far the 1/f noise of a run lies from 1/f: decibels over frequency.

    python examples/07_noise_spectrum.py [--chip NAME] [--seconds S]

One line for each correlation time, in steps, from which noise is a process and not white.
"""

import argparse

import numpy as np

import aimc_sim as aimc
from aimc_sim.noise import spectrum

PER_STEP = (1e-5, 1e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1, 0.2, 0.5)


def main() -> None:
    """Print the deviations of the chip's own setting and of others."""
    parser = argparse.ArgumentParser(description="compare the noise of a run with 1/f")
    parser.add_argument("--chip", default="pcm-nandakumar2019")
    parser.add_argument("--seconds", type=float, default=3600.0, help="since programming")
    options = parser.parse_args()
    spec = aimc.load_chip(options.chip).replace(noise_in_time="spectrum")
    noise = spec.device.read_noise
    if noise is None or noise.spectrum != "one_over_f":
        raise SystemExit(f"'{spec.name}' has no 1/f noise")
    frequency = np.array(PER_STEP) / spec.step_period_s
    target = frequency**-noise.exponent
    law = f"f^-{noise.exponent:g}"
    print(f"{spec.name} at {options.seconds:g} s: S(f) of a run against {law}, in dB")
    print("cycles/step  " + "".join(f"{f:>8g}" for f in PER_STEP))
    for steps in (1, 4, 16, 64):
        ours = spectrum(spec.replace(spectrum_from_steps=steps), options.seconds, frequency)
        level = 10 * np.log10(ours / target)
        print(f"from {steps:2d} steps" + "".join(f"{value:+8.1f}" for value in level))


if __name__ == "__main__":
    main()
