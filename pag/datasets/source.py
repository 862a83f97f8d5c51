"""What a loader hands over: the raw images of a data set, before limits and splits."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pag.foundation.config.data import DataConfig
from pag.foundation.config.section import ConfigError
from pag.foundation.printable import printable
from pag.foundation.repository import repository

if TYPE_CHECKING:
    from pag.images.dataset import Split


class SourceError(ValueError):
    """Raw images that are missing or cannot be used; the message is one line, whatever files are called.

    advice: what to do about it and others of its kind, to be said once for all of them.
    """

    def __init__(self, message: str, *advice: str) -> None:
        super().__init__(printable(message), *advice)

    def __str__(self) -> str:
        return str(self.args[0])


@dataclass(frozen=True)
class Source:
    """All the images that a loader found; `test` and `validation` are None where the source has no such part."""

    train: "Split"
    test: "Split | None"
    class_names: tuple[str, ...]
    levels: int = 255
    validation: "Split | None" = None
    notes: tuple[str, ...] = ()  # one line each: what the user should know of images that can be used

    def parts(self) -> "dict[str, Split]":
        """The parts that there are, by their names in messages."""
        named = {"training": self.train, "validation": self.validation, "test": self.test}
        return {name: split for name, split in named.items() if split is not None}


def raw_root(config: DataConfig) -> Path:
    """Where the raw files are: `data.root`, relative to the repository, also in DVC's temporary copies of it."""
    if config.root is None:
        raise ConfigError(
            f"data.root: loader '{config.loader}' needs the folder or archive of the raw images, got null"
        )
    return repository() / Path(config.root).expanduser()
