"""Running attack jobs: here or in several processes, and not again if a scratch folder holds their outcome."""

import hashlib
import importlib.metadata
import multiprocessing
import pickle
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor, nn

from pag.allocator import keep_freed_memory
from pag.attacks.standard import Job, Nearest, Outcome, attack
from pag.checkpoint import atomic_file

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


def _cached(run: Runner, model: nn.Module, cache: Path | None) -> Runner:
    if cache is None:
        return run
    model_key = _digest(repr(model), model.state_dict())

    def run_missing(jobs: list[Job]) -> Iterator[tuple[int, Outcome]]:
        files = [cache / f"{_digest(model_key, asdict(job))}.pt" for job in jobs]
        missing = [index for index, file in enumerate(files) if not file.exists()]
        for index in sorted(set(range(len(jobs))) - set(missing)):
            saved = torch.load(files[index], map_location=jobs[index].images.device, weights_only=True)
            yield index, Outcome(**{**saved, "nearest": saved["nearest"] and Nearest(**saved["nearest"])})
        for position, outcome in run([jobs[index] for index in missing]):
            index = missing[position]
            with atomic_file(files[index]) as partial:
                torch.save(asdict(outcome), partial)
            yield index, outcome

    return run_missing


def _digest(*parts: object) -> str:
    """A hash of nested dicts of tensors and values, and of the versions of what computes with them."""
    hasher = hashlib.sha256(
        f"pyautoattack {importlib.metadata.version('pyautoattack')} torch {torch.__version__}".encode()
    )
    for part in parts:
        _update(hasher, part)
    return hasher.hexdigest()


def _update(hasher: "hashlib._Hash", part: object) -> None:
    if isinstance(part, dict):
        for name, value in part.items():
            hasher.update(f"{name}=".encode())
            _update(hasher, value)
    elif isinstance(part, Tensor):
        hasher.update(f"{part.dtype}{tuple(part.shape)}".encode())
        hasher.update(part.detach().cpu().contiguous().numpy().tobytes())
    else:
        hasher.update(f"{part!r};".encode())
