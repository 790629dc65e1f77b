"""Sweeps on a Dask cluster: the same results, and clusters that are not there or go away."""

from __future__ import annotations

import logging
import socket

import pytest
from test_sweep import faults, numbers

from aimc_sim.errors import UsageError
from aimc_sim.sweep import run

distributed = pytest.importorskip("distributed")
pytestmark = pytest.mark.filterwarnings("ignore:::distributed")


def _cluster(**options):
    return distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=None, silence_logs=logging.CRITICAL,
        **options,
    )


@pytest.fixture(scope="module")
def address():
    with _cluster(processes=True) as cluster:
        yield cluster.scheduler_address


def test_a_cluster_gives_the_same_bits_as_this_process(tmp_path, address):
    here = run(numbers(), tmp_path / "here.nc", processes=1)
    there = run(numbers(function="backwards"), tmp_path / "there.nc", cluster=address)
    assert there.value.identical(here.value)


def test_a_sweep_goes_from_one_process_to_a_cluster_and_computes_nothing_again(tmp_path, address):
    log, path = tmp_path / "log", tmp_path / "n.nc"
    run(numbers((1, 2), log=str(log)), path, processes=1)
    found = run(numbers((1, 2, 3), log=str(log)), path, cluster=address)
    assert len(log.read_text().splitlines()) == 18
    assert int(found.value.count()) == 18


def test_an_early_stop_on_a_cluster_is_that_of_one_process(tmp_path, address):
    campaign = numbers((1, 2), 40, function="backwards")
    here = run(campaign, tmp_path / "here.nc", processes=1, until=0.15)
    assert run(campaign, tmp_path / "there.nc", cluster=address, until=0.15).identical(here)


def test_faults_on_a_cluster_are_recorded_and_the_rest_goes_on(tmp_path, address):
    ways = ["fine", "raise", "die", "exit", "infinite"]
    found = run(faults(ways, tmp_path / "flag"), tmp_path / "n.nc", cluster=address)
    assert found.failed.values.tolist() == [0, 1, 1, 1, 0]
    assert "no such luck" in str(found.error.values[1])
    assert "WorkerDied" in str(found.error.values[2])


def test_a_cluster_that_is_not_there_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("aimc_sim.sweep.workers.CONNECT_S", 1.0)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        for text in (
            f"tcp://127.0.0.1:{port}", "nonsense://x", "nonsense", "tcp://127.0.0.1",
            "tcp://no.such.host.invalid:8786",
        ):
            with pytest.raises(UsageError, match="No scheduler answers there"):
                run(numbers(), tmp_path / "n.nc", cluster=text)
    assert run(numbers(), tmp_path / "n.nc", processes=1).value.count() == 18


def test_an_address_that_is_none_makes_no_client(tmp_path, monkeypatch):
    """One that is made of no address keeps the process for 20 s, and complains at its end."""
    made = []
    monkeypatch.setattr("distributed.Client", lambda *_, **__: made.append(1))
    with pytest.raises(UsageError, match="missing port number"):
        run(numbers(), tmp_path / "n.nc", cluster="nonsense")
    assert not made


def test_a_cluster_without_workers_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("aimc_sim.sweep.workers.CONNECT_S", 1.0)
    with (
        distributed.LocalCluster(
            n_workers=0, dashboard_address=None, silence_logs=logging.CRITICAL
        ) as cluster,
        pytest.raises(UsageError, match="It has no workers. Start some: dask worker tcp"),
    ):
        run(numbers(), tmp_path / "n.nc", cluster=cluster.scheduler_address)


def test_workers_of_another_version_are_refused(tmp_path, address, monkeypatch):
    monkeypatch.setattr("aimc_sim.sweep.workers.__version__", "99.0")
    with pytest.raises(UsageError, match=r"has aimc-sim 0.* here is 99.0"):
        run(numbers(), tmp_path / "n.nc", cluster=address)


def test_a_cluster_that_goes_away_costs_only_what_was_under_way(tmp_path):
    path = tmp_path / "n.nc"
    with _cluster(processes=False) as cluster:

        def leave(at):
            if at.done == 5:
                cluster.close()

        with pytest.raises(UsageError, match=r"It was lost .* what is there is not computed again"):
            run(numbers(sleep_s=0.05), path, cluster=cluster.scheduler_address, on_progress=leave)
    assert 5 <= len((tmp_path / "n.journal").read_text().splitlines()) - 1 < 18
    found = run(numbers(sleep_s=0.05), path, processes=1)
    assert found.identical(run(numbers(sleep_s=0.05), tmp_path / "o.nc", processes=1))
