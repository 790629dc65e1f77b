"""A checkpoint as others leave it: S4D in plain torch, trained on 8 x 8 digits pixel by pixel.

    python examples/00_state_spaces.py [--epochs N] [--out FOLDER]

The classes have the names, tensors and forward pass of the standalone S4D of
github.com/state-spaces/s4 and its example model (Gu et al., doi:10.48550/arXiv.2206.11893), and
nothing of this package. FOLDER gets checkpoint.pt, a state dict, and train.npz and test.npz,
sequences x (n, time, features) with their labels y (n,), as `aimc-sim` takes them.
"""

import argparse
import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn


class S4DKernel(nn.Module):
    """The impulse responses of H diagonal systems of N real states, by zero-order hold."""

    def __init__(self, n_heads: int, n_states: int) -> None:
        super().__init__()
        log_dt = torch.rand(n_heads) * math.log(10.0) + math.log(0.01)
        self.C = nn.Parameter(torch.randn(n_heads, n_states // 2, 2) * math.sqrt(0.5))
        self.log_dt = nn.Parameter(log_dt)
        self.log_A_real = nn.Parameter(torch.full((n_heads, n_states // 2), math.log(0.5)))
        frequency = math.pi * torch.arange(float(n_states // 2))
        self.A_imag = nn.Parameter(frequency.repeat(n_heads, 1))

    def forward(self, n_steps: int) -> Tensor:
        """Return the responses (H, n_steps)."""
        a = torch.complex(-torch.exp(self.log_A_real), self.A_imag)
        dt_a = torch.exp(self.log_dt)[:, None] * a
        c = torch.view_as_complex(self.C) * (torch.exp(dt_a) - 1.0) / a
        powers = torch.exp(dt_a[:, :, None] * torch.arange(n_steps))
        return 2.0 * torch.einsum("hn,hnl->hl", c, powers).real


class S4D(nn.Module):
    """One layer: the systems, GELU, mixing over heads, gated linear unit."""

    def __init__(self, n_heads: int, n_states: int) -> None:
        super().__init__()
        self.D = nn.Parameter(torch.randn(n_heads))
        self.kernel = S4DKernel(n_heads, n_states)
        self.output_linear = nn.Sequential(
            nn.Conv1d(n_heads, 2 * n_heads, kernel_size=1), nn.GLU(dim=-2)
        )

    def forward(self, u: Tensor) -> Tensor:
        """Return the layer's output (batch, H, time) for u (batch, H, time)."""
        n_steps = u.shape[-1]
        response = torch.fft.rfft(self.kernel(n_steps), n=2 * n_steps)
        y = torch.fft.irfft(torch.fft.rfft(u, n=2 * n_steps) * response, n=2 * n_steps)
        return self.output_linear(nn.functional.gelu(y[..., :n_steps] + u * self.D[:, None]))


class S4Model(nn.Module):
    """Encoder, layers with residuals and norms behind them, mean over time, decoder."""

    def __init__(self, n_heads: int = 24, n_states: int = 16, n_layers: int = 2) -> None:
        super().__init__()
        self.encoder = nn.Linear(1, n_heads)
        self.s4_layers = nn.ModuleList(S4D(n_heads, n_states) for _ in range(n_layers))
        self.norms = nn.ModuleList(nn.LayerNorm(n_heads) for _ in range(n_layers))
        self.decoder = nn.Linear(n_heads, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (batch, 10) for x (batch, time, 1)."""
        h = self.encoder(x).transpose(1, 2)
        for layer, norm in zip(self.s4_layers, self.norms, strict=True):
            h = norm((h + layer(h)).transpose(1, 2)).transpose(1, 2)
        return self.decoder(h.mean(dim=2))


def main() -> None:
    """Train, say how good it is, save."""
    parser = argparse.ArgumentParser(description="train an S4D in plain torch")
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--out", type=Path, default=Path())
    options = parser.parse_args()

    from ssm import load_task

    task = load_task("digits")  # of this package: 1,438 digits to train with, 359 to test
    x, y = torch.from_numpy(task.x_train), torch.from_numpy(task.y_train)
    mean, std = x.mean(), x.std()
    torch.manual_seed(0)
    model = S4Model()
    optimiser = torch.optim.AdamW(model.parameters())
    steps = options.epochs * (len(x) // 32)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 1e-2, total_steps=steps)
    for epoch in range(options.epochs):
        for batch in torch.randperm(len(x))[: len(x) // 32 * 32].view(-1, 32):
            loss = nn.functional.cross_entropy(model((x[batch] - mean) / std), y[batch])
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            schedule.step()
        if epoch % 10 == 9:
            print(f"epoch {epoch + 1:3d}  loss {loss.item():.3f}")

    x_train, x_test = (
        ((torch.from_numpy(part) - mean) / std).numpy() for part in (task.x_train, task.x_test)
    )
    with torch.no_grad():
        found = model(torch.from_numpy(x_test)).argmax(dim=1).numpy()
    print(f"test accuracy {100 * (found == task.y_test).mean():.1f} %")
    options.out.mkdir(parents=True, exist_ok=True)
    torch.save(model.state_dict(), options.out / "checkpoint.pt")
    np.savez(options.out / "train.npz", x=x_train, y=task.y_train)
    np.savez(options.out / "test.npz", x=x_test, y=task.y_test)


if __name__ == "__main__":
    main()
