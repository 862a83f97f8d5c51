"""What a long piece of work goes on from after it was killed: states in a folder that belongs to it alone.

    <root>/<work>-<identity>/          removed when the work is done
    <root>/<work>-<identity>.1/ …      of a second run of the same work at the same time
        lock                           held by the process that works here
        <name>, <name>.before          the last two states
        <name>.damaged                 what could not be taken up

A state is the SHA-256 of the rest, the identity, and a torch file: whatever does not fit is set aside with a line, and
the work goes on from the state before, or begins again.
"""

import hashlib
import importlib.metadata
import io
import itertools
import json
import os
import platform
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch

from pag.foundation import interrupts
from pag.foundation.allocator import out_of_memory
from pag.foundation.atomic import locked, remove, write_bytes
from pag.foundation.processes import from_first, is_first, wait

# Minutes between two states of a training, at most so much is lost. Not in params.yaml: it changes no result, so that
# no stage may depend on it, and belongs to the machine.
CHECKPOINT_MINUTES = "PAG_CHECKPOINT_MINUTES"
LIBRARIES = ("torch", "numpy", "torchvision", "timm", "diffusers", "pyautoattack", "foolbox", "zarr")
DIGEST_BYTES = 32
LOCK = "lock"


class Scratch:
    """States of one piece of work, by name."""

    def __init__(self, folder: Path, identity: Mapping[str, Any]) -> None:
        """identity: all that the states depend on (JSON values); those of another one are not taken up."""
        self.folder = folder
        self._identity = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).digest()
        self._seconds = 60 * checkpoint_minutes()
        self._saved = time.monotonic()

    def due(self, shared: bool = True) -> bool:
        """Whether a state is to be saved now: some time after the last one, or because the process was told to stop.

        shared: of several processes that have the same state the first one keeps it; otherwise each keeps its own.
        """
        time_is_up = time.monotonic() - self._saved >= self._seconds
        return (is_first() or not shared) and (time_is_up or interrupts.waiting())

    def save(self, name: str, state: Any) -> None:
        """Keep `state` (tensors and plain values), and the one before it. Raises Interrupted afterwards if told to."""
        content = io.BytesIO()
        content.write(bytes(DIGEST_BYTES) + self._identity)
        torch.save(state, content)
        view = content.getbuffer()
        view[:DIGEST_BYTES] = hashlib.sha256(view[DIGEST_BYTES:]).digest()
        path = self.folder / name
        if path.exists():
            os.replace(path, path.with_name(f"{name}.before"))
        write_bytes(path, view)
        self._saved = time.monotonic()
        interrupts.stop_if_waiting()

    def load(self, name: str, device: torch.device | str = "cpu") -> Any:
        """The newest state that is whole and of this work; None where there is none."""
        for path in (self.folder / name, self.folder / f"{name}.before"):
            if path.exists():
                try:
                    return self._read(path, device)
                except Exception as error:  # whatever unpickling makes of other people's bytes
                    if out_of_memory(error):  # which says nothing about the state
                        raise
                    set_aside(path, str(error))
        return None

    def _read(self, path: Path, device: torch.device | str) -> Any:
        content = memoryview(path.read_bytes())
        head, body = content[:DIGEST_BYTES], content[DIGEST_BYTES:]
        if hashlib.sha256(body).digest() != head:
            raise ValueError("it is damaged")
        if body[:DIGEST_BYTES] != self._identity:
            raise ValueError("it is of other parameters, inputs, code or libraries")
        return torch.load(io.BytesIO(body[DIGEST_BYTES:]), map_location=device, weights_only=True)


def set_aside(path: Path, reason: str) -> None:
    """Rename a file that cannot be taken up, and say so in one line."""
    damaged = path.with_name(f"{path.name}.damaged")
    os.replace(path, damaged)
    print(f"{path} is not taken up, {reason.splitlines()[0]}: kept as {damaged.name}")


@contextmanager
def open_scratch(root: Path, work: str, identity: Mapping[str, Any]) -> Iterator[Scratch]:
    """The scratch of `work`, whose folder is removed when the block succeeds and stays when it does not.

    Each process has a folder of its own: where another one does the same work at the same time, a private one. Those
    that have joined share one.
    """
    identity = {"work": work, **identity, "libraries": _libraries()}
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    name = f"{work}-{digest[:16]}"
    if not is_first():
        yield Scratch(from_first(Path), identity)
        wait()
        return
    folder, lock = _claim(root / name)
    try:
        yield Scratch(from_first(lambda: folder), identity)
        wait()
        _remove_unlocked(root, name, folder)
    finally:
        if folder.exists() and [path.name for path in folder.iterdir()] == [LOCK]:  # it failed before anything was kept
            _remove(folder)
        os.close(lock)


def checkpoint_minutes() -> float:
    """From the environment; 1 where it says nothing. Raises ValueError for anything but a number ≥ 0."""
    given = os.environ.get(CHECKPOINT_MINUTES, "1")
    try:
        minutes = float(given)
    except ValueError:
        minutes = -1.0
    if not minutes >= 0:
        raise ValueError(f"{CHECKPOINT_MINUTES} = {given}: expected a number of minutes, at least 0")
    return minutes


def _claim(base: Path) -> tuple[Path, int]:
    """The first of `base`, `base`.1, … that no other process works in, and its open lock."""
    for number in itertools.count():
        folder = base.with_name(f"{base.name}.{number}") if number else base
        while (lock := _try(folder)) is not None:
            if _is_at(lock, folder / LOCK):
                return folder, lock
            os.close(lock)  # the folder was removed meanwhile: once more
    raise AssertionError("there is always another number")


def _try(folder: Path) -> int | None:
    """The open lock of `folder`; None if another process holds it."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
    except FileNotFoundError:  # removed since
        return _try(folder)
    with suppress(OSError):  # a file system without locks: then two runs of the same work share a folder
        if not locked(lock):
            os.close(lock)
            return None
    return lock


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _remove_unlocked(root: Path, name: str, own: Path) -> None:
    """Remove this process's folder and those of killed runs of the same work."""
    for folder in root.glob(f"{name}*"):
        if folder == own:
            _remove(folder)
        elif (lock := _try(folder)) is not None:
            _remove(folder)
            os.close(lock)


def _remove(folder: Path) -> None:
    """First by name, so that nobody claims a folder that is being removed."""
    gone = folder.with_name(f"{folder.name}.gone-{secrets.token_hex(4)}")
    os.replace(folder, gone)
    remove(gone)


def _libraries() -> dict[str, str]:
    deterministic = "deterministic" if torch.are_deterministic_algorithms_enabled() else ""  # PAG_STRICT
    versions = {"python": platform.python_version(), "kernels": deterministic}
    for name in LIBRARIES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "none"
    return versions
