"""Bad input: exit code, three parts, no traceback, no file left behind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

FACTS = ("--norm", "post", "--disc", "zoh", "--pool", "mean")
NOTICES = ("warning", "compiling kernels")  # the latter where no run has kept its machine code


class Harmless:
    """Unpickling it would make a file."""

    def __init__(self, trap: Path) -> None:
        self.trap = trap

    def __reduce__(self):
        return open, (str(self.trap), "w")


@pytest.fixture
def refused(cli, tmp_path):
    """Call a command that must fail: its outputs are asked for, none may appear."""

    def call(code: int, text: str, *arguments: object) -> str:
        before = sorted(path.name for path in tmp_path.iterdir())
        outputs = ["--json", "r.json", "--out", "new"]
        if arguments[0] == "run":
            outputs += ["--logits", "l.npz", "--save-chip", "c.npz"]
        result = cli(*arguments, *outputs, code=code)
        assert result.stdout == ""
        lines = [line for line in result.stderr.splitlines() if not line.startswith(NOTICES)]
        assert [line[:9] for line in lines] == ["error", "  asked: ", "  found: ", "  to do: "]
        assert text in result.stderr
        assert sorted(path.name for path in tmp_path.iterdir()) == before
        return result.stderr

    return call


def store(path: Path, state: object) -> Path:
    import torch

    torch.save({"model": state}, path)
    return path


def test_missing_model(refused):
    refused(3, "there is no such file", "run", "absent.pt")
    refused(3, "there is no such file", "map", "absent.pt")


def test_truncated_model(refused, files, tmp_path):
    data = (files / "tiny.pt").read_bytes()
    (tmp_path / "cut.pt").write_bytes(data[: len(data) // 2])
    refused(3, "damaged", "run", "cut.pt")


def test_pickle_with_code_does_not_run(refused, tmp_path):
    import torch

    trap = tmp_path / "trap"
    torch.save({"model": {}, "extra": Harmless(trap)}, tmp_path / "evil.pt")
    refused(3, "asks for code to run", "run", "evil.pt", *FACTS)
    assert not trap.exists()


def test_torchscript_archive(refused, tmp_path):
    import torch

    with pytest.warns(DeprecationWarning):
        traced = torch.jit.trace(torch.nn.Linear(2, 2), torch.ones(1, 2))
        torch.jit.save(traced, str(tmp_path / "m.pt"))
    refused(3, "TorchScript", "run", "m.pt", *FACTS)


def test_nplr_bidirectional_unknown_and_not_finite_checkpoints(refused, tmp_path):
    import torch
    from checkpoints import s4block_state, s4d_state

    kernel = "s4_layers.0.layer.kernel."
    for state, text in (
        (s4block_state() | {kernel + "P": torch.ones(1, 2, 4, 2)}, "NPLR"),
        (s4block_state() | {kernel + "C": torch.ones(2, 6, 4, 2)}, "bidirectional"),
        (s4d_state() | {"head.scale": torch.ones(1)}, "head.scale"),
        (s4d_state() | {"decoder.bias": torch.full((5,), torch.nan)}, "NaN or infinite"),
        (s4d_state() | {"s4_layers.0.D": torch.full((6,), torch.inf)}, "NaN or infinite"),
    ):
        refused(3, text, "run", store(tmp_path / "m.pt", state), *FACTS)


def test_facts_that_the_file_lacks_are_asked_for(refused, tmp_path):
    from checkpoints import s4d_state

    store(tmp_path / "m.pt", s4d_state())
    assert "norm" in refused(2, "pool", "run", "m.pt")
    refused(2, "did you mean 'post'", "run", "m.pt", "--norm", "pots")


def test_data_of_another_width_is_refused(refused, files, tmp_path):
    np.savez(tmp_path / "wide.npz", x=np.zeros((4, 12, 3), np.float32))
    np.savez(tmp_path / "flat.npz", x=np.zeros((4, 12), np.float32))
    tiny = files / "tiny.pt"
    refused(3, "(4, 12, 3), the model reads 1 feature(s)", "run", tiny, "--data", "wide.npz")
    refused(3, "x[:, :, None]", "run", tiny, "--data", "flat.npz")
    refused(3, "(4, 12, 3)", "run", tiny, "--data", files / "data.npz", "--calibrate", "wide.npz")


def test_object_arrays_in_data_are_not_unpickled(refused, files, tmp_path):
    trap = tmp_path / "trap"
    for key in ("x", "y"):
        arrays = {"x": np.zeros((4, 12, 1), np.float32)}
        arrays[key] = np.array([Harmless(trap)], dtype=object)
        np.savez(tmp_path / "bad.npz", **arrays)
        refused(3, "Python objects", "run", files / "tiny.pt", "--data", "bad.npz")
    assert not trap.exists()


def test_bad_data_files_are_told_apart(refused, files, tmp_path):
    tiny = files / "tiny.pt"
    x = np.zeros((4, 12, 1), np.float32)
    refused(3, "there is no such file", "run", tiny, "--data", "absent.npz")
    (tmp_path / "cut.npz").write_bytes((files / "data.npz").read_bytes()[:200])
    refused(3, "damaged", "run", tiny, "--data", "cut.npz")
    (tmp_path / "text.npz").write_text("x,y\n1,2\n")
    refused(3, "no .npz file", "run", tiny, "--data", "text.npz")
    with (tmp_path / "one.npz").open("wb") as stream:
        np.save(stream, x)
    refused(3, "one array", "run", tiny, "--data", "one.npz")
    for arrays, text in (
        ({"y": np.zeros(4, int)}, "no array x"),
        ({"x": x + np.nan}, "NaN"),
        ({"x": x * 1j}, "complex64"),
        ({"x": x[:0]}, "(0, 12, 1)"),
        ({"x": x, "y": np.zeros(3, int)}, "its y has shape (3,)"),
        ({"x": x, "y": np.zeros(4)}, "float64"),
        ({"x": x, "y": np.full(4, 3)}, "labels run from 3 to 3"),
        ({"x": x, "y": np.full(4, -1)}, "labels run from -1"),
    ):
        np.savez(tmp_path / "bad.npz", **arrays)
        refused(3, text, "run", tiny, "--data", "bad.npz")


def test_damage_inside_a_compressed_data_file_is_told(refused, files, tmp_path):
    x = np.random.default_rng(0).random((20, 12, 1))
    np.savez_compressed(tmp_path / "whole.npz", x=x)
    whole = (tmp_path / "whole.npz").read_bytes()
    for place in range(60, len(whole) // 2, 200):
        damaged = bytearray(whole)
        damaged[place : place + 8] = b"\xff" * 8
        (tmp_path / "bad.npz").write_bytes(damaged)
        refused(3, "bad.npz", "run", files / "tiny.pt", "--data", "bad.npz")
        refused(3, "bad.npz", "run", files / "tiny.pt", "--calibrate", "bad.npz")
    locked = bytearray(whole)  # the flag of encryption, in the file's header and the directory
    locked[6] |= 1
    locked[whole.rindex(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "bad.npz").write_bytes(locked)
    refused(3, "encrypted", "run", files / "tiny.pt", "--data", "bad.npz")


def test_a_backslash_makes_a_path_of_data(refused, files):
    refused(3, "there is no such file", "run", files / "tiny.pt", "--data", "sub\\digits")


def test_unknown_names_suggest_the_nearest(refused, files):
    tiny = files / "tiny.pt"
    refused(2, "did you mean 'reram-wan2022'", "run", tiny, "--chip", "reram-wan")
    refused(2, "did you mean 'cmo-hfox'", "run", tiny, "--device", "cmo-hfo")
    refused(2, "did you mean 'digits'", "run", tiny, "--data", "digit")
    refused(2, "did you mean 'leapfrog'", "run", tiny, "--form", "leapfrg")
    refused(2, "did you mean 'digital'", "map", tiny, "--decay", "digitl")
    refused(2, "mix", "run", tiny, "--precision", "mx=4")


def test_chip_files_with_misspelt_or_impossible_fields(refused, files, tmp_path):
    head = '[device]\nname = "mine"\ng_min_s = "0uS"\ng_max_s = "25uS"\n'
    for text, expected in (
        (head + "[adc]\nbist = 8\n", "did you mean 'bits'"),
        (head + "[adc]\nbits = 40\n", "adc.bits"),
        (head + "[tile]\nrows = 0\n", "tile.rows"),
        (head + "g_min_s = 3\n", "not TOML"),
        (head.replace("25uS", "25uV"), "25uV"),
        ('schema_version = "aimc-sim.chip/9"\n' + head, "aimc-sim.chip/1"),
        ("name = 'x'\n", "device"),
    ):
        (tmp_path / "chip.toml").write_text(text)
        refused(3, expected, "run", files / "tiny.pt", "--chip", "chip.toml")
        refused(3, expected, "device", "chip.toml")
    refused(3, "cannot be read", "run", files / "tiny.pt", "--chip", "absent.toml")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--at", "-1s"), "not a time after it"),
        (("--at", "0s,-1h"), "not a time after it"),
        (("--at", "1 fortnight"), "known unit"),
        (("--at", ""), "it is empty"),
        (("--chip", "reram-wan2022", "--at", "1w"), "its data cover 0 s to 2 d"),
        (("--chips", "0"), "--chips 0"),
        (("--limit", "0"), "--limit 0"),
        (("--limit", "-3"), "--limit -3"),
        (("--threads", "0"), "--threads 0"),
        (("--threads", "100000"), "this process may use"),
        (("--seed", "-1"), "seed -1"),
        (("--engine", "gpu"), "choose one of cpu, cuda, auto"),
        (("--precision", "a=99"), "99"),
        (("--precision", "a=x"), "a=x"),
        (("--precision", ""), "it names no quantity"),
        (("--precision", " , "), "it names no quantity"),
        (("--precision", "a=8,b=4,a=4"), "it gives 'a' twice"),
        (("--at", "1e999999h"), "it is not finite"),
    ],
)
def test_meaningless_options_are_refused_before_the_model_is_read(refused, arguments, text):
    refused(2, text, "run", "absent.pt", *arguments)


@pytest.mark.compiled
def test_a_block_that_does_not_fit_exits_4(refused, files, tmp_path):
    head = '[device]\nname = "mine"\ng_min_s = "0uS"\ng_max_s = "25uS"\n'
    for text in ("[short_tile]\nrows = 1\n", "[tile]\nrows = 1\ncols = 1\n"):
        (tmp_path / "small.toml").write_text(head + text)
        for command in ("run", "map"):
            refused(4, "holds", command, files / "tiny.pt", "--chip", "small.toml")
    (tmp_path / "few.toml").write_text("max_tiles = 1\n" + head)
    refused(4, "the chip has 1", "map", files / "tiny.pt", "--chip", "few.toml")


def test_outputs_are_checked_before_the_run(cli, files, tmp_path):
    tiny = str(files / "tiny.pt")
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "mine.txt").write_text("kept")
    (tmp_path / "file").write_text("kept")
    for arguments, text in (
        (("--out", "there"), "add --force"),
        (("--out", "file", "--force"), "not a folder"),
        (("--out", "no/such/folder"), "there is no folder"),
        (("--force",), "there is no --out"),
        (("--json", "there"), "that is a folder"),
        (("--json", "file"), "add --force"),
        (("--logits", "file"), "add --force"),
        (("--save-chip", "file"), "add --force"),
        (("--json", "no/r.json"), "there is no folder no"),
        (("--logits", "no/l.npz"), "there is no folder no"),
        (("--save-chip", "no/c.npz"), "there is no folder no"),
        (("--logits", "same", "--save-chip", "same"), "that file is what --logits writes"),
        (("--logits", tiny), "that file is an input"),
    ):
        result = cli("run", tiny, *arguments, code=2)
        assert text in result.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "there"]
    assert (tmp_path / "there" / "mine.txt").read_text() == "kept"
    assert (tmp_path / "file").read_text() == "kept"


@pytest.mark.compiled
def test_a_write_that_fails_leaves_nothing(cli, files, tmp_path, monkeypatch):
    import aimc_sim.cli.results as command

    def disk_full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(command, "write_logits", disk_full)
    result = cli(
        "run",
        files / "tiny.pt",
        "--data",
        files / "data.npz",
        "--at",
        "0s",
        "--logits",
        "l.npz",
        code=2,
    )
    assert "No space left" in result.stderr
    assert list(tmp_path.iterdir()) == []
