"""Running attack jobs: here or in several processes, and not again if a scratch folder holds their outcome."""

import multiprocessing
import pickle
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import torch
from torch import nn

from pag.evaluation.cache import Cache
from pag.evaluation.standard import Job, Nearest, Outcome, attack
from pag.foundation.allocator import keep_freed_memory

Runner = Callable[[list[Job]], Iterator[tuple[int, Outcome]]]  # jobs → (index of the job, its outcome) as they finish

_model: nn.Module  # of a worker process


@contextmanager
def runner(model: nn.Module, processes: int, cache: Path | None) -> Iterator[Runner]:
    """A function that attacks `model`. With processes = 1 it works here; on a GPU there is nothing to gain from more.

    A small network leaves a core idle most of the time when its operations are spread over threads, so the threads
    of this process are divided among the worker processes. They are spawned: a fork of a process whose thread pools
    have started may hang. cache: a folder of finished outcomes, which makes an interrupted evaluation resume.
    """
    if processes == 1:
        yield _cached(_here(model), model, cache)
        return
    # Pickled here, because multiprocessing would move the caller's tensors to shared memory.
    start = (pickle.dumps(model), max(1, torch.get_num_threads() // processes))
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(processes, context, initializer=_start_worker, initargs=start)
    try:
        yield _cached(_in_pool(pool), model, cache)
    finally:
        pool.shutdown(cancel_futures=True)


def _here(model: nn.Module) -> Runner:
    return lambda jobs: ((index, attack(model, job)) for index, job in enumerate(jobs))


def _in_pool(pool: ProcessPoolExecutor) -> Runner:
    def run(jobs: list[Job]) -> Iterator[tuple[int, Outcome]]:
        futures: dict[Future[bytes], int] = {
            pool.submit(_work, pickle.dumps(job)): index for index, job in enumerate(jobs)
        }
        for future in as_completed(futures):
            yield futures[future], pickle.loads(future.result())

    return run


def _start_worker(model: bytes, threads: int) -> None:
    global _model  # noqa: PLW0603 - a worker process serves one model
    keep_freed_memory()
    torch.set_num_threads(threads)
    _model = pickle.loads(model)


def _work(job: bytes) -> bytes:
    return pickle.dumps(attack(_model, pickle.loads(job)))


def _cached(run: Runner, model: nn.Module, folder: Path | None) -> Runner:
    if folder is None:
        return run
    cache = Cache(folder, model, "pyautoattack")

    def run_missing(jobs: list[Job]) -> Iterator[tuple[int, Outcome]]:
        about = [asdict(job) for job in jobs]
        missing = [index for index, job in enumerate(about) if job not in cache]
        for index in sorted(set(range(len(jobs))) - set(missing)):
            saved = cache.load(about[index], jobs[index].images.device)
            yield index, Outcome(**{**saved, "nearest": saved["nearest"] and Nearest(**saved["nearest"])})
        for position, outcome in run([jobs[index] for index in missing]):
            cache.save(about[missing[position]], asdict(outcome))
            yield missing[position], outcome

    return run_missing
