"""Arrays with resistive lines against an independent nodal analysis and published solutions."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import coo_matrix
from scipy.sparse.linalg import splu

from aimc_sim import wires

ORACLE = Path(os.environ.get("AIMC_SHARED", "shared")) / "reference" / "irdrop"
RTOL = 1e-10


def solve_nodes(g, v, *, r_wl, r_bl, r_driver=0.0, r_sense=0.0, drive="left"):
    """Return currents (batch, cols) for voltages v (rows, batch): one sparse system of all nodes.

    An ideal line is one node, ideal drivers and grounds are folded into the right-hand side.
    """
    n, m = g.shape
    row, col = (a.ravel() for a in np.indices(g.shape))
    word = row * m + col if r_wl > 0 else row  # node numbers before the bit lines'
    n_words = n * m if r_wl > 0 else n
    bit = n_words + (row * m + col if r_bl > 0 else col)
    source = n_words + (n * m if r_bl > 0 else m)
    ground = source + n
    edges = [(word, bit, g.ravel())]
    word_at, bit_at = word.reshape(n, m), bit.reshape(n, m)
    if r_wl > 0:
        edges.append((word_at[:, 1:].ravel(), word_at[:, :-1].ravel(), 1 / r_wl))
    if r_bl > 0:
        edges.append((bit_at[1:].ravel(), bit_at[:-1].ravel(), 1 / r_bl))
    tied = {}
    for ends in (word_at[:, 0], word_at[:, -1]) if drive == "both" else (word_at[:, 0],):
        if r_wl + r_driver > 0:
            edges.append((source + np.arange(n), ends, 1 / (r_wl + r_driver)))
        else:
            tied |= dict(zip(ends, source + np.arange(n), strict=True))
    if r_bl + r_sense > 0:
        edges.append((bit_at[-1], np.full(m, ground), 1 / (r_bl + r_sense)))
    else:
        tied |= dict.fromkeys(bit_at[-1], ground)
    a, b, y = (
        np.concatenate(x)
        for x in zip(*[np.broadcast_arrays(p, q, np.asarray(s, float)) for p, q, s in edges],
                     strict=True)
    )
    size = ground + 1
    laplacian = coo_matrix(
        (np.concatenate([y, y, -y, -y]),
         (np.concatenate([a, b, a, b]), np.concatenate([a, b, b, a]))), (size, size),
    ).tocsc()
    potential = np.zeros((size, v.shape[1]))
    potential[source:ground] = v
    for node, terminal in tied.items():
        potential[node] = potential[terminal]
    known = np.zeros(size, bool)
    known[source:] = True
    known[list(tied)] = True
    free = ~known
    if free.any():
        left = laplacian[free][:, free]
        right = -laplacian[free][:, known] @ potential[known]
        factor = splu(left, permc_spec="MMD_AT_PLUS_A", options={"SymmetricMode": True})
        potential[free] = factor.solve(right)
    if r_bl + r_sense > 0:
        return (potential[bit_at[-1]] / (r_bl + r_sense)).T
    drop = potential[word] - potential[bit]
    return np.add.reduceat(
        (g.ravel()[:, None] * drop)[np.argsort(col, kind="stable")], np.arange(m) * n
    ).T


@pytest.mark.parametrize(
    "name",
    ["tiny_2x2", "sq_16", "sq_64", "rect_3x7_bipolar", "rect_128x64", "bl_only_8x8", "wl_only_8x8",
     "zero_r_8x8"],
)
def test_published_solutions_are_met(name):
    if not ORACLE.is_dir():
        pytest.skip("the oracle is not here")
    case = np.load(ORACLE / f"{name}.npz")
    effective = wires.effective_conductance(
        case["G"], r_wl_ohm=float(case["r_wl"]), r_bl_ohm=float(case["r_bl"])
    )
    np.testing.assert_allclose(case["V"].T @ effective, case["I"], rtol=RTOL)


@pytest.mark.parametrize(
    ("shape", "ohms"),
    [
        ((5, 9), {"r_wl": 3.0, "r_bl": 2.0}),
        ((9, 5), {"r_wl": 3.0, "r_bl": 2.0, "r_driver": 100.0, "r_sense": 30.0}),
        ((40, 23), {"r_wl": 0.5, "r_bl": 4.0, "drive": "both"}),
        ((23, 40), {"r_wl": 5.0, "r_bl": 0.7, "drive": "both", "r_driver": 250.0, "r_sense": 9.0}),
        ((12, 12), {"r_wl": 0.0, "r_bl": 1.0, "r_driver": 40.0}),
        ((7, 13), {"r_wl": 0.0, "r_bl": 1.0}),
        ((13, 7), {"r_wl": 2.0, "r_bl": 0.0}),
        ((7, 13), {"r_wl": 2.0, "r_bl": 0.0, "r_sense": 100.0}),
        ((6, 6), {"r_wl": 0.0, "r_bl": 0.0, "r_driver": 500.0, "r_sense": 200.0}),
        ((6, 8), {"r_wl": 0.0, "r_bl": 0.0, "r_sense": 200.0, "drive": "both"}),
        ((1, 6), {"r_wl": 10.0, "r_bl": 10.0}),
        ((6, 1), {"r_wl": 10.0, "r_bl": 10.0, "drive": "both"}),
        pytest.param(
            (128, 256), {"r_wl": 1.0, "r_bl": 1.0, "r_driver": 10.0}, marks=pytest.mark.compiled
        ),
        pytest.param((256, 256), {"r_wl": 1.0, "r_bl": 2.0}, marks=pytest.mark.compiled),
    ],
)
def test_currents_are_those_of_the_nodes(shape, ohms):
    rng = np.random.default_rng(shape[0])
    g = rng.uniform(1e-6, 100e-6, shape) * (rng.random(shape) < 0.9)  # some cells do not exist
    v = rng.uniform(-0.3, 0.3, (shape[0], 3))  # both signs
    names = {"r_wl": "r_wl_ohm", "r_bl": "r_bl_ohm", "r_driver": "r_driver_ohm",
             "r_sense": "r_sense_ohm", "drive": "drive"}
    effective = wires.effective_conductance(g, **{names[k]: value for k, value in ohms.items()})
    wanted = solve_nodes(g, v, **ohms)
    scale = np.abs(wanted).max()
    np.testing.assert_allclose(v.T @ effective, wanted, rtol=RTOL, atol=RTOL * scale)


def test_lines_of_very_unlike_resistance_keep_their_digits():
    g = np.random.default_rng(1).uniform(1e-6, 100e-6, (12, 12))
    v = np.eye(12)
    ohms = {"r_wl": 1e-6, "r_bl": 1e-6, "r_sense": 1e3, "r_driver": 10.0}
    effective = wires.effective_conductance(
        g, r_wl_ohm=1e-6, r_bl_ohm=1e-6, r_sense_ohm=1e3, r_driver_ohm=10.0
    )
    # the limit of ideal lines is off by the resistance that it leaves out, 1e-6 of 10 ohm
    limit = solve_nodes(g, v, **{**ohms, "r_wl": 0.0, "r_bl": 0.0})
    np.testing.assert_allclose(effective, limit, rtol=1e-6)


def test_lines_without_cells_only_lengthen_the_wires():
    rng = np.random.default_rng(2)
    rows, cols, shape = np.array([1, 4, 5]), np.array([0, 3, 7, 8]), (9, 11)
    g = rng.uniform(1e-6, 100e-6, (3, 4))
    whole = np.zeros(shape)
    whole[np.ix_(rows, cols)] = g
    for drive in ("left", "both"):
        ohms = {"r_wl_ohm": 3.0, "r_bl_ohm": 5.0, "r_sense_ohm": 7.0, "drive": drive}
        network = wires.make_network(g, rows=rows, cols=cols, shape=shape, **ohms)
        wanted = wires.effective_conductance(whole, **ohms)[np.ix_(rows, cols)]
        np.testing.assert_allclose(wires.effective(network), wanted, rtol=1e-12)
