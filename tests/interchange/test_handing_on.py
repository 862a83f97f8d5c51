"""Classifiers as other tools take them: RobustBench, Foolbox, callers in captum's manner."""

import dataclasses
import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import foolbox
import numpy as np
import pyautoattack
import pytest
import torch
from torch import Tensor, nn

from pag.classifiers import build
from pag.evaluation.trained import load_trained
from pag.foundation.artifacts import ArtifactError, save_json, save_weights
from pag.foundation.config.section import ConfigError
from pag.images.dataset import ImageDataset, Split
from pag.interchange import robustbench as our_robustbench
from pag.interchange.card import model_card
from pag.interchange.classifier import load_folder
from pag.interchange.measured import Measured, load_metrics

RADIUS = 8 / 255
METRICS: dict[str, Any] = {
    "clean_accuracy": 0.7318,
    "robust_accuracy": {"Linf": {str(4 / 255): 0.4, str(RADIUS): 0.276}, "L2": {"0.5": 0.462, "1.0": 0.25}},
    "n_clean": 10_000,
    "n_examples": 500,
    "split": "test",
    "attack": None,
    "data_note": "JPEG copy",
}


def some_images(name: str = "cifar10-tiny", shape: tuple[int, ...] = (3, 32, 32)) -> ImageDataset:
    random = np.random.default_rng(0)
    split = Split(random.integers(0, 256, (20, *shape)).astype(np.uint8), np.arange(20) % 10)
    return ImageDataset.create(name, tuple("abcdefghij"), train=split, validation=split, test=split)


def measured(folder: Path, images: ImageDataset, **changes: Any) -> Measured:
    """As an export finds it: weights and metrics on disk."""
    about = {
        "dataset": images.name,
        "arch": "cnn",
        "run": "sbg",
        "method": "sbg",
        "dataset_hash": images.content_hash,
        "lambda": 2.0,
    }
    about |= {"num_classes": 10, "image_shape": list(images.image_shape)}
    trained = build("cnn", 10, images.image_shape, seed=3)
    digest = save_weights(folder / "weights.safetensors", trained.state_dict(), about)
    save_json(folder / "metrics.json", {**METRICS, "weights_sha256": digest, **changes}, sealed=True)
    model, about = load_trained(folder, images, "cnn", "sbg", torch.device("cpu"))
    return Measured(model, about, load_metrics(folder / "metrics.json", about), images)


@pytest.fixture
def exported(tmp_path: Path) -> tuple[Path, Measured]:
    found = measured(tmp_path / "run", some_images())
    (tmp_path / "out").mkdir()
    our_robustbench.export(tmp_path / "out", found)
    return tmp_path / "out", found


def test_a_model_folder_gives_the_same_logits_and_says_what_it_is(exported: tuple[Path, Measured]) -> None:
    folder, found = exported
    images = torch.rand(4, 3, 32, 32)
    again = load_folder(folder)
    torch.testing.assert_close(again(images), found.model(images))  # which lies in memory channels last
    expected = found.model.state_dict()
    assert all(torch.equal(weight, expected[name]) for name, weight in again.model.state_dict().items())
    assert not again.training and not any(parameter.requires_grad for parameter in again.parameters())
    config = json.loads((folder / "config.json").read_text())
    assert (config["arch"], config["method"], config["lambda"]) == ("cnn", "sbg", 2.0)
    assert config["dataset_hash"] == found.images.content_hash
    assert config["source_sha256"] == found.about["sha256"] and "sha256" not in config  # of no file in this folder
    assert len({(folder / name).stat().st_mode for name in ("model.safetensors", "config.json", "README.md")}) == 1
    card = (folder / "README.md").read_text()
    for told in (
        "install `pag` from a clone",
        "license: mit",
        "| clean accuracy | 73.2 |",
        "JPEG copy",
    ):
        assert told in card
    assert "| robust accuracy, L∞ 8/255 | 27.6 |" in card and "standard AutoAttack on 500" in card


@pytest.mark.parametrize("changes", [{"attack": "quick attack"}, {"split": "validation"}])
def test_numbers_to_choose_by_are_no_results(changes: dict[str, Any], tmp_path: Path) -> None:
    card = model_card(measured(tmp_path, some_images(), **changes))
    assert ("clean accuracy (no result, to choose by)" in card) == ("split" in changes)
    assert "robust accuracy, L2 0.5 (no result, to choose by)" in card and "robust accuracy, L2 0.5\n" not in card


def test_weights_of_own_images_have_no_licence_of_ours(tmp_path: Path) -> None:
    found = measured(tmp_path, some_images())
    card = model_card(dataclasses.replace(found, licence=None))
    assert "MIT" not in card and "license: mit" not in card and "The weights have no licence" in card


def test_all_images_are_not_called_drawn(tmp_path: Path) -> None:
    assert measured(tmp_path, some_images(), n_examples=20).measured_on.startswith("standard AutoAttack on all 20 test")


def test_the_hub_reads_the_card(exported: tuple[Path, Measured]) -> None:
    from huggingface_hub import ModelCard

    data = ModelCard.load(exported[0] / "README.md").data
    values = {result.metric_name: result.metric_value for result in data.eval_results}
    assert values["clean accuracy"] == 0.7318 and values["robust accuracy, L2 0.5"] == 0.462


def test_a_folder_that_is_none_is_refused(exported: tuple[Path, Measured], tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"has no config\.json: expected a folder of"):
        load_folder(tmp_path)
    folder, _ = exported
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "class_names": ["a", "b"]}))
    with pytest.raises(ArtifactError, match="does not hold a classifier"):
        load_folder(folder)


