"""The run at its two scales, and the project's own conf and params files that a scale becomes."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from pag.checkpoint import atomic_file
from pag.config.conf import Conf, load_conf
from pag.config.params import Params, load_params
from pag.config.section import read_yaml

ROOT = Path(__file__).resolve().parents[2]
DATASET = "cifar10-jpeg"
SECTIONS = ("data", "diffusion", "distill", "classifier", "evaluation")


@dataclass(frozen=True)
class Scale:
    """What differs from conf/cifar10-jpeg.yaml, by section, and the limits within which the plan chooses."""

    methods: tuple[str, ...]  # arch/method, the most important first
    required: int
    sections: dict[str, dict[str, Any]]
    min_epochs: int
    max_epochs: int
    attack_images: tuple[int, ...]
    max_diffusion_steps: int
    stage_overhead: float  # seconds
    calibration_steps: int
    calibration_images: int
    throughput_batches: tuple[int, ...]
    lanes: int  # evaluations beside the training, each in a process of its own; 0: one after the other, in this one

    @property
    def archs(self) -> list[str]:
        return list(dict.fromkeys(method.split("/")[0] for method in self.methods))


FULL = Scale(
    methods=("rn18/sbg", "rn18/vanilla", "rn18/at-l2", "rn18/cm", "rn18/at-l2+sbg", "vit/sbg"),
    required=3,
    sections={
        "data": {"note": "JPEG copy"},
        # One noise level needs neither the learned variance, which only sampling reads, nor the size of the
        # published network; the batch and the learning rate are larger because the steps are few.
        "diffusion": {
            "noise_levels": "single",
            "learn_sigma": False,
            "blocks": 2,
            "dropout": 0.1,
            "batch_size": 256,
            "lr": 0.0002,
            "precision": "bf16",
            "compile": True,
        },
        "distill": {"batch_size": 512},
        "classifier": {
            "batch_size": 128,
            "lr": 0.02,  # the paper's 0.01, scaled with the batch
            "lr_schedule": "cosine",
            "precision": "bf16",
            "compile": True,
        },
        "evaluation": {
            "threat_models": {"L2": [0.5, 1.0], "Linf": [8 / 255]},
            "batch_size": 500,
            "foolbox": {},
        },
    },
    min_epochs=15,
    max_epochs=40,
    attack_images=(500, 750, 1000),
    max_diffusion_steps=60_000,
    stage_overhead=6.0,
    calibration_steps=15,
    calibration_images=300,
    throughput_batches=(64, 512),
    lanes=2,
)

MINIATURE = Scale(
    methods=("cnn/sbg", "cnn/vanilla", "cnn/at-l2", "cnn/cm", "cnn/at-l2+sbg"),
    required=5,
    sections={
        "data": {"note": "miniature", "train_limit": 60, "test_limit": 20, "validation_fraction": 0.2},
        "diffusion": {
            "noise_levels": "single",
            "learn_sigma": False,
            "channels": 8,
            "head_dim": 8,
            "blocks": 1,
            "multipliers": [1, 1],
            "attention": [],
            "batch_size": 4,
        },
        "distill": {"heldout_images": 10},
        "classifier": {"batch_size": 8},
        "evaluation": {
            "threat_models": {"L2": [20.0, 40.0], "Linf": [0.9]},  # nothing withstands them: the first attack ends it
            "batch_size": 20,
            "foolbox": {},
            "large_eps": {"eps": 8.0, "steps": 2, "images": 2},
        },
    },
    min_epochs=1,
    max_epochs=1,
    attack_images=(10,),
    max_diffusion_steps=4,
    stage_overhead=1.0,
    calibration_steps=2,
    calibration_images=4,
    throughput_batches=(8,),
    lanes=0,
)


def write_settings(
    folder: Path, scale: Scale, archive: Path, decided: dict[str, dict[str, Any]]
) -> tuple[Conf, Params]:
    """Write `folder`/conf/cifar10-jpeg.yaml and `folder`/params.yaml; what load_conf and load_params make of them.

    decided: values by section that are known only after measuring; they win over the scale's.
    """
    content = read_yaml(ROOT / "conf" / f"{DATASET}.yaml")
    for section in SECTIONS:
        content[section] |= scale.sections.get(section, {}) | decided.get(section, {})
    content["data"]["root"] = str(archive.absolute())
    content.pop("variants", None)
    experiment = read_yaml(ROOT / "params.yaml")
    params = {key: [] if isinstance(value, list) else value for key, value in experiment.items()}
    params |= {"datasets": [DATASET], "archs": scale.archs, "lambda": None}
    params |= grouped([method.split("/")[1] for method in scale.methods])
    (folder / "conf").mkdir(parents=True, exist_ok=True)
    _write(folder / "conf" / f"{DATASET}.yaml", content)
    _write(folder / "params.yaml", params)
    return load_conf(DATASET, folder / "conf"), load_params(folder / "params.yaml")


def grouped(names: list[str]) -> dict[str, list[str]]:
    """Method names as the lists of params.yaml; SBG's store is always made, evaluation measures alignment with it."""
    names = list(dict.fromkeys(names))
    return {
        "baselines": [name for name in names if name in ("vanilla", "at-l2")],
        "heuristics": [name for name in names if name == "cm"],
        "realizations": [name for name in names if name in ("sbg", "cm")],
        "robust": ["at-l2"] if "at-l2+sbg" in names else [],
        "robust_realizations": ["sbg"] if "at-l2+sbg" in names else [],
    }


def _write(path: Path, content: dict[str, Any]) -> None:
    with atomic_file(path) as partial:  # a process of a lane may be reading it
        YAML().dump(content, partial)
