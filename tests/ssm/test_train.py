"""Training in convolution mode: it learns, repeats itself bit for bit, and tells mistakes."""

import importlib
from pathlib import Path

import numpy as np
import pytest
import torch

from aimc_sim.errors import InputError, UsageError
from ssm.checkpoint import load, save
from ssm.layers import S4D, Classifier
from ssm.tasks import load_task
from ssm.train import DivergedError, are_sound, to_model, train

SMALL = {"n_heads": 8, "n_states": 8, "n_layers": 1, "batch_size": 50}
DEMO_MODEL = Path(__file__).parents[2] / "examples" / "models" / "s4d-digits.pt"
DEMO_BYTES_MAX = 300_000


@pytest.fixture(scope="module")
def digits():
    return load_task("digits")


@pytest.fixture(scope="module")
def few(digits):
    return digits.x_train[:200], digits.y_train[:200]


def random_classifier(norm="post", d_input=3, **more):
    """A classifier in float64 whose every parameter is random, so that none hides."""
    torch.manual_seed(5)
    module = Classifier(d_input, 4, n_heads=6, n_states=10, n_layers=2, norm=norm, **more)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return module.double().eval()


@pytest.mark.parametrize("norm", ["pre", "post", "none"])
def test_convolution_equals_the_recurrence(norm):
    module = random_classifier(norm)
    x = np.random.default_rng(1).normal(size=(5, 41, 3))
    with torch.no_grad():
        wanted = module(torch.tensor(x)).numpy()
    np.testing.assert_allclose(to_model(module).logits(x), wanted, rtol=0, atol=1e-10)


def test_kernel_is_the_impulse_response_of_the_discretised_modes():
    torch.manual_seed(2)
    s4d = S4D(4, 3, dt_min=0.01, dt_max=0.3).double()
    impulse = torch.zeros(1, 12, 4, dtype=torch.float64)
    impulse[:, 0] = 1.0
    with torch.no_grad():
        log_pole, drive = (part.numpy() for part in s4d.discretise())
        response = s4d(impulse)[0].numpy()
    readout = s4d.readout.detach().numpy() @ np.array([1.0, 1j])
    for step in range(12):
        wanted = 2 * (readout * drive * np.exp(log_pole) ** step).sum(axis=1).real
        wanted += s4d.skip.detach().numpy() * (step == 0)
        np.testing.assert_allclose(response[step], wanted, rtol=0, atol=1e-13)


def test_last_input_does_not_change_earlier_outputs():
    torch.manual_seed(3)
    s4d = S4D(4, 3, dt_min=0.01, dt_max=0.3).double()
    u = torch.randn(2, 16, 4, dtype=torch.float64)
    changed = u.clone()
    changed[:, -1] += 100.0
    with torch.no_grad():
        difference = (s4d(changed) - s4d(u)).abs()
    assert difference[:, :-1].max() < 1e-11
    assert difference[:, -1].max() > 1.0


def test_poles_start_inside_the_unit_circle_at_the_angles_of_s4d_lin():
    torch.manual_seed(4)
    module = Classifier(1, 2, n_heads=5, n_states=8, n_layers=1, dt_min=0.01, dt_max=0.2)
    layer = to_model(module).layers[0]
    assert np.abs(layer.pole).max() < 1.0
    dt = -2.0 * np.log(np.abs(layer.pole))  # the decay rate starts at 1/2
    assert dt.min() > 0.0099 and dt.max() < 0.2001
    angle = np.pi * np.arange(4) * dt
    np.testing.assert_allclose(layer.pole, np.exp(-dt / 2 + 1j * angle), atol=1e-6)


def test_training_lowers_the_loss_and_the_model_classifies(digits):
    seen = []
    rows = digits.y_train < 2
    x, y = digits.x_train[rows][:200], digits.y_train[rows][:200]
    settings = SMALL | {"batch_size": 20, "epochs": 8, "lr": 0.03}
    model = train((x, y), dt_min=0.02, dt_max=0.2, on_epoch=seen.append, **settings)
    assert [epoch.number for epoch in seen] == list(range(1, 9))
    assert seen[0].loss > 0.6
    assert seen[-1].loss < 0.5 * seen[0].loss
    held_out = digits.y_test < 2
    right = model.logits(digits.x_test[held_out]).argmax(axis=1) == digits.y_test[held_out]
    assert right.mean() > 0.9


