"""A trained classifier as a model folder in the form of the Hugging Face Hub: model.safetensors and config.json."""

import shutil
from pathlib import Path
from typing import Any

from huggingface_hub import PyTorchModelHubMixin
from torch import Tensor, nn

from pag.classifiers import build
from pag.foundation.artifacts import ArtifactError


class Classifier(nn.Module, PyTorchModelHubMixin):
    """Images (B, C, H, W) in [0, 1] → logits (B, classes): what attacks and attributions expect of a model."""

    def __init__(self, arch: str, image_shape: list[int], class_names: list[str]) -> None:
        super().__init__()
        self.class_names = class_names
        self.model = build(arch, len(class_names), tuple(image_shape), seed=0)

    def forward(self, images: Tensor) -> Tensor:
        return self.model(images)


def save_folder(folder: Path, model: nn.Module, config: dict[str, Any], card: str) -> None:
    """Write `model` (of `pag.classifiers.build`) and its card into `folder`.

    config: arch, image_shape and class_names, and whatever else tells the model from others, as JSON.
    """
    classifier = Classifier(config["arch"], config["image_shape"], config["class_names"])
    classifier.model.load_state_dict(model.state_dict())
    (folder / "README.md").write_text(card)  # the mixin would write one without numbers
    classifier.save_pretrained(folder, config=config)
    shutil.copymode(folder / "README.md", folder / "model.safetensors")  # which only its owner could read


def load_folder(folder: str | Path) -> Classifier:
    """The classifier in `folder`, on the CPU, in eval mode and without gradients for its weights.

    Raises ArtifactError, one line, if it is no such folder or its weights do not fit its config.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ArtifactError(f"{folder} is no folder: expected one of `python -m stages.export huggingface`")
    for name in ("config.json", "model.safetensors"):
        if not (folder / name).is_file():
            raise ArtifactError(f"{folder} has no {name}: expected a folder of `python -m stages.export huggingface`")
    try:
        model = Classifier.from_pretrained(folder, strict=True)
    except (RuntimeError, TypeError, ValueError) as error:
        raise ArtifactError(f"{folder} does not hold a classifier: {str(error).splitlines()[0]}") from None
    return model.requires_grad_(False)
