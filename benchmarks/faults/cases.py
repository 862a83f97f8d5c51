"""All kinds of faults."""

from collections.abc import Callable, Iterator, Sequence
from itertools import islice

from benchmarks.faults import archives, damage, flattery, kills, parameters, system
from benchmarks.faults.bench import Case

ALL: dict[str, Callable[[], Iterator[Case]]] = {
    "kill": lambda: kills.cases(rounds=4),
    "damage": damage.cases,
    "parameter": parameters.cases,
    "disk": system.disk_cases,
    "signal": system.signal_cases,
    "concurrent": system.concurrent_cases,
    "scratch": system.scratch_cases,
    "archive": archives.cases,
    "flattery": flattery.cases,
}
KINDS = tuple(ALL)
FAST = 10  # about so many cases of each kind, spread over its list


def all_cases(only: Sequence[str] = (), fast: bool = False) -> Iterator[Case]:
    for kind in only or KINDS:
        found = list(ALL[kind]())
        yield from islice(found, 0, None, max(1, len(found) // FAST) if fast else 1)
