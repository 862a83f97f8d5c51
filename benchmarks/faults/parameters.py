"""Mistyped parameters: every one is refused when it is read, before anything is computed."""

from collections.abc import Iterator
from functools import partial
from typing import Any

from benchmarks.faults.bench import Bench, Case, Finding, refused
from benchmarks.faults.forks import run
from benchmarks.faults.workspace import Workspace

PARAMS: tuple[tuple[str, Any], ...] = (
    ("lamda", 1.0),
    ("dataset", ["digits"]),
    ("trainig_seed", 1),
    ("seed", -1),
    ("seed", 10**30),
    ("seed", "zero"),
    ("training_seed", 0.5),
    ("lambda", -1.0),
    ("lambda", float("nan")),
    ("lambda", "two"),
    ("datasets", "digits"),
    ("datasets", ["digts"]),
    ("raw", ["mine"]),
    ("archs", ["cnnn"]),
    ("archs", [7]),
    ("baselines", ["vanila"]),
    ("realizations", ["sgb"]),
    ("robust", ["at_l2"]),
    ("variants", ["lambda-3"]),
)
CONF: tuple[tuple[str, Any], ...] = (
    ("data.lodaer", "digits"),
    ("data.validation_fraction", 1.5),
    ("data.train_limit", -5),
    ("diffusion.step", 10),
    ("diffusion.steps", 0),
    ("diffusion.lr", -0.1),
    ("diffusion.channels", 10**7),
    ("diffusion.schedule", "cosin"),
    ("diffusion.alpha_bar", 1.5),
    ("distill.bits", 5),
    ("distill.batch_size", "all"),
    ("classifier.epochs", 2.5),
    ("classifier.batch_size", 10**10),
    ("classifier.optimizer", "adm"),
    ("classifier.lr", 0),
    ("classifier.crop_padding", 10**6),
    ("alignment.classes_per_image", 0),
    ("alignment.classes_per_image", "some"),
    ("alignment.gradient_of", "logits"),
    ("methods.at-l2", {"norm": "L2", "eps": -0.5}),
    ("methods.at-l2", {"norm": "Linf", "eps": 0.5}),
    ("methods.at-l2", {"norm": "L2", "eps": 1e300}),
    ("methods.at-l2", {"norm": "L2", "eps": 0.5, "beta": 6.0}),
    ("methods.trades-linf", {"norm": "Linf", "eps": 0.1}),
    ("methods.sbg", {"lambda": {"default": 1e30}}),
    ("evaluation.threat_models", {"L3": [0.5]}),
    ("evaluation.threat_models", {"L2": [0.0]}),
    ("evaluation.threat_models", {}),
    ("evaluation.images", 0),
    ("evaluation.foolbox", {"GaussianBlurAttak": 2.0}),
)


def cases() -> Iterator[Case]:
    for file, table in (("params.yaml", PARAMS), ("conf/digits.yaml", CONF)):
        for key, value in table:
            find = partial(_mistyped, file, key, value)
            yield Case("parameter", f"{file}: {key} = {value}", "one line that names the key", find)


def _mistyped(file: str, key: str, value: Any, _: Bench, workspace: Workspace) -> Finding:
    workspace.set(key, value, file)
    given = map(str, value if isinstance(value, list) else ())  # an unknown name may stand alone
    return refused(run(workspace.folder, "validate"), (key.rsplit(".", maxsplit=1)[-1], *given))
