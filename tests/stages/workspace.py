"""A small workspace with configuration and artifacts, in which stages run inside the test's process."""

import importlib
import sys
from dataclasses import dataclass

import pytest

from benchmarks.faults import workspace
from benchmarks.miniature import ROOT

__all__ = ["ROOT", "Workspace"]


@dataclass
class Workspace(workspace.Workspace):
    def run(self, monkeypatch: pytest.MonkeyPatch, stage: str, *arguments: str) -> int:
        """The exit code of ``python -m stages.<stage> <arguments>``."""
        monkeypatch.chdir(self.folder)
        monkeypatch.setattr(sys, "argv", [stage, *arguments])
        try:
            command = importlib.import_module("stages.shared.command")  # of the modules that are loaded now
            command.run_stage(importlib.import_module(f"stages.{stage}").main)
        except SystemExit as stop:
            return int(stop.code or 0)
        return 0
