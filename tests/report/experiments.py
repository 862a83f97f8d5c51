"""Results as an experiment leaves them, made up: records, outcomes, arrays, to read a report from."""

from copy import deepcopy
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from pag.foundation.artifacts import load_json, save_arrays, save_json
from pag.foundation.config.conf import Conf, load_conf
from pag.foundation.config.evaluation import EvaluationConfig
from pag.foundation.config.params import Params, load_params
from pag.foundation.config.runs import run_of
from pag.foundation.config.section import ConfigError
from pag.foundation.config.training import AdversarialConfig

ROOT = Path(__file__).parents[2]
LISTS: dict[str, Any] = {
    "datasets": ["digits"],
    "archs": ["cnn"],
    "baselines": ["vanilla", "at-l2", "at-linf"],
    "heuristics": ["oi", "cm", "nn"],
    "realizations": ["oi", "cm", "nn", "sbg"],
    "robust": ["at-l2"],
    "robust_realizations": ["sbg"],
}
EVALUATION: dict[str, Any] = {
    "threat_models": {"L2": [0.5, 1.0], "Linf": [0.1, 0.2]},
    "foolbox": {"GaussianBlurAttack": 2.0, "L1FMNAttack": None},
    "large_eps": {"eps": 3.0, "images": 3},
}
# method: clean, L2 0.5, L2 1.0, Linf 0.1, Linf 0.2, alignment, seconds per step
ACCURACIES = {
    "vanilla": (0.99, 0.39, 0.00, 0.33, 0.00, 0.05, 0.010),
    "at-l2": (0.99, 0.85, 0.02, 0.88, 0.02, 0.40, 0.050),
    "at-linf": (0.98, 0.82, 0.03, 0.90, 0.30, 0.38, 0.050),
    "oi": (0.96, 0.65, 0.08, 0.62, 0.08, 0.31, 0.022),
    "cm": (0.98, 0.69, 0.03, 0.68, 0.03, 0.42, 0.022),
    "nn": (0.99, 0.77, 0.04, 0.78, 0.07, 0.45, 0.022),
    "sbg": (0.975, 0.80, 0.20, 0.95, 0.20, 0.72, 0.022),
    "at-l2+sbg": (0.985, 0.92, 0.15, 0.93, 0.20, 0.66, 0.060),
}


def metrics_of(numbers: tuple[float, ...]) -> dict[str, Any]:
    """The content of a metrics file, as the evaluation stage writes it."""
    clean, l2, l2_large, linf, linf_large, alignment, step = numbers
    blur = {"eps": 2.0, "accuracy": 0.5, "clean_accuracy": clean, "distance": "L2", "median_distance": 1.25}
    return {
        "clean_accuracy": clean,
        "attacked_clean_accuracy": clean + 0.005,
        "robust_accuracy": {"L2": {"0.5": l2, "1.0": l2_large}, "Linf": {"0.1": linf, "0.2": linf_large}},
        "n_examples": 200,
        "n_clean": 360,
        "chance_accuracy": 0.103,
        "alignment": alignment,
        "warnings": [],
        "notes": [],
        "train_seconds": 30.0,
        "seconds_per_step": step,
        "train_images": 1293,
        "image_shape": [1, 8, 8],
        "num_classes": 10,
        "foolbox": {"GaussianBlurAttack": blur},
        "sanity": None,
        "hardware": "2 CPU cores",
        "data_note": None,
        "of_a_later_version": True,
    }


@cache
def of_the_repository() -> tuple[Params, Conf]:
    """Read once: every metrics file that a test writes asks for them."""
    return load_params(ROOT / "params.yaml"), load_conf("digits", ROOT / "conf")


