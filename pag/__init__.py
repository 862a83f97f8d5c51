"""Perceptually aligned gradients and robustness: what one calls from outside; the rooms have the rest.

`import pag` loads nothing else; each of these names loads its room when it is first used.
"""

from importlib.metadata import PackageNotFoundError, version
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pag.diffusion.model.trained import load_diffusion
    from pag.evaluation.evaluate import evaluate, measure_alignment
    from pag.evaluation.trained import load_classifier
    from pag.objectives.alignment.objective import alignment_loss
    from pag.store.reader import GradientStore

    open_gradients = GradientStore.open

__all__ = [
    "alignment_loss",
    "evaluate",
    "load_classifier",
    "load_diffusion",
    "measure_alignment",
    "open_gradients",
]
_HOMES = {
    "alignment_loss": "pag.objectives.alignment.objective:alignment_loss",
    "evaluate": "pag.evaluation.evaluate:evaluate",
    "load_classifier": "pag.evaluation.trained:load_classifier",
    "load_diffusion": "pag.diffusion.model.trained:load_diffusion",
    "measure_alignment": "pag.evaluation.evaluate:measure_alignment",
    "open_gradients": "pag.store.reader:GradientStore.open",
}

try:
    __version__ = version("pag")
except PackageNotFoundError:  # a checkout that is not installed
    __version__ = "0+unknown"


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'pag' has no attribute '{name}': it offers {', '.join(__all__)}")
    globals()[name] = found = resolve_name(_HOMES[name])
    return found


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
