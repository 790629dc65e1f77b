"""Sweep files to campaigns, and their tasks to what a run of the same chip says."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from small_models import random_model

import aimc_sim as aimc
from aimc_sim.errors import AimcError, InputError, UsageError
from ssm.campaign import change_chip, read_campaign
from ssm.checkpoint import save

ROOT = Path(__file__).parents[2]
HEAD = 'model = "tiny.pt"\ndata = "data.npz"\nchip = "reram-wan2022"\n'


@pytest.fixture
def folder(tmp_path):
    model = random_model(seed=3, n_heads=4, n_modes=3, longest=0.98)
    save(model, tmp_path / "tiny.pt")
    x = np.random.default_rng(1).random((20, 12, 1)).astype(np.float32)
    np.savez(tmp_path / "data.npz", x=x, y=model.logits(x).argmax(axis=1))
    return tmp_path


def campaign(folder, text, head=HEAD):
    (folder / "s.toml").write_text(head + text)
    return read_campaign(folder / "s.toml")


def names(found):
    return [task.name for task in found.tasks]


def test_every_key_of_a_grid_is_a_dimension_and_times_seeds_and_chips_are_too(folder):
    found = campaign(
        folder, 'at = ["1h", 0]\nseed = [4, 5]\nchips = 3\n[grid]\n"adc.bits" = [4, 8]\n'
        'form = ["direct", "digital"]\n"device.g_min_s" = ["1uS", "2uS"]\n"precision.a" = [6]\n',
    )
    axes = {axis.name: (axis.values, axis.unit, axis.repeats) for axis in found.axes}
    assert axes == {
        "adc.bits": ((4, 8), "1", False), "form": (("direct", "digital"), "1", False),
        "device.g_min_s": ((1e-6, 2e-6), "S", False), "precision.a": ((6,), "1", False),
        "at_s": ((3600.0, 0.0), "s", False), "seed": ((4, 5), "1", True),
        "replica": ((0, 1, 2), "1", True),
    }
    assert len(set(names(found))) == len(found.tasks) == 2 * 2 * 2 * 2 * 2 * 3
    last = found.tasks[-1].what
    assert (last["form"], last["precision"], last["at_s"]) == ("digital", {"a": 6}, 0.0)
    assert (last["seed"], last["replica"]) == (5, 2)
    assert aimc.ChipSpec.from_text(last["chip"], origin="test").adc.bits == 8


def test_points_go_together_and_grids_are_combined_with_them(folder):
    found = campaign(
        folder, '[grid]\ndecay = ["tile", "digital"]\n[[points]]\n"adc.bits" = 4\n'
        '"dac.bits" = 5\n[[points]]\n"adc.bits" = "ideal"\n"dac.bits" = 8\n',
    )
    assert [axis.name for axis in found.axes] == ["decay", "point", "at_s", "seed", "replica"]
    point = found.axes[1]
    assert dict(point.along) == {"adc.bits": ((4, "ideal"), "1"), "dac.bits": ((5, 8), "1")}
    specs = [aimc.ChipSpec.from_text(t.what["chip"], origin="test") for t in found.tasks]
    assert [(s.adc.bits, s.dac.bits) for s in specs] == [(4, 5), ("ideal", 8)] * 2


def test_a_part_that_the_chip_lacks_is_made_by_its_fields(folder):
    found = campaign(
        folder, '[set]\n"wires.r_bl_ohm" = 1.0\n"tile.idle" = "g_min"\n'
        '"short_tile.idle" = "g_min"\n'
        '[grid]\n"wires.r_wl_ohm" = [1, 2]\n',
    )
    assert found.axes[0].unit == "ohm"
    wires = [aimc.ChipSpec.from_text(t.what["chip"], origin="test").wires for t in found.tasks]
    assert [(w.r_wl_ohm, w.r_bl_ohm) for w in wires] == [(1, 1), (2, 1)]
    spec = aimc.ChipSpec.preset("reram-wan2022")
    assert change_chip(spec, {}) is spec
    assert change_chip(spec, {"faults": {"stuck_low": 0.1}, "faults.stuck_high": 0.2}).faults == (
        aimc.FaultSpec(stuck_low=0.1, stuck_high=0.2)
    )


def test_tasks_are_named_by_contents_not_by_paths(folder, tmp_path_factory):
    before = names(campaign(folder, "chips = 2\n"))
    other = tmp_path_factory.mktemp("elsewhere")
    for name in ("tiny.pt", "data.npz"):
        shutil.copy(folder / name, other / name)
    assert names(campaign(other, "chips = 2\n")) == before
    data = dict(np.load(folder / "data.npz"))
    np.savez(other / "data.npz", x=data["x"], y=(data["y"] + 1) % 3)
    assert not set(names(campaign(other, "chips = 2\n"))) & set(before)
    shutil.copy(folder / "data.npz", other / "data.npz")
    save(random_model(seed=4, n_heads=4, n_modes=3, longest=0.98), other / "tiny.pt")
    assert not set(names(campaign(other, "chips = 2\n"))) & set(before)


@pytest.mark.parametrize(
    "text",
    ['form = "delta"', 'decay = "digital"', 'precision = "a=8"', "seed = 1", 'at = "1h"',
     "limit = 5", 'device = "ideal"', '[set]\n"adc.bits" = 7', 'calibrate = "data.npz"\nlimit = 6'],
)
def test_everything_that_changes_a_result_changes_the_name(folder, text):
    assert names(campaign(folder, text)) != names(campaign(folder, ""))


def test_a_fault_map_is_named_by_its_contents(folder, monkeypatch):
    monkeypatch.chdir(folder)
    text = '[set]\n"faults.map" = "map.npz"\n'
    np.savez("map.npz", tile=np.zeros((1, 2, 2), np.int8))
    first = names(campaign(folder, text))
    np.savez("map.npz", tile=np.ones((1, 2, 2), np.int8))
    assert names(campaign(folder, text)) != first
    Path("map.npz").unlink()
    with pytest.raises(InputError, match="Read the fault map|: read the fault map"):
        campaign(folder, text)


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        ("chps = 3", InputError, "Field 'chps' is unknown. Did you mean 'chips'"),
        ("chips = 0", InputError, "Field 'chips'"),
        ('[grid]\n"adc.bit" = [4]', InputError, "There is no field 'bit'. Did you mean 'bits'"),
        ('[grid]\n"adc.bits" = [4, 99]', InputError, "got 99"),
        ('[grid]\n"adc.bits" = []', UsageError, "Sweep adc.bits|sweep adc.bits. It has no values"),
        ('[grid]\n"adc.bits" = [4, 4]', UsageError, "It has 4 twice"),
        ('[grid]\n"adc.bits" = 4', InputError, "Field 'grid.adc.bits'"),
        ('[grid]\n"precision.stat" = [4]', UsageError, "Did you mean 'precision.state'"),
        ('[grid]\n"precision.state" = [1]', UsageError, "Give a whole number from 2 to 16"),
        ('[grid]\nat = ["1h"]', UsageError, "Give at at the top of the file"),
        ('[grid]\nform = ["leapfrg"]', InputError, "Did you mean 'leapfrog'"),
        ('form = "delta"\n[grid]\nform = ["direct"]', UsageError, "once for all as well"),
        ('[set]\n"adc.bits" = 4\n[grid]\n"adc.bits" = [5]', UsageError, "once for all as well"),
        ('[grid]\nchip = ["reram-wan2022", "rerm"]', UsageError, "once for all as well"),
        ('[[points]]\n"adc.bits" = 4\n[[points]]\n"dac.bits" = 4', InputError, "the same keys"),
        ('[grid]\n"adc.bits" = [4]\n[[points]]\n"adc.bits" = 4', UsageError, "in .grid. and in"),
        ('at = "1 parsec"', InputError, "not a number followed by a known unit"),
        ("at = []", UsageError, "It has no values"),
        ("seed = [-1]", UsageError, "seed"),
        ('schema_version = "aimc-sim.campaign/2"', InputError, "this version reads aimc-sim.camp"),
        ("chips = ", InputError, "It is not TOML"),
        ('calibrate = "none.npz"', InputError, "There is no such file"),
    ],
)
def test_what_is_wrong_with_a_sweep_file_is_said_before_anything_runs(folder, text, kind, message):
    with pytest.raises(kind, match=message) as caught:
        campaign(folder, text)
    assert str(folder / "s.toml") in caught.value.asked


def test_files_that_are_missing_are_named(folder):
    with pytest.raises(InputError, match="It cannot be read"):
        read_campaign(folder / "none.toml")
    for head in ("", 'model = "none.pt"\n', 'model = "tiny.pt"\ndata = "none.npz"\n',
                 'model = "tiny.pt"\nchip = "none.toml"\n', 'model = "tiny.pt"\nchip = "rerm"\n'):
        with pytest.raises(AimcError, match="Read sweep"):
            campaign(folder, "", head)


def test_data_that_do_not_suit_the_model_are_refused(folder):
    data = dict(np.load(folder / "data.npz"))
    x, y = data["x"], data["y"]
    for arrays, message in (
        ({"x": x[:, :, 0], "y": y}, "Give x the shape"),
        ({"x": x, "y": y + 5}, "Its labels run from"),
        ({"x": x, "y": y[:-1]}, "one whole number a sequence"),
        ({"x": x * np.nan, "y": y}, "NaN"),
        ({"x": x + 1j, "y": y}, "real numbers"),
        ({"y": y}, "It lacks x"),
    ):
        np.savez(folder / "data.npz", **arrays)
        with pytest.raises(InputError, match=message):
            campaign(folder, "")


def test_without_labels_the_error_of_the_logits_comes_first(folder):
    found = campaign(folder, "", 'model = "tiny.pt"\n')
    assert next(iter(found.outputs)) == "logit_error"
    assert next(iter(campaign(folder, "").outputs)) == "accuracy"


def test_the_example_and_the_file_of_the_page_are_read(folder, monkeypatch):
    example = read_campaign(ROOT / "examples" / "17_sweep.toml")
    assert len(example.tasks) == 96 and example.name == "digits over ADC bits"
    page = (ROOT / "docs" / "sweeps.md").read_text("utf-8")
    (text,) = re.findall(r"^```toml\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    save(random_model(seed=3, n_heads=4, n_modes=3), folder / "model.pt")
    shown = campaign(folder, text, "")
    sizes = {axis.name: len(axis.values) for axis in shown.axes}
    assert sizes == {"adc.bits": 3, "form": 2, "precision.state": 2, "point": 2, "at_s": 2,
                     "seed": 1, "replica": 8}
    codes = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    made = []
    monkeypatch.setattr(aimc.sweep, "run", lambda found, *_, **__: made.append(found) or _Any())
    monkeypatch.chdir(ROOT)
    for code in codes:
        exec(code, {})
    assert [len(found.tasks) for found in made] == [96, 40]


class _Any:
    """Stands for a dataset where only the calls are of interest."""

    def __getattr__(self, name):
        return self

    def __call__(self, *_):
        return self


@pytest.mark.compiled
def test_a_sweep_finds_what_a_run_of_the_same_chips_finds(folder):
    import ssm
    from ssm.evaluate import evaluate
    from ssm.scoring import score

    found = campaign(
        folder, 'at = ["0s", "1h"]\nchips = 2\nseed = 3\nlimit = 15\nform = "delta"\n'
        'precision = "b=6,state=8"\n[set]\n"adc.bits" = 7\n',
    )
    data = np.load(folder / "data.npz")
    model = ssm.load(folder / "tiny.pt")
    expected = evaluate(
        model, aimc.ChipSpec.preset("reram-wan2022").replace(**{"adc.bits": 7}), data["x"],
        data["y"], form="delta", chips=2, seed=3, times_s=(0.0, 3600.0), calibrate=data["x"],
        limit=15, on_chip=ssm.quantize(model, ssm.Precision(b=6, state=8)),
    )
    got = [score({**task.what, **task.where}) for task in found.tasks]
    assert json.loads(json.dumps(got)) == got
    accuracy = np.array([one["accuracy"] for one in got]).reshape(2, 2)
    assert (accuracy == expected.chip_accuracy()).all()
    unstable = np.array([one["unstable_modes"] for one in got]).reshape(2, 2)
    assert (unstable == expected.unstable_modes).all()
    assert got[0]["float_accuracy"] == expected.float_accuracy() == 1.0
    # of all chips the error is the rms over them
    errors = np.array([one["logit_error"] for one in got]).reshape(2, 2)
    assert np.sqrt((errors**2).mean(axis=1)) == pytest.approx(expected.logit_error(), rel=1e-9)
    assert got[0]["cells"] == expected.deployment.layout.n_used()


@pytest.mark.compiled
def test_a_file_that_changed_since_the_sweep_was_made_is_not_used(folder):
    from ssm.scoring import _trained, score

    (task,) = campaign(folder, "").tasks
    data = dict(np.load(folder / "data.npz"))
    np.savez(folder / "data.npz", x=data["x"] + 1, y=data["y"])
    with pytest.raises(InputError, match="have changed since the sweep was made"):
        score({**task.what, **task.where})
    np.savez(folder / "data.npz", **data)
    save(random_model(seed=4, n_heads=4, n_modes=3, longest=0.98), folder / "tiny.pt")
    _trained.cache_clear()  # a process that has read the right file goes on with it
    with pytest.raises(InputError, match="has changed since the sweep was made"):
        score({**task.what, **task.where})


@pytest.mark.compiled
def test_processes_and_this_process_score_the_same_bits(folder):
    found = campaign(folder, 'chips = 3\nat = ["0s", "1d"]\n[grid]\n"adc.bits" = [5, 8]\n')
    here = aimc.sweep.run(found, folder / "here.nc", processes=1)
    assert aimc.sweep.run(found, folder / "there.nc", processes=2).identical(here)
    assert here.attrs["chip"] == "reram-wan2022" and here.at_s.attrs["units"] == "s"
    assert 0.3 < float(here.accuracy.mean()) <= 1
