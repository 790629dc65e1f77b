"""Small task functions for the tests of sweeps; workers import them by name."""

from __future__ import annotations

import hashlib
import os
import signal
import time
from pathlib import Path

from aimc_sim.sweep import Campaign


def number(task):
    """Return a number between 0 and 1 that only the task's place decides; slow on request."""
    time.sleep(task.get("sleep_s", 0.0))
    if "log" in task:
        with Path(task["log"]).open("a") as stream:
            stream.write(f"{task['x']} {task['draw']}\n")
    digest = hashlib.sha256(f"{task['x']} {task['draw']}".encode()).digest()
    return {"value": int.from_bytes(digest[:6], "big") / 2**48, "place": task["x"]}


def note_process(task):
    """Note the process that runs the task, and take a while."""
    with Path(task["log"]).open("a") as stream:
        stream.write(f"{os.getpid()}\n")
    time.sleep(0.2)
    return {"value": 1.0}


def backwards(task):
    """Return `number`, the later draws sooner."""
    time.sleep(0.02 * (8 - task["draw"] % 8))
    return number(task)


def misbehave(task):
    """Do what `how` says; the flag file makes a fault happen once."""
    how, flag = task["how"], Path(task["flag"])
    first = not flag.exists()
    if how == "raise" or (how == "raise once" and first):
        flag.touch()
        raise ValueError("no such\nluck")
    if how == "exit":
        raise SystemExit(3)
    if how == "die" or (how == "die once" and first):
        flag.touch()
        time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "wrong keys":
        return {"other": 1.0}
    if how == "nothing":
        return None
    return {"value": {"infinite": float("inf"), "none": None}.get(how, 1.0)}


def thousand(log):
    """Return a campaign of a thousand tasks of some milliseconds that note their place in `log`."""
    return Campaign.grid(
        "sweep_tasks:number", {"x": list(range(20)), "draw": range(50)},
        outputs={"value": "1", "place": "1"}, fixed={"sleep_s": 0.004, "log": log},
        repeats=["draw"],
    )
