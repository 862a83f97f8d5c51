"""PAG_STRICT=1: the same bits whatever the number of threads, and no operation whose bits depend on a race."""

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from stages.shared.command import run_stage

NUMBERS = torch.rand(3_000_000, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def strict(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("PAG_STRICT", "1")
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")  # restored afterwards, whatever strictness makes of it
    threads = torch.get_num_threads()
    yield
    torch.use_deterministic_algorithms(False)
    torch.set_num_threads(threads)


def computed(threads: int, compute: Callable[[], Tensor]) -> list[Tensor]:
    """What a stage computes that is started with so many threads."""
    results: list[Tensor] = []
    torch.set_num_threads(threads)
    run_stage(lambda standalone_mode: results.append(compute()))
    return results


@pytest.mark.usefixtures("strict")
def test_the_number_of_threads_changes_no_bit() -> None:
    sums = [computed(threads, NUMBERS.sum) for threads in (1, 2, 3, 4)]
    assert all(torch.equal(sums[0][0], other[0]) for other in sums[1:])
    assert torch.are_deterministic_algorithms_enabled()


@pytest.mark.usefixtures("strict")
def test_an_operation_without_a_deterministic_kernel_is_refused_in_one_line(capsys) -> None:
    with pytest.raises(SystemExit) as stop:
        computed(1, lambda: torch.zeros(3).put_(torch.tensor([0]), torch.ones(1)))
    assert stop.value.code == 1
    error = capsys.readouterr().err
    assert error.startswith("error: put_") and error.endswith(": go without PAG_STRICT, or to a CPU\n")
    assert error.count("\n") == 1


def test_a_mode_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setenv("PAG_STRICT", "yes")
    with pytest.raises(SystemExit):
        run_stage(lambda standalone_mode: None)
    assert capsys.readouterr().err == "error: PAG_STRICT = yes: expected 1, or 0 as if it were not set\n"
