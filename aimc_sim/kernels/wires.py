"""Lines of resistive wire: what a row of cells does to the bit lines that it feeds.

All sums below are of positive terms, so that no digit is lost for wires that hardly resist:
a line is described by the conductances L, R [S] that its nodes see to the left and to the right,
which a segment r turns into L/(1 + r L) one node on.
"""

from __future__ import annotations

from aimc_sim.kernels._jit import kernel


@kernel(inline=True)
def _look(g, gap, left, right, from_left, from_right, z):
    """Fill what the nodes of a word line see, and z [ohm] their impedance to ground.

    g, gap, from_left, from_right, z (m,): gap[k] [ohm] lies between nodes k - 1 and k; left,
    right [S] at the ends. from_left and from_right are without the node's own cell.
    """
    m = g.size
    from_left[0] = left
    for k in range(1, m):
        seen = from_left[k - 1] + g[k - 1]
        from_left[k] = seen / (1.0 + gap[k] * seen)
    from_right[m - 1] = right
    for k in range(m - 1, 0, -1):
        seen = from_right[k] + g[k]
        from_right[k - 1] = seen / (1.0 + gap[k] * seen)
    for k in range(m):
        z[k] = 1.0 / (from_left[k] + g[k] + from_right[k])


@kernel()
def open_line(g, gap, left, right, from_left, from_right, z, pass_right, v):
    """Fill what a word line is with every bit line grounded, cells g (m,) [S].

    pass_right (m,): share of the voltage of node k - 1 that node k has where nothing right of
    k - 1 is fed. v (m,): voltage of the nodes per volt of the source at the ends.
    left, right [S] : conductances to the source at the ends, 0 where one is open.
    """
    m = g.size
    _look(g, gap, left, right, from_left, from_right, z)
    pass_right[0] = 1.0
    for k in range(1, m):
        pass_right[k] = 1.0 / (1.0 + gap[k] * (g[k] + from_right[k]))
    v[0] = z[0] * left
    for k in range(1, m):
        v[k] = v[k - 1] * pass_right[k]
    if right > 0.0:
        fed = z[m - 1] * right
        v[m - 1] += fed
        for k in range(m - 2, -1, -1):
            fed /= 1.0 + gap[k + 1] * (g[k] + from_left[k])
            v[k] += fed


@kernel()
def add_line(g, from_left, from_right, z, pass_right, y):
    """y (m, m), upper triangle, += the admittance [S] of a word line seen from the bit lines.

    diag(g) - diag(g) T^-1 diag(g), T the word line's own matrix; T^-1 falls off from node to
    node by pass_right.
    """
    m = g.size
    for b in range(m):
        y[b, b] += g[b] * (from_left[b] + from_right[b]) * z[b]
        through = g[b] * z[b]
        for a in range(b + 1, m):
            through *= pass_right[a]
            y[b, a] -= through * g[a]


@kernel()
def through_segment(p, ohm, y):
    """y (m, m) = (1 - p)/ohm, upper triangle: the admittance [S] behind a segment of bit lines."""
    m = y.shape[0]
    for b in range(m):
        for a in range(b, m):
            y[b, a] = -p[b, a] / ohm
        y[b, b] += 1.0 / ohm


@kernel()
def one_plus(y, ohm, a):
    """a (m, m) = 1 + ohm y, upper triangle."""
    m = y.shape[0]
    for b in range(m):
        for k in range(b, m):
            a[b, k] = ohm * y[b, k]
        a[b, b] += 1.0


@kernel()
def mirror(y):
    """Copy the upper triangle of y (m, m) to the lower one."""
    m = y.shape[0]
    for b in range(m):
        for a in range(b + 1, m):
            y[a, b] = y[b, a]
