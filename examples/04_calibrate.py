"""From measurements to accuracy: data, a device card, a chip, a trained model on it.

    python examples/04_calibrate.py [DATA --kind KIND] [--columns KEY=COL,...] [--base NAME]
                                    [--chips N] [--limit N]

Without DATA the measurements are drawn from a published card, which the fits then must find
again: writes, and reads for 28 hours after them. With DATA (any file that `aimc-sim calibrate`
reads) the fit of it takes its part's place in the card --base.
"""

import argparse

import numpy as np

import aimc_sim as aimc
import ssm
from aimc_sim.units import format_time
from calibration import fit_programming, fit_relaxation, read_table, synthetic
from calibration.fit import Fit
from ssm.evaluate import evaluate

TIMES_S = (1.0, 3600.0, 86400.0)


def main() -> None:
    """Print the fits, what they say beside the card, and the accuracy with both."""
    parser = argparse.ArgumentParser(description="measurements to a card to accuracy")
    parser.add_argument("data", nargs="?", help="measurements; none: drawn from --base")
    parser.add_argument("--kind", default="programming")
    parser.add_argument("--columns", default=None)
    parser.add_argument("--read-voltage", type=float, default=None, help="volts, of currents")
    parser.add_argument("--base", default="cmo-hfox")
    parser.add_argument("--model", default="examples/models/s4d-digits.pt")
    parser.add_argument("--cells", type=int, default=5000)
    parser.add_argument("--chips", type=int, default=8)
    parser.add_argument("--limit", type=int, default=None)
    options = parser.parse_args()

    base = aimc.ChipSpec.preset(options.base)
    fits = _measured(options) if options.data else _drawn(base.device, options.cells)
    card = base.device
    for fit in fits:
        card = fit.device(card, name="calibrated")
        print(fit.report())
    g = np.linspace(card.g_min_s, card.g_max_s, 5)
    if card.programming is not None and base.device.programming is not None:
        for name, device in (("calibrated", card), (options.base, base.device)):
            sigma = 1e6 * device.programming.sigma.evaluate(g, device.g_max_s)
            print(f"write sigma, uS  {name:16}" + "".join(f"{value:8.3f}" for value in sigma))

    model = ssm.load(options.model)
    task = ssm.load_task(model.task)
    times = [at for at in TIMES_S if at <= card.time_range_s[1]]
    print(f"accuracy in %, {options.chips} chips" + "".join(f"{format_time(t):>15}" for t in times))
    for name, device in (("calibrated", card), (options.base, base.device)):
        found = evaluate(
            model, base.replace(device=device, name=device.name), task.x_test, task.y_test,
            chips=options.chips, times_s=times, limit=options.limit,
        )
        rows = 100 * found.chip_accuracy()
        print(f"{name:22}" + "".join(f"{row.mean():7.1f} +- {row.std():4.1f}" for row in rows))


def _drawn(device: aimc.DeviceSpec, cells: int) -> list[Fit]:
    """Return the fits of measurements that cells of a card would give."""
    fits = [fit_programming(synthetic("programming", device, n_cells=cells, seed=1))]
    if device.relaxation is not None:
        times = (1.0, 10.0, 100.0, 1e3, 1e4, 1e5)
        fits.append(fit_relaxation(
            synthetic("relaxation", device, n_cells=cells, times_s=times, seed=2)
        ))
    return fits


def _measured(options: argparse.Namespace) -> list[Fit]:
    """Return the fit of a file."""
    from importlib import import_module

    columns = None
    if options.columns:
        columns = dict(item.split("=", 1) for item in options.columns.split(","))
    table = read_table(
        options.data, options.kind, columns=columns, read_voltage_v=options.read_voltage
    )
    word = options.kind.replace("-", "_")
    return [getattr(import_module(f"calibration.{word}"), f"fit_{word}")(table)]


if __name__ == "__main__":
    main()
