"""A small workspace with configuration and artifacts, in which stages run inside the test's process."""

import importlib
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from benchmarks.miniature import edit, shrink
from pag.foundation.config.section import read_yaml

ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Workspace:
    folder: Path

    @classmethod
    def create(cls, folder: Path) -> "Workspace":
        shutil.copytree(ROOT / "conf", folder / "conf")
        shutil.copy(ROOT / "params.yaml", folder)
        shrink(folder, ["digits"], {"point_sets": []})
        edit(folder / "conf/digits.yaml", {"train_limit": 200, "test_limit": 40, "test_fraction": 0.2}, "data")
        return cls(folder)

    def copy(self, folder: Path) -> "Workspace":
        shutil.copytree(self.folder, folder, dirs_exist_ok=True)
        return Workspace(folder)

    def set(self, path: str, value: Any, file: str = "conf/digits.yaml") -> None:
        """Change one value of a parameter file; `path` is dotted."""
        content = read_yaml(self.folder / file)
        section = content
        *parents, last = path.split(".")
        for parent in parents:
            section = section[parent]
        section[last] = value
        YAML().dump(content, self.folder / file)

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

    def files(self) -> dict[Path, bytes]:
        """Every file under data and results with its content."""
        return {
            path.relative_to(self.folder): path.read_bytes()
            for top in ("data", "results")
            for path in sorted((self.folder / top).rglob("*"))
            if path.is_file()
        }
