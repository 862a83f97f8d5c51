"""What the tests of several rooms share."""

import os
import runpy
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

# Tiny tensors gain nothing from threads, and on a busy machine threads wait for each other for minutes. To be set
# before torch is loaded; the processes that tests start inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, exitstatus: int) -> None:
    from stages.shared.edits import uncommitted

    if exitstatus and (edited := uncommitted()):
        about = "not as git has it, and many tests are about that: `git stash -- params.yaml conf` before you look on"
        terminalreporter.write_line(f"{', '.join(edited)}: {about}", yellow=True)


@pytest.fixture
def two_threads() -> Iterator[None]:
    """For what must hold to the bit however the work is split, and for what takes as many processes as threads."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def answer(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """What `python -m <module> <arguments>` prints in the root, run here: a new process loads PyTorch for seconds."""

    def answer(module: str, *arguments: str) -> str:
        monkeypatch.chdir(Path(__file__).parents[1])
        monkeypatch.setattr(sys, "argv", [module, *arguments])
        with warnings.catch_warnings(action="ignore", category=RuntimeWarning):  # that the module is loaded already
            try:
                runpy.run_module(module, run_name="__main__", alter_sys=True)
            except SystemExit as stop:
                assert not stop.code, capsys.readouterr().err
        return capsys.readouterr().out

    return answer


@pytest.fixture
def few_iterations(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few iterations of each attack of AutoAttack's standard version."""
    from pag.evaluation import standard

    construct = standard.AutoAttack.__init__

    def cheaper(self, *args, **kwargs):
        construct(self, *args, **kwargs)
        self.apgd.n_iter = self.apgd_targeted.n_iter = self.fab.n_iter = 5
        self.square.n_queries = 40

    monkeypatch.setattr(standard.AutoAttack, "__init__", cheaper)
