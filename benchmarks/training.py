"""A step of training through the recurrence with rounded states."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks.table import Benchmark, Row
from benchmarks.timing import Timing

N_BATCH, N_STEPS, N_HEADS, N_MODES = 16, 784, 64, 32
GPU_BATCH, GPU_CALLS = 64, 100  # calls in a row: one takes a millisecond, a sleeping GPU more
QUICK_STEPS = 10
BITS = 8
ROUNDS = 3
SHARE_OF_LOOP = 20  # the plain loop may be no faster than this many of ours
EPOCH_S, N_SEQUENCES = 15.0, 60_000  # what an epoch of sequential MNIST may take on a GPU
PER = "step and sequence"


def _passes(
    function: Callable[..., Any], n_batch: int, n_steps: int, device: str = "cpu", calls: int = 1
) -> Callable[[], None]:
    """Return a call that takes n_batch sequences `calls` times through one layer and back."""
    import torch

    torch.manual_seed(0)
    shape = (N_HEADS, N_MODES)
    step = torch.full((*shape, 2), 0.02)
    parts = torch.randn(n_batch, n_steps, N_HEADS), 0.5 * torch.rand(*shape, 2, 2)
    given = [
        part.to(device).requires_grad_() for part in (*parts, torch.randn(*shape, 2), step)
    ]

    def both() -> None:
        for _ in range(calls):
            function(*given, BITS).sum().backward()
        if device == "cuda":
            torch.cuda.synchronize()

    return both


def _measure(benchmark: Benchmark, timing: Timing) -> Row:
    """Time forward and backward pass of one S4D-64 layer beside the plain torch loop."""
    from ssm.recurrence import recur, recur_slowly

    n_steps = QUICK_STEPS if timing.quick else N_STEPS
    calls = [_passes(each, N_BATCH, n_steps) for each in (recur, recur_slowly)]
    each = timing.for_long_calls(ROUNDS).alternate(*calls) / (N_BATCH * n_steps)
    return Row(
        benchmark.name, benchmark.what, PER, 1,
        ours=each[0],
        peer=each[1],
        peer_of="the same loop in torch",
        goal_s=float(each[1].mean()) / SHARE_OF_LOOP,
        note="the goal is a twentieth of the loop's time on this machine",
    )


def _measure_on_gpu(benchmark: Benchmark, timing: Timing) -> Row:
    """Time the same passes on a GPU beside the plain torch loop on the CPU."""
    from ssm.engine import missing_gpu
    from ssm.recurrence import recur, recur_slowly

    goal_s = EPOCH_S / (N_SEQUENCES * N_STEPS)
    reason = missing_gpu()
    if reason is not None:
        return Row(
            benchmark.name, benchmark.what, PER, 1, goal_s=goal_s, note=f"left out: {reason}"
        )
    n_steps, calls = (QUICK_STEPS, 1) if timing.quick else (N_STEPS, GPU_CALLS)
    seconds = timing.for_long_calls(ROUNDS).alternate(
        _passes(recur, GPU_BATCH, n_steps, "cuda", calls), _passes(recur_slowly, N_BATCH, n_steps)
    )
    return Row(
        benchmark.name, benchmark.what, PER, 1,
        ours=seconds[0] / (calls * GPU_BATCH * n_steps),
        peer=seconds[1] / (N_BATCH * n_steps),
        peer_of=f"the same loop in torch on the CPU, {N_BATCH} sequences",
        goal_s=goal_s,
        note=f"the goal is {EPOCH_S:g} s for {N_SEQUENCES} sequences of {N_STEPS} steps, of which "
        "this is the recurrence; examples/08_zhao.py prints seconds of whole epochs",
    )


BENCHMARKS = (
    Benchmark(
        "training-rounded-recurrence",
        f"S4D H = N = 64, forward and backward, states of {BITS} bits, batch {N_BATCH}", _measure,
    ),
    Benchmark(
        "training-rounded-recurrence-cuda",
        f"the same on a GPU, batch {GPU_BATCH}", _measure_on_gpu,
    ),
)
