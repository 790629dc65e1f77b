"""Random models of a few heads for the deployment tests; numpy alone, fixed seeds."""

from __future__ import annotations

import numpy as np

from aimc_sim.specs import ChipSpec
from ssm.model import Layer, Model

IDEAL = ChipSpec.preset("ideal")
PCM = ChipSpec.preset("pcm-nandakumar2019")


def random_poles(
    rng: np.random.Generator,
    shape: tuple[int, int],
    *,
    longest: float = 0.9995,
    angle: float = np.pi,
) -> np.ndarray:
    """Return poles dA of time constants 5 steps .. 1/(1 - longest), angles in +-angle."""
    decay = np.exp(rng.uniform(np.log(1 - longest), np.log(0.2), shape))
    return (1 - decay) * np.exp(1j * rng.uniform(-angle, angle, shape))


def random_model(
    seed: int = 0,
    *,
    n_heads: int = 4,
    n_modes: int = 3,
    n_layers: int = 2,
    d_input: int = 1,
    n_classes: int = 3,
    norm: str = "post",
    norm_kind: str = "layer",
    pool: str = "mean",
    gate: str = "glu",
    disc: str = "zoh",
    real_share: float = 0.0,
    longest: float = 0.9995,
    precision: dict[str, int] | None = None,
    task: str | None = None,
) -> Model:
    """Return a model with poles all over the unit disc, half of them with Re dA < 0.

    real_share : fraction of the modes that are real poles and stand alone (mode_weight 1).
    """
    rng = np.random.default_rng(seed)
    layers = []
    for _ in range(n_layers):
        shape = (n_heads, n_modes)
        pole = random_poles(rng, shape, longest=longest)
        drive = (rng.normal(size=shape) + 1j * rng.normal(size=shape)) * np.abs(1 - pole)
        readout = (rng.normal(size=shape) + 1j * rng.normal(size=shape)) / np.sqrt(n_modes)
        alone = rng.random(shape) < real_share
        magnitude = np.abs(pole) * np.sign(pole.real)
        n_mix = 2 * n_heads if gate == "glu" else n_heads
        layers.append(
            Layer(
                pole=np.where(alone, magnitude, pole),
                drive=np.where(alone, drive.real, drive),
                readout=np.where(alone, readout.real, readout),
                mode_weight=np.where(alone, 1.0, 2.0),
                skip=rng.normal(size=n_heads),
                mix_weight=rng.normal(size=(n_heads, n_mix)) / np.sqrt(n_heads),
                mix_bias=0.1 * rng.normal(size=n_mix),
                norm_scale=np.ones(n_heads) if norm == "none" else rng.uniform(0.5, 1.5, n_heads),
                norm_shift=np.zeros(n_heads) if norm == "none" else 0.2 * rng.normal(size=n_heads),
            )
        )
    return Model(
        rng.normal(size=(d_input, n_heads)),
        0.1 * rng.normal(size=n_heads),
        tuple(layers),
        rng.normal(size=(n_heads, n_classes)),
        0.1 * rng.normal(size=n_classes),
        norm=norm,
        disc=disc,
        pool=pool,
        norm_kind=norm_kind,
        gate=gate,
        precision=precision,
        task=task,
        name=f"random-{seed}",
    )


def random_input(seed: int, n: int, n_steps: int, d_input: int = 1) -> np.ndarray:
    """Return sequences (n, n_steps, d_input), float32, uniform in [0, 1)."""
    return np.random.default_rng(seed).random((n, n_steps, d_input), np.float32)


def relative_error(found: np.ndarray, expected: np.ndarray) -> float:
    """Return the largest deviation in units of the largest expected magnitude."""
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def relative_rms(found: np.ndarray, expected: np.ndarray) -> float:
    """Return the root-mean-square deviation in units of that of the expected values."""
    return float(np.sqrt(((found - expected) ** 2).mean() / (expected**2).mean()))
