"""Torch layers on a chip: the chip's answers, the float layer's gradients, the same bits again."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch
from torch import nn

import aimc_sim as aimc
import ssm
from aimc_sim.errors import InputError, UsageError
from ssm.layers import S4D, Block, Linear

DAY = 86400.0
IDEAL = aimc.ChipSpec.preset("ideal")
NOISY = aimc.ChipSpec.preset("pcm-nandakumar2019")


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def linear(n_in=12, n_out=7, **more):
    return nn.Linear(n_in, n_out, **more)


def block(norm="post", **more):
    return Block(6, 3, norm=norm, dropout=0.0, dt_min=1e-2, dt_max=1e-1, **more)


def signals(n=3, time=20):
    return torch.randn(n, time, 6)


@pytest.mark.parametrize("kind", [nn.Linear, Linear])
@pytest.mark.parametrize("shape", [(12,), (5, 12), (2, 3, 4, 12), (0, 12)])
def test_on_an_ideal_chip_a_layer_is_itself(kind, shape):
    layer = kind(12, 7)
    x = torch.randn(shape)
    y = ssm.ChipLayer(layer, IDEAL)(x)
    wanted = layer(x)
    assert y.shape == wanted.shape and y.dtype == wanted.dtype
    assert torch.allclose(y, wanted, atol=2e-6)


def test_the_answer_is_that_of_the_mapped_matrix_bit_for_bit():
    layer, x, typical = linear(bias=False), torch.randn(9, 12), 2 * torch.randn(40, 12)
    on_chip = ssm.ChipLayer(layer, NOISY, seed=3, chip_number=2, calibrate=typical, at="1h")
    w = layer.weight.detach().double().numpy().T
    matrix = aimc.map_matrix(w, NOISY, typical.numpy()).program(3, 2).wait("1h")
    assert np.array_equal(on_chip(x).detach().numpy(), matrix.mvm(x.numpy()))
    assert on_chip.time_s == 3600.0 and on_chip.reads_so_far == 9


@pytest.mark.parametrize("spec", [IDEAL, NOISY], ids=["ideal", "noisy"])
def test_gradients_are_those_of_the_float_layer_whatever_the_chip_answers(spec):
    layer = linear()
    x, upstream = torch.randn(5, 12, requires_grad=True), torch.randn(5, 7)
    wanted = torch.autograd.grad(layer(x), [x, *layer.parameters()], upstream)
    y = ssm.ChipLayer(layer, spec)(x)
    found = torch.autograd.grad(y, [x, *layer.parameters()], upstream)
    assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))
    assert (y - layer(x)).abs().max() > (1e-3 if spec is NOISY else -1)


def test_the_gradient_of_the_float_path_is_right_to_second_differences():
    layer = ssm.ChipLayer(linear(4, 3).double(), NOISY)
    layer.on_chip = False
    x = torch.randn(2, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(layer, (x,))
    small = block().double()
    layer = ssm.ChipLayer(small, IDEAL, calibrate=signals())
    layer.on_chip = False
    assert torch.autograd.gradcheck(
        layer, (torch.randn(1, 5, 6, dtype=torch.float64, requires_grad=True),)
    )


def test_the_answer_feeds_the_loss_and_the_float_layer_its_derivative():
    # d(y^2)/dw = 2 y_chip x, not 2 y_float x
    layer = linear(1, 1, bias=False)
    on_chip = ssm.ChipLayer(layer, NOISY, reads="same")
    x = torch.tensor([[2.0]])
    y = on_chip(x)
    y.square().sum().backward()
    assert layer.weight.grad.item() == pytest.approx(2 * y.item() * 2.0, rel=1e-6)
    assert y.item() != layer(x).item()


def test_fresh_reads_differ_and_the_same_reads_do_not():
    layer, x = linear(), torch.randn(4, 12)
    spec = NOISY.replace(noise_in_time="white")
    fresh = ssm.ChipLayer(layer, spec)
    first, second = fresh(x), fresh(x)
    assert not torch.equal(first, second)
    again = ssm.ChipLayer(layer, spec)
    assert torch.equal(again(x[:1]), first[:1]) and torch.equal(again(x[1:]), first[1:])
    same = ssm.ChipLayer(layer, spec, reads="same")
    assert torch.equal(same(x), first) and torch.equal(same(x), first)


def test_changed_weights_are_written_before_they_are_read():
    layer, x = linear(), torch.randn(4, 12)
    on_chip = ssm.ChipLayer(layer, NOISY, seed=5, at="1h")
    before = on_chip(x)
    on_chip.wait("1d")
    assert on_chip.time_s == 3600.0 + DAY
    with torch.no_grad():
        layer.weight += 0.3
        layer.bias += 1.0
    after = on_chip(x)
    assert on_chip.time_s == 3600.0  # the clock starts anew
    assert torch.equal(after, ssm.ChipLayer(layer, NOISY, seed=5, at="1h")(x))
    assert not torch.equal(after, before)
    with torch.no_grad():
        layer.bias += 1.0  # in logic: nothing is written
    on_chip.wait("1d")
    on_chip(x)
    assert on_chip.time_s == 3600.0 + DAY


def test_every_write_may_go_to_a_chip_of_its_own():
    layer, x = linear(), torch.randn(200, 12)
    one, new = (ssm.ChipLayer(layer, NOISY, chips=which, reads="same") for which in ("one", "new"))
    errors = {"one": [], "new": []}
    for name, on_chip in (("one", one), ("new", new)):
        for _ in range(3):
            errors[name].append((on_chip(x) - layer(x)).detach())
            on_chip.program()
    assert torch.equal(errors["one"][0], errors["one"][2])
    assert (one.chip_number, new.chip_number) == (0, 3)
    together = np.corrcoef([e.flatten().numpy() for e in errors["new"]])
    # programming errors of 12 x 7 pairs
    assert np.abs(together - np.eye(3)).max() < 5 / np.sqrt(84)


@pytest.mark.compiled
def test_a_state_dict_brings_back_the_same_chip_at_the_same_moment(tmp_path):
    x, typical = torch.randn(4, 12), torch.randn(30, 12)
    on_chip = ssm.ChipLayer(linear(), NOISY, seed=8, chips="new", calibrate=typical)
    on_chip(x)
    on_chip.program().wait("1d")
    on_chip(x)
    torch.save(on_chip.state_dict(), tmp_path / "layer.pt")
    other = ssm.ChipLayer(linear(), NOISY, calibrate=torch.zeros(30, 12))
    other.load_state_dict(torch.load(tmp_path / "layer.pt", weights_only=True))
    assert (other.chip_number, other.time_s, other.reads_so_far) == (1, DAY, 4)
    assert torch.equal(other(x), on_chip(x))
    assert torch.equal(other(x), on_chip(x))
    recurrent = ssm.ChipLayer(block(), NOISY, seed=2, calibrate=signals(), form="leapfrog")
    recurrent.wait("1h")
    recurrent(signals())
    copied = ssm.ChipLayer(block(), NOISY, calibrate=signals())
    copied.load_state_dict(recurrent.state_dict())
    u = signals()
    assert torch.equal(copied(u), recurrent(u))


def test_a_state_dict_of_another_chip_is_refused():
    state = ssm.ChipLayer(linear(), NOISY).state_dict()
    with pytest.raises(InputError, match="another chip than 'ideal'.*ChipSpec"):
        ssm.ChipLayer(linear(), IDEAL).load_state_dict(state)
    state["_extra_state"] = {"seed": "3"}
    with pytest.raises(InputError, match="does not say which chip"):
        ssm.ChipLayer(linear(), NOISY).load_state_dict(state)


def test_copies_go_on_as_the_original_would():
    on_chip, x = ssm.ChipLayer(linear(), NOISY, seed=4), torch.randn(3, 12)
    on_chip.wait("1h")
    on_chip(x)
    for copied in (copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))):
        twin = copied(on_chip)
        assert torch.equal(twin(x), on_chip(x))
        assert twin.time_s == 3600.0
        with torch.no_grad():
            twin.layer.weight += 1.0
        assert not torch.equal(twin(x), on_chip(x))
        assert twin.layer.weight is not on_chip.layer.weight


@pytest.mark.compiled
@pytest.mark.parametrize("norm", ["pre", "post", "none"])
def test_a_whole_s4d_layer_runs_step_by_step_on_the_chip(norm):
    layer, u = block(norm), signals(4, 40)
    on_chip = ssm.ChipLayer(layer, IDEAL, calibrate=u)
    y = on_chip(u)
    assert torch.allclose(y, layer(u), atol=1e-5)
    wanted = torch.autograd.grad(layer(u).square().sum(), list(layer.parameters()),
                                 allow_unused=True)
    found = torch.autograd.grad(y.square().sum(), list(layer.parameters()), allow_unused=True)
    for a, b in zip(found, wanted, strict=True):
        assert (a is None) == (b is None)
        assert a is None or torch.allclose(a, b, rtol=1e-3, atol=1e-4)
    noisy = ssm.ChipLayer(layer, NOISY, calibrate=u, form="digital")
    first, second = noisy(u), noisy(u)
    assert not torch.equal(first, second) and noisy.reads_so_far == 8
    again = ssm.ChipLayer(layer, NOISY, calibrate=u, form="digital")
    assert torch.equal(torch.cat([again(u[:1]), again(u[1:])]), first)
    assert {name.split()[-1] for name, _, _ in noisy.programmed.deployment.placements()} == {
        "C", "mixing"
    }


@pytest.mark.compiled
def test_a_classifier_learns_through_the_chip():
    # two clouds 4 sigma apart
    y = torch.arange(200) % 2
    x = torch.randn(200, 6) + 4 * (y[:, None] - 0.5) / 6**0.5
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2))
    ssm.on_chip(model, NOISY, seed=1, chips="new")
    optimiser = torch.optim.Adam(model.parameters(), 0.02)
    for _ in range(40):
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimiser.step()
    assert (model(x).argmax(1) == y).float().mean() > 0.93  # the best possible is 97.7 %
    assert model[0].chip_number > 30


def test_layers_of_a_model_err_on_their_own():
    model = nn.Sequential(linear(10, 10), linear(10, 10))
    model[1].load_state_dict(model[0].state_dict())
    found = ssm.on_chip(model, NOISY, seed=7)
    assert found is model and all(type(part) is ssm.ChipLayer for part in model)
    cells = [part.programmed.chip.programmed_s[0] for part in model]
    targets = [part.programmed.chip.target_s for part in model]
    assert np.array_equal(*targets)
    alive = (cells[0] > 0) & (cells[1] > 0)
    error = [(c - t)[alive] for c, t in zip(cells, targets, strict=True)]
    assert abs(np.corrcoef(error)[0, 1]) < 5 / np.sqrt(alive.sum())
    same = ssm.on_chip(nn.Sequential(linear(10, 10), linear(10, 10)), NOISY, seed=7)
    assert [part.seed for part in same] == [part.seed for part in model]
    attention = nn.MultiheadAttention(8, 2)
    with pytest.raises(UsageError, match="holds no nn.Linear"):
        ssm.on_chip(attention, NOISY)


def test_nothing_is_recorded_where_no_gradient_is_wanted():
    layer, x = linear(), torch.randn(2, 12)
    on_chip = ssm.ChipLayer(layer, NOISY)
    with torch.no_grad():
        assert not on_chip(x).requires_grad
    layer.requires_grad_(False)
    assert not on_chip(x).requires_grad
    assert on_chip(x.requires_grad_(True)).requires_grad
    assert ssm.ChipLayer(linear().double(), NOISY)(x.double()).dtype == torch.float64


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: ssm.ChipLayer(nn.GRUCell(2, 2), IDEAL), "class GRUCell.*nn.Linear.*20_torch"),
        (lambda: ssm.ChipLayer(S4D(4, 2, 0.01, 0.1), IDEAL), "class S4D.*Block"),
        (lambda: ssm.ChipLayer(linear(), "ideal"), "given as str.*ChipSpec.preset"),
        (lambda: ssm.ChipLayer(linear(), IDEAL, reads="new"), "reads = 'new'.*fresh or same"),
        (lambda: ssm.ChipLayer(linear(), IDEAL, chips="all"), "chips = 'all'.*one or new"),
        (lambda: ssm.ChipLayer(linear(), IDEAL, form="delta"), "with form.*no such options"),
        (lambda: ssm.ChipLayer(block(), IDEAL), "Block.*no ranges.*calibrate"),
        (
            lambda: ssm.ChipLayer(block(), IDEAL, calibrate=signals(), from_="delta"),
            "with from_.*form, decay and digital",
        ),
        (lambda: ssm.ChipLayer(linear(), NOISY, at="-1h").programmed, "Time does not run back"),
    ],
)
def test_wrong_use_names_the_next_step(make, said):
    with pytest.raises(UsageError, match=said):
        make()


@pytest.mark.parametrize(
    ("x", "said"),
    [
        (torch.ones(2, 11), r"shape \(2, 11\).*12 features"),
        (torch.full((2, 12), float("nan")), "NaN or infinite"),
    ],
)
def test_inputs_that_cannot_be_read_are_refused(x, said):
    with pytest.raises(InputError, match=said):
        ssm.ChipLayer(linear(), NOISY)(x)
