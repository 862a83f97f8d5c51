"""A classifier as RobustBench (Croce et al. 2021) takes it: its model-info JSON, and a module with the model."""

from pathlib import Path
from typing import Any

from pag.foundation.artifacts import save_json
from pag.foundation.config.section import ConfigError
from pag.interchange.card import model_card
from pag.interchange.classifier import save_folder
from pag.interchange.measured import Measured

DATASETS = {"cifar10": 10, "cifar100": 100}  # of RobustBench at 32×32, with their classes; a conf's name begins so
RADII = {"Linf": (8 / 255, "8/255"), "L2": (0.5, "0.5")}  # of its leaderboards
MODULE = '''"""{name} for RobustBench: images in [0, 1] → logits, normalised inside.

Needs robustbench, and pag from a clone of its repository: the package of that name on PyPI is another project.

    python {module}.py --n-examples 1000
"""

import argparse
from pathlib import Path

from torch import nn

from pag.interchange.classifier import load_folder


def load_model() -> nn.Module:
    return load_folder(Path(__file__).parent)


if __name__ == "__main__":
    from robustbench import benchmark

    parser = argparse.ArgumentParser()
    parser.add_argument("--n-examples", type=int, default=10_000)
    n_examples = parser.parse_args().n_examples
    for threat_model, eps in {radii}:
        benchmark(
            load_model(), n_examples, "{dataset}", threat_model, eps=eps, to_disk=True, model_name="{name}"
        )
'''


def export(folder: Path, measured: Measured) -> None:
    """Write the model folder of `classifier.save_folder`, the module and model_info/<dataset>/<norm>/<name>.json.

    Raises ConfigError, one line, for a data set or radii that RobustBench does not have, and for
    numbers that are no results.
    """
    dataset, infos = benchmark_dataset(measured), model_infos(measured)
    save_folder(folder, measured.model, measured.config(), model_card(measured))
    radii = [(norm, RADII[norm][0]) for norm in infos]
    names = {"name": measured.name, "module": module_name(measured), "dataset": dataset, "radii": radii}
    (folder / f"{module_name(measured)}.py").write_text(MODULE.format(**names))
    for norm, info in infos.items():
        save_json(folder / "model_info" / dataset / norm / f"{measured.name}.json", info)


def module_name(measured: Measured) -> str:
    return "".join(letter if letter.isalnum() else "_" for letter in measured.name)


def benchmark_dataset(measured: Measured) -> str:
    name, images = measured.images.name, measured.images
    base = name.split("-")[0]
    if DATASETS.get(base) != images.num_classes or images.image_shape != (3, 32, 32):
        raise ConfigError(f"RobustBench has cifar10 and cifar100 at 32×32: {name} is neither, use `export huggingface`")
    return base


def model_infos(measured: Measured) -> dict[str, dict[str, Any]]:
    """Norm → the content of its model-info JSON, by the names of robustbench.utils.ModelInfo; numbers in percent.

    What it asks of a publication is left null. `reported` is our number and not the benchmark's, on the images that the
    footnote says; autoattack_acc is for `benchmark` to fill in.
    """
    if measured.mark:
        raise ConfigError(f"{measured.name} has no results: expected those of the standard attack on test images")
    infos = {}
    for norm, (eps, written) in RADII.items():
        value = measured.metrics["robust_accuracy"].get(norm, {}).get(str(eps))
        if value is None:
            continue
        infos[norm] = {
            "link": None,
            "name": measured.name,
            "authors": None,
            "additional_data": False,
            "number_forward_passes": 1,
            "dataset": benchmark_dataset(measured),
            "venue": None,
            "architecture": measured.about["arch"],
            "eps": written,
            "clean_acc": f"{100 * measured.metrics['clean_accuracy']:.2f}",
            "reported": f"{100 * value:.2f}",
            "autoattack_acc": None,
            "footnote": f"Reported: {measured.measured_on}.",
        }
    if not infos:
        raise ConfigError("evaluation.threat_models has neither Linf 8/255 nor L2 0.5, the radii of RobustBench")
    return infos
