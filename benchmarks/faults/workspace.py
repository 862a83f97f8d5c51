"""A small workspace with configuration and artifacts, in which stages run on a few steps of everything."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from ruamel.yaml import YAML

from benchmarks.miniature import ROOT, edit, shrink
from pag.foundation.config.section import read_yaml


@dataclass
class Workspace:
    folder: Path

    @classmethod
    def create(cls, folder: Path) -> Self:
        shutil.copytree(ROOT / "conf", folder / "conf")
        shutil.copy(ROOT / "params.yaml", folder)
        shrink(folder, ["digits"], {"point_sets": []})
        edit(folder / "conf/digits.yaml", {"train_limit": 200, "test_limit": 40, "test_fraction": 0.2}, "data")
        return cls(folder)

    def copy(self, folder: Path) -> Self:
        shutil.copytree(self.folder, folder, dirs_exist_ok=True)
        return type(self)(folder)

    def set(self, path: str, value: Any, file: str = "conf/digits.yaml") -> None:
        """Change one value of a parameter file; `path` is dotted."""
        content = read_yaml(self.folder / file)
        section = content
        *parents, last = path.split(".")
        for parent in parents:
            section = section[parent]
        section[last] = value
        YAML().dump(content, self.folder / file)

    def files(self) -> dict[Path, bytes]:
        """Every file under data and results with its content."""
        return {
            path.relative_to(self.folder): path.read_bytes()
            for top in ("data", "results")
            for path in sorted((self.folder / top).rglob("*"))
            if path.is_file()
        }

    def outs(self) -> dict[Path, bytes]:
        """`files` without hidden ones (scratch states); of the timings, which are never the same, the names alone."""
        return {
            path: b"" if "timings" in path.parts else content
            for path, content in self.files().items()
            if not any(part.startswith(".") for part in path.parts)
        }
