"""What errors of A's cells alone cost in every analog form: accuracy and unstable modes.

    python examples/15_forms_by_error.py [--model FILE] [--chips N] [--limit N] [--errors A ...]
        [--laws own full]

A is on cells that err by a, everything else exact, no retraining. Two laws of error:
own: a times the cell's own conductance, so that a small weight errs little; it takes a device
     with multiplicative errors, or one scale for every weight.
full: a times the conductance of a full cell, whatever the cell holds, never below zero. A
     mode's scale is the power of two above its largest weight (leapfrog: above e and above d).
Direct and delta weights are pairs of cells of which one holds zero. Leapfrog weights are single
cells, four products a mode, or two where the decay stays in logic. A mode counts as unstable
where an eigenvalue of its cells lies outside the unit circle.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import aimc_sim as aimc
import ssm
from ssm.tasks import is_at_hand

MODELS = Path(__file__).parent / "models"
FORMS = (("direct", "tile"), ("delta", "tile"), ("leapfrog", "tile"), ("leapfrog", "digital"))
LAWS = ("own", "full")
EXACT_PARTS = ("encoder", "readout", "mixing", "decoder")


def chip_with_error(law: str, error: float) -> aimc.ChipSpec:
    """Return an exact chip but for the programming of its cells."""
    ideal = aimc.ChipSpec.preset("ideal")
    a = error * ideal.device.g_max_s * 1e6  # microsiemens
    curve = {"of": "r", "unit_s": 1e-6, "polynomial": [0.0, a] if law == "own" else [a]}
    programming = {"sigma": curve}
    return ideal.replace(name=f"{law} {error:g}", **{"device.programming": programming})


def default_model() -> Path:
    """Return the sequential MNIST model where its data are at hand, else the demo model."""
    name = "s4d-16-float" if is_at_hand("smnist") else "s4d-digits"
    return next(MODELS.glob(f"{name}.*"))


def main() -> None:
    """Print a table for each law of error."""
    parser = argparse.ArgumentParser(description="forms of A against errors of their cells")
    parser.add_argument("--model", type=Path, help="default: s4d-16-float, else s4d-digits")
    parser.add_argument("--chips", type=int, default=4)
    parser.add_argument("--limit", type=int, default=500, help="test sequences")
    parser.add_argument(
        "--errors", type=float, nargs="+", default=[0.001, 0.003, 0.01, 0.03, 0.05, 0.1],
        help="shares",
    )
    parser.add_argument("--laws", nargs="+", choices=LAWS, default=LAWS)
    options = parser.parse_args()

    model = ssm.load(options.model or default_model())
    task = ssm.load_task(model.task)
    x, y = task.x_test[: options.limit], task.y_test[: options.limit]
    exact = 100 * (model.logits(x).argmax(axis=1) == y).mean()
    print(
        f"{model.name} on {len(x)} sequences of {model.task}, {x.shape[1]} steps; float "
        f"{exact:.1f} %\nerrors of A's cells alone: accuracy in %, lowest to highest of "
        f"{options.chips} chips (share of modes outside the unit circle)"
    )
    for law in options.laws:
        head = "".join(f"{100 * error:g} %".rjust(19) for error in options.errors)
        print(f"\n{f'a of the {law} cell' if law == 'full' else 'a of the own value':22}{head}")
        for form, decay in FORMS:
            name = form if decay == "tile" else f"{form}, digital decay"
            cells = []
            for error in options.errors:
                deployed = ssm.deploy(
                    model, chip_with_error(law, error), form, decay=decay,
                    calibrate=task.x_train[:16], digital=EXACT_PARTS,
                )
                programmed = deployed.program(seed=0, chips=options.chips)
                scores = 100 * programmed.infer(x).accuracy(y)
                outside = 100 * programmed.unstable_modes().mean() / deployed.network.sign.size
                span = f"{scores.min():.1f}-{scores.max():.1f}"
                cells.append(f"{span} ({outside:.0f} %)".rjust(19))
            print(f"{name:22}{''.join(cells)}", flush=True)


if __name__ == "__main__":
    main()
