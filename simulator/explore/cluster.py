"""The workers of a sweep: spawned on this machine, or those of a dask cluster at an address; the same code for both."""

from __future__ import annotations

import logging
import math
import multiprocessing
import signal
import sys
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager, redirect_stdout
from numbers import Integral
from typing import Any

from simulator.arithmetic.engine import available_processors
from simulator.errors import InputError, first_line, missing
from simulator.hardware.quantities import describe

from .work import Outcome, Task, compute

# Tasks that wait at each worker, so that none is idle while an outcome travels, and few are lost with it.
_AHEAD = 2
# Workers for each processor, each of which takes some hundred MB, and threads of a worker for each.
_MOST = 4
# Seconds for a scheduler to answer, and for its first worker to come.
_ANSWER_S = 20
# Times that a task which lost its worker goes to another, and that a start of workers which failed is repeated.
_RETRIES = 3


class Cluster:
    """Computes tasks on dask workers.

    Args:
        workers: how many to spawn here; None for one a processor, at most as many as there are tasks.
        scheduler: address of an existing cluster in place of them, such as tcp://host:8786.
        threads: of each worker; None: the processors divided by the workers.
    Raises:
        InputError: fewer than one worker or thread, far more than processors here, or workers beside a scheduler.
    """

    def __init__(self, workers: int | None = None, scheduler: str | None = None, threads: int | None = None) -> None:
        most = _MOST * available_processors()
        for name, count in (("workers", workers), ("threads", threads)):
            if count is None:
                continue
            if isinstance(count, bool) or not isinstance(count, Integral) or count < 1:
                raise InputError(
                    f"{name}: got {describe(count)}; expected a whole number from 1; give one, or leave it out"
                )
            if scheduler is None and count > most:
                raise InputError(
                    f"{name}: got {count:,}; expected at most {most:,}, {_MOST} for each processor here; give "
                    "fewer, or the address of a cluster, which may have more"
                )
        if scheduler is not None and (not isinstance(scheduler, str) or workers is not None):
            raise InputError(
                f"scheduler: got {describe(scheduler)}{'' if workers is None else ' beside workers'}; expected "
                "the address of a cluster, which has its own workers; write e.g. tcp://host:8786, alone"
            )
        self.workers, self.threads = (None if count is None else int(count) for count in (workers, threads))
        self.scheduler = scheduler

    def outcomes(self, batches: Iterable[list[Task]], most: int) -> Generator[list[Outcome]]:
        """Yield the outcomes of batches of tasks as they come, in no order.

        Args:
            batches: asked for one by one as workers need them; an empty one says that what follows depends on outcomes
                that are not there yet. most: how many these can be.
        Raises:
            InputError: dask is not installed, there is no cluster at the address, or it went away.
        """
        with self._client(most) as (client, threads):
            yield from _stream(client, batches, threads)

    def reach(self) -> None:
        """Find out whether a cluster that is named is there, before anything is written.

        Raises:
            InputError: there is none at the address.
        """
        if self.scheduler is not None:
            self.size()

    def size(self) -> tuple[int, int | None]:
        """Return how many workers there are or would be, and the threads of each if that is known.

        Raises:
            InputError: there is no cluster at the address.
        """
        if self.scheduler is None:
            return self.local(math.inf)
        with self._client(1) as (client, threads):
            return len(_workers(client)), threads

    def local(self, most: float) -> tuple[int, int]:
        """Return how many workers are spawned for so many tasks, and the threads of each."""
        processors = available_processors()
        workers = int(max(1, min(self.workers or processors, most)))
        return workers, self.threads or max(1, processors // workers)

    @contextmanager
    def _client(self, most: int) -> Iterator[tuple[Any, int | None]]:
        try:
            import dask
            from distributed import Client, LocalCluster
        except ImportError as error:
            raise missing("workers", error.name, "explore") from None
        settings = {
            # Workers are spawned, since fork() after a parallel region of OpenMP hangs.
            "distributed.worker.multiprocessing-method": "spawn",
            "distributed.scheduler.allowed-failures": _RETRIES,
            "distributed.worker.preload": ["simulator.explore.preload"],
            # In place of dask's own, which has malloc return memory after every large array: 1.8 times as slow here.
            "distributed.nanny.pre-spawn-environ": {
                "OMP_NUM_THREADS": 1,
                "MKL_NUM_THREADS": 1,
                "DASK_DISTRIBUTED__LOGGING__DISTRIBUTED": "critical",
            },
        }
        # Of tornado: what fails where Ctrl-C comes before distributed has begun to wait (`future` in its `sync`).
        with dask.config.set(settings), _quiet("distributed", "distributed.client", "tornado.application"):
            if self.scheduler is not None:
                try:
                    client = Client(self.scheduler, timeout=_ANSWER_S)
                except (OSError, ValueError, TypeError, RuntimeError, ImportError) as error:
                    raise InputError(
                        f"scheduler: {self.scheduler}: no cluster answers ({first_line(error)}); expected the "
                        "address of a running dask scheduler; start one with `dask scheduler`, and workers with "
                        f"`dask worker {self.scheduler}`"
                    ) from None
                with client:
                    self._wait_for_workers(client)
                    yield client, self.threads
                return
            workers, threads = self.local(most)
            with _spawned(LocalCluster, workers) as cluster, Client(cluster) as client:
                yield client, threads

    def _wait_for_workers(self, client: Any) -> None:
        try:
            client.wait_for_workers(1, timeout=_ANSWER_S)
        except TimeoutError:
            raise InputError(
                f"scheduler: {self.scheduler}: has no worker after {_ANSWER_S} s; expected one; start some "
                f"with `dask worker {self.scheduler}`"
            ) from None
        except (OSError, RuntimeError) as error:
            raise _gone(error) from None


def _spawned(local_cluster: Any, workers: int) -> Any:
    """Spawn workers; one that dies as it starts takes all with it, and they are started again."""
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise SystemExit(1)  # a worker imports a script that sweeps as it is imported: said where it began
    # Ctrl-C is for the command, which ends its workers: until their preload ignores it, it is held back from them.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        return _tried_to_spawn(local_cluster, workers)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _tried_to_spawn(local_cluster: Any, workers: int) -> Any:
    error: Exception | None = None
    for _ in range(_RETRIES):
        try:
            return local_cluster(
                n_workers=workers, threads_per_worker=1, processes=True, memory_limit=0, dashboard_address="127.0.0.1:0"
            )
        except (RuntimeError, OSError, TimeoutError) as failed:
            error = failed
    assert error is not None
    raise InputError(
        f"workers cannot be started ({first_line(error)}); expected a program that they can import: a file, and "
        'sweep called below `if __name__ == "__main__":` in it'
    )


@contextmanager
def _quiet(*names: str) -> Iterator[None]:
    """Silence loggers: what dies is for the sweep to say."""
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _stream(client: Any, batches: Iterable[list[Task]], threads: int | None) -> Iterator[list[Outcome]]:
    """Keep each worker supplied, and yield what comes back."""
    from distributed import wait

    waiting = iter(batches)
    running: dict[Any, list[Task]] = {}

    def supply() -> None:
        with _there():
            most = _AHEAD * max(1, len(_workers(client)))
        while len(running) < most and (batch := next(waiting, [])):
            with _there():
                running[client.submit(_in_worker, batch, threads, pure=False)] = batch

    supply()
    lonely = False
    while running:
        try:
            done = wait(list(running), timeout=_ANSWER_S, return_when="FIRST_COMPLETED").done
        except CancelledError as error:  # all are, once the scheduler is gone
            raise _gone(error) from None
        except TimeoutError:
            with _there():
                nobody = not _workers(client)
            if nobody and lonely:
                raise _gone(TimeoutError(f"no worker for {2 * _ANSWER_S} s")) from None
            lonely = nobody
            continue
        lonely = False
        for future in done:
            batch = running.pop(future)
            with _there():  # an outcome is fetched only now
                if future.status == "finished":
                    outcomes = future.result()
                elif future.status == "error":
                    outcomes = list(_lost(batch, future.exception()))
                else:
                    raise RuntimeError(f"a task was {future.status}")
            yield outcomes
        supply()


def _in_worker(batch: list[Task], threads: int | None) -> list[Outcome]:
    """Compute tasks where what the user's code prints must not come between the records of the command."""
    with redirect_stdout(sys.stderr):
        return compute(batch, threads)


def _workers(client: Any) -> Any:
    return client.scheduler_info(n_workers=-1)["workers"]


@contextmanager
def _there() -> Iterator[None]:
    """Say of a call to the cluster that fails that it went away."""
    try:
        yield
    except (OSError, RuntimeError, CancelledError) as error:
        raise _gone(error) from None


def _gone(error: BaseException) -> InputError:
    return InputError(
        f"the cluster went away ({first_line(error)}); all points that came back are kept; run the same again "
        "with a running cluster, it goes on from there"
    )


def _lost(batch: Iterable[Task], error: BaseException) -> Iterator[Outcome]:
    from distributed import KilledWorker

    if isinstance(error, KilledWorker):
        message = (
            f"its worker died {_RETRIES + 1} times; expected it to live, perhaps with more memory; run the same again, "
            "it is tried again"
        )
    else:
        message = f"no worker could take it up ({first_line(error)}); expected the same ulpsim there; install it"
    for task in batch:
        yield Outcome(task.key, None, message, 0.0)
