"""Which keys of the parameter files are read while a stage runs: seen from outside, on the loaded sections."""

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

WHOLE = ("__dict__", "__pydantic_serializer__")  # how copies, dumps and iteration come at all fields of a section


class Readings:
    """`keys` has (file, dotted key) of every value that was read after its file had been checked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Watches the modules that are loaded now; before those that import `load` by its name."""
        self.keys: set[tuple[str, str]] = set()
        self._known: dict[int, tuple[Any, str, str]] = {}  # id → (section, which is so kept alive, file, key)
        module = importlib.import_module("pag.foundation.config.section")
        self._section, load = module.Section, module.load
        original = self._section.__getattribute__

        def recorded_load(model: type, path: Path) -> Any:
            loaded = load(model, path)
            self._register(loaded, str(path), "")
            return loaded

        def recorded_attribute(section: Any, name: str) -> Any:
            value = original(section, name)
            if id(section) in self._known:
                self._note(section, name, value)
            return value

        monkeypatch.setattr(module, "load", recorded_load)
        monkeypatch.setattr(self._section, "__getattribute__", recorded_attribute, raising=False)

    def _register(self, section: Any, file: str, key: str) -> None:
        for name, inner in fields(section):
            if isinstance(inner, self._section):
                self._register(inner, file, f"{key}{name}.")
            elif isinstance(inner, dict):
                attribute = next(n for n, f in type(section).model_fields.items() if name in (n, f.alias))
                section.__dict__[attribute] = RecordedDict(inner, self, file, f"{key}{name}")
        self._known[id(section)] = (section, file, key)

    def _note(self, section: Any, name: str, value: Any) -> None:
        _, file, key = self._known[id(section)]
        if name in WHOLE:
            self.keys.update((file, f"{key}{field}") for field, _ in fields(section))
        elif name in type(section).model_fields and not isinstance(value, (self._section, RecordedDict)):
            self.keys.add((file, f"{key}{type(section).model_fields[name].alias or name}"))


class RecordedDict(dict):
    """A section whose keys are the user's own: a value of it is read, or all are."""

    def __init__(self, content: dict[str, Any], readings: Readings, file: str, key: str) -> None:
        super().__init__(content)
        self._note = lambda name: readings.keys.add((file, f"{key}.{name}"))

    def __getitem__(self, name: str) -> Any:
        self._note(name)
        return super().__getitem__(name)

    def items(self) -> Any:
        for name in self:
            self._note(name)
        return super().items()

    def values(self) -> Any:
        self.items()
        return super().values()

    def __reduce__(self) -> Any:  # for another process
        return dict, (dict(self.items()),)


def fields(section: Any) -> Iterator[tuple[str, Any]]:
    """(key, value) of a section, by the names in the file; without being seen."""
    values = object.__getattribute__(section, "__dict__")
    for name, field in type(section).model_fields.items():
        yield field.alias or name, values[name]
