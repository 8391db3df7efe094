"""The workers of a sweep: spawned on this machine, or those of a dask cluster at an address; the same code for both."""

from __future__ import annotations

import logging
import multiprocessing
import os
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from simulator.errors import InputError, MissingLibraryError, first_line

from .work import Outcome, Task, compute

# Tasks that wait at each worker, so that none is idle while an outcome travels, and few are lost with it.
_AHEAD = 2
# Workers for each processor, each of which takes some hundred MB.
_MOST = 4
# Seconds for a scheduler to answer, and for its first worker to come.
_PATIENCE_S = 20
# Times that a task may lose its worker before it counts as failed.
_LOST = 3


class Cluster:
    """Computes tasks on dask workers.

    Args:
        workers: how many to spawn here; None for one a processor, at most as many as there are tasks.
        scheduler: address of an existing cluster in place of them, such as tcp://host:8786.
        threads: of each worker; None: the processors divided by the workers.
    Raises:
        InputError: fewer than one worker or thread, or far more workers than processors.
    """

    def __init__(self, workers: int | None = None, scheduler: str | None = None, threads: int | None = None) -> None:
        for name, count in (("workers", workers), ("threads", threads)):
            if count is not None and count < 1:
                raise InputError(f"sweep: {name}: got {count}; expected at least 1; give more, or leave it out")
        most = _MOST * len(os.sched_getaffinity(0))
        if workers is not None and workers > most:
            raise InputError(
                f"sweep: workers: got {workers:,}; expected at most {most:,}, {_MOST} for each processor here; give "
                "fewer, or a cluster with scheduler"
            )
        self.workers, self.scheduler, self.threads = workers, scheduler, threads

    def outcomes(self, batches: Iterable[list[Task]], most: int) -> Generator[list[Outcome]]:
        """Yield the outcomes of batches of tasks as they come, in no order.

        Args:
            batches: asked for one by one as workers need them. most: how many these can be.
        Raises:
            InputError: dask is not installed, there is no cluster at the address, or it went away.
        """
        with self._client(most) as (client, threads):
            yield from _stream(client, batches, threads)

    @contextmanager
    def _client(self, most: int) -> Iterator[tuple[Any, int | None]]:
        try:
            import dask
            from distributed import Client, LocalCluster
        except ImportError as error:
            raise MissingLibraryError(
                f"sweep: needs {error.name}, which is not installed; expected the extra explore; install it with "
                "pip install 'ulpsim[explore]'"
            ) from None
        settings = {
            # Workers are spawned, since fork() after a parallel region of OpenMP hangs.
            "distributed.worker.multiprocessing-method": "spawn",
            "distributed.scheduler.allowed-failures": _LOST,
            # In place of dask's own, which has malloc return memory after every large array: 1.8 times as slow here.
            "distributed.nanny.pre-spawn-environ": {
                "OMP_NUM_THREADS": 1,
                "MKL_NUM_THREADS": 1,
                "DASK_DISTRIBUTED__LOGGING__DISTRIBUTED": "critical",
            },
        }
        with dask.config.set(settings), _quiet("distributed", "distributed.client"):
            if self.scheduler is not None:
                try:
                    client = Client(self.scheduler, timeout=_PATIENCE_S)
                except (OSError, ValueError) as error:
                    raise InputError(
                        f"sweep: --scheduler {self.scheduler}: no cluster answers ({first_line(error)}); expected the "
                        "address of a running dask scheduler; start one with `dask scheduler`, and workers with "
                        f"`dask worker {self.scheduler}`"
                    ) from None
                with client:
                    self._wait_for_workers(client)
                    yield client, self.threads
                return
            processors = len(os.sched_getaffinity(0))
            workers = max(1, min(self.workers or processors, most))
            threads = self.threads or max(1, processors // workers)
            with _local(LocalCluster, workers) as cluster, Client(cluster) as client:
                yield client, threads

    def _wait_for_workers(self, client: Any) -> None:
        try:
            client.wait_for_workers(1, timeout=_PATIENCE_S)
        except TimeoutError:
            raise InputError(
                f"sweep: --scheduler {self.scheduler}: has no worker after {_PATIENCE_S} s; expected one; start some "
                f"with `dask worker {self.scheduler}`"
            ) from None
        except (OSError, RuntimeError):
            raise _gone() from None


def _local(local_cluster: Any, workers: int) -> Any:
    """Spawn workers; one that dies as it starts takes all with it, and they are started again."""
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise SystemExit(1)  # a worker imports a script that sweeps as it is imported: said where it began
    error: Exception | None = None
    for _ in range(_LOST):
        try:
            return local_cluster(
                n_workers=workers, threads_per_worker=1, processes=True, memory_limit=0, dashboard_address="127.0.0.1:0"
            )
        except (RuntimeError, OSError, TimeoutError) as failed:
            error = failed
    assert error is not None
    raise InputError(
        f"sweep: workers cannot be started ({first_line(error)}); expected a program that they can import; in a script "
        'of your own call sweep below `if __name__ == "__main__":`'
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
    from distributed import as_completed

    waiting = iter(batches)
    running: dict[Any, list[Task]] = {}
    done = as_completed([])

    def supply() -> None:
        with _there():
            most = _AHEAD * max(1, len(client.scheduler_info(n_workers=-1)["workers"]))
        while len(running) < most and (batch := next(waiting, None)) is not None:
            with _there():
                future = client.submit(compute, batch, threads, pure=False)
                done.add(future)
            running[future] = batch

    supply()
    while running:
        with _there():
            future = next(done)
        batch = running.pop(future)
        if future.status == "finished":
            yield future.result()
        elif future.status == "error":
            yield list(_lost(batch, future.exception()))
        else:
            raise _gone()
        supply()


@contextmanager
def _there() -> Iterator[None]:
    """Say of a call to the cluster that fails that it went away."""
    try:
        yield
    except (OSError, RuntimeError):
        raise _gone() from None


def _gone() -> InputError:
    return InputError(
        "sweep: the cluster went away; all points that came back are kept; run the same again with a running cluster, "
        "it goes on from there"
    )


def _lost(batch: Iterable[Task], error: BaseException) -> Iterator[Outcome]:
    from distributed import KilledWorker

    if isinstance(error, KilledWorker):
        message = (
            f"its worker died {_LOST + 1} times; expected it to live, perhaps with more memory; run the same again, it "
            "is tried again"
        )
    else:
        message = f"no worker could take it up ({first_line(error)}); expected the same ulpsim there; install it"
    for task in batch:
        yield Outcome(task.key, None, message, False, 0.0)
