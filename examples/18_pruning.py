"""Accuracy against states kept, for every way to prune, before and after rounding A.

    python examples/18_pruning.py --model MODEL.pt [--norm post --disc zoh --pool mean]
        [--task smnist-14x14] [--keep 0.5 0.25 0.125] [--bits 8 6] [--limit N]
        [--ways balanced horizon] [--tune EPOCHS [--tune-on N]] [--heads 0.75] [--loss 1] [--quick]

Modes with small scores are left out, or heads become their balanced truncations: "balanced"
counts errors of the impulse response at all steps alike, "horizon" those within a sequence. No
retraining, unless --tune trains those of the way "horizon" further, on the first N training
sequences. The model runs on the error-free chip with A in logic. The last line is the joint choice
of states and bits: of all that lose no more than --loss points, the one whose poles take the
fewest bits of memory. --quick takes the demo model and few test sequences.
"""

import argparse
from pathlib import Path
from typing import NamedTuple

import numpy as np

import aimc_sim as aimc
import ssm

WAYS = ("magnitude", "hinf", "last", "aire", "balanced", "horizon")
DEMO = Path(__file__).parent / "models" / "s4d-digits.pt"


def prune(model: ssm.Model, way: str, keep: float, heads: float, n_steps: int) -> ssm.Model:
    """Return the model pruned in one of WAYS."""
    if way == "horizon":
        return ssm.prune(model, keep, heads=heads, n_steps=n_steps)
    return ssm.prune(model, keep, method=way, heads=heads)


def percent(model: ssm.Model, x: np.ndarray, y: np.ndarray) -> float:
    """Return the share of right answers in %."""
    chip = ssm.deploy(model, aimc.ChipSpec.preset("ideal"), "digital", calibrate=x[:8])
    return 100 * float(chip.program().infer(x).accuracy(y)[0])


class Choice(NamedTuple):
    """A model that was scored: way to prune, states, bits of A, accuracy in %."""

    way: str
    n_states: int
    bits: int
    score: float

    @property
    def memory(self) -> int:
        """Bits that the poles take: two numbers a pair of states."""
        return self.n_states * self.bits


def choose(found: list[Choice], loss: float) -> str:
    """Return which states and bits of A to take together, and which of each alone."""
    full = found[0]
    near = [each for each in found if each.score >= full.score - loss]
    both = min(near, key=lambda each: (each.memory, -each.score))
    unpruned = min(
        (each for each in near if each.way == "-"), key=lambda each: (each.memory, -each.score)
    )
    way = "without pruning" if both.way == "-" else f"by '{both.way}'"
    return (
        f"within {loss:g} points of float: {both.n_states} states of {full.n_states} {way} with "
        f"{both.bits} bits of A, {both.score:.2f} %, {full.memory / both.memory:.1f} x less "
        f"memory of A than float; by rounding alone {full.memory / unpruned.memory:.1f} x"
    )


def main() -> None:
    """Print a line for each share of states and way to prune."""
    parser = argparse.ArgumentParser(description="accuracy against states kept")
    parser.add_argument("--model", type=Path, default=DEMO)
    parser.add_argument("--norm", help="pre or post, of a file that does not say")
    parser.add_argument("--disc", help="zoh or bilinear, of such a file")
    parser.add_argument("--pool", help="mean or last, of such a file")
    parser.add_argument("--task", help="whose test sequences are classified (default: the model's)")
    parser.add_argument("--keep", type=float, nargs="+", default=[0.5, 0.25, 0.125])
    parser.add_argument("--bits", type=int, nargs="+", default=[8, 6])
    parser.add_argument("--heads", type=float, default=1.0, help="share of heads that stay")
    parser.add_argument("--limit", type=int, default=None)
    parser.add_argument("--tune", type=int, default=0, help="epochs")
    parser.add_argument("--tune-on", type=int, default=None, metavar="N",
                        help="training sequences (default: all)")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS)
    parser.add_argument("--loss", type=float, default=1.0, help="points that may be lost")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    if options.quick:
        options.model, options.keep, options.limit, options.bits = DEMO, [0.5, 0.25], 60, [6]

    model = ssm.load(options.model, norm=options.norm, disc=options.disc, pool=options.pool)
    task = ssm.load_task(options.task or model.task or "digits")
    x, y = task.x_test[: options.limit], task.y_test[: options.limit]
    examples = task.x_train[: options.tune_on], task.y_train[: options.tune_on]
    rounded = "".join(f"{f'A {bits} bits':>10}" for bits in options.bits)
    print(f"{model.name}: accuracy in % of {len(y)} test sequences of {task.name}")
    print(f"{'kept':>6} {'way':10}{'states':>8}{'cells':>8}{'tiles':>7}{'bits':>6}{'float':>9}"
          f"{rounded}")

    found: list[Choice] = []

    def show(way: str, keep: float, pruned: ssm.Model, report: ssm.PruningReport) -> None:
        as_rounded = [ssm.quantize(pruned, ssm.Precision(a=bits)) for bits in options.bits]
        scores = [percent(each, x, y) for each in (pruned, *as_rounded)]
        needed = report.bits_of_a[1] or ">16"
        print(f"{keep:6.3f} {way:10}{pruned.n_states:8}{report.cells[1]:8}{report.tiles[1]:7}"
              f"{needed:>6}{scores[0]:9.2f}" + "".join(f"{score:10.2f}" for score in scores[1:]),
              flush=True)
        # the poles of a model in float take 32 bits a number
        for bits, score in zip((32, *options.bits), scores, strict=True):
            found.append(Choice(way, pruned.n_states, bits, score))

    show("-", 1.0, model, ssm.report_pruning(model, model))
    for keep in options.keep:
        for way in options.ways:
            pruned = prune(model, way, keep, options.heads, x.shape[1])
            report = ssm.report_pruning(model, pruned)
            show(way, keep, pruned, report)
            if options.tune and way == "horizon":
                tuned = ssm.fine_tune(pruned, examples, epochs=options.tune, lr=1e-3)
                show("+ tuned", keep, tuned, report)
    print(choose(found, options.loss))


if __name__ == "__main__":
    main()
