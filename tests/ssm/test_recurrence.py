"""The compiled recurrence is the plain loop, and its gradients are those of autograd."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from ssm.recurrence import recur, recur_slowly

pytestmark = pytest.mark.compiled


def systems(n_modes=5, dtype=torch.float64, device="cpu", bits=6):
    """Return u (3, 40, 4), matrices, readouts and steps, the latter small enough to clip."""
    torch.manual_seed(3)
    shape = (4, n_modes)
    pole = (0.6 + 0.39 * torch.rand(shape)) * torch.exp(1j * 3.1 * torch.rand(shape))
    rows = [torch.stack([pole.real, -pole.imag], -1), torch.stack([pole.imag, pole.real], -1)]
    matrix = torch.stack(rows, -2)
    step = 0.05 + 0.05 * torch.rand(*shape, 2)
    given = torch.randn(3, 40, 4), matrix, torch.randn(*shape, 2), step
    given = [part.to(device, dtype).requires_grad_() for part in given]
    return given if bits else [*given[:3], None]


def outputs_and_gradients(function, given, bits):
    y = function(*given, bits)
    torch.manual_seed(4)
    wanted = [part for part in given if part is not None]
    return y, *torch.autograd.grad(y, wanted, torch.randn(y.shape).to(y))


def largest_errors(given, bits):
    found = outputs_and_gradients(recur, given, bits)
    expected = outputs_and_gradients(recur_slowly, given, bits)
    pairs = zip(found, expected, strict=True)
    return [float(((a - b).abs().max() / b.abs().max()).detach()) for a, b in pairs]


@pytest.mark.parametrize("bits", [None, 2, 6, 16])
@pytest.mark.parametrize("n_modes", [1, 5, 16, 33])
def test_outputs_and_gradients_are_those_of_the_plain_loop(n_modes, bits):
    assert max(largest_errors(systems(n_modes, bits=bits), bits)) < 1e-12


@pytest.mark.parametrize("bits", [None, 6])
def test_float32_agrees_with_the_plain_loop_to_1e_5(bits):
    assert max(largest_errors(systems(dtype=torch.float32, bits=bits), bits)) < 1e-5


def test_clipping_and_rounding_take_place():
    u, matrix, readout, step = systems()
    states = recur(u, matrix, torch.stack([torch.ones(4, 5), torch.zeros(4, 5)], -1).double())
    rounded = recur(u, matrix, readout, step, 6)
    assert float(states.detach().abs().max()) > 31 * float(step.detach().max())
    assert float((rounded - recur(u, matrix, readout)).detach().abs().max()) > 0.1


def test_gradients_without_rounding_pass_gradcheck():
    u, matrix, readout, _ = systems(n_modes=2, bits=None)
    u = u[:2, :6].detach().requires_grad_()
    assert torch.autograd.gradcheck(recur, (u, matrix, readout))


def test_gradient_of_a_step_is_that_of_learned_step_sizes():
    # one state, one step of time: dQ/ds is round(v/s) - v/s inside and +-L where clipped
    for value, expected in ((0.33, round(3.3) - 3.3), (9.0, 7.0), (-9.0, -7.0)):
        u = torch.tensor([[[value]]], dtype=torch.float64)
        matrix = torch.zeros(1, 1, 2, 2, dtype=torch.float64)
        readout = torch.tensor([[[1.0, 0.0]]], dtype=torch.float64)
        step = torch.full((1, 1, 2), 0.1, dtype=torch.float64, requires_grad=True)
        recur(u, matrix, readout, step, 4).sum().backward()
        assert float(step.grad[0, 0, 0]) == pytest.approx(expected)


def test_gradient_stops_where_a_state_is_clipped():
    u = torch.tensor([[[0.33], [9.0]]], dtype=torch.float64, requires_grad=True)
    matrix = torch.zeros(1, 1, 2, 2, dtype=torch.float64)
    step = torch.full((1, 1, 2), 0.1, dtype=torch.float64)
    recur(u, matrix, torch.ones(1, 1, 2, dtype=torch.float64), step, 4).sum().backward()
    assert u.grad.ravel().tolist() == [1.0, 0.0]


_SCRIPT = """
import torch
from ssm import cuda
from ssm.recurrence import recur, _limit

torch.manual_seed(0)
for n_modes in (4, 5):
    u, matrix = torch.randn(2, 9, 3), 0.4 * torch.rand(3, n_modes, 2, 2)
    readout, step = torch.randn(3, n_modes, 2), 0.05 + 0.1 * torch.rand(3, n_modes, 2)
    given = [part.requires_grad_() for part in (u, matrix, readout, step)]
    y = recur(*given, 5)
    wanted = torch.autograd.grad(y.square().sum(), given)
    parts = (matrix.flatten(-2), readout, step)
    planes = [p.detach().contiguous() for part in parts for p in part.unbind(-1)]
    found, *kept = cuda.forward(u.detach(), planes, 15.0, True)
    grad_u, grads = cuda.backward(u.detach(), planes, 15.0, kept, 2 * found)
    grads = grads.movedim(0, -1)
    assert torch.allclose(found, y, atol=1e-5), n_modes
    assert torch.allclose(grad_u, wanted[0], atol=1e-4)
    assert torch.allclose(grads[..., :4].unflatten(-1, (2, 2)), wanted[1], atol=1e-4)
    assert torch.allclose(grads[..., 4:6], wanted[2], atol=1e-4)
    assert torch.allclose(grads[..., 6:], wanted[3], atol=1e-4)
"""


def test_gpu_kernels_agree_in_the_interpreter():
    pytest.importorskip("triton")
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT], env=environment, capture_output=True, text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
@pytest.mark.parametrize("bits", [None, 6])
@pytest.mark.parametrize("n_modes", [5, 32])
def test_gpu_agrees_with_the_plain_loop(n_modes, bits):
    given = systems(n_modes, torch.float32, "cuda", bits)
    assert max(largest_errors(given, bits)) < 1e-5
