"""Which stages an edit makes DVC rerun: asked of DVC itself, in a copy where every stage counts as run."""

from collections.abc import Iterator
from pathlib import Path

import networkx as nx
import pytest
from dvc.repo import Repo
from ruamel.yaml import YAML

from benchmarks.miniature import copy_repository
from pag.foundation.config.section import read_yaml

PARAMS = {  # one of everything that dvc.yaml has a group for
    "baselines": ["vanilla", "at-l2"],
    "realizations": ["oi", "sbg"],
    "variants": ["lambda-1"],
    "externals": ["theirs"],
    "noise_level_figures": ["digits"],
}
TRAIN = {"train", "train_pag", "train_robust_pag", "train_variant"}
ALIGNED = {"train_pag", "train_robust_pag", "train_variant"}
EVALUATE = {"evaluate", "evaluate_pag", "evaluate_robust_pag", "evaluate_variant", "evaluate_external"}
DISTILL = {"distill", "distill_sbg"}
IMAGES = {"prepare", "train_diffusion", "noise_levels", "prepare_toy", "toy"} | DISTILL | TRAIN | EVALUATE

# file → the stages whose deps it changes; what follows from their outputs comes on top
EDITS: dict[str, set[str]] = {
    "pag/foundation/config/section.py": IMAGES | {"validate", "report"},
    "pag/images/dataset.py": IMAGES,
    "pag/datasets/folder.py": {"prepare"},
    "pag/training/augment.py": TRAIN | {"toy"},
    "pag/diffusion/training.py": {"train_diffusion"},
    "pag/diffusion/guided.py": {"train_diffusion"},
    "pag/interchange/card.py": set(),
    "pag/diffusion/model/schedule.py": {"train_diffusion", "distill_sbg", "noise_levels"},
    "pag/gradients/distillation/store_writer.py": DISTILL,
    "pag/store/reader.py": ALIGNED | EVALUATE,
    "pag/gradients/realizations.py": {"distill", "toy"},
    "pag/gradients/score.py": {"distill_sbg", "noise_levels"},
    "pag/objectives/alignment/objective.py": ALIGNED | {"toy"},
    "pag/objectives/baselines/adversarial.py": {"train", "train_robust_pag", "train_variant", "toy"},
    "pag/threat/pgd.py": {"train", "train_robust_pag", "train_variant", "toy", "validate"} | EVALUATE,
    "pag/classifiers/cnn.py": TRAIN | EVALUATE | {"toy", "validate"},
    "pag/training/loop.py": TRAIN | {"toy"},
    "pag/evaluation/standard.py": EVALUATE | {"validate"},
    "pag/evaluation/foolbox.py": EVALUATE | {"validate"},
    "pag/evaluation/alignment.py": EVALUATE | {"validate"},
    "pag/report/page.py": {"report"},
    "stages/train.py": TRAIN,
    "stages/evaluate.py": EVALUATE,
    "external/theirs/network.py": {"evaluate_external"},
    "external/theirs/weights.safetensors": {"evaluate_external"},
}
CONF, PARAMETERS = "conf/digits.yaml", "params.yaml"
ANY = {"validate", "report"}  # they look at every key of params.yaml and conf
VALUES: list[tuple[str, str, object, set[str]]] = [  # file, dotted key, new value, stages
    (PARAMETERS, "seed", 7, {"prepare", "train_diffusion", "noise_levels", "prepare_toy"} | DISTILL | EVALUATE),
    (PARAMETERS, "training_seed", 7, TRAIN),
    (PARAMETERS, "lambda", 0.7, {"train_pag", "train_robust_pag"}),
    (CONF, "data.validation_fraction", 0.2, {"prepare"}),
    (CONF, "data.note", "a note", {"prepare"} | EVALUATE),
    (CONF, "diffusion.steps", 7, {"train_diffusion"}),
    (CONF, "distill.batch_size", 7, {"noise_levels"} | DISTILL),
    (CONF, "heuristics.nn_candidates", 7, {"distill"}),
    (CONF, "classifier.epochs", 7, TRAIN),
    (CONF, "alignment.classes_per_image", 7, ALIGNED),
    (CONF, "methods.oi.lambda.default", 7.0, {"train_pag", "train_variant"}),
    (CONF, "methods.at-l2.steps", 8, {"train", "train_robust_pag", "train_variant"}),
    (CONF, "methods.at-l2.eps", 0.7, {"prepare", "train", "train_robust_pag", "train_variant"}),
    (CONF, "evaluation.images", 7, EVALUATE),
    (CONF, "evaluation.large_eps.eps", 7.0, {"prepare"} | EVALUATE),
    (CONF, "evaluation.threat_models.L2", [0.7], {"prepare"} | EVALUATE),  # prepare refuses what Square cannot take
    (CONF, "variants.lambda-1.lambda", 1.5, {"train_variant"}),
    (CONF, "external.theirs.import", "network:other", {"evaluate_external"}),
]


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Repo]:
    folder = tmp_path_factory.mktemp("edits")
    copy_repository(folder)
    (folder / "dvc.lock").unlink()
    change(folder / PARAMETERS, PARAMS)
    change(folder / CONF, {"external": {"theirs": {"import": "network:build", "weights": "weights.safetensors"}}})
    (folder / "external/theirs").mkdir(parents=True)
    for name in ("network.py", "weights.safetensors"):
        (folder / "external/theirs" / name).write_text("of somebody else")
    with pytest.MonkeyPatch.context() as monkeypatch, Repo(str(folder)) as repo:
        monkeypatch.chdir(folder)
        for stage in repo.index.stages:
            for out in stage.outs:
                path = Path(out.fs_path)
                path.parent.mkdir(parents=True, exist_ok=True)
                if not path.exists():
                    path.write_text(str(path))
        repo.commit(force=True)
        assert repo.status() == {}
        yield repo


def change(path: Path, values: dict[str, object]) -> None:
    content = read_yaml(path)
    for dotted, value in values.items():
        section = content
        *parents, last = dotted.split(".")
        for parent in parents:
            section = section[parent]
        section[last] = value
    YAML().dump(content, path)


def changed(repo: Repo) -> set[str]:
    """The stages that DVC names as changed, groups without their members."""
    return {name.split("@")[0] for name in repo.status()}


@pytest.mark.parametrize("file", EDITS)
def test_an_edit_of_code(repo: Repo, file: str) -> None:
    path = Path(repo.root_dir, file)
    before = path.read_text()
    path.write_text(before + "\n# edited\n")
    try:
        assert changed(repo) == EDITS[file]
    finally:
        path.write_text(before)


@pytest.mark.parametrize(("file", "key", "value", "stages"), VALUES, ids=[key for _, key, _, _ in VALUES])
def test_an_edit_of_a_value(repo: Repo, file: str, key: str, value: object, stages: set[str]) -> None:
    path = Path(repo.root_dir, file)
    before = path.read_text()
    change(path, {key: value})
    try:
        assert changed(repo) == stages | ANY
    finally:
        path.write_text(before)


def test_what_follows_from_lambda(repo: Repo) -> None:
    """λ touches alignment runs, their evaluation and the report; variants have their own λ."""
    graph = repo.index.graph  # from a stage to what it depends on
    aligned = [stage for stage in graph if stage.name.split("@")[0] in ("train_pag", "train_robust_pag")]
    reached = {other.name.split("@")[0] for other in graph if depends_on(graph, other, aligned)}
    assert reached == {"evaluate_pag", "evaluate_robust_pag", "report"}


def depends_on(graph, stage, targets: list) -> bool:
    return any(target is not stage and nx.has_path(graph, stage, target) for target in targets)
