"""The script for a GPU in miniature on the CPU: every step runs, and the file is there after each."""

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from benchmarks import gpu
from benchmarks.agreement import agreement, rounding
from pag.foundation.config.conf import load_conf
from pag.foundation.config.diffusion import DiffusionConfig
from stages.shared.device import best_device

TINY = {
    "data.train_limit": 20,
    "data.validation_fraction": 0.5,
    "diffusion.channels": 8,
    "diffusion.multipliers": [1, 1],
    "diffusion.attention": [],
    "diffusion.head_dim": 8,
    "diffusion.steps": 2,
    "diffusion.batch_size": 4,
    "distill.heldout_images": 10,
    "classifier.batch_size": 8,
    "classifier.crop_padding": 0,
    "evaluation.attack": {"version": "quick", "steps": 1, "target_classes": 1},
    "evaluation.images": 10,
    "evaluation.large_eps": {"eps": 8.0, "steps": 1, "images": 1},
}


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """Two training images and a test image of each of ten classes."""
    rng, path = np.random.default_rng(0), tmp_path / "images.tar"
    with tarfile.open(path, "w") as tar:
        for part, count in (("train", 2), ("test", 1)):
            for name in (f"{part}/class{label}/{index}.png" for label in range(10) for index in range(count)):
                buffer = io.BytesIO()
                Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(buffer, "png")
                member = tarfile.TarInfo(name)
                member.size = buffer.tell()
                buffer.seek(0)
                tar.addfile(member, buffer)
    return path


@pytest.mark.slow
def test_every_step_runs(archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = DiffusionConfig.model_validate(
        {key.split(".")[1]: value for key, value in TINY.items() if "diffusion" in key}
    )
    conf = load_conf("cifar10")
    monkeypatch.setattr(gpu, "load_conf", lambda dataset: conf.model_copy(update={"diffusion": small}))
    monkeypatch.setattr(gpu, "agreement", lambda *arguments, **options: "below")
    monkeypatch.setattr(gpu.distill, "random_images", lambda count, make=gpu.distill.random_images: make(16))
    here = Path.cwd()
    gpu.run(tmp_path / "out.json", 0.0, {"data.root": str(archive), **TINY}, sizes=(2,), compiled=(False,))
    found = json.loads((tmp_path / "out.json").read_text())
    failed = {name: step for name, step in found.items() if name != "machine" and isinstance(step["outcome"], str)}
    assert set(failed) == {"agreement"}, failed
    for arch in ("rn18", "rn18-silu"):
        outcome: dict[str, Any] = found[f"{arch} with sbg"]["outcome"]
        assert outcome["epochs"] == 1
        assert set(outcome["robust_accuracy"]) == {"L2", "Linf"}
        assert outcome["attack"].startswith("quick attack")
    assert Path.cwd() == here


def test_a_step_that_fails_leaves_its_error_and_the_others_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*arguments: Any, **options: Any) -> None:
        raise RuntimeError("no such kernel")

    for name in ("agreement", "short_ratios", "stage", "aligned"):
        monkeypatch.setattr(gpu, name, fails)
    monkeypatch.setattr(gpu.diffusion, "throughput", fails)
    monkeypatch.setattr(gpu.distill, "score_based", lambda *arguments: {"images_per_second": 1.0})
    gpu.run(tmp_path / "out.json", 0.0, {}, sizes=(2,), compiled=(True, False))
    steps = {k: v for k, v in json.loads((tmp_path / "out.json").read_text()).items() if k != "machine"}
    outcomes = {name: step["outcome"] for name, step in steps.items()}
    assert outcomes.pop("distill") == {"images_per_second": 1.0}
    assert set(outcomes.values()) == {"RuntimeError('no such kernel')"}
    assert ["compile=True" in name for name in list(steps)[-2:]] == [True, True]


@pytest.mark.slow
def test_a_device_agrees_with_itself() -> None:
    found = agreement(best_device(), batch_size=2, attacked=10)
    assert found["logits"] <= 1e-4
    assert found["loss"] <= 1e-4
    assert found["gradient"] <= 1e-3
    assert found["equal_flags"] == found["attacked"] == 10


def test_float32_rounds_gradients_through_relu_more_than_through_silu() -> None:
    relu, silu = (rounding(arch, batch_size=64) for arch in ("rn8", "rn8-silu"))
    assert 0 < silu["gradient"] < 2e-5 < relu["gradient"] < 1e-2
    assert max(relu["loss"], silu["loss"]) < 1e-4
