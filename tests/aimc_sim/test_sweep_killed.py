"""A sweep that is killed at any moment ends as though it had not been."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from sweep_tasks import thousand

from aimc_sim.sweep import run
from aimc_sim.sweep.dataset import read

TESTS = Path(__file__).parent
N_TASKS, N_KILLS = 1000, 10
# a process of its own: what SIGKILL ends is the run, not this test
SCRIPT = """
import sys
sys.path[:0] = [{tests!r}, {root!r}]
from sweep_tasks import thousand
from aimc_sim.sweep import run
run(thousand({log!r}), {path!r}, processes=2)
"""


@pytest.mark.skipif(os.name != "posix", reason="only POSIX systems have SIGKILL")
def test_a_thousand_tasks_killed_ten_times_end_as_an_undisturbed_run(tmp_path):
    log, path = tmp_path / "log", tmp_path / "n.nc"
    journal = tmp_path / "n.journal"
    script = SCRIPT.format(
        tests=str(TESTS), root=str(TESTS.parents[1]), log=str(log), path=str(path)
    )
    dice = random.Random(8)
    kept = 0
    for number in range(N_KILLS):
        process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", script], stderr=subprocess.PIPE,
            start_new_session=True,
        )
        # a moment after some 70 more results; how long a machine takes to start is no matter
        enough = kept + dice.randrange(130)
        while process.poll() is None and _results(journal) < enough:
            time.sleep(0.002)
        time.sleep(dice.random() * 0.02)
        assert process.poll() is None, process.stderr.read().decode()
        if number % 2:  # the whole session, as when a machine goes down, or the run alone
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
        process.wait()
        process.stderr.close()
        for left in Path("/dev/shm").glob(f"sem.loky-{process.pid}-*"):
            left.unlink(missing_ok=True)  # nobody of a killed session was left to do it
        now = _results(journal)
        assert now >= kept
        kept = now
    assert 200 < kept < N_TASKS
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)
    disturbed = read(path)
    undisturbed = run(thousand(str(tmp_path / "other")), tmp_path / "whole.nc", processes=1)
    assert disturbed.identical(undisturbed)
    assert int(disturbed.value.count()) == N_TASKS
    # twice ran only what was under way at a kill: at most two a worker and one unread
    runs = len(log.read_text().splitlines())
    assert N_TASKS <= runs <= N_TASKS + N_KILLS * 5


def _results(journal: Path) -> int:
    return max(journal.read_bytes().count(b"\n") - 1, 0) if journal.exists() else 0


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_workers_end_with_the_run_that_started_them(tmp_path):
    log = tmp_path / "log"
    script = (
        f"import sys; sys.path[:0] = [{str(TESTS)!r}, {str(TESTS.parents[1])!r}]\n"
        "from aimc_sim.sweep import Campaign, run\n"
        "run(Campaign.grid('sweep_tasks:note_process', {'x': list(range(500))},\n"
        f"    outputs={{'value': '1'}}, fixed={{'log': {str(log)!r}}}),\n"
        f"    {str(tmp_path / 'n.nc')!r}, processes=2)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.DEVNULL)
    pids: set[int] = set()
    while len(pids) < 2 and process.poll() is None:
        time.sleep(0.05)
        pids = set(map(int, log.read_text().split())) if log.exists() else set()
    assert process.pid not in pids and all(map(_is_running, pids))
    process.kill()
    process.wait()
    deadline = time.monotonic() + 30
    while any(map(_is_running, pids)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(map(_is_running, pids))


def _is_running(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rsplit(")", 1)[1].split()[0] != "Z"


@pytest.mark.skipif(os.name != "posix", reason="signals of a group of processes")
def test_an_interrupt_from_the_keyboard_is_answered_once(tmp_path):
    """It reaches the workers too, which must neither write to the terminal nor hang."""
    log = tmp_path / "log"
    script = (
        f"import sys; sys.path[:0] = [{str(TESTS)!r}, {str(TESTS.parents[1])!r}]\n"
        "from sweep_tasks import thousand\n"
        "from aimc_sim.sweep import run\n"
        "try:\n"
        f"    run(thousand({str(log)!r}), {str(tmp_path / 'n.nc')!r}, processes=2)\n"
        "except KeyboardInterrupt:\n"
        "    sys.exit(130)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script], stderr=subprocess.PIPE, start_new_session=True, text=True
    )
    while process.poll() is None and _results(tmp_path / "n.journal") < 20:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (130, "")
    assert 20 <= _results(tmp_path / "n.journal") < N_TASKS
