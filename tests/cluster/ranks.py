"""Several processes that work together, as torchrun starts them: forks of the test's process, joined through gloo."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import torch._dynamo  # noqa: F401 - an optimizer's first step loads it, for seconds: once, not in every fork
from torch.distributed import TCPStore

from benchmarks.faults.forks import Fork, Outcome
from pag.foundation.processes import joined


def together(folder: Path, number: int, work: Callable[[], None]) -> list[Outcome]:
    """What became of `number` forks in the environment that torchrun gives them; it holds the store where they meet."""
    folder.mkdir(parents=True, exist_ok=True)
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    environment = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port), "TORCHELASTIC_USE_AGENT_STORE": "True"}

    def of_rank(rank: int) -> Callable[[], None]:
        def run() -> None:
            sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")  # not those that pytest has put in place
            os.environ |= {**environment, "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(number)}
            work()

        return run

    forks = [Fork(folder, of_rank(rank)) for rank in range(number)]
    return [fork.wait() for fork in forks]


def join(folder: Path, number: int, work: Callable[[], None]) -> None:
    """`work` in joined processes, all of which must succeed."""

    def run() -> None:
        with joined():
            work()

    for outcome in together(folder, number, run):
        assert outcome.code == 0, outcome.err
