"""What a loader hands over: the raw images of a data set, before limits and splits."""

import os
from dataclasses import dataclass
from pathlib import Path

from pag.foundation.config.conf import DataConfig
from pag.foundation.config.section import ConfigError
from pag.images.dataset import Split


class SourceError(ValueError):
    """Raw images that are missing or cannot be used; the message is one line for the user."""


@dataclass(frozen=True)
class Source:
    """All the images that a loader found; `test` is None where the source has no official test part."""

    train: Split
    test: Split | None
    class_names: tuple[str, ...]
    levels: int = 255


def raw_root(config: DataConfig) -> Path:
    """Where the raw files are: `data.root`, relative to the repository.

    DVC runs queued experiments in temporary copies of the repository, without the files that git ignores; the
    repository itself is then named by the environment variable DVC_ROOT.
    """
    if config.root is None:
        raise ConfigError(
            f"data.root: loader '{config.loader}' needs the folder or archive of the raw images, got null"
        )
    return Path(os.environ.get("DVC_ROOT", ".")) / Path(config.root).expanduser()
