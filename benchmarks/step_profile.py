"""The command `python -m benchmarks.step_profile`: where the time of a recurrent step goes.

The parts of a step run by themselves, in turns with the whole (A B A B). What they do not add up
to is what lies between them: small vectors, calls, caches that the parts do not share.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from benchmarks.machine import describe, pin_threads, warn_of_settings

if TYPE_CHECKING:
    from benchmarks.timing import Timing
    from ssm import ProgrammedModel

CASES = {
    "layer-pcm-four": "pcm-nandakumar2019",
    "layer-reram-four": "reram-wan2022",
    "layer-cmo-four": "cmo-hfox",
}
N_STEPS = 500
ROUNDS = 9
PRODUCTS = 4  # of A


def parts_of(chip: ProgrammedModel, n_steps: int) -> dict[str, list[Callable[[], object]]]:
    """Return calls that repeat every part of a step n_steps times, by what they belong to.

    chip : of one layer in leapfrog form, everything on tiles, its states at rest.
    """
    import numpy as np

    from benchmarks import step_parts
    from ssm.kernels import state
    from ssm.kernels.network import C_PRODUCT, MIX_PRODUCT

    d = chip.deployment
    network, c = d.network, d.converters
    cells = chip._start(1, 0).weights[0]
    rng = np.random.default_rng(5)
    f = np.float32
    n, h = network.sign.size, network.n_heads
    a, first = 1, network.weight_first
    chunk = min(state.CHUNK, n)
    of_a = np.full(PRODUCTS * (n // chunk), chunk)
    of_rest = np.array([h, h, network.mix_bias.shape[1]])  # encoder, C, mixing
    noisy = bool(cells.noisy[a])
    x = (rng.standard_normal(2 * n) * c.state_step * 20).astype(f)
    y, s, z = (rng.random(4 * n + 64, f) for _ in range(3))
    u, out, mixed = (rng.standard_normal(size).astype(f) for size in (h, h, 2 * h))

    def weights(product: int) -> tuple[np.ndarray, np.ndarray]:
        own = slice(first[product], first[product + 1])
        return cells.w[own], cells.v[own]

    w_a, spread_a = (values[first[a] : first[a + PRODUCTS]] for values in (cells.w, cells.spread))
    w_c, v_c = weights(a + C_PRODUCT)
    dense = []
    for product, inputs in ((0, u[: network.n_in]), (a + MIX_PRODUCT, out)):
        w, v = (values.reshape(inputs.size, -1) for values in weights(product))
        dense.append((inputs, w, v))
    adc = c.adc_step, c.adc_inverse, c.adc_limit
    begin = c.adc_first[a]
    adc_a = c.adc_step[begin:], c.adc_inverse[begin:], c.adc_limit
    dac = c.state_step, c.state_inverse, c.state_dac_limit
    register = c.register_step, c.register_inverse, c.state_limit
    p = step_parts
    modes = n // h
    found: dict[str, list[Callable[[], object]]] = {
        "normals": [
            lambda: p.draw_normals(n_steps, np.concatenate([of_a, of_rest]), z, cells.keys[a])
        ] if noisy else [],
        "products of C and mixing": [
            lambda: p.sum_heads(n_steps, modes, x[:n], x[n:], u, w_c, v_c, False, y, s),
            *(_multiply(n_steps, *each, False, y, s) for each in dense),
        ],
        "their variances": [
            lambda: p.sum_heads(n_steps, modes, x[:n], x[n:], u, w_c, v_c, True, y, s),
            *(_multiply(n_steps, *each, True, y, s) for each in dense),
        ] if noisy else [],
        "products of A and their conversions": [
            lambda: p.convert_a(n_steps, PRODUCTS, n, x, w_a, spread_a, z, noisy, *adc_a, y)
        ],
        "conversions of C and mixing": [
            lambda: p.convert(n_steps, of_rest, *adc, y),
            *([lambda: p.add_noise(n_steps, of_rest, s, z, f(0), c.adc_step, y)] if noisy else []),
        ],
        "DACs of the states": [
            lambda: p.drive_states(n_steps, np.array([1, 0, 1]), n, chunk, x, *dac, y),
            lambda: p.drive_states(n_steps, np.array([0, 1]), n, n, x, *dac, y),
        ],
        "sums and registers of the states": [
            lambda: p.update(n_steps, PRODUCTS, n, network.sign, y, x),
            lambda: p.hold(n_steps, h, n, u, *register, x),
        ],
        "activation, gate and norm": [
            lambda: p.activate(
                n_steps, h, out, mixed, network.norm_scale[0], network.norm_epsilon, u, out
            )
        ],
    }
    return found


def _multiply(n_steps: int, *arguments: Any) -> Callable[[], object]:
    from benchmarks import step_parts

    return lambda: step_parts.multiply(n_steps, *arguments)


def profile(preset: str, timing: Timing) -> tuple[float, dict[str, float]]:
    """Return the seconds of a step of a run that goes on, and of its parts."""
    import numpy as np

    from benchmarks.recurrent import program

    chip = program(preset, "leapfrog", "tile")
    x = np.random.default_rng(3).random((1, 1 + N_STEPS, 1), np.float32)
    parts = parts_of(chip, N_STEPS)
    calls = [
        lambda: chip.infer(x), lambda: chip.infer(x[:, :1]),
        *(call for own in parts.values() for call in own),
    ]
    run, start, *single = timing.alternate(*calls) / N_STEPS
    whole = float(np.median(run - start))  # without what a run takes before its first step
    rest = iter(np.median(single, axis=1))
    found = {name: sum(float(next(rest)) for _ in own) for name, own in parts.items()}
    if parts["their variances"]:  # timed with the means
        found["their variances"] -= found["products of C and mixing"]
    return whole, found


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.step_profile",
        description="Share of each part of a recurrent step of an S4D layer, H = N = 64.",
    )
    parser.add_argument(
        "--cpu-time", action="store_true",
        help="count CPU time, for a machine that others use as well",
    )
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="measurements of each part")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print the shares of the rows of `CASES`; return the exit code."""
    options = _arguments(argv)
    from rich.table import Table

    from benchmarks import peer
    from benchmarks.table import machine_text, open_console
    from benchmarks.timing import Timing, threads

    for text in warn_of_settings():
        sys.stderr.write(f"warning: {text}\n")
    timing = Timing(rounds=options.rounds, cpu_time=options.cpu_time)
    machine = {**describe(), "clock": timing.describe(), "peer": peer.describe()}
    with threads(1):
        found = {name: profile(preset, timing) for name, preset in CASES.items()}
    console = open_console()
    console.print(machine_text(machine), highlight=False)
    table = Table("us a step (share)", *found)
    for part in next(iter(found.values()))[1]:
        table.add_row(part, *(_cell(parts[part], whole) for whole, parts in found.values()))
    table.add_row(
        "rest", *(_cell(whole - sum(parts.values()), whole) for whole, parts in found.values())
    )
    table.add_row("a step", *(f"{whole * 1e6:.1f}" for whole, _ in found.values()))
    console.print(table)
    return 0


def _cell(seconds: float, whole: float) -> str:
    return f"{seconds * 1e6:.2f} ({100 * seconds / whole:.0f} %)"


if __name__ == "__main__":
    pin_threads()  # nothing above imports numpy
    sys.exit(main())
