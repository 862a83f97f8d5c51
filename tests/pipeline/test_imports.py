"""Imports go one way, along the data flow; this is what makes the rooms of dvc.yaml truthful."""

from pathlib import Path

import pytest
from closure import FRONT_DOOR, ROOT, imports_of

# Room → the rooms that it may import, besides itself. A room imports only what stands above it.
ALLOWED = {
    "foundation": set(),
    "images": {"foundation"},
    "datasets": {"foundation", "images"},
    "diffusion": {"foundation", "images"},
    "store": {"foundation", "images"},
    "gradients": {"foundation", "images", "diffusion", "store"},
    "classifiers": {"foundation", "images"},
    "threat": {"foundation"},
    "training": {"foundation", "images", "classifiers"},
    "objectives": {"foundation", "classifiers", "threat", "training"},
    "evaluation": {"foundation", "images", "classifiers", "store", "threat"},
    "report": {"foundation"},
    "interchange": {"foundation", "images", "diffusion", "classifiers"},
}
# Parts of rooms that stages depend on by themselves, so they may not lean on the rest of their room.
PARTS = {
    "diffusion/model": set(),
    "store/format": set(),
    "gradients/distillation": set(),
    "objectives/baselines": set(),
    "objectives/alignment": set(),
}
MODULES = sorted(path.relative_to(ROOT) for path in (ROOT / "pag").rglob("*.py"))


def room(path: Path) -> str:
    """pag/store/reader.py → store; the package's own __init__ → ''"""
    return path.parts[1] if len(path.parts) > 2 else ""


def part(path: Path) -> str | None:
    """pag/store/format/record.py → store/format"""
    return next((name for name in PARTS if Path("pag", name) in path.parents), None)


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_a_room_imports_only_what_stands_above_it(path: Path) -> None:
    if path == FRONT_DOOR:
        return
    for imported in imports_of(path):
        assert imported != FRONT_DOOR, f"{path} imports the front door"
        assert room(imported) in {*ALLOWED.get(room(path), set()), room(path)}, f"{path} imports {imported}"
        if (inside := part(path)) is not None and room(imported) == room(path):
            assert part(imported) in {inside, *PARTS[inside]}, f"{path} imports {imported}"


def test_the_rooms_stand_in_order() -> None:
    names = list(ALLOWED)
    for name, above in ALLOWED.items():
        assert above <= set(names[: names.index(name)]), name
    assert {room(path) for path in MODULES} - {""} == set(ALLOWED)


def test_nothing_imports_the_stages() -> None:
    for path in MODULES:
        assert not [file for file in imports_of(path) if file.parts[0] != "pag"], path


def test_stages_share_through_their_own_room() -> None:
    """A command does not import another one; the list of all commands has the presets from theirs."""
    for path in {*(ROOT / "stages").glob("*.py")} - {ROOT / "stages/__main__.py"}:
        for imported in imports_of(path.relative_to(ROOT)):
            assert imported.parts[:2] == ("stages", "shared") or imported.parts[0] == "pag", (
                f"{path} imports {imported}"
            )


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
