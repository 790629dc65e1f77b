"""The model of costs beside published chips, and what each form of A costs.

    python examples/12_costs.py [--model FILE] [--chip NAME] [--no-forms]

Published figures and what is taken from them are in docs/costs.md.
"""

import argparse
from typing import NamedTuple

import numpy as np

import aimc_sim as aimc
import ssm
from aimc_sim import costs
from aimc_sim.costs import Events
from ssm.baseline import digital_twins, judge
from ssm.costs import cost_inference
from ssm.drives import measured_drives


class Row(NamedTuple):
    """A published figure, the model's, and the factor or difference that is allowed."""

    what: str
    published: float
    ours: float
    unit: str


# NeuRRAM, Wan et al. 2022, doi:10.1038/s41586-022-04992-8: 130 nm, cores of 256 x 256 cells, two
# cells a weight on neighbouring rows, bit-serial inputs, a conversion in steps of 0.3 pJ
NEURRAM_TOPS_PER_W = {
    (3, 1): 43.1, (4, 2): 40.3, (5, 3): 23.1, (6, 4): 15.95, (7, 5): 11.0, (8, 6): 8.26,
    (9, 7): 7.75, (10, 8): 6.44,
}
NEURRAM_SPLIT_FJ = {(8, 6): (37.2, 52.5, 19.2), (4, 2): (8.27, 12.4, 3.96)}
_STEP_J = 0.3e-12
_ROWS, _COLS = 256, 256
_MACS = _ROWS // 2 * _COLS


def neurram(spec: aimc.ChipSpec, input_bits: int) -> tuple[float, float, float]:
    """Return energy per multiply-accumulate [fJ] of word lines, neurons and inputs.

    A plane of the magnitude at a time: every word line is pulsed, every input whose bit is one
    (half of them) is driven at the same cost, every column is converted.
    """
    planes = max(input_bits - 1, 1)
    events = [
        Events("", "word lines", {"drives": planes * _ROWS}),
        Events("", "neurons", {"conversions": planes * _COLS}),
        Events("", "inputs", {"drives": planes * _ROWS / 2}),
    ]
    parts = costs.price(events, costs.constants(spec)).by("part")
    return tuple(1e15 * parts[name] / _MACS for name in ("word lines", "neurons", "inputs"))


def fit_neurram() -> tuple[aimc.ChipSpec, float, float]:
    """Return the chip with its two fitted constants: energy of a line, steps of a conversion.

    Least squares of the relative errors of the eight efficiencies and the six parts.
    """
    rows = []
    for (_, inputs), efficiency in NEURRAM_TOPS_PER_W.items():
        planes, energy = max(inputs - 1, 1), 1e3 / efficiency
        rows.append((1.5 * planes * _ROWS / energy, planes * _COLS / energy))
    for (_, inputs), (word, neuron, driven) in NEURRAM_SPLIT_FJ.items():
        planes = max(inputs - 1, 1)
        rows.append((planes * _ROWS / word, 0.0))
        rows.append((0.0, planes * _COLS / neuron))
        rows.append((0.5 * planes * _ROWS / driven, 0.0))
    design = np.array(rows) * 1e15 / _MACS
    line_j, conversion_j = np.linalg.lstsq(design, np.ones(len(rows)), rcond=None)[0]
    spec = aimc.ChipSpec.preset("reram-wan2022").replace(
        **{
            "costs.node_nm": 130.0, "costs.dac_j": line_j, "costs.adc_j": conversion_j,
            "costs.adc_leak": 0.0,
        }
    )
    return spec, float(line_j), float(conversion_j / _STEP_J)


def compare_neurram() -> list[Row]:
    """Return the eight efficiencies and the two splits beside ours."""
    spec, _, _ = fit_neurram()
    rows = []
    for (outputs, inputs), efficiency in NEURRAM_TOPS_PER_W.items():
        ours = 1e3 / sum(neurram(spec, inputs))
        rows.append(Row(f"NeuRRAM ({outputs},{inputs})", efficiency, ours, "TOPS/W"))
    for (outputs, inputs), published in NEURRAM_SPLIT_FJ.items():
        names = ("word lines", "neurons, ADC", "inputs")
        for name, theirs, ours in zip(names, published, neurram(spec, inputs), strict=True):
            rows.append(Row(f"NeuRRAM ({outputs},{inputs}) {name}", theirs, ours, "fJ/MAC"))
    return rows


