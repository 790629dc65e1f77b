"""The engine of campaigns: names, journal, early stop, failures, results."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

from aimc_sim.errors import InputError, UsageError
from aimc_sim.sweep import Axis, Campaign, Task, run
from aimc_sim.sweep.dataset import read, summarise
from aimc_sim.sweep.journal import from_line, to_line
from aimc_sim.sweep.plan import LEAST, Group, Interval
from aimc_sim.sweep.tasks import Outcome, attempt

OUTPUTS = {"value": "1", "place": "V"}


def numbers(x=(1, 2, 3), draws=6, *, function="number", **fixed):
    return Campaign.grid(
        f"sweep_tasks:{function}", {"x": list(x), "draw": range(draws)}, outputs=OUTPUTS,
        fixed=fixed, repeats=["draw"], units={"x": "V"}, name="numbers",
    )


def faults(how, flag):
    return Campaign.grid(
        "sweep_tasks:misbehave", {"how": how}, outputs={"value": "1"},
        fixed={"flag": str(flag)},
    )


def quietly(*arguments, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return run(*arguments, **options)


def test_a_task_is_named_by_what_it_computes_and_not_by_where_its_files_are():
    task = Task("m:f", {"a": 1, "b": "x"}, {"path": "/here"})
    assert task.name == Task("m:f", {"b": "x", "a": 1}, {"path": "/there"}).name
    others = [
        Task("m:g", {"a": 1, "b": "x"}), Task("m:f", {"a": 2, "b": "x"}), Task("m:f", {"a": 1}),
        Task("m:f", {"a": "1", "b": "x"}), Task("m:f", {"a": 1, "b": "x", "c": None}),
    ]
    assert len({task.name, *(other.name for other in others)}) == 6


def test_another_version_of_the_package_names_tasks_anew(monkeypatch):
    before = Task("m:f", {"a": 1}).name
    monkeypatch.setattr("aimc_sim.sweep.tasks.__version__", "99.0")
    assert Task("m:f", {"a": 1}).name != before


def test_every_combination_lands_in_its_place(tmp_path):
    found = quietly(numbers(), tmp_path / "n.nc", processes=1)
    assert found.value.dims == ("x", "draw")
    assert found.x.attrs == {"units": "V"} and found.place.attrs == {"units": "V"}
    assert (found.place == found.x).all()
    for x in (1, 2, 3):
        for draw in range(6):
            from sweep_tasks import number

            expected = number({"x": x, "draw": draw})["value"]
            assert float(found.value.sel(x=x, draw=draw)) == expected
    assert read(tmp_path / "n.nc").identical(found)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["n.journal", "n.nc"]


def test_processes_give_the_same_bits_as_one(tmp_path):
    one = quietly(numbers(), tmp_path / "one.nc", processes=1)
    two = quietly(numbers(function="backwards"), tmp_path / "two.nc", processes=2)
    assert two.value.identical(one.value)


def test_a_second_run_computes_nothing_and_a_larger_sweep_only_what_is_new(tmp_path):
    log = tmp_path / "log"
    quietly(numbers(log=str(log)), tmp_path / "n.nc", processes=1)
    assert len(log.read_text().splitlines()) == 18
    again = quietly(numbers(log=str(log)), tmp_path / "n.nc", processes=1)
    assert len(log.read_text().splitlines()) == 18
    grown = quietly(numbers((1, 2, 3, 4), 7, log=str(log)), tmp_path / "n.nc", processes=1)
    assert len(log.read_text().splitlines()) == 28
    assert grown.sel(x=[1, 2, 3], draw=range(6)).identical(again)


def test_a_grid_without_values_or_with_one_twice_is_refused():
    with pytest.raises(UsageError, match="Sweep x. It has no values. Give at least one"):
        numbers(())
    with pytest.raises(UsageError, match="It has 2 twice"):
        numbers((1, 2, 2))
    with pytest.raises(UsageError, match="It has two quantities 'value'"):
        Campaign.grid("m:f", {"value": [1]}, outputs={"value": "1"})
    with pytest.raises(UsageError, match="'drwa' is none of these"):
        Campaign.grid("m:f", {"draw": [1]}, outputs={"y": "1"}, repeats=["drwa"])
    with pytest.raises(UsageError, match="It has 1 tasks for 2 combinations"):
        Campaign("s", (Axis("x", (1, 2)),), (Task("m:f", {}),), {"y": "1"})


def test_an_axis_compares_every_value_with_few_others():
    """A million chips are an axis too: comparing each with all others would take hours."""

    class Counted(int):
        compared = 0

        def __eq__(self, other):
            Counted.compared += 1
            return int(self) == int(other)

        __hash__ = int.__hash__

    values = tuple(map(Counted, range(2000)))
    Axis("replica", values)
    assert Counted.compared < 10 * len(values)
    with pytest.raises(UsageError, match="It has 7 twice"):
        Axis("replica", (*values, Counted(7)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"processes": 0}, "Run a sweep in 0 processes. That is none."),
        ({"processes": 2, "cluster": "tcp://x:1"}, "It is one or the other."),
        ({"until": 0.0}, "No interval is that narrow"),
        ({"until": math.nan}, "No interval is that narrow"),
    ],
)
def test_meaningless_options_are_refused(tmp_path, options, message):
    with pytest.raises(UsageError, match=message):
        run(numbers(), tmp_path / "n.nc", **options)


def test_results_without_their_journal_are_not_replaced_unasked(tmp_path):
    path = tmp_path / "n.nc"
    path.write_text("mine")
    with pytest.raises(UsageError, match=r"The file exists, without its journal n\.journal"):
        run(numbers(), path, processes=1)
    assert path.read_text() == "mine"
    run(numbers(), path, processes=1, force=True)
    assert read(path).sizes == {"x": 3, "draw": 6}
    with pytest.raises(UsageError, match="Results are NetCDF"):
        run(numbers(), tmp_path / "n.txt", processes=1)
    with pytest.raises(UsageError, match="There is no folder"):
        run(numbers(), tmp_path / "no" / "n.nc", processes=1)


def test_numbers_come_back_from_the_journal_as_they_were():
    values = {"a": 0.1 + 0.2, "b": 5e-324, "c": math.inf, "d": None, "e": -0.0}
    line = to_line(Outcome("t", values, None, 0.5).record())
    record = from_line(line[:-1])
    back = Outcome.from_record(record)
    assert back.values == values
    assert math.copysign(1, back.values["e"]) == -1
    line = to_line(Outcome("t", {"a": math.nan}, None, 0.0).record())
    assert math.isnan(Outcome.from_record(from_line(line[:-1])).values["a"])


def test_a_line_with_any_byte_changed_is_not_whole():
    line = to_line({"task": "t", "values": {"a": 1.5}})[:-1]
    assert from_line(line) is not None
    for k in range(len(line)):
        assert from_line(line[:k] + bytes([line[k] ^ 1]) + line[k + 1 :]) is None
        assert from_line(line[:k]) is None


@pytest.mark.parametrize("lost", [1, 7, 40])
def test_a_journal_torn_at_its_end_keeps_what_is_whole(tmp_path, lost):
    log, path = tmp_path / "log", tmp_path / "n.nc"
    whole = quietly(numbers(log=str(log)), path, processes=1)
    journal = tmp_path / "n.journal"
    journal.write_bytes(journal.read_bytes()[:-lost])
    with pytest.warns(UserWarning, match=r"17 results are whole and kept, 1 broken line"):
        again = run(numbers(log=str(log)), path, processes=1)
    assert again.identical(whole)
    assert len(log.read_text().splitlines()) == 19
    quietly(numbers(log=str(log)), path, processes=1)  # the damage is mended, not kept


def test_damage_in_the_middle_costs_the_lines_it_hit(tmp_path):
    path = tmp_path / "n.nc"
    whole = quietly(numbers(), path, processes=1)
    journal = tmp_path / "n.journal"
    lines = journal.read_bytes().split(b"\n")
    lines[0] = lines[0].replace(b"numbers", b"numbres")
    lines[5] = b"\0" * len(lines[5])
    lines[9] = lines[9][:10] + b"\xff" + lines[9][11:]
    journal.write_bytes(b"\n".join(lines))
    with pytest.warns(UserWarning, match="16 results are whole and kept, 3 broken line"):
        assert run(numbers(), path, processes=1).identical(whole)
    assert quietly(numbers(), path, processes=1).identical(whole)


def test_a_journal_torn_in_its_first_line_begins_anew(tmp_path):
    quietly(numbers(), tmp_path / "n.nc", processes=1)
    journal = tmp_path / "n.journal"
    journal.write_bytes(journal.read_bytes()[:20])
    with pytest.warns(UserWarning, match="0 results are whole"):
        run(numbers(), tmp_path / "n.nc", processes=1)
    assert len(journal.read_bytes().splitlines()) == 19


def test_the_journal_of_another_sweep_is_left_alone(tmp_path):
    quietly(numbers(), tmp_path / "n.nc", processes=1)
    before = (tmp_path / "n.journal").read_bytes()
    other = numbers(offset=1)
    with pytest.raises(InputError, match="It holds 18 results of another sweep, 'numbers' of aimc"):
        run(other, tmp_path / "n.nc", processes=1)
    assert (tmp_path / "n.journal").read_bytes() == before


@pytest.mark.parametrize("text", ["my notes\n", "my notes\n" * 100, '{"schema": 1}\n' * 30])
def test_a_file_that_is_no_journal_is_left_alone(tmp_path, text):
    (tmp_path / "n.journal").write_text(text)
    with pytest.raises(InputError, match="no journal of a sweep, or nothing in it is whole"):
        run(numbers(), tmp_path / "n.nc", processes=1)
    assert (tmp_path / "n.journal").read_text() == text


def test_a_journal_of_a_newer_version_is_refused_by_name(tmp_path):
    (tmp_path / "n.journal").write_bytes(to_line({"schema": "aimc-sim.sweep/2"}))
    with pytest.raises(InputError, match=r"schema is aimc-sim.sweep/2, this version reads"):
        run(numbers(), tmp_path / "n.nc", processes=1)


def test_two_runs_do_not_write_one_journal(tmp_path):
    pytest.importorskip("fcntl")
    from aimc_sim.sweep.journal import Journal

    refused = pytest.raises(UsageError, match="Another run of the sweep is writing there")
    with Journal(tmp_path / "n.journal", numbers()), refused:
        run(numbers(), tmp_path / "n.nc", processes=1)
    run(numbers(), tmp_path / "n.nc", processes=1)


def test_a_full_disk_loses_nothing_that_was_there(tmp_path):
    """The limit of a file's size stands for the disk: the system refuses in the same way."""
    code = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1500, 1500))\n"
        "sys.path[:0] = [{tests!r}, {root!r}]\n"
        "from aimc_sim.sweep import Campaign, run\n"
        "c = Campaign.grid('sweep_tasks:number', {{'x': [1, 2, 3], 'draw': range(6)}},\n"
        "    outputs={{'value': '1', 'place': 'V'}}, repeats=['draw'], name='numbers',\n"
        "    units={{'x': 'V'}})\n"
        "run(c, {path!r}, processes=1)\n"
    )
    tests = Path(__file__).parent
    path = tmp_path / "n.nc"
    code = code.format(tests=str(tests), root=str(tests.parents[1]), path=str(path))
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert "UsageError: Keep results in" in done.stderr
    assert "The disk is full (File too large)" in done.stderr
    assert "start again: what is there is not computed again" in done.stderr
    kept = (tmp_path / "n.journal").read_bytes()
    assert kept.endswith(b"\n") and all(map(from_line, kept[:-1].split(b"\n")))
    n = len(kept.splitlines()) - 1
    assert 3 < n < 18
    found = quietly(numbers(), path, processes=1)  # no warning: nothing is torn
    assert found.identical(quietly(numbers(), tmp_path / "other.nc", processes=1))
    after = (tmp_path / "n.journal").read_bytes()
    assert after.startswith(kept) and len(after.splitlines()) == 19  # each was computed once


