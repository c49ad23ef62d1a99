"""Worker processes that share a socket; one that dies is replaced."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from pacavit.errors import CheckpointError
from pacavit.serve.options import ServeOptions
from pacavit.utils.registry import load_plugin, loaded_plugins
from pacavit.utils.text import one_line

__all__ = ["supervise"]

_READY = ""
_MOST_FAILURES = 5  # workers in a row that die before they are ready
_LOOK = 0.2  # seconds between looks at whether to stop


class _Task(NamedTuple):
    """What a worker needs, sent to it when it starts."""

    sources: Mapping[str, str]
    options: ServeOptions
    listener: socket.socket
    plugins: Sequence[Path]
    threads: int


class _Worker(NamedTuple):
    """A process and the connection on which it says that it is ready, or why not."""

    process: BaseProcess
    connection: Connection


def supervise(
    sources: Mapping[str, str],
    listener: socket.socket,
    workers: int,
    options: ServeOptions,
    url: str,
    *,
    log: Callable[[str], None],
) -> None:
    """Serve with several processes until Ctrl-C or SIGTERM.

    A worker answers no request before all its models have answered once, so that a replacement
    never refuses what another worker can answer. The death of a worker loses its requests only.

    Args:
        sources: of the models by name.
        listener: socket that all workers accept connections from.
        workers: number of processes.
        options: limits and settings.
        url: of the server, for the log.
        log: receives the address, and what happens to workers.

    Raises:
        CheckpointError: workers cannot start.
    """
    from pacavit.serve.metrics import FOLDER

    plugins = [plugin.path for plugin in loaded_plugins()]
    threads = max(1, (os.cpu_count() or 1) // workers)
    task = _Task(sources, options, listener, plugins, threads)
    with TemporaryDirectory(prefix="pacavit-serve-") as folder, _environment(FOLDER, folder):
        _Supervisor(task, workers, log).run(url)


class _Supervisor:
    def __init__(self, task: _Task, number: int, log: Callable[[str], None]) -> None:
        self.task, self.number, self.log = task, number, log
        self.stopping = False
        self.workers: list[_Worker] = []
        self.failures = 0
        self.starting = False  # some worker is not ready yet

    def run(self, url: str) -> None:
        with self._signals():
            try:
                self._begin()  # alone, so that a wrong model is reported once
                self._until(lambda: self.failures == 0 and not self.starting)
                if not self.stopping:
                    self.log(f"serving {', '.join(self.task.sources)} at {url} (Ctrl-C ends it)")
                    for _ in range(self.number - 1):
                        self._begin()
                self._until(lambda: False)
            finally:
                self._end()

    def _begin(self) -> None:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_work, args=(self.task, theirs))
        process.start()
        theirs.close()
        self.workers.append(_Worker(process, ours))
        self.starting = True

    def _until(self, done: Callable[[], bool]) -> None:
        """Watch the workers until something holds, or a signal came."""
        while not self.stopping and not done():
            for ready in wait([worker.connection for worker in self.workers], timeout=_LOOK):
                (worker,) = (each for each in self.workers if each.connection is ready)
                self._hear(worker)

    def _hear(self, worker: _Worker) -> None:
        """A worker said something, or is dead: then its connection is closed."""
        try:
            said = worker.connection.recv()
        except (EOFError, OSError):
            self._replace(worker)
            return
        if said == _READY:
            self.starting, self.failures = False, 0
            return
        raise CheckpointError(said)

    def _replace(self, worker: _Worker) -> None:
        from prometheus_client.multiprocess import mark_process_dead

        worker.process.join()
        worker.connection.close()
        self.workers.remove(worker)
        mark_process_dead(worker.process.pid)
        code = worker.process.exitcode or 0
        how = f"by {signal.Signals(-code).name}" if code < 0 else f"with code {code}"
        if self.stopping:
            return
        if self.starting:
            self.failures += 1
        if self.failures >= _MOST_FAILURES:
            raise CheckpointError(
                f"{self.failures} workers in a row ended before they were ready, the last one {how}"
            )
        self.log(f"worker {worker.process.pid} ended {how}; another one starts")
        time.sleep(_LOOK * self.failures)
        self._begin()

    def _end(self) -> None:
        """Let the workers answer what has arrived, and end them."""
        for worker in self.workers:
            worker.process.terminate()
        limit = time.monotonic() + self.task.options.timeout + 5
        for worker in self.workers:
            worker.process.join(max(0, limit - time.monotonic()))
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()
            worker.connection.close()

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        def stop(*_: object) -> None:
            self.stopping = True

        numbers = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.signal(number, stop) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


@contextlib.contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _work(task: _Task, connection: Connection) -> None:
    """A worker process."""
    import torch

    from pacavit.serve.server import ended_by_signals, make_server

    torch.set_num_threads(task.threads)
    for path in task.plugins:
        load_plugin(path)
    errors: list[BaseException] = []
    server = make_server(task.sources, task.options, wait=True, ended=errors.append)

    def follow() -> None:
        """Say when the server is ready, and stop it when the parent process is gone."""
        while not server.started and not server.should_exit:
            time.sleep(0.01)
        if errors:
            connection.send(one_line(errors[0]))
        elif server.started:
            connection.send(_READY)
        with contextlib.suppress(EOFError, OSError):
            connection.recv()
        server.should_exit = True

    threading.Thread(target=follow, daemon=True).start()
    with ended_by_signals():
        server.run(sockets=[task.listener])
