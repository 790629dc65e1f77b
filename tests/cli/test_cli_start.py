"""The command line as a process: quick start, help, version, entry point."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def aimc_sim(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "aimc_sim", *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        timeout=120,
    )


def test_help_imports_nothing_heavy():
    code = (
        "import sys, aimc_sim.cli.main; "
        "print([m for m in ('numpy', 'torch', 'numba', 'scipy', 'matplotlib', 'ssm.deploy', "
        "'aimc_sim.specs') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "[]", done.stderr


def test_help_lists_the_commands_that_exist_and_no_others(cli):
    text = cli("--help").stdout
    listed = text[text.index("Commands:") :].split("\n\n")[0].splitlines()[1:]
    assert [line.split()[0] for line in listed if line.startswith("  ")] == [
        "run",
        "map",
        "presets",
        "device",
        "calibrate",
        "train",
        "quantize",
        "sweep",
        "prune",
    ]


def test_help_names_every_option_of_the_contract(cli):
    text = cli("run", "--help").stdout
    for option in (
        "--chip",
        "--device",
        "--data",
        "--calibrate",
        "--norm",
        "--disc",
        "--pool",
        "--form",
        "--decay",
        "--precision",
        "--at",
        "--chips",
        "--seed",
        "--limit",
        "--threads",
        "--engine",
        "--ablate",
        "--budget",
        "--save-chip",
        "--out",
        "--force",
        "--json",
        "--logits",
        "--quiet",
    ):
        assert option in text
    text = cli("device", "--help").stdout
    for option in ("--targets", "--at", "--cells", "--json"):
        assert option in text


def test_version_is_that_of_the_package(cli):
    import aimc_sim

    assert cli("--version").stdout.strip() == f"aimc-sim {aimc_sim.__version__}"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("rum",), "run"),
        (("run", "--chp", "ideal", "m.pt"), "--chip"),
        (("run",), "MODEL"),
        (("run", "m.pt", "--chips", "two"), "--chips"),
    ],
)
def test_wrong_usage_exits_2_and_says_what_is_near(cli, arguments, text):
    assert text in cli(*arguments, code=2).stderr


def test_presets_lists_every_card_with_its_source(cli):
    from aimc_sim.specs import presets

    result = cli("presets", "--json", "-")
    record = json.loads(result.stdout)
    assert record["schema"] == "aimc-sim.presets/1"
    assert [row["name"] for row in record["presets"]] == presets()
    assert all(row["cite"] or row["name"] == "ideal" for row in record["presets"])
    # a card fitted to a repository's data has no DOI
    assert all(len(row["cite"]) >= len(row["doi"]) for row in record["presets"])
    table = result.stderr  # which leaves stdout to the JSON
    assert all(name in table for name in presets())
    assert table == cli("presets").stdout
    words = " ".join(table.split())
    assert words.count("no source") == 1 and "no source: not a device" in words  # the ideal chip
    for row in record["presets"]:
        assert all(f"doi:{doi}" in words for doi in row["doi"])
    # data of a repository, which has no DOI
    assert "github.com/akashlevy/RRAM-Relaxation-Master-Model (2024)" in words


def test_the_package_runs_as_a_module_under_the_name_of_its_command():
    done = aimc_sim("presets", "--nonsense")
    assert done.returncode == 2
    assert done.stderr.startswith("Usage: aimc-sim presets")


def test_a_users_mistake_shows_three_parts_and_no_traceback():
    done = aimc_sim("run", "absent.pt", "--chip", "pcm-nandakumar")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.splitlines() == [
        "error",
        "  asked: use preset 'pcm-nandakumar'",
        "  found: no preset has that name",
        done.stderr.splitlines()[3],
    ]
    assert "  to do: did you mean 'pcm-nandakumar2019'?" in done.stderr


def test_another_package_named_ssm_is_named_and_refused(tmp_path):
    foreign = tmp_path / "ssm.py"
    foreign.write_text("load = None\n")
    for command in ("run", "map"):
        done = subprocess.run(
            [sys.executable, "-c", "from aimc_sim.cli.main import main; main()", command, "m.pt"],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            timeout=120,
        )
        assert done.returncode == 2, done.stderr
        assert "Traceback" not in done.stderr
        assert f"another package of that name comes first, {foreign}" in done.stderr


def test_interrupt_exits_130_with_nothing_written(cli, files, tmp_path, monkeypatch):
    import ssm.evaluate

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(ssm.evaluate, "evaluate", interrupted)
    result = cli(
        "run",
        files / "tiny.pt",
        "--data",
        files / "data.npz",
        "--out",
        "new",
        "--json",
        "r.json",
        code=130,
    )
    assert "interrupted" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_memory_that_runs_out_exits_4(cli, files, monkeypatch):
    import ssm.evaluate

    def too_large(*_, **__):
        raise MemoryError("8 TiB")

    monkeypatch.setattr(ssm.evaluate, "evaluate", too_large)
    assert "8 TiB" in cli("run", files / "tiny.pt", code=4).stderr