@dataclass
class Experiment:
    """A results folder with the parameters that it belongs to."""

    folder: Path
    lists: dict[str, Any] = field(default_factory=lambda: deepcopy(LISTS))
    evaluation: dict[str, Any] = field(default_factory=lambda: deepcopy(EVALUATION))

    def load(self) -> tuple[Params, dict[str, Conf]]:
        params, conf = of_the_repository()
        params = params.model_copy(update=self.lists)
        trained = {"at_l2": AdversarialConfig(norm="L2", eps=0.5)}
        evaluation = EvaluationConfig.model_validate(self.evaluation)
        conf = conf.model_copy(update={"evaluation": evaluation, "methods": conf.methods.model_copy(update=trained)})
        return params, dict.fromkeys(params.datasets, conf)

    def metrics_path(self, method: str, dataset: str = "digits", arch: str = "cnn") -> Path:
        return self.folder / "records" / dataset / arch / f"{method}.json"

    def write_metrics(self, method: str, content: dict[str, Any], dataset: str = "digits", arch: str = "cnn") -> None:
        identity = {
            "dataset": dataset,
            "arch": arch,
            "run": method,
            "dataset_hash": "d" * 64,
            "weights_sha256": "w" * 64,
            **self.asked_for(method, dataset, arch),
        }
        save_json(self.metrics_path(method, dataset, arch), {**identity, **content}, sealed=True)

    def asked_for(self, name: str, dataset: str, arch: str) -> dict[str, Any]:
        """What the parameters say of a run, as its metrics repeat it; nothing of one that they do not know."""
        params, confs = self.load()
        try:
            run = run_of(name, dataset, arch, params, next(iter(confs.values())))
        except ConfigError:
            return {}
        aligned = {
            "alignment_weight": run.weight,
            "classes_per_image": run.alignment.classes_per_image,
            "gradient_of": run.alignment.gradient_of,
        }
        return {"seed": run.training_seed, "penalty": run.penalty, **(aligned if run.realization else {})}

    def change(self, method: str, **values: Any) -> None:
        content = load_json(self.metrics_path(method), sealed=True)
        self.write_metrics(method, content | values)

    def change_robust(self, method: str, norm: str, eps: str, value: float | None) -> None:
        content = load_json(self.metrics_path(method), sealed=True)
        content["robust_accuracy"][norm][eps] = value
        self.write_metrics(method, content)

    def write_outcomes(self, method: str, radius: dict[str, np.ndarray], clean: np.ndarray, **more: np.ndarray) -> None:
        """Of the first images of the split, and the metrics that follow from them. radius: norm → (N,)."""
        rows = more.pop("rows", np.arange(len(radius["L2"])))
        arrays = {"rows": rows, "labels": rows % 10, "clean_correct": clean}
        path = self.folder / "arrays" / "digits" / "outcomes" / "cnn" / f"{method}.npz"
        path.parent.mkdir(parents=True, exist_ok=True)
        save_arrays(path, dict(**arrays, **{f"radius_{norm}": values for norm, values in radius.items()}, **more))
        robust = {
            norm: {str(eps): float((radius[norm] > eps).mean()) for eps in radii}
            for norm, radii in self.evaluation["threat_models"].items()
        }
        sizes = {"n_examples": len(rows), "n_clean": len(clean)}
        attacked = float((radius["L2"] > 0).mean())
        accuracies = {"clean_accuracy": float(clean.mean()), "attacked_clean_accuracy": attacked}
        self.change(method, robust_accuracy=robust, **accuracies, **sizes)

    def write_all(self, dataset: str = "digits", arch: str = "cnn") -> None:
        for method, numbers in ACCURACIES.items():
            self.write_metrics(method, metrics_of(numbers), dataset, arch)
        self.write_toy(0.02, 0.8)

    def write_toy(self, vanilla: float, nn: float) -> None:
        def spread(mean: float) -> dict[str, Any]:
            return {"mean": mean, "std": 0.01, "values": [mean] * 10}

        networks = {"vanilla": vanilla, "nn": nn}
        toy = {name: {"clean": spread(1.0), "pgd": spread(1.0), "worst": spread(v)} for name, v in networks.items()}
        save_json(self.folder / "records" / "toy.json", {"dataset": "toy", "seeds": 10, **toy}, sealed=True)


def write_arrays(folder: Path, dataset: str, images: np.ndarray, labels: np.ndarray, class_names: list[str]) -> None:
    """Pictures that look like the real ones: class means for gradients, blends for attacks."""
    home = folder / "arrays" / dataset
    generator = np.random.default_rng(0)
    count, shape = len(class_names), images.shape[1:]
    means = np.stack([images[labels == k].mean(axis=0) for k in range(count)])
    inputs, truth = images[:3], labels[:3]
    shown = {"images": inputs, "labels": truth, "class_names": np.array(class_names)}
    towards = means[None] - inputs[:, None]
    for index, name in enumerate(("oi", "cm", "nn", "sbg")):
        gradients = towards * (1 + index) + 0.1 * index * generator.normal(size=towards.shape)
        path = home / "realizations" / f"{name}.npz"
        path.parent.mkdir(parents=True, exist_ok=True)
        save_arrays(path, dict(gradients=gradients.astype(np.float32), **shown))
    for index, method in enumerate(ACCURACIES):
        noise = 0.4 * generator.normal(size=towards.shape) if index == 0 else 0
        path = home / "large_eps" / "cnn" / f"{method}.npz"
        path.parent.mkdir(parents=True, exist_ok=True)
        adversarial = np.clip(inputs[:, None] + (0.2 + 0.1 * index) * towards + noise, 0, 1)
        gradients = (towards + 3 * noise).astype(np.float32)
        save_arrays(path, dict(adversarial=adversarial.astype(np.float32), gradients=gradients, eps=3.0, **shown))
    steps = np.arange(0, 1500, 5)
    loss = 0.1 + np.exp(-steps / 200) * np.exp(0.2 * generator.normal(size=steps.shape))
    samples = np.clip(means[None] + 0.05 * generator.normal(size=(3, count, *shape)), 0, 1)
    names = np.array(class_names)
    kind = "one-step denoising"
    arrays = {"steps": steps, "loss": loss, "images": samples, "kind": kind, "class_names": names}
    save_arrays(home / "diffusion.npz", arrays)


def write_toy_arrays(folder: Path) -> None:
    x, y = np.linspace(-60, 60, 121), np.linspace(-120, 120, 241)
    first = np.linspace(-55, 55, 600)
    points = np.stack([first, 2 * first], axis=1)
    labels = (np.floor((first + 60) / 20).astype(int)) % 2
    vertical = np.broadcast_to(np.floor((x[None] + 60) / 20).astype(int) % 2, (len(y), len(x)))
    across = np.floor(((x[None] + 2 * y[:, None]) / 5 + 60) / 20).astype(int) % 2
    path = folder / "arrays" / "toy.npz"
    path.parent.mkdir(parents=True, exist_ok=True)
    maps = {"grid_x": x, "grid_y": y, "vanilla": vertical, "nn": across}
    save_arrays(path, {**maps, "points": points, "labels": labels})
