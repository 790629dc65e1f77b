"""Train the demo model: a small S4D on 8 x 8 handwritten digits read pixel by pixel.

    python examples/01_train_digits.py [--epochs N] [--out MODEL.pt]

Float training in convolution mode, with a weight error of 5 % of each column's largest
weight drawn anew at every step, so that the model stands what an analog chip does to it.
"""

import argparse
import time
from pathlib import Path

import torch

from ssm.checkpoint import save
from ssm.tasks import load_task
from ssm.train import Epoch, train

MODEL = Path(__file__).parent / "models" / "s4d-digits.pt"


def show(epoch: Epoch) -> None:
    """Print one line every tenth epoch."""
    if epoch.number % 10 == 0 or epoch.number == epoch.n_epochs:
        print(
            f"epoch {epoch.number:3d}/{epoch.n_epochs}  loss {epoch.loss:.3f}  "
            f"training accuracy {100 * epoch.accuracy:.1f} %  {epoch.wall_s:.0f} s"
        )


def main() -> None:
    """Train, test on the held-out fifth, save."""
    parser = argparse.ArgumentParser(description="train the demo model")
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--out", type=Path, default=MODEL)
    options = parser.parse_args()

    torch.set_num_threads(1)  # the bits of the result depend on the number of threads
    task = load_task("digits")
    start = time.perf_counter()
    model = train(
        task,
        n_heads=24,
        n_states=16,
        n_layers=2,
        norm="post",
        epochs=options.epochs,
        lr=3e-2,
        kernel_lr=1e-2,
        batch_size=32,
        dt_min=0.01,
        dt_max=0.1,
        dropout=0.1,
        weight_noise=0.05,
        label_smoothing=0.05,
        seed=0,
        on_epoch=show,
    ).replace(name="s4d-digits")
    accuracy = (model.logits(task.x_test).argmax(axis=1) == task.y_test).mean()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    save(model, options.out)
    print(
        f"{model.n_parameters} parameters, {model.n_states} states; test accuracy "
        f"{100 * accuracy:.2f} % on {len(task.y_test)} held-out digits; trained in "
        f"{time.perf_counter() - start:.0f} s; {options.out.stat().st_size / 1000:.0f} kB in "
        f"{options.out}"
    )


if __name__ == "__main__":
    main()
