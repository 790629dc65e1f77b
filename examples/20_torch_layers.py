"""A GRU or an LSTM with a linear classifier, its matrices on a chip, step by step.

    python examples/20_torch_layers.py [--cell gru|lstm] [--chip NAME] [--chips N] [--epochs N]

Handwritten digits are read row by row: 8 steps of 8 pixels. Both matrices of the recurrent cell
come onto tiles by `aimc.map_matrix` and multiply at every step; gates and states are in logic. The
classifier is an `nn.Linear` in an `ssm.ChipLayer`: after a day its weights are tuned to the chip
with straight-through gradients (every write goes to the next chip, as the cells of one chip err
anew at every write), on hidden states that the aged recurrent cell gives, and written again.
"""

import argparse
import copy

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

import aimc_sim as aimc
import ssm

SIZE = 32
GATES = {"gru": 3, "lstm": 4}
CELLS = {"gru": nn.GRU, "lstm": nn.LSTM}


class Classifier(nn.Module):
    """A recurrent cell over the rows of an image and a linear layer on its last state."""

    def __init__(self, cell: str) -> None:
        super().__init__()
        self.cell = CELLS[cell](8, SIZE, batch_first=True)
        self.head = nn.Linear(SIZE, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (n, 10) for images x (n, 8 rows, 8)."""
        return self.head(self.cell(x)[0][:, -1])


class ChipCell(nn.Module):
    """A trained nn.GRU or nn.LSTM with the products of its two matrices on a chip."""

    def __init__(self, cell: nn.GRU | nn.LSTM, chip: aimc.ChipSpec, seed: int) -> None:
        super().__init__()
        self.kind = "gru" if isinstance(cell, nn.GRU) else "lstm"
        self.bias_x, self.bias_h = cell.bias_ih_l0.detach(), cell.bias_hh_l0.detach()
        matrices = (cell.weight_ih_l0, cell.weight_hh_l0)
        self.x, self.h = (
            aimc.map_matrix(w.detach().numpy().T, chip).program(seed=2 * seed + k)
            for k, w in enumerate(matrices)
        )

    def wait(self, seconds: str) -> None:
        """Let time pass for both matrices."""
        self.x.wait(seconds)
        self.h.wait(seconds)

    def forward(self, images: Tensor) -> Tensor:
        """Return the state after the last row, (n, SIZE)."""
        h = torch.zeros(len(images), SIZE)
        c = torch.zeros(len(images), SIZE)
        for row in images.unbind(1):
            x_part = (torch.from_numpy(self.x.mvm(row.numpy())) + self.bias_x).chunk(
                GATES[self.kind], 1
            )
            h_part = (torch.from_numpy(self.h.mvm(h.numpy())) + self.bias_h).chunk(
                GATES[self.kind], 1
            )
            if self.kind == "gru":
                reset, update = (torch.sigmoid(x_part[k] + h_part[k]) for k in (0, 1))
                new = torch.tanh(x_part[2] + reset * h_part[2])
                h = (1 - update) * new + update * h
            else:
                into, forget, output = (torch.sigmoid(x_part[k] + h_part[k]) for k in (0, 1, 3))
                c = forget * c + into * torch.tanh(x_part[2] + h_part[2])
                h = output * torch.tanh(c)
        return h


def train(model: nn.Module, x: Tensor, y: Tensor, epochs: int, lr: float) -> None:
    """Train on shuffled batches of 64; the order follows torch's seed."""
    optimiser = torch.optim.Adam(model.parameters(), lr)
    for _ in range(epochs):
        for rows in torch.randperm(len(x)).split(64):
            optimiser.zero_grad()
            functional.cross_entropy(model(x[rows]), y[rows]).backward()
            optimiser.step()


def accuracy(logits: Tensor, y: Tensor) -> float:
    """Return the share of right answers in percent."""
    return 100 * (logits.argmax(1) == y).float().mean().item()


def main() -> None:
    """Train in float, then print the accuracy on sampled chips."""
    parser = argparse.ArgumentParser(description="recurrent cells and linear layers on a chip")
    parser.add_argument("--cell", choices=sorted(CELLS), default="gru")
    parser.add_argument("--chip", default="pcm-nandakumar2019")
    parser.add_argument("--chips", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=40)
    options = parser.parse_args()

    task = ssm.load_task("digits")
    x, x_test = (torch.from_numpy(a.reshape(-1, 8, 8)) for a in (task.x_train, task.x_test))
    y, y_test = torch.from_numpy(task.y_train), torch.from_numpy(task.y_test)
    torch.manual_seed(0)
    torch.set_num_threads(1)
    model = Classifier(options.cell)
    train(model, x, y, options.epochs, 5e-3)
    model.eval().requires_grad_(False)
    print(f"{options.cell.upper()} of {SIZE} and a linear layer on rows of digits, "
          f"{options.chips} chips of {options.chip}")
    print(f"{'float':30} {accuracy(model(x_test), y_test):5.1f} %")

    spec = aimc.load_chip(options.chip)
    rows: dict[str, list[float]] = {"written": [], "after a day": [],
                                    "a day, classifier tuned": []}
    for seed in range(options.chips):
        cell = ChipCell(model.cell, spec, seed)
        head = ssm.ChipLayer(copy.deepcopy(model.head), spec, seed=1000 + seed)
        rows["written"].append(accuracy(head(cell(x_test)), y_test))
        cell.wait("1d")
        head.wait("1d")
        rows["after a day"].append(accuracy(head(cell(x_test)), y_test))
        states = cell(x)
        head.chips = "new"
        train(head.requires_grad_(True), states, y, 3, 2e-3)
        head.chips = "one"
        rows["a day, classifier tuned"].append(accuracy(head(cell(x_test)), y_test))
    for name, values in rows.items():
        spread = np.std(values, ddof=1) if len(values) > 1 else 0.0
        print(f"{'chip, ' + name:30} {np.mean(values):5.1f} +- {spread:.1f} %")


if __name__ == "__main__":
    main()
