"""What each analog form of A costs: accuracy of the demo model on sampled chips over time.

    python examples/02_forms_of_a.py [--chip NAME] [--chips N] [--limit N]

Direct writes dA itself and collapses, delta writes dA - 1, leapfrog keeps every mode inside the
unit circle whatever the constant errors of its cells are, digital keeps A in logic.
"""

import argparse

import aimc_sim as aimc
import ssm
from ssm.evaluate import evaluate

FORMS = ("direct", "delta", "leapfrog", "digital")
TIMES_S = (0.0, 3600.0, 86400.0)


def main() -> None:
    """Print one line a form."""
    parser = argparse.ArgumentParser(description="compare the analog forms of A")
    parser.add_argument("--model", default="examples/models/s4d-digits.pt")
    parser.add_argument("--chip", default="pcm-nandakumar2019")
    parser.add_argument("--chips", type=int, default=8)
    parser.add_argument("--limit", type=int, default=None)
    options = parser.parse_args()

    model = ssm.load(options.model)
    task = ssm.load_task(model.task)
    spec = aimc.ChipSpec.preset(options.chip)
    print(f"{options.chips} chips of {options.chip}: accuracy in %, mean +- spread over chips")
    print(f"{'form':10} {'0 s':>14} {'1 h':>14} {'1 d':>14}   modes outside the unit circle")
    for form in FORMS:
        found = evaluate(
            model, spec, task.x_test, task.y_test, form=form, chips=options.chips,
            times_s=TIMES_S, limit=options.limit,
        )
        scores = 100 * found.chip_accuracy()
        cells = [f"{row.mean():6.1f} +- {row.std():4.1f}" for row in scores]
        print(f"{form:10} {cells[0]:>14} {cells[1]:>14} {cells[2]:>14}   "
              f"{found.unstable_modes[-1].mean():.0f} of {found.deployment.network.sign.size}")


if __name__ == "__main__":
    main()