def test_numbers_of_other_weights_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="was measured on other weights of sbg"):
        measured(tmp_path, some_images(), weights_sha256="0" * 64)


def test_model_infos_are_robustbenchs(exported: tuple[Path, Measured]) -> None:
    folder, _ = exported
    info = json.loads((folder / "model_info/cifar10/Linf/cifar10-tiny-cnn-sbg.json").read_text())
    assert (info["eps"], info["clean_acc"], info["reported"]) == ("8/255", "73.18", "27.60")
    assert info["footnote"] == (
        "Reported: standard AutoAttack on 500 class-balanced test images drawn by seed; JPEG copy."
    )
    assert json.loads((folder / "model_info/cifar10/L2/cifar10-tiny-cnn-sbg.json").read_text())["reported"] == "46.20"


@pytest.mark.parametrize(
    ("images", "changes", "message"),
    [
        (some_images("digits"), {}, "digits is neither"),
        (some_images(shape=(3, 8, 8)), {}, "cifar10-tiny is neither"),
        (some_images(), {"robust_accuracy": {"L2": {"1.0": 0.2}}}, "neither Linf 8/255 nor L2 0.5"),
        (some_images(), {"attack": "quick attack"}, "cifar10-tiny-cnn-sbg has no results"),
        (some_images(), {"split": "validation"}, "cifar10-tiny-cnn-sbg has no results"),
    ],
)
def test_what_robustbench_does_not_have_is_refused(
    tmp_path: Path, images: ImageDataset, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        our_robustbench.export(tmp_path, measured(tmp_path, images, **changes))
    assert not (tmp_path / "config.json").exists()


class AutoAttack:
    """The interface of the `autoattack` that robustbench imports, which is not on PyPI, over the build that is."""

    def __init__(self, model: nn.Module, norm: str, eps: float, version: str, device: Any, log_path: Any) -> None:
        self.attack = pyautoattack.AutoAttack(model, norm=norm, eps=eps, version=version, device=device)

    def run_standard_evaluation(self, x: Tensor, y: Tensor, bs: int, state_path: Any) -> Tensor:
        return self.attack.run_standard_evaluation(x, y, batch_size=bs)[0]


@pytest.fixture
def robustbench_eval(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """robustbench.eval"""
    if importlib.util.find_spec("robustbench") is None:
        pytest.skip("robustbench is not installed: docs/own.md says how it can be beside our timm")
    package, state = ModuleType("autoattack"), ModuleType("autoattack.state")
    package.AutoAttack, state.EvaluationState = AutoAttack, None  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "autoattack", package)
    monkeypatch.setitem(sys.modules, "autoattack.state", state)
    return importlib.import_module("robustbench.eval")


def test_robustbench_benchmarks_the_module(
    exported: tuple[Path, Measured], robustbench_eval: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, found = exported
    images = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    labels = found.model(images).argmax(1)
    labels[0] = (labels[0] + 1) % 10
    monkeypatch.setattr(robustbench_eval, "load_clean_dataset", lambda *_: (images, labels))
    spec = importlib.util.spec_from_file_location("module", folder / "cifar10_tiny_cnn_sbg.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.chdir(folder)  # where it updates the model-info JSON
    clean, robust = robustbench_eval.benchmark(
        module.load_model(), n_examples=3, dataset="cifar10", threat_model="L2", eps=100.0, to_disk=True,
        model_name=found.name,
    )  # fmt: skip
    assert clean == pytest.approx(2 / 3) and robust == 0
    info = json.loads((folder / f"model_info/cifar10/L2/{found.name}.json").read_text())
    assert (info["clean_acc"], info["autoattack_acc"], info["reported"]) == ("66.67", "0.0", "46.20")
    fields = importlib.import_module("robustbench.utils").ModelInfo.__dataclass_fields__
    assert set(info) <= set(fields)


def test_foolbox_takes_a_classifier_as_it_is() -> None:
    model = build("cnn", 10, (3, 32, 32), seed=0).eval()
    images = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    labels = model(images).argmax(1)
    wrapped = foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu")
    assert foolbox.accuracy(wrapped, images, labels) == 1
    _, (x_adv,), (success,) = foolbox.attacks.LinfPGD(steps=20)(wrapped, images, labels, epsilons=[0.5])
    assert success.all() and (x_adv - images).abs().max() <= 0.5 + 1e-6 and x_adv.min() >= 0 and x_adv.max() <= 1


@pytest.mark.parametrize("arch", ["cnn", "rn8", "vgg11", "vit-mini", "mixer", "timm-test_vit"])
def test_attributions_in_captums_manner(arch: str) -> None:
    """Integrated gradients add up to the difference of the logits (their completeness), and hooks see every layer."""
    model = build(arch, 10, (3, 32, 32), seed=0).eval().requires_grad_(False)
    image = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    baseline = torch.zeros_like(image)
    steps = (torch.arange(50.0) + 0.5) / 50
    path = (baseline + steps[:, None, None, None] * (image - baseline)).requires_grad_()
    (gradients,) = torch.autograd.grad(model(path)[:, 3].sum(), path)
    attribution = (gradients.mean(0) * (image - baseline)).sum()
    assert attribution.item() == pytest.approx((model(image) - model(baseline))[0, 3].item(), abs=0.02)

    seen: list[nn.Module] = []
    leaves = [module for module in model.modules() if not list(module.children())]
    for leaf in leaves:
        leaf.register_full_backward_hook(lambda module, *_: seen.append(module))
    model(image.clone().requires_grad_())[:, 3].sum().backward()
    assert seen