def test_shifted_and_scaled_features_give_the_same_classifier(few):
    x, y = few
    shifted = np.concatenate([x, np.ones_like(x)], axis=2)
    scaled = shifted.astype(np.float64) * [1e3, 2.0] - [7.0, 1.0]
    one = train((shifted, y), epochs=1, **SMALL)
    other = train((scaled, y), epochs=1, **SMALL)
    np.testing.assert_allclose(other.logits(scaled), one.logits(shifted), rtol=0, atol=1e-4)


def same_bits(one, other):
    arrays = [
        (one.encoder_weight, other.encoder_weight),
        (one.decoder_bias, other.decoder_bias),
        (one.layers[0].pole, other.layers[0].pole),
        (one.layers[0].readout, other.layers[0].readout),
        (one.layers[0].mix_weight, other.layers[0].mix_weight),
    ]
    return all(np.array_equal(a, b) for a, b in arrays)


def test_same_seed_gives_the_same_bits_and_another_seed_does_not(few):
    settings = SMALL | {"epochs": 2, "dropout": 0.1, "weight_noise": 0.05}
    first = train(few, seed=3, **settings)
    torch.manual_seed(99)
    assert same_bits(first, train(few, seed=3, **settings))
    assert not same_bits(first, train(few, seed=4, **settings))


def test_global_random_state_is_left_as_it_was(few):
    torch.manual_seed(12)
    wanted = torch.rand(3)
    torch.manual_seed(12)
    train(few, epochs=1, **SMALL)
    assert torch.equal(torch.rand(3), wanted)


@pytest.mark.parametrize("part", ["dropout", "weight_noise"])
def test_dropout_and_noise_act_in_training_only(part):
    module = random_classifier(**{part: 0.2})
    x = torch.randn(2, 16, 3, dtype=torch.float64)
    assert torch.equal(module(x), module(x))
    module.train()
    assert not torch.equal(module(x), module(x))


def test_model_carries_its_task_and_facts(digits):
    model = train(digits, epochs=1, norm="pre", **(SMALL | {"batch_size": 500}))
    assert (model.task, model.norm, model.disc, model.pool) == ("digits", "pre", "zoh", "mean")
    assert (model.n_layers, model.n_heads, model.n_states) == (1, 8, 64)


def test_trained_model_survives_its_file(few, tmp_path):
    model = train(few, epochs=1, **SMALL)
    save(model, tmp_path / "model.pt")
    np.testing.assert_array_equal(load(tmp_path / "model.pt").logits(few[0]), model.logits(few[0]))


def test_diverging_loss_stops_with_the_step(few):
    found = r"The loss became \w+ at step \d+ .*Pass a smaller lr"
    with pytest.raises(DivergedError, match=found) as caught:
        train(few, epochs=20, norm="none", lr=1e30, **SMALL)
    assert are_sound(lambda: caught.value.last_good)


def test_a_training_that_diverges_later_keeps_the_last_good_epoch(few, tmp_path, monkeypatch):
    path, module = tmp_path / "state.pt", importlib.import_module("ssm.train")
    calls, loss_of = [], torch.nn.functional.cross_entropy

    def lost_in_the_third_epoch(*arguments, **settings):
        calls.append(1)
        return loss_of(*arguments, **settings) * (np.nan if len(calls) > 8 else 1)

    two = train(few, epochs=2, lr=1e-2, **(SMALL | {"batch_size": 50}))
    monkeypatch.setattr(module.functional, "cross_entropy", lost_in_the_third_epoch)
    with pytest.raises(DivergedError, match=r"step 9 \(epoch 3\).*state.pt holds") as caught:
        train(few, epochs=3, lr=1e-2, checkpoint=path, **SMALL)
    good = caught.value.last_good[0]
    assert are_sound(lambda: [good])
    # the cycle of three epochs is another than that of two, so only near
    np.testing.assert_allclose(good.decoder_weight, two.decoder_weight, atol=0.1)
    assert torch.load(path, weights_only=True)["epoch"] == 2


def test_weights_that_a_last_step_ruined_are_not_handed_out(few):
    """One batch an epoch: its loss is finite, the step after it is what goes wrong."""
    with pytest.raises(DivergedError, match="or modes not stable, after step 1"):
        train(few, epochs=1, lr=1e35, kernel_lr=1e35, **(SMALL | {"batch_size": 200}))


