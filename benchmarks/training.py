"""A step of training through the recurrence with rounded states."""

from __future__ import annotations

from benchmarks.table import Benchmark, Row
from benchmarks.timing import Timing

N_BATCH, N_STEPS, N_HEADS, N_MODES = 16, 784, 64, 32
QUICK_STEPS = 10
BITS = 8
ROUNDS = 3
SHARE_OF_LOOP = 20  # the plain loop may be no faster than this many of ours


def _measure(benchmark: Benchmark, timing: Timing) -> Row:
    """Time forward and backward pass of one S4D-64 layer beside the plain torch loop."""
    import torch

    from ssm.recurrence import recur, recur_slowly

    torch.manual_seed(0)
    n_steps = QUICK_STEPS if timing.quick else N_STEPS
    shape = (N_HEADS, N_MODES)
    u = torch.randn(N_BATCH, n_steps, N_HEADS, requires_grad=True)
    matrix = (0.5 * torch.rand(*shape, 2, 2)).requires_grad_()
    readout = torch.randn(*shape, 2, requires_grad=True)
    step = torch.full((*shape, 2), 0.02, requires_grad=True)

    def ours() -> None:
        recur(u, matrix, readout, step, BITS).sum().backward()

    def loop() -> None:
        recur_slowly(u, matrix, readout, step, BITS).sum().backward()

    seconds = timing.for_long_calls(ROUNDS).alternate(ours, loop)
    each = seconds / (N_BATCH * n_steps)
    return Row(
        benchmark.name, benchmark.what, "step and sequence", 1,
        ours=each[0],
        peer=each[1],
        peer_of="the same loop in torch",
        goal_s=float(each[1].mean()) / SHARE_OF_LOOP,
        note="the goal is a twentieth of the loop's time on this machine",
    )


BENCHMARKS = (
    Benchmark(
        "training-rounded-recurrence",
        f"S4D H = N = 64, forward and backward, states of {BITS} bits, batch {N_BATCH}", _measure,
    ),
)
