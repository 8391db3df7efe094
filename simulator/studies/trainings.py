"""Many trainings, each one line of a file: a study that was stopped goes on from there, with the same numbers."""

from __future__ import annotations

import json
import multiprocessing
import signal
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from simulator.explore.cluster import Cluster
from simulator.progress import Progress

Run = TypeVar("Run")
Outcome = TypeVar("Outcome")


@dataclass(frozen=True)
class Trainings(Generic[Run, Outcome]):
    """How a study trains.

    Args:
        compute: does one run; a function of a module, for other processes to find. run, outcome: records of flat plain
            data, what is computed and what comes of it.
    """

    compute: Callable[[Run], Outcome]
    run: Callable[..., Run]
    outcome: Callable[..., Outcome]

    def all(
        self, wanted: Sequence[Run], path: Path | None, workers: int | None, progress: Progress
    ) -> tuple[dict[Run, Outcome], int]:
        """Return the outcome of every run, and how many of them were computed now.

        Args:
            path: of the file with the runs that are known, to which others are added; None: none is known.
            workers: processes to spawn, 1: none, the trainings are in this one; None: one a processor, at most as many
            as there are trainings. progress: called with how many of how many are known.
        Raises:
            InputError: fewer than one worker, or far more than processors here.
        """
        cluster = Cluster(workers)
        known = dict(self._read(path)) if path is not None else {}
        todo = [run for run in dict.fromkeys(wanted) if run not in known]
        of, done = len(set(wanted)), len(set(wanted)) - len(todo)
        progress(done, of)
        spawned, _ = cluster.local(len(todo))
        with closing(self._computed(todo, spawned)) as outcomes:  # and the workers, on Ctrl-C or if the disk is full
            for run, found in outcomes:
                known[run] = found
                if path is not None:
                    _append(path, {"run": asdict(run), "outcome": asdict(found)})  # type: ignore[call-overload]
                done += 1
                progress(done, of)
        return {run: known[run] for run in wanted}, len(todo)

    def _computed(self, runs: Sequence[Run], workers: int) -> Generator[tuple[Run, Outcome]]:
        if workers == 1:
            yield from ((run, self.compute(run)) for run in runs)
            return
        others = multiprocessing.active_children()
        # A fork behind a parallel region of OpenMP hangs.
        with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
            # Ctrl-C is for this process, which ends the others: they are born deaf to it.
            before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
            try:
                futures = {pool.submit(self.compute, run): run for run in runs}
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)
            try:
                for future in as_completed(futures):
                    yield futures[future], future.result()
            finally:  # with nothing left to do if all are there
                pool.shutdown(wait=False, cancel_futures=True)
                for process in multiprocessing.active_children():
                    if process not in others:
                        process.terminate()

    def _read(self, path: Path) -> Iterator[tuple[Run, Outcome]]:
        """Yield the runs of a file; a last line that was cut off is no run."""
        if not path.exists():
            return
        for line in path.read_text().splitlines():
            try:
                record = json.loads(line)
                yield self.run(**record["run"]), self.outcome(**record["outcome"])
            except (ValueError, KeyError, TypeError):
                continue


def _append(path: Path, record: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # A last line that was cut off stays one of its own.
    cut = path.exists() and not path.read_bytes().endswith(b"\n")
    with path.open("a") as file:
        file.write("\n" * cut + json.dumps(record) + "\n")
