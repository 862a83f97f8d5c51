"""The import closure of a module inside this repository, read from the source."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FRONT_DOOR = Path("pag/__init__.py")  # computes nothing, and imports a room when it is asked: no stage depends on it


@cache
def imports_of(path: Path, lazy: bool = True) -> frozenset[Path]:
    """The project's own files that `path` imports directly; `lazy`: inside functions too."""
    found: set[Path] = set()
    for node in _nodes(ast.parse((ROOT / path).read_text()), lazy):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            # `from room import module` names the module; anything else comes from the named file itself
            submodules = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if files_of(name) else node.module for name in submodules]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            # registries name modules as strings, for import_module; pag::name is an operator of PyTorch's
            names = [] if "::" in node.value else [node.value.split(":")[0]]
        else:
            continue
        found.update(file for name in names for file in files_of(name))
    return frozenset(found - {path})


def _nodes(tree: ast.AST, lazy: bool) -> Iterator[ast.AST]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":  # never imported in a run
            continue
        if lazy or not isinstance(node, ast.FunctionDef):
            yield node
            yield from _nodes(node, lazy)


def files_of(module: str) -> list[Path]:
    """The file of a module of this project; empty for anything else."""
    room, *_ = parts = module.split(".")
    if room not in ("pag", "stages", "benchmarks") or not all(part.isidentifier() for part in parts):
        return []
    base = Path(*parts)
    return [file for file in (base.with_suffix(".py"), base / "__init__.py") if (ROOT / file).is_file()]


def closure(path: Path) -> set[Path]:
    """`path` and everything it imports when it is loaded, directly or not; empty package files do not count."""
    seen: set[Path] = set()
    waiting = [path]
    while waiting:
        current = waiting.pop()
        if current not in seen and current != FRONT_DOOR:
            seen.add(current)
            waiting.extend(imports_of(current, lazy=False))
            waiting.extend(
                package for folder in current.parents if (ROOT / (package := folder / "__init__.py")).exists()
            )
    return {file for file in seen if (ROOT / file).read_text().strip()}
