import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # workspace.py, shared by the tests of this folder

from workspace import Workspace

CHAIN = [
    ("prepare", "digits"),
    ("check", "digits"),
    ("prepare_toy",),
    ("train_diffusion", "digits"),
    ("distill", "digits", "oi"),
    ("distill", "digits", "cm"),
    ("distill", "digits", "nn"),
    ("distill_sbg", "digits"),
    ("train", "digits", "cnn", "vanilla"),
    ("train", "digits", "cnn", "at-l2"),
    ("train", "digits", "cnn", "sbg"),
    ("train", "digits", "cnn", "at-l2+sbg"),
]


@pytest.fixture(scope="session")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    """The stages up to training have run in here; tests that change something take a copy."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        workspace = Workspace.create(tmp_path_factory.mktemp("chain"))
        for stage, *arguments in CHAIN:
            assert workspace.run(monkeypatch, stage, *arguments) == 0, (stage, arguments)
        yield workspace
