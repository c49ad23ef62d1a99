import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import pacavit
from pacavit.data.workers import available_cores, map_in_workers
from pacavit.errors import DataError


def square(number: int) -> torch.Tensor:
    return torch.tensor(number) ** 2


def die_at_two(number: int) -> int:
    if number == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def survive_sigterm(number: int) -> int:
    os.kill(os.getpid(), signal.SIGTERM)
    return number


def refuse(number: int) -> int:
    raise DataError(f"no {number}")


def complain(number: int) -> int:
    raise RuntimeError(f"no {number}")


@pytest.mark.parametrize("num_workers", [0, 1, 3])
def test_results_come_in_order_and_the_caller_draws_nothing(num_workers: int) -> None:
    before = torch.get_rng_state()
    results = list(map_in_workers(square, range(7), num_workers=num_workers))
    assert [int(result) for result in results] == [0, 1, 4, 9, 16, 25, 36]
    assert torch.equal(torch.get_rng_state(), before)


def test_no_items() -> None:
    assert list(map_in_workers(square, [], num_workers=2)) == []


def test_leaving_early_ends_the_workers() -> None:
    results = map_in_workers(square, range(100), num_workers=2)
    assert int(next(results)) == 0
    del results
    assert not multiprocessing.active_children()


def test_a_dead_worker_is_a_clear_error() -> None:
    with pytest.raises(DataError, match=r"process that reads images died.*data\.num_workers"):
        list(map_in_workers(die_at_two, range(5), num_workers=1))


def test_a_signal_to_all_processes_leaves_the_workers_working() -> None:
    results = map_in_workers(survive_sigterm, range(50), num_workers=2)
    assert [next(results) for _ in range(8)] == list(range(8))
    start = time.monotonic()
    del results
    assert time.monotonic() - start < 4  # DataLoader kills those that do not go in 5 seconds
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("num_workers", [0, 1])
def test_errors_of_a_user_keep_their_one_line(num_workers: int) -> None:
    with pytest.raises(DataError, match=r"\Ano 0\Z"):
        list(map_in_workers(refuse, range(2), num_workers=num_workers))


def test_other_errors_stay_what_they_are() -> None:
    with pytest.raises(RuntimeError, match="no 0"):
        list(map_in_workers(complain, range(2), num_workers=1))


def test_processes_on_a_machine_share_its_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: range(10), raising=False)
    for processes, expected in ((None, 10), (1, 10), (4, 2), (16, 1)):
        if processes is not None:
            monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
        assert available_cores() == expected


def test_a_process_can_exit_in_the_middle() -> None:
    script = """
import torch
from pacavit.data import workers
workers._GRACE = 1
results = workers.map_in_workers(torch.tensor, range(1000), num_workers=2)
next(results)
"""
    source = str(Path(pacavit.__path__[0]).parent)
    environment = {**os.environ, "PYTHONPATH": source}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stderr) == (0, "")
