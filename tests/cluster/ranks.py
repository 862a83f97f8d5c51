"""Several processes that work together, as torchrun starts them: forks of the test's process, joined through gloo."""

import os
import socket
from collections.abc import Callable
from pathlib import Path

from benchmarks.faults.forks import Fork, Outcome
from pag.foundation.processes import joined


def together(folder: Path, number: int, work: Callable[[], None]) -> list[Outcome]:
    """What became of `number` forks with the environment that torchrun gives them."""
    folder.mkdir(parents=True, exist_ok=True)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]

    def of_rank(rank: int) -> Callable[[], None]:
        def run() -> None:
            os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(number)}
            os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
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