def compare_hermes() -> list[Row]:
    """Return duration and energy of an LSTM step on HERMES beside ours; nothing is fitted.

    Le Gallo et al. 2023, doi:10.1038/s41928-023-01010-1: 14 nm, 64 cores of 256 x 256, a product
    in four phases at 16.1 TOPS and 2.48 TOPS/W, all of which is put on the core's 256
    conversions. We could not read how the LSTM lies on the cores: it is taken to use each once
    a step, in two stages that wait for each other (cell, then output). One fifth leaks.
    """
    cores, operations = 64, 2 * 256 * 256
    product_s, product_j = cores * operations / 16.1e12, operations / 2.48e12
    spec = aimc.ChipSpec.preset("pcm-hermes2023-2dev").replace(
        **{
            "costs.node_nm": 14.0, "costs.adc_j": product_j / 256, "costs.adc_hz": 1 / product_s,
            "costs.read_s": product_s,
        }
    )
    used = costs.constants(spec)
    step_s = 2 * product_s
    events = Events("", "cores", {
        "conversions": cores * 256,
        "leakage_j": costs.leak_w(used, cores * 256) * step_s,
    })
    step_j = costs.price([events], used).energy_j
    return [
        Row("HERMES LSTM step", 1.43, 1e6 * step_s, "us"),
        Row("HERMES LSTM step", 5.24, 1e6 * step_j, "uJ"),
    ]


def compare_isaac() -> list[Row]:
    """Return the share of ADCs in the power of ISAAC beside ours; nothing is fitted.

    Shafiee et al. 2016, doi:10.1109/ISCA.2016.12: 32 nm, 168 tiles of 12 x 8 arrays of
    128 x 128, a bit plane every 100 ns, one 8-bit ADC of 1.28 GS/s an array. Converters, shift
    and add, and input registers are ours; arrays (0.3 mW each), memory, bus, router and
    outputs of a tile (40.9 mW) and the links of the chip (10.4 W) are theirs.
    """
    arrays, lines, hz, tiles = 12 * 8, 128, 1e7, 168
    spec = aimc.ChipSpec.preset("ideal").replace(
        **{"adc.bits": 8, "dac.bits": 1, "costs.node_nm": 32.0, "costs.adc_hz": lines * hz}
    )
    used = costs.constants(spec)
    each_s = arrays * lines * hz
    adc_w = each_s * used["adc_j"].value
    others = Events("", "tile", {
        "drives": each_s, "add_bits": 16 * each_s, "shift_bits": 16 * each_s,
        "buffer_bits": each_s,
    })
    theirs_w = arrays * 0.3e-3 + 40.9e-3 + 10.4 / tiles
    total_w = adc_w + costs.price([others], used).energy_j + theirs_w
    return [Row("ISAAC, share of ADCs", 49.0, 100 * adc_w / total_w, "%")]


def compare_forms(path: str, chip: str) -> None:
    """Print what a sequence of the model costs in every form of A."""
    model = ssm.load(path)
    spec = aimc.ChipSpec.preset(chip)
    print(f"\n{model.name or path} on {chip}, one sequence")
    print(f"{'form':19} {'energy, nJ':>10} {'step, us':>9} {'area, mm2':>9} {'A, nJ/step':>11} "
          f"{'digital A':>10}")
    forms = [("leapfrog", "tile"), ("leapfrog", "digital"), ("delta", "tile"),
             ("direct", "tile"), ("digital", "tile")]
    n_steps = 1
    for form, decay in forms:
        deployed = ssm.deploy(model, spec, form, decay=decay)
        n_steps = deployed.signal.shape[1]
        found = cost_inference(deployed, n_steps, drives=measured_drives(deployed))
        verdict = judge(deployed, found, n_steps)
        known = form != "digital" and verdict.analog_j is not None
        analog = f"{1e9 * verdict.analog_j:11.2f}" if known else f"{'-':>11}"
        name = form + (", d digital" if decay == "digital" else "")
        print(f"{name:19} {1e9 * found.costs.energy_j:10.1f} {1e6 * found.step_s:9.2f} "
              f"{1e6 * sum(found.area_m2.values()):9.3f} {analog} "
              f"{1e9 * verdict.digital_j:10.2f}")
    twins = digital_twins(deployed, n_steps)
    print("in logic: " + ", ".join(
        f"{name} {1e9 * twin.energy_j:.1f} nJ" for name, twin in twins.items()
    ))


def main() -> None:
    """Print the published figures beside ours, then the forms."""
    parser = argparse.ArgumentParser(description="compare costs with published chips")
    parser.add_argument("--model", default="examples/models/s4d-digits.pt")
    parser.add_argument("--chip", default="reram-wan2022")
    parser.add_argument("--no-forms", action="store_true")
    options = parser.parse_args()

    _, line_j, steps = fit_neurram()
    print(f"fitted to NeuRRAM: {1e12 * line_j:.3f} pJ a pulse of a line, {steps:.2f} steps of "
          "0.3 pJ a conversion and bit plane")
    print(f"{'':30} {'published':>10} {'ours':>10} {'':6} {'ours/published':>14}")
    for row in [*compare_neurram(), *compare_hermes(), *compare_isaac()]:
        print(f"{row.what:30} {row.published:10.4g} {row.ours:10.4g} {row.unit:6} "
              f"{row.ours / row.published:14.2f}")
    if not options.no_forms:
        compare_forms(options.model, options.chip)


if __name__ == "__main__":
    main()
