"""Perceptually aligned gradients and robustness: the rooms of the pipeline, to be imported by their names."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("pag")
except PackageNotFoundError:  # a checkout that is not installed
    __version__ = "0+unknown"