@pytest.mark.parametrize(
    ("y", "text"),
    [
        ([0, 0, 0, 0], "all labels are 0: there is nothing to tell apart"),
        ([0, 1, 10**9, 1], "labels run to 1000000000, of 4 sequences. Number the classes 0, 1"),
    ],
)
def test_labels_of_which_no_model_can_be_made_are_refused(y, text):
    with pytest.raises(InputError, match=f"(?i){text}"):
        train((np.zeros((4, 8, 1)), np.array(y)), epochs=1, **SMALL)


def test_classes_without_a_sequence_are_told():
    with pytest.warns(UserWarning, match=r"no sequence is of class 0, 2, yet the model gets 4"):
        model = train((np.ones((4, 8, 1)), np.array([1, 3, 1, 3])), epochs=1, **SMALL)
    assert model.n_classes == 4


@pytest.mark.parametrize(
    ("x", "y", "text"),
    [
        (np.zeros((4, 8)), np.zeros(4, int), r"axes are not \(n, time, features\)"),
        (np.zeros((4, 8, 1)), np.zeros((4, 1), int), r"axes are not"),
        (np.zeros((4, 8, 1)), np.zeros(3, int), "holds 4 sequences and y 3 labels"),
        (np.zeros((0, 8, 1)), np.zeros(0, int), "X is empty"),
        (np.zeros((4, 0, 1)), np.zeros(4, int), "X is empty"),
        (np.full((4, 8, 1), "a"), np.zeros(4, int), "not real numbers"),
        (np.full((4, 8, 1), np.nan), np.zeros(4, int), "not finite in sequence 0"),
        (np.zeros((4, 8, 1)), np.zeros(4), "not integers"),
        (np.zeros((4, 8, 1)), np.array([0, 1, -1, 2]), "labels run from -1 to 2.*from 0 to 2"),
    ],
)
def test_data_that_cannot_be_learned_from_are_refused(x, y, text):
    with pytest.raises(InputError, match=text) as error:
        train((x, y), epochs=1, **SMALL)
    assert error.value.exit_code == 3


@pytest.mark.parametrize(
    ("setting", "text"),
    [
        ({"n_states": 7}, "must be even. Pass n_states=8"),
        ({"n_heads": 0}, "n_heads = 0.*below 1"),
        ({"n_layers": 0}, "n_layers = 0.*below 1"),
        ({"epochs": 0}, "epochs = 0.*below 1"),
        ({"batch_size": -1}, "batch_size = -1.*below 1"),
        ({"lr": 0.0}, "Lr = 0.0.*positive and finite"),
        ({"kernel_lr": np.nan}, "Kernel_lr = nan.*positive and finite"),
        ({"weight_decay": -1.0}, "Weight_decay = -1.0.*negative"),
        ({"norm": "batch"}, "no norm position.*pre, post, none"),
        ({"dropout": 1.0}, "Dropout = 1.0.*fraction"),
        ({"weight_noise": -0.1}, "Weight_noise = -0.1.*fraction"),
        ({"label_smoothing": 1.5}, "Label_smoothing = 1.5.*fraction"),
        ({"dt_min": 0.5}, "dt_min = 0.5.*not positive and in order"),
        ({"device": "abacus"}, "Device 'abacus'.*no device of that name.*Choose cpu or cuda"),
        ({"device": "cuda:99"}, "Device 'cuda:99'.*cannot use it.*train on the CPU"),
    ],
)
def test_settings_out_of_range_are_refused(few, setting, text):
    with pytest.raises(UsageError, match="(?i)" + text) as error:
        train(few, **(SMALL | {"epochs": 1} | setting))
    assert error.value.exit_code == 2


def test_unknown_task_and_wrong_type_are_refused():
    with pytest.raises(UsageError, match="Did you mean 'digits'"):
        train("digts", epochs=1)
    with pytest.raises(UsageError, match=r"task is list, not a name, a Task or a pair \(x, y\)"):
        train([1, 2], epochs=1)


def test_committed_demo_model_classifies_97_percent_of_the_held_out_fifth(digits):
    model = load(DEMO_MODEL)
    accuracy = (model.logits(digits.x_test).argmax(axis=1) == digits.y_test).mean()
    assert accuracy >= 0.97
    assert model.task == "digits"


def test_committed_demo_model_is_small():
    assert DEMO_MODEL.stat().st_size < DEMO_BYTES_MAX
