"""Our grids beside those of brevitas, a library for training with rounding."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ssm.grids import TERNARY_THRESHOLD, round_weights
from ssm.rounding import fake_quantize, largest_code, quantize_weights
from ssm.schemes import Choice

pytest.importorskip(
    "brevitas", reason="brevitas is not installed; the extra 'test' has it"
)

W = np.random.default_rng(7).normal(size=(30, 5)) * np.array([1.0, 0.1, 3.0, 1e-2, 20.0])


def theirs(quantizer, bits, **settings):
    """Weights (n_in, n_out) as a layer of brevitas rounds them."""
    from brevitas.nn import QuantLinear

    layer = QuantLinear(
        *W.shape, bias=False, weight_quant=quantizer, weight_bit_width=bits, **settings
    ).eval()
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(W.T, dtype=torch.float32))
    return layer


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("per", ["channel", "tensor"])
def test_symmetric_grids_are_those_of_brevitas(bits, per):
    from brevitas import quant

    name = {"channel": "Int8WeightPerChannelFloat", "tensor": "Int8WeightPerTensorFloat"}[per]
    found = theirs(getattr(quant, name), bits).quant_weight()
    grid = round_weights(W, bits, Choice(per=per), axis=0 if per == "channel" else (0, 1))
    scale = np.broadcast_to(found.scale.detach().numpy().T, grid.scale.shape)
    np.testing.assert_allclose(scale, grid.scale, rtol=1e-5)
    np.testing.assert_allclose(
        found.value.detach().numpy().T, grid.values(), atol=1e-5 * np.abs(W).max()
    )


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_asymmetric_grids_are_those_of_brevitas(bits):
    from brevitas import quant

    layer = theirs(quant.ShiftedUint8WeightPerChannelFloat, bits)
    found = layer.quant_weight()
    grid = round_weights(W, bits, Choice(sides="asymmetric"), axis=0)
    np.testing.assert_allclose(found.scale.detach().numpy().T, grid.scale, rtol=1e-5)
    np.testing.assert_allclose(found.zero_point.detach().numpy().T, grid.zero)
    np.testing.assert_allclose(
        found.value.detach().numpy().T, grid.values(), atol=1e-5 * np.abs(W).max()
    )


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_learned_steps_have_the_values_and_gradients_of_brevitas(bits):
    from brevitas.core.bit_width import BitWidthConst
    from brevitas.core.function_wrapper import Identity, RoundSte, TensorClamp
    from brevitas.core.quant import IntQuant
    from brevitas.core.scaling import ParameterScaling

    limit = largest_code(bits)
    start = 2.5 / limit
    quantize = IntQuant(
        narrow_range=True, signed=True, float_to_int_impl=RoundSte(),
        tensor_clamp_impl=TensorClamp(), input_view_impl=Identity(),
    )
    weight = torch.tensor(W, dtype=torch.float32, requires_grad=True)
    learned = ParameterScaling(start)
    out = quantize(learned(weight), torch.tensor(0.0), BitWidthConst(bits)(), weight)
    slope = torch.tensor(np.random.default_rng(1).normal(size=W.shape), dtype=torch.float32)
    # up to half a step beyond the last code brevitas, which rounds before it clips, passes the
    # gradient; Esser et al. (eq. 3) and we do not
    past = weight.detach().abs() / start - limit
    slope[(past > 0) & (past < 0.5)] = 0.0
    (out * slope).sum().backward()

    w = torch.tensor(W, dtype=torch.float32, requires_grad=True)
    step = torch.tensor(start, requires_grad=True)
    ours = fake_quantize(w, step, bits)
    (ours * slope).sum().backward()
    assert 0 < (w.detach().abs() > limit * start).sum() < w.numel()  # some weights are clipped
    np.testing.assert_allclose(ours.detach(), out.detach(), rtol=1e-6)
    np.testing.assert_array_equal(w.grad, weight.grad)
    np.testing.assert_allclose(step.grad, learned.value.grad, rtol=1e-5)


def test_ternary_weights_are_those_of_brevitas():
    """Its scale and threshold are given; ours come from the weights (Li et al.)."""
    from brevitas.core.quant import TernaryQuant
    from brevitas.core.scaling import ConstScaling

    for column in W.T:
        grid = round_weights(column[:, None], 2, Choice("ternary"), axis=0)
        scale = float(grid.scale[0, 0])
        threshold = TERNARY_THRESHOLD * np.abs(column).mean() / scale
        quantize = TernaryQuant(ConstScaling(scale), threshold)
        found, *_ = quantize(torch.tensor(column, dtype=torch.float32))
        np.testing.assert_allclose(found.numpy(), grid.values()[:, 0], rtol=1e-6)
        ours = quantize_weights(torch.tensor(column[:, None]), 2, 0, Choice("ternary"))
        np.testing.assert_allclose(found.numpy(), ours[:, 0], rtol=1e-6)
