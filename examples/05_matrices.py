"""A linear system and a Fourier transform on simulated chips, matrix by matrix.

    python examples/05_matrices.py [--size N] [--chips NAME ...]

The system A x = b is solved to digital accuracy by iterative refinement: residuals in float64,
corrections by a few steps of conjugate gradients whose products run on the chip, as in
Le Gallo et al., Nat. Electron. 1, 246 (2018), doi:10.1038/s41928-018-0054-8. The transform is a
complex matrix; its inverse uses the same cells, driven from the columns.
"""

import argparse

import numpy as np

import aimc_sim as aimc

CHIPS = ("ideal", "cmo-hfox-fine", "pcm-nandakumar2019", "reram-wan2022")
INNER_STEPS = 5
ACCURACY = 1e-12


def error(found: np.ndarray, wanted: np.ndarray) -> float:
    """Return ||found - wanted|| / ||wanted||."""
    return float(np.linalg.norm(found - wanted) / np.linalg.norm(wanted))


def correct(a: aimc.AnalogMatrix, residual: np.ndarray) -> np.ndarray:
    """Return what a few steps of conjugate gradients on the chip make of A d = residual."""
    d, r = np.zeros_like(residual), residual.copy()
    p, rho = r.copy(), r @ r
    for _ in range(INNER_STEPS):
        image = (p @ a)[0].astype(float)
        step = rho / (p @ image)
        d, r = d + step * p, r - step * image
        p, rho = r + (r @ r) / rho * p, r @ r
    return d


def solve(
    a: aimc.AnalogMatrix, matrix: np.ndarray, b: np.ndarray, most: int = 200
) -> tuple[np.ndarray, int]:
    """Return x with A x = b, and how many corrections it took."""
    x = np.zeros_like(b)
    for count in range(most):
        residual = b - matrix @ x
        if np.linalg.norm(residual) <= ACCURACY * np.linalg.norm(b):
            return x, count
        x = x + correct(a, residual)
    return x, most


def main() -> None:
    """Print one line a chip."""
    parser = argparse.ArgumentParser(description="solve a system and transform on chips")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--chips", nargs="+", default=CHIPS)
    options = parser.parse_args()

    n = options.size
    rng = np.random.default_rng(0)
    samples = rng.standard_normal((4 * n, n))
    matrix = samples.T @ samples / len(samples) + 0.3 * np.eye(n)  # a covariance, regularised
    b, x = rng.standard_normal(n), rng.standard_normal((16, n))
    fourier = np.fft.fft(np.eye(n))

    print(f"{n} x {n}, an hour after programming; relative errors")
    print(
        f"{'chip':20}{'A x':>9}{'solution':>10}{'corrections':>12}{'products':>9}"
        f"{'DFT':>9}{'there and back':>15}"
    )
    for name in options.chips:
        spec = aimc.ChipSpec.preset(name).replace(compensation="column")
        a = aimc.map_matrix(matrix, spec).program(seed=1).wait(3600.0)
        product = error(x @ a, x @ matrix)
        before = a.reads
        solution, corrections = solve(a, matrix, b)
        f = aimc.map_matrix(fourier, spec).program(seed=2).wait(3600.0)
        spectrum = x @ f
        back = (spectrum.conj() @ f.T).conj().real / n
        print(
            f"{name:20}{product:9.1e}{error(solution, np.linalg.solve(matrix, b)):10.1e}"
            f"{corrections:12}{a.reads - before:9}{error(spectrum, np.fft.fft(x)):9.1e}"
            f"{error(back, x):15.1e}"
        )


if __name__ == "__main__":
    main()
