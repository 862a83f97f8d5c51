"""Running attack jobs: here or in several processes, and no attack again whose outcome a scratch folder holds."""

import itertools
import multiprocessing
import multiprocessing.connection
import os
import pickle
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import nn

from pag.evaluation.cache import Cache
from pag.evaluation.standard import SURVIVED, Job, Nearest, Outcome, attack
from pag.foundation.allocator import keep_freed_memory, out_of_memory
from pag.foundation.interrupts import held, stop_if_waiting
from pag.foundation.processes import count, shared_out

Runner = Callable[[list[Job]], Iterator[tuple[int, Outcome]]]  # jobs → (index of the job, its outcome), in order

_attack: Callable[[Job], Outcome]  # of a worker process


def pickled(model: nn.Module) -> bytes:
    """The model for worker processes. Raises ValueError in one line where it cannot be handed to any."""
    try:
        return pickle.dumps(model)
    except Exception as error:  # a module's own __getstate__ raises what it likes
        if out_of_memory(error):
            raise
        raise ValueError(
            f"the model cannot be handed to worker processes ({' '.join(str(error).split())}): define its classes at "
            "the top of a module, or go without workers (processes=1; of a stage OMP_NUM_THREADS=1)"
        ) from None


@contextmanager
def runner(model: nn.Module, processes: int, cache: Path | None) -> Iterator[Runner]:
    """A function that attacks `model`. With processes = 1 it works here; on a GPU there is nothing to gain from more.

    A small network leaves a core idle most of the time when its operations are spread over threads, so the threads
    of this process are divided among the worker processes. They are spawned: a fork of a process whose thread pools
    have started may hang. They end with this process, and at once when the block fails.
    cache: a folder of finished attacks, which makes an interrupted evaluation resume.
    Where several processes have joined, each attacks every so-manyth job here, and all learn all outcomes.
    """
    if count() > 1:
        work = _attacks_of(model, cache)
        yield lambda jobs: enumerate(shared_out([partial(work, job) for job in jobs]))
        return
    if processes == 1:
        work = _attacks_of(model, cache)
        yield lambda jobs: ((index, work(job)) for index, job in enumerate(jobs))
        return
    as_bytes = pickled(model)  # here, because multiprocessing would move the caller's tensors to shared memory
    others = multiprocessing.active_children()
    context = multiprocessing.get_context("spawn")
    # Through files goes all that a pipe might not hold: this process would wait for ever to write it to a worker that
    # has died, or to read the rest of what one was writing.
    if cache is not None:
        cache.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix="pag-", dir=cache) as name:
        folder = Path(name)
        (folder / "model").write_bytes(as_bytes)
        start = (folder / "model", cache, max(1, torch.get_num_threads() // processes))
        pool = ProcessPoolExecutor(processes, context, initializer=_start_worker, initargs=start)
        try:
            yield _in_pool(pool, folder)
        except BaseException as error:
            for child in multiprocessing.active_children():
                if child not in others:
                    child.kill()
            if isinstance(error, BrokenExecutor):
                stop_if_waiting()  # a scheduler's signal went to the workers too
            raise
        finally:
            pool.shutdown(cancel_futures=True)


def _in_pool(pool: ProcessPoolExecutor, folder: Path) -> Runner:
    numbers = itertools.count()

    def submit(job: Job) -> tuple[Path, Future[None]]:
        path = folder / str(next(numbers))
        path.write_bytes(pickle.dumps(job))
        return path, pool.submit(_work, path)

    def run(jobs: list[Job]) -> Iterator[tuple[int, Outcome]]:
        # In the order of the jobs, not of their end: so is what is written about them.
        with held():  # a worker that is only half started would not be ended with the others
            try:
                submitted = [submit(job) for job in jobs]
            except (OSError, ValueError):  # of pipes that the pool is closing, where a worker has died already
                pool.submit(int)  # raises BrokenProcessPool then
                raise
        for index, (path, future) in enumerate(submitted):
            future.result()
            yield index, pickle.loads(path.read_bytes())
            path.unlink()

    return run


def _start_worker(model: Path, cache: Path | None, threads: int) -> None:
    global _attack  # noqa: PLW0603 - a worker process serves one model
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal it goes to all: the parent ends its workers
    threading.Thread(target=_end_with_parent, daemon=True).start()
    keep_freed_memory()
    torch.set_num_threads(threads)
    _attack = _attacks_of(pickle.loads(model.read_bytes()), cache)


def _end_with_parent() -> None:
    """A killed parent tells nobody, and its workers would go on, then wait for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    multiprocessing.connection.wait([parent.sentinel])
    os._exit(1)


def _work(path: Path) -> None:
    """Put the outcome in the place of the job."""
    path.write_bytes(pickle.dumps(_attack(pickle.loads(path.read_bytes()))))


def _attacks_of(model: nn.Module, folder: Path | None) -> Callable[[Job], Outcome]:
    """`attack` on `model`; with a folder, each attack of a job is kept there when it is done."""
    if folder is None:
        return lambda job: attack(model, job)
    cache = Cache(folder, model, "pyautoattack")

    def kept(job: Job) -> Outcome:
        saved = cache.outcome(asdict(job), job.images, lambda: asdict(attack(model, job)))
        return Outcome(**{**saved, "nearest": saved["nearest"] and Nearest(**saved["nearest"])})

    return lambda job: _one_by_one(kept, job)


def _one_by_one(run: Callable[[Job], Outcome], job: Job) -> Outcome:
    """The outcome of a job, from one job for each of its attacks on what the earlier ones left.

    The same as of the whole job: an attack seeds its own random numbers and is given its images alone.
    """
    broken_by = torch.full_like(job.labels, SURVIVED)
    x_adv = job.images.clone()
    nearest: Nearest | None = None
    warnings: list[str] = []
    for name in job.attacks:
        left = (broken_by == SURVIVED).nonzero().flatten()
        if len(left) == 0:
            break
        outcome = run(replace(job, images=job.images[left], labels=job.labels[left], attacks=(name,)))
        broken_by[left], x_adv[left] = outcome.broken_by, outcome.x_adv
        warnings += outcome.warnings
        if outcome.nearest is not None:
            nearest = Nearest(job.images.clone(), torch.full(job.labels.shape, torch.inf, device=job.images.device))
            nearest.x_adv[left], nearest.distance[left] = outcome.nearest.x_adv, outcome.nearest.distance
    return Outcome(broken_by, x_adv, nearest, list(dict.fromkeys(warnings)))
