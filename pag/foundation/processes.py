"""Several processes that do one piece of work, as torchrun starts them. Where there is one, nothing here does anything.

Plain torch.distributed: every process runs the same code with the same seeds, and they meet in the few calls below. A
batch is split by position (`Part`); whatever is drawn for it is drawn whole, so that no draw depends on their number.
"""

import io
import os
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:  # PyTorch takes seconds to load, and the stage `raw` does without
    from torch import Tensor

# How long the first may wait for the slowest: a store's last shard may take hours. One that fails ends all at once.
PATIENCE = timedelta(days=7)
RANK, COUNT, LAUNCHED = "RANK", "WORLD_SIZE", "TORCHELASTIC_RUN_ID"  # in torchrun's environment

T = TypeVar("T")

_rank, _count = 0, 1  # while processes are joined
_store: Any = None  # what they share beside tensors


class PeerLostError(ConnectionError):
    """Another process is not there any more."""


@contextmanager
def joined() -> Iterator[None]:
    """Join the processes that torchrun has started together, if it has."""
    global _rank, _count, _store
    if int(os.environ.get(COUNT, "1")) == 1:
        yield
        return
    import torch
    import torch.distributed as dist

    if LAUNCHED in os.environ:
        threading.Thread(target=_end_with_launcher, daemon=True).start()
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))  # what the device "cuda" means from here on
    with _meeting():
        _store, rank, count = next(dist.rendezvous("env://", timeout=PATIENCE))
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        dist.init_process_group(backend, store=_store, rank=rank, world_size=count, timeout=PATIENCE)
    _rank, _count = rank, count
    try:
        yield
        wait()
        dist.destroy_process_group()  # not after an error, when the others may be anywhere
    finally:
        _rank, _count = 0, 1


def _end_with_launcher() -> None:
    """A torchrun that is killed leaves its processes, which would go on beside those of the next one."""
    launcher = os.getppid()
    while os.getppid() == launcher:
        time.sleep(1)
    os._exit(1)


def first_to_fail() -> bool:
    """Whether this process is the one whose error the user should see: the others end because of it."""
    try:
        return _store is None or _store.add("failed", 1) == 1
    except RuntimeError:  # the store went with another process
        return False


def count() -> int:
    """How many processes there are."""
    return _count


def is_first() -> bool:
    """Whether this process is the one that writes, prints and records."""
    return _rank == 0


@dataclass(frozen=True)
class Part:
    """The rows `begin` to `end` of a batch of `total`: those of one process."""

    begin: int
    end: int
    total: int

    @property
    def rows(self) -> slice:
        return slice(self.begin, self.end)

    @property
    def weight(self) -> float:
        """The share of the whole batch: the sum over processes of weight × own mean is the batch's mean."""
        return (self.end - self.begin) / self.total


def part_of(total: int) -> Part | None:
    """This process's rows of a batch; None where there is one process. Raises ValueError if some would have none."""
    if _count == 1:
        return None
    if total < _count:
        raise ValueError(
            f"a batch of {total} for {_count} processes: expected at least one image for each, start fewer"
        )
    return Part(*share(total), total)


def share(total: int) -> tuple[int, int]:
    """Begin and end of this process's share of `total` things in a row."""
    return total * _rank // _count, total * (_rank + 1) // _count


def drawn(draw: Callable[[tuple[int, ...]], "Tensor"], shape: tuple[int, ...], part: Part | None) -> "Tensor":
    """What `draw` makes of `shape`, of which `part` is the first dimension: these rows of what it makes of all."""
    return draw(shape) if part is None else draw((part.total, *shape[1:]))[part.rows]


def add_up(tensors: Iterable["Tensor"]) -> None:
    """Replace each tensor by its sum over the processes, in one exchange."""
    if _count == 1:
        return
    import torch
    import torch.distributed as dist

    tensors = list(tensors)
    flat = torch.cat([tensor.flatten() for tensor in tensors])
    with _meeting():
        dist.all_reduce(flat)
    parts = flat.split([tensor.numel() for tensor in tensors])
    torch._foreach_copy_(tensors, [part.view_as(tensor) for part, tensor in zip(parts, tensors, strict=True)])


def gathered(x: "Tensor") -> "Tensor":
    """The `x` of every process, in their order: (processes, *x.shape)."""
    if _count == 1:
        return x[None].clone()
    import torch.distributed as dist

    of_all = x.new_empty(_count, *x.shape)
    with _meeting():
        dist.all_gather_into_tensor(of_all.flatten(0, 1), x.contiguous())  # gloo wants one after the other
    return of_all


def from_first(make: Callable[[], T]) -> T:
    """What the first process makes, in all of them; tensors on a GPU are on each one's own."""
    if _count == 1:
        return make()
    import torch.distributed as dist

    content: list[Any] = [None]
    if is_first():
        made = make()
        content = [_packed(made)]
    with _meeting():
        dist.broadcast_object_list(content)
    return made if is_first() else _unpacked(content[0])


def shared_out(jobs: Sequence[Callable[[], T]]) -> list[T]:
    """``[job() for job in jobs]`` in every process, where each does every `count`-th of them."""
    if _count == 1:
        return [job() for job in jobs]
    import torch.distributed as dist

    parts: list[Any] = [None] * _count
    own = _packed([job() for job in jobs[_rank::_count]])
    with _meeting():
        dist.all_gather_object(parts, own)
    found = [_unpacked(part) for part in parts]
    return [found[index % _count][index // _count] for index in range(len(jobs))]


def wait() -> None:
    """Until all have come here."""
    shared_out([lambda: None] * _count)


@contextmanager
def _meeting() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        reason = re.sub(r"^\[[^]]*\] *", "", str(error).splitlines()[0].split(". ")[0])  # without PyTorch's line
        raise PeerLostError(f"another process of the {_count} is gone: {reason}") from None


def _packed(value: Any) -> bytes:
    import torch

    content = io.BytesIO()
    torch.save(value, content)
    return content.getvalue()


def _unpacked(content: bytes) -> Any:
    import torch

    def to_own(storage: Any, location: str) -> Any:
        return storage.cuda() if location.startswith("cuda") else storage

    return torch.load(io.BytesIO(content), map_location=to_own, weights_only=False)
