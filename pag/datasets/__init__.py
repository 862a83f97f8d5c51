"""The data sets: one loader module each, named here; nothing is imported before it is used.

A new data set is one module with ``read(config: DataConfig) -> Source`` and one line in LOADERS.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pag.config.conf import DataConfig
    from pag.datasets.base import ImageDataset

LOADERS = {
    "digits": "pag.datasets.digits",
}


def prepare(name: str, config: "DataConfig", seed: int) -> "ImageDataset":
    """The data set `name` as `config` describes it; see :func:`pag.datasets.preparation.prepare`."""
    return import_module("pag.datasets.preparation").prepare(name, config, seed)
