"""Imports go one way, along the data flow; this is what makes the narrow deps of dvc.yaml truthful."""

from pathlib import Path

import pytest
from closure import ROOT, imports_of

FOUNDATION = {"config", "seeding", "checkpoint", "allocator"}
ALLOWED = {  # room -> what it may import besides itself and the foundation; a dotted entry is one module of a room
    "config": set(),
    "seeding": set(),
    "checkpoint": set(),
    "allocator": set(),
    "datasets": set(),
    "diffusion": {"datasets"},
    "gradients": {"datasets", "diffusion"},
    "gradients.store": set(),
    "classifiers": set(),
    "attacks": set(),
    "objectives": {"attacks.pgd", "attacks.threat_model"},
    "training": {"datasets", "objectives", "attacks.pgd", "attacks.threat_model"},
    "report": set(),
}
MODULES = sorted(path.relative_to(ROOT) for path in (ROOT / "pag").rglob("*.py"))


def dotted(path: Path) -> str:
    """pag/gradients/store.py → gradients.store"""
    return ".".join(path.with_suffix("").parts[1:]).removesuffix(".__init__")


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_a_room_imports_only_what_lies_upstream(path: Path) -> None:
    module = dotted(path)
    room = module.split(".")[0]
    allowed = ALLOWED.get(module, ALLOWED.get(room, set())) | FOUNDATION | {room}
    for imported in map(dotted, imports_of(path)):
        assert {imported, imported.split(".")[0], ""} & (allowed | {""} if imported == "" else allowed), (
            f"{module} imports {imported}: allowed are {sorted(allowed)}"
        )


def test_every_room_has_a_rule() -> None:
    rooms = {dotted(path).split(".")[0] for path in MODULES} - {"__init__", "pag", ""}
    assert rooms <= set(ALLOWED)


def test_nothing_imports_the_stages() -> None:
    for path in MODULES:
        assert not [file for file in imports_of(path) if file.parts[0] != "pag"], path


def test_there_are_no_circles() -> None:
    state: dict[Path, str] = {}

    def visit(path: Path, trail: tuple[Path, ...]) -> None:
        assert state.get(path) != "open", f"circle: {' → '.join(map(str, (*trail, path)))}"
        if path not in state:
            state[path] = "open"
            for imported in imports_of(path):
                visit(imported, (*trail, path))
            state[path] = "done"

    for path in MODULES:
        visit(path, ())