def test_a_folder_that_cannot_be_written_is_refused_before_anything_runs(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("aimc_sim.sweep.journal.os.open", refuse)
    with pytest.raises(UsageError, match="The system refuses .Permission denied"):
        run(numbers(), tmp_path / "n.nc", processes=1)


@pytest.mark.parametrize("processes", [1, 2])
def test_a_failed_task_is_recorded_kept_and_run_again_only_on_request(tmp_path, processes):
    ways = ["raise once", "fine", "exit", "wrong keys", "nothing", "infinite", "none"]
    campaign, path = faults(ways, tmp_path / "flag"), tmp_path / "n.nc"
    found = run(campaign, path, processes=processes)
    assert found.failed.values.tolist() == [1, 0, 1, 1, 1, 0, 0]
    assert found.value.isnull().values.tolist() == [True, False, True, True, True, False, True]
    assert math.isinf(found.value.sel(how="infinite"))
    errors = [str(text) for text in found.error.values]
    assert errors[0] == "ValueError: no such luck"
    assert errors[2] == "SystemExit: 3"
    assert "It returned other. Return a mapping with a number or None for each of" in errors[3]
    assert "It returned a NoneType" in errors[4]
    assert read(path).identical(found)
    assert run(campaign, path, processes=1).identical(found)
    retried = run(campaign, path, processes=1, retry=True)
    assert retried.failed.values.tolist() == [0, 0, 1, 1, 1, 0, 0]
    assert "raise ValueError" in (tmp_path / "n.journal").read_text()


def test_a_task_that_ends_its_process_fails_alone(tmp_path):
    ways = ["fine", "die once", "die", "infinite"]
    found = run(faults(ways, tmp_path / "flag"), tmp_path / "n.nc", processes=2)
    assert found.failed.values.tolist() == [0, 0, 1, 0]
    assert "WorkerDied: the process that ran it died, and again" in str(found.error.values[2])


def test_a_function_that_is_not_there_fails_every_task(tmp_path):
    campaign = Campaign.grid("sweep_tasks:nothing", {"x": [1, 2]}, outputs={"y": "1"})
    found = run(campaign, tmp_path / "n.nc", processes=1)
    assert found.failed.all()
    assert "Call the task function 'sweep_tasks:nothing'" in str(found.error.values[0])


def test_a_worker_of_another_version_is_not_used():
    outcome = attempt(Task("sweep_tasks:number", {"x": 1, "draw": 0}), ("value",), "99.0")
    assert "This worker has aimc-sim" in outcome.error["message"]


def test_the_half_width_is_students():
    from scipy import stats

    values = np.random.default_rng(0).normal(size=12)
    interval = Interval()
    for value in values:
        interval.add(value)
    low, high = stats.t.interval(0.95, 11, values.mean(), stats.sem(values))
    assert interval.mean == pytest.approx(values.mean())
    assert interval.half_width == pytest.approx((high - low) / 2)


def test_the_interval_of_an_early_stop_covers_the_mean_about_as_often_as_it_says():
    """2,000 sweeps of normal values stop at a half-width of sigma / 4, after some 60 repetitions.

    Stopping looks at the values, so an interval misses somewhat more often than one of a number
    fixed before; the standard error of the share is 0.5 points.
    """
    rng = np.random.default_rng(1)
    tasks = [Task("m:f", {"draw": draw}) for draw in range(200)]
    hits, counts = 0, []
    for _ in range(2000):
        values = rng.normal(size=len(tasks))
        outcomes = {
            task.name: Outcome(task.name, {"value": value}, None, 0.0)
            for task, value in zip(tasks, values.tolist(), strict=True)
        }
        group = Group(list(range(len(tasks))), tasks, 0.25)
        group.look(outcomes, "value")
        assert group.enough
        hits += abs(values[: group.counted].mean()) <= 0.25
        counts.append(group.counted)
    assert 50 < np.mean(counts) < 75
    assert 0.92 < hits / 2000 < 0.97


@pytest.mark.parametrize("function", ["number", "backwards"])
@pytest.mark.parametrize("processes", [1, 3])
def test_an_early_stop_depends_on_the_values_alone(tmp_path, function, processes):
    campaign = numbers((1, 2), 40, function=function)
    found = run(campaign, tmp_path / "n.nc", processes=processes, until=0.15)
    everything = run(numbers((1, 2), 40), tmp_path / "all.nc", processes=1)
    for x in (1, 2):
        interval, expected = Interval(), 0
        for value in everything.value.sel(x=x).values:
            interval.add(float(value))
            expected += 1
            if interval.k >= LEAST and interval.half_width <= 0.15:
                break
        assert LEAST < expected < 40
        kept = found.value.sel(x=x).values
        assert np.isfinite(kept).tolist() == [k < expected for k in range(40)]
        assert (kept[:expected] == everything.value.sel(x=x).values[:expected]).all()
    assert "at most 0.15" in found.attrs["until"]
    # what was begun before the stop was known, and no more
    computed = len((tmp_path / "n.journal").read_text().splitlines()) - 1
    assert computed <= int(found.value.count()) + 2 * 2 * processes


def test_a_failed_repetition_says_nothing_of_the_interval(tmp_path):
    campaign = Campaign.grid(
        "sweep_tasks:misbehave", {"how": ["raise", "fine"], "draw": range(9)},
        outputs={"value": "1"}, fixed={"flag": str(tmp_path / "flag")}, repeats=["draw"],
    )
    found = run(campaign, tmp_path / "n.nc", processes=1, until=0.1)
    assert int(found.failed.sel(how="raise").sum()) == 9
    assert int(found.value.sel(how="fine").count()) == LEAST


def test_tasks_that_compute_the_same_run_once(tmp_path):
    log = tmp_path / "log"
    same = Task("sweep_tasks:number", {"x": 1, "draw": 0, "log": str(log)})
    campaign = Campaign("s", (Axis("x", ("a", "b")),), (same, same), OUTPUTS)
    found = run(campaign, tmp_path / "n.nc", processes=1)
    assert log.read_text() == "1 0\n"
    assert float(found.value[0]) == float(found.value[1])


def test_progress_counts_what_is_done_and_what_is_left(tmp_path):
    seen = []
    run(numbers(), tmp_path / "n.nc", processes=1, on_progress=seen.append)
    assert [(at.done, at.left) for at in seen] == [(k, 18 - k) for k in range(1, 19)]
    assert seen[-1].left_s == 0 and all(at.left_s > 0 for at in seen[:-1])
    journal = tmp_path / "n.journal"
    journal.write_bytes(b"\n".join(journal.read_bytes().split(b"\n")[:11]) + b"\n")
    resumed = []
    run(numbers(), tmp_path / "n.nc", processes=1, on_progress=resumed.append)
    assert [(at.done, at.left) for at in resumed] == [(k, 18 - k) for k in range(11, 19)]


def test_a_summary_has_a_row_for_every_combination(tmp_path):
    found = run(numbers(), tmp_path / "n.nc", processes=1)
    rows = summarise(found, "value", ["draw"])
    assert [row["at"] for row in rows] == [{"x": 1}, {"x": 2}, {"x": 3}]
    for row, values in zip(rows, found.value.values, strict=True):
        assert row["mean"] == pytest.approx(values.mean())
        assert row["std"] == pytest.approx(values.std(ddof=1))
        assert row["low"] < row["mean"] < row["high"] and row["n"] == 6


def test_missing_packages_are_named_before_anything_runs(tmp_path, monkeypatch):
    monkeypatch.setattr("aimc_sim.sweep.dataset.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install 'aimc-sim\[sweep\]'"):
        run(numbers(), tmp_path / "n.nc", processes=1)
    assert list(tmp_path.iterdir()) == []


def test_results_that_cannot_be_written_are_all_in_the_journal(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("aimc_sim.sweep.dataset.os.replace", refuse)
        with pytest.raises(UsageError, match="the journal has them all"):
            run(numbers(), tmp_path / "n.nc", processes=1)
    assert [path.name for path in tmp_path.iterdir()] == ["n.journal"]
    before = (tmp_path / "n.journal").read_bytes()
    run(numbers(), tmp_path / "n.nc", processes=1)
    assert (tmp_path / "n.journal").read_bytes() == before


def test_an_interrupted_run_keeps_what_it_has(tmp_path, monkeypatch):
    def interrupt(at):
        if at.done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(numbers(), tmp_path / "n.nc", processes=1, on_progress=interrupt)
    lines = (tmp_path / "n.journal").read_text().splitlines()
    assert len(lines) == 5 and json.loads(lines[0][9:])["schema"] == "aimc-sim.sweep/1"
    assert quietly(numbers(), tmp_path / "n.nc", processes=1).value.count() == 18


def test_a_file_that_is_no_result_is_refused(tmp_path):
    (tmp_path / "n.nc").write_text("text")
    with pytest.raises(InputError, match="It cannot be read"):
        read(tmp_path / "n.nc")
