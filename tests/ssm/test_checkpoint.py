"""Files: what is read, what is asked, what is refused, and that nothing in them runs."""

import json
import pickle
import subprocess
import sys
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from checkpoints import s4block_state, s4d_state
from safetensors.torch import save_file

from aimc_sim.errors import InputError, UsageError
from ssm.checkpoint import _FACTS, load, save
from ssm.layouts import discretise
from ssm.model import LAYER_ARRAYS, MODEL_ARRAYS

FACTS = {"norm": "post", "disc": "zoh", "pool": "mean"}


class Harmless:
    """Pickles as a call that would create a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def store(path: Path, payload) -> Path:
    torch.save(payload, path)
    return path


def identical(left, right) -> bool:
    arrays = [(getattr(left, name), getattr(right, name)) for name in MODEL_ARRAYS]
    for one, other in zip(left.layers, right.layers, strict=True):
        arrays += [(getattr(one, name), getattr(other, name)) for name in LAYER_ARRAYS]
    return all(one.tobytes() == other.tobytes() and one.dtype == other.dtype
               for one, other in arrays)


def refused(kind, path, text, **facts):
    with pytest.raises(kind, match=text) as caught:
        load(path, **facts)
    assert caught.value.exit_code == {UsageError: 2, InputError: 3}[kind]
    assert all((caught.value.asked, caught.value.found, caught.value.do))


@pytest.fixture
def model(tmp_path):
    return load(store(tmp_path / "foreign.pt", s4d_state()), **FACTS)


# what is read


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("make", [s4d_state, s4block_state])
def test_save_then_load_is_the_identity(tmp_path, suffix, make):
    source = load(store(tmp_path / "foreign.pt", make(seed=2)), norm="pre", disc="bilinear",
                  pool="last").replace(task="digits", precision={"a": 8}, norm_epsilon=1e-6)
    save(source, tmp_path / f"own{suffix}")
    again = load(tmp_path / f"own{suffix}")
    assert identical(again, source)
    for fact in ("norm", "norm_kind", "norm_epsilon", "disc", "pool", "activation", "gate",
                 "task", "precision", "name"):
        assert getattr(again, fact) == getattr(source, fact)
    assert again.name == "foreign" and len(again.sha256) == 64
    assert [path.name for path in tmp_path.glob(".*")] == []


def test_wrappers_and_containers_do_not_matter(tmp_path, model):
    state = s4d_state()
    payloads = {
        "example": {"model": OrderedDict(state), "acc": 97.5, "epoch": 3},
        "numpy": {"model": state, "acc": np.float64(97.5), "losses": np.ones(3, np.float32)},
        "lightning": {"state_dict": {f"model.{key}": value for key, value in state.items()},
                      "epoch": 3, "optimizer_states": [{}]},
        "compiled": {f"_orig_mod.module.{key}": value for key, value in state.items()},
        "nested": {f"net.backbone.{key}": value for key, value in state.items()},
        "numpy_state": {key: value.numpy() for key, value in state.items()},
    }
    for name, payload in payloads.items():
        assert identical(load(store(tmp_path / f"{name}.pt", payload), **FACTS), model), name


def test_legacy_torch_files_are_read(tmp_path, model):
    path = tmp_path / "legacy.pt"
    torch.save({"model": s4d_state()}, path, _use_new_zipfile_serialization=False)
    assert identical(load(path, **FACTS), model)


def test_npz_and_safetensors_hold_the_foreign_tensors_too(tmp_path, model):
    state = s4d_state()
    np.savez(tmp_path / "m.npz", **{key: value.numpy() for key, value in state.items()})
    save_file(state, tmp_path / "m.safetensors")
    assert identical(load(tmp_path / "m.npz", **FACTS), model)
    assert identical(load(tmp_path / "m.safetensors", **FACTS), model)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_cast_exactly(tmp_path, dtype):
    half = {key: value.to(dtype) for key, value in s4d_state().items()}
    full = {key: value.float() for key, value in half.items()}
    save_file(half, tmp_path / "half.safetensors")
    expected = load(store(tmp_path / "full.pt", full), **FACTS)
    assert identical(load(store(tmp_path / "half.pt", half), **FACTS), expected)
    assert identical(load(tmp_path / "half.safetensors", **FACTS), expected)


@pytest.mark.parametrize("make", [s4d_state, s4block_state])
def test_complex_tensors_equal_pairs(tmp_path, make):
    pairs = make()
    whole = {key: torch.view_as_complex(value) if key.endswith(("kernel.C", "kernel.B")) else value
             for key, value in pairs.items()}
    assert identical(load(store(tmp_path / "c.pt", whole), **FACTS),
                     load(store(tmp_path / "p.pt", pairs), **FACTS))


def test_input_transform_is_folded_into_the_encoder(tmp_path, model):
    path = store(tmp_path / "m.pt", s4d_state())
    x = np.random.default_rng(0).normal(size=(2, 9, 3))
    mean, std = np.array([0.1, 0.2, 0.3]), 0.5
    folded = load(path, **FACTS, input=(mean, std))
    np.testing.assert_allclose(folded.logits(x), model.logits((x - mean) / std), atol=1e-10)
    refused(UsageError, path, "It is no \\(mean, std\\)", **FACTS, input=(0.0, 0.0))


def test_mixing_without_glu_is_asked_about(tmp_path):
    state = s4d_state()
    for key in [key for key in state if "output_linear" in key]:
        state[key] = state[key][:6]
    path = store(tmp_path / "m.pt", state)
    refused(UsageError, path, "The mixing has H outputs.* Pass gate='none'", **FACTS)
    assert load(path, **FACTS, gate="none").gate == "none"


def test_eigenvalue_zero_integrates():
    pole, drive = discretise(np.zeros((1, 1), complex), np.ones((1, 1), complex),
                             np.full((1, 1), 0.25), "zoh")
    assert (pole[0, 0], drive[0, 0]) == (1.0, 0.25)


# what is asked


def test_every_missing_fact_is_asked_for_by_name(tmp_path):
    path = store(tmp_path / "m.pt", s4d_state())
    refused(UsageError, path, r"norm='pre' or norm='post', disc='zoh' or disc='bilinear', "
            r"pool='mean' or pool='last' \(command line: --norm pre\|post --disc zoh\|bilinear "
            r"--pool mean\|last\)")
    for fact in FACTS:
        rest = {name: value for name, value in FACTS.items() if name != fact}
        refused(UsageError, path, f"The file does not say whether .*Pass {fact}=.*--{fact} ",
                **rest)


def test_facts_that_the_file_contradicts_are_refused(tmp_path, model):
    path = store(tmp_path / "foreign.pt", s4d_state())
    refused(UsageError, path, "The file has norm weights",
            **FACTS | {"norm": "none"})
    bare = store(tmp_path / "bare.pt", s4block_state(norms=False))
    refused(UsageError, bare, "The file has no norm weights", **FACTS)
    save(model, tmp_path / "own.pt")
    refused(UsageError, tmp_path / "own.pt", "The file says norm='post'. Leave norm out",
            norm="pre")
    assert load(tmp_path / "own.pt", **FACTS).norm == "post"


def test_misspelt_facts_are_refused_before_the_file_is_read(tmp_path):
    refused(UsageError, tmp_path / "absent.pt", "did you mean 'post'", norm="pots")


def test_dss_is_refused_because_it_depends_on_the_length(tmp_path):
    path = store(tmp_path / "m.pt", s4block_state())
    refused(UsageError, path, "weights change with the sequence length L",
            **FACTS | {"disc": "dss"})


# what is refused


@pytest.mark.parametrize("legacy", [False, True])
def test_code_in_a_pickle_is_named_and_does_not_run(tmp_path, legacy):
    trap = tmp_path / "trap"
    path = tmp_path / "evil.pt"
    torch.save({"model": s4d_state(), "extra": Harmless(trap)}, path,
               _use_new_zipfile_serialization=not legacy)
    refused(InputError, path, "asks for code to run: io.open; nothing was run. Re-save with "
            r"torch.save\(model.state_dict", **FACTS)
    assert not trap.exists()


def test_code_in_a_plain_pickle_does_not_run(tmp_path):
    trap = tmp_path / "trap"
    for protocol in (2, 4):
        path = tmp_path / f"evil{protocol}.pkl"
        path.write_bytes(pickle.dumps([np.ones(2), Harmless(trap)], protocol))
        refused(InputError, path, "asks for code to run: io.open; nothing was run", **FACTS)
    assert not trap.exists()


@pytest.mark.parametrize("legacy", [False, True])
def test_a_whole_module_is_named_and_refused(tmp_path, legacy):
    path = tmp_path / "module.pt"
    torch.save(torch.nn.Linear(2, 2), path, _use_new_zipfile_serialization=not legacy)
    refused(InputError, path, "torch.nn.modules.linear.Linear", **FACTS)


def test_a_plain_pickle_of_numbers_is_named(tmp_path):
    path = tmp_path / "plain.pkl"
    path.write_bytes(pickle.dumps({"a": [1.0]}))
    refused(InputError, path, "plain pickle, or a damaged file of torch.save", **FACTS)


def test_missing_empty_and_directory_are_told_apart(tmp_path):
    (tmp_path / "empty.pt").write_bytes(b"")
    refused(InputError, tmp_path / "absent.pt", "There is no such file")
    refused(InputError, tmp_path / "empty.pt", "The file is empty")
    refused(InputError, tmp_path, "It is a directory")


def test_truncated_files_are_refused_at_every_length(tmp_path, model):
    state = s4d_state()
    np.savez(tmp_path / "whole.npz", **{key: value.numpy() for key, value in state.items()})
    store(tmp_path / "whole.pt", state)
    torch.save(state, tmp_path / "legacy.pt", _use_new_zipfile_serialization=False)
    save(model, tmp_path / "whole.safetensors")
    for name in ("whole.pt", "whole.npz", "whole.safetensors", "legacy.pt"):
        data = (tmp_path / name).read_bytes()
        for fraction in (0.001, 0.02, 0.5, 0.99):
            path = tmp_path / "cut"
            path.write_bytes(data[: int(len(data) * fraction)])
            refused(InputError, path, "truncated or damaged|damaged file|no format", **FACTS)


@pytest.mark.parametrize(("data", "text"), [
    (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
    (b"<html>not found</html>", "in no format that is known"),
])
def test_other_files_are_named(tmp_path, data, text):
    path = tmp_path / "m.pt"
    path.write_bytes(data)
    refused(InputError, path, text)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_torchscript_is_named(tmp_path):
    traced = torch.jit.trace(torch.nn.Linear(2, 2), torch.ones(1, 2))
    torch.jit.save(traced, str(tmp_path / "m.pt"))
    refused(InputError, tmp_path / "m.pt", "It is a TorchScript archive", **FACTS)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_exported_program_is_named(tmp_path):
    program = torch.export.export(torch.nn.Linear(2, 2), (torch.ones(1, 2),))
    torch.export.save(program, tmp_path / "m.pt2")
    refused(InputError, tmp_path / "m.pt2", "It is a .pt2 archive of torch.export", **FACTS)


def test_object_arrays_in_npz_are_refused(tmp_path):
    trap = tmp_path / "trap"
    np.savez(tmp_path / "m.npz", **{"kernel.C": np.array([Harmless(trap)], dtype=object)})
    refused(InputError, tmp_path / "m.npz", "It has object arrays", **FACTS)
    assert not trap.exists()


def changed(state, drop=(), **tensors):
    return {key: value for key, value in state.items() if key not in drop} | tensors


@pytest.mark.parametrize(("state", "text"), [
    (changed(s4block_state(), **{"s4_layers.0.layer.kernel.P": torch.ones(1, 2, 4, 2)}),
     "kernel.P belongs to an NPLR"),
    (changed(s4block_state(), **{"s4_layers.0.layer.kernel.C": torch.ones(2, 6, 4, 2)}),
     "has 2 channels: a bidirectional"),
    (changed(s4block_state(), drop=("s4_layers.1.layer.kernel.A_imag",
                                    "s4_layers.0.layer.kernel.A_imag")), "a real kernel"),
    ({"layers.0.Lambda_re": torch.ones(4)}, "belongs to an S5 layer"),
    (changed(s4d_state(), drop=("s4_layers.1.kernel.log_A_real",),
             **{"s4_layers.1.kernel.log_A_rael": torch.ones(6, 4)}),
     "no S4D layer has: s4_layers.1.kernel.log_A_rael; did you mean "
     r"s4_layers.1.kernel.log_A_real\?"),
    (changed(s4d_state(), **{"head.scale": torch.ones(1)}), "no S4D layer has: head.scale"),
    (changed(s4d_state(), **{"norms.7.weight": torch.ones(6)}), "no S4D layer has: norms.7"),
    (changed(s4d_state(), drop=("s4_layers.1.D", "decoder.bias")),
     "It lacks decoder.bias, s4_layers.1.D"),
    ({key: value for key, value in s4d_state(n_layers=3).items() if "s4_layers.1" not in key
      and "norms.1" not in key}, "layers are numbered 0, 2"),
    (changed(s4d_state(), **{"s4_layers.1.D": torch.ones(5)}),
     r"s4_layers.1.D has shape \(5,\), the other tensors ask for \(6,\) or"),
    (changed(s4d_state(), **{"s4_layers.0.kernel.C": torch.ones(6, 3, 2)}),
     r"kernel.C has shape \(6, 3, 2\), the other tensors ask for \(6, 4, 2\)"),
    (changed(s4d_state(), **{"s4_layers.0.kernel.A_imag": torch.tensor(1.0)}), "too few axes"),
    (s4block_state(n_ssm=4), "has 4 rows for 6 heads"),
    (changed(s4d_state(), **{"decoder.bias": torch.full((5,), torch.nan)}),
     "NaN or infinite values in decoder.bias"),
    (changed(s4d_state(), **{"s4_layers.0.D": torch.full((6,), torch.inf)}),
     "NaN or infinite values in s4_layers.0.D"),
    (changed(s4d_state(), **{"s4_layers.0.kernel.B": torch.ones(1, 6, 4, 2)}), "does not go with"),
    (changed(s4d_state(), **{"s4_layers.0.kernel.log_dt": torch.full((6,), 1e5)}),
     "A and dt beside s4_layers.0.kernel.A_imag overflow"),
    ({"a": s4d_state(), "b": s4d_state()}, "It holds several models: a, b"),
    (changed(s4d_state(), **{"model.encoder.bias": torch.ones(6)}), "is there twice"),
    (changed(s4d_state(), **{"other.encoder.bias": torch.ones(6)}), "both look like encoder.bias"),
    ({"weight": torch.ones(2)}, "It has no S4D layers"),
    ([torch.ones(2)], "It holds a list, not a state dict"),
    (changed(s4d_state(), **{"encoder.bias": torch.ones(6).to_sparse()}), "dense float tensor"),
])
def test_wrong_checkpoints_are_refused_with_the_reason(tmp_path, state, text):
    refused(InputError, store(tmp_path / "m.pt", state), text, **FACTS)


def test_structure_is_refused_before_facts_are_asked(tmp_path):
    state = changed(s4block_state(), **{"s4_layers.0.layer.kernel.C": torch.ones(2, 6, 4, 2)})
    refused(InputError, store(tmp_path / "m.pt", state), "bidirectional")


def test_unstable_models_name_the_pole(tmp_path, model):
    layer = model.layers[1]
    pole = layer.pole.copy()
    pole[3, 2] = 1.01
    arrays = {name: getattr(layer, name) for name in LAYER_ARRAYS} | {"pole": pole}
    save(model.replace(layers=(model.layers[0], type(layer)(**arrays))), tmp_path / "u.pt")
    refused(InputError, tmp_path / "u.pt", "1 poles lie outside the unit circle, the first in "
            r"layer 1, head 3, mode 2 with \|pole\| = 1.01")


@pytest.mark.parametrize(("edit", "text"), [
    ({"schema": "aimc-sim.model/3"}, "schema aimc-sim.model/3 is newer than aimc-sim.model/2"),
    ({"schema": "other/1"}, "schema is 'other/1'"),
    ({"facts": "{"}, "facts are damaged"),
    ({"facts": "{}"}, "facts are damaged"),
    ({"facts": json.dumps(dict.fromkeys(_FACTS, "odd"))}, "Load .*own.pt. It is not a known value"),
])
def test_own_files_of_another_schema_are_refused(tmp_path, model, edit, text):
    save(model, tmp_path / "own.pt")
    payload = torch.load(tmp_path / "own.pt", weights_only=True)
    payload["metadata"] |= edit
    refused(InputError, store(tmp_path / "own.pt", payload), text)


@pytest.mark.parametrize(("edit", "text"), [
    ({"extra": torch.ones(1)}, "missing or unknown: extra"),
    ({"layers.0.pole": torch.ones(6, 4)}, r"layers.0.pole has shape \(6, 4\), not \(H, M, 2\)"),
    ({"layers.0.skip": torch.ones(3)}, r"skip has shape \(3,\), not \(6\)"),
])
def test_own_files_with_wrong_tensors_are_refused(tmp_path, model, edit, text):
    save(model, tmp_path / "own.pt")
    payload = torch.load(tmp_path / "own.pt", weights_only=True)
    refused(InputError, store(tmp_path / "own.pt", payload | edit), text)


@pytest.mark.parametrize(("name", "text"), [
    ("m.txt", "ending '.txt' names no model format"), ("absent/m.pt", "There is no folder"),
])
def test_save_refuses_bad_places(tmp_path, model, name, text):
    with pytest.raises(UsageError, match=text):
        save(model, tmp_path / name)


def test_failed_save_leaves_the_old_file_and_no_other(tmp_path, model, monkeypatch):
    path = tmp_path / "own.pt"
    save(model, path)
    before = path.read_bytes()

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("ssm.checkpoint.os.replace", fail)
    with pytest.raises(UsageError, match="No space left on device"):
        save(model.replace(pool="last"), path)
    assert path.read_bytes() == before
    assert sorted(found.name for found in tmp_path.iterdir()) == ["foreign.pt", "own.pt"]


def test_importing_the_loader_does_not_import_torch():
    code = "import sys, ssm.checkpoint; print('torch' in sys.modules, 'scipy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
