"""Which stages an edit makes DVC rerun: asked of DVC itself, in a copy where every stage counts as run.

DVC says which deps of a stage have changed. So several edits are made at once and told apart by the dep that they are
in; two edits inside the same dep are made one after the other.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace

import networkx as nx
import pytest
from closure import ROOT
from dvc.dependency.param import ParamsDependency
from dvc.repo import Repo
from ruamel.yaml import YAML

from benchmarks.miniature import copy_repository
from pag.foundation.config.section import read_yaml
from stages.shared import paths

PARAMS = {  # one of everything that dvc.yaml has a group for
    "baselines": ["at-l2"],
    "heuristics": ["oi"],
    "realizations": ["oi"],
    "variants": ["lambda-1"],
    "externals": ["theirs"],
    "noise_level_figures": ["digits"],
}
TRAIN = {"train", "train_pag", "train_robust_pag", "train_variant"}
ALIGNED = {"train_pag", "train_robust_pag", "train_variant"}
EVALUATE = {"evaluate", "evaluate_pag", "evaluate_robust_pag", "evaluate_variant", "evaluate_external"}
DISTILL = {"distill", "distill_sbg"}
IMAGES = {"prepare", "check", "train_diffusion", "noise_levels", "prepare_toy", "toy"} | DISTILL | TRAIN | EVALUATE

# file → the stages whose deps it changes; what follows from their outputs comes on top
CODE: dict[str, set[str]] = {
    "pag/foundation/config/section.py": IMAGES | {"validate", "report"},
    "pag/images/dataset.py": IMAGES,
    "pag/datasets/folder.py": {"prepare"},
    "pag/training/augment.py": TRAIN | {"check", "toy"},
    "pag/diffusion/training.py": {"check", "train_diffusion"},
    "pag/diffusion/guided.py": {"check", "train_diffusion"},
    "pag/interchange/card.py": set(),
    "pag/diffusion/model/schedule.py": {"check", "train_diffusion", "distill_sbg", "noise_levels"},
    "pag/gradients/distillation/store_writer.py": DISTILL,
    "pag/store/reader.py": ALIGNED | EVALUATE,
    "pag/gradients/realizations.py": {"distill", "toy"},
    "pag/gradients/score.py": {"distill_sbg", "noise_levels"},
    "pag/objectives/alignment/objective.py": ALIGNED | {"toy"},
    "pag/objectives/baselines/adversarial.py": {"train", "train_robust_pag", "train_variant", "toy"},
    "pag/threat/pgd.py": {"train", "train_robust_pag", "train_variant", "toy", "check", "validate"} | EVALUATE,
    "pag/classifiers/cnn.py": TRAIN | EVALUATE | {"check", "toy", "validate"},
    "pag/training/loop.py": TRAIN | {"check", "toy"},
    "pag/evaluation/standard.py": EVALUATE | {"check", "validate"},
    "pag/evaluation/foolbox.py": EVALUATE | {"check", "validate"},
    "pag/evaluation/alignment.py": EVALUATE | {"check", "validate"},
    "pag/report/page.py": {"report"},
    "stages/train.py": TRAIN,
    "stages/evaluate.py": EVALUATE,
    "external/theirs/network.py": {"evaluate_external"},
    "external/theirs/weights.safetensors": {"evaluate_external"},
}
CONF, PARAMETERS = "conf/digits.yaml", "params.yaml"
ANY = {"validate", "check", "report"}  # they look at every key of params.yaml and conf
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
    (CONF, "methods.at-l2.eps", 0.7, {"train", "train_robust_pag", "train_variant"}),
    (CONF, "evaluation.images", 7, EVALUATE),
    (CONF, "evaluation.large_eps.eps", 7.0, EVALUATE),
    (CONF, "evaluation.threat_models.L2", [0.7], EVALUATE),
    (CONF, "variants.lambda-1.lambda", 1.5, {"train_variant"}),
    (CONF, "external.theirs.import", "network:other", {"evaluate_external"}),
]
EDITS = CODE | {f"{file}:{key}": stages | ANY for file, key, _, stages in VALUES}
WHOLE = {"conf", CONF, PARAMETERS}  # deps that every change of a value is in


@pytest.fixture
def repo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Repo]:
    copy_repository(tmp_path)
    (tmp_path / "dvc.lock").unlink()
    change(tmp_path / PARAMETERS, PARAMS)
    change(tmp_path / CONF, {"external": {"theirs": {"import": "network:build", "weights": "weights.safetensors"}}})
    (tmp_path / "external/theirs").mkdir(parents=True)
    for name in ("network.py", "weights.safetensors"):
        (tmp_path / "external/theirs" / name).write_text("of somebody else")
    monkeypatch.chdir(tmp_path)
    with Repo(str(tmp_path)) as repo:
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


def inside(edit: str, dep: str) -> bool:
    """pag/threat/pgd.py is inside pag/threat, conf/digits.yaml:data.note inside conf and conf/digits.yaml:data."""
    return edit == dep or edit.startswith((f"{dep}/", f"{dep}:", f"{dep}."))


def rounds(edits: Iterable[str], deps: set[str]) -> list[list[str]]:
    """The edits that can be made at once: no two of a round are inside the same dep."""
    found: list[tuple[list[str], set[str]]] = []
    for edit in edits:
        own = {dep for dep in deps - WHOLE if inside(edit, dep)}
        together, taken = next((each for each in found if not own & each[1]), ([], set()))
        if not together:
            found.append((together, taken))
        together.append(edit)
        taken |= own
    return [together for together, _ in found]


def deps_of(repo: Repo) -> set[str]:
    """A path, or file:key for a parameter."""
    deps = [dep for stage in repo.index.stages for dep in stage.deps]
    keys = {f"{dep.def_path}:{key}" for dep in deps if isinstance(dep, ParamsDependency) for key in dep.params}
    return keys | {dep.def_path for dep in deps if not isinstance(dep, ParamsDependency)}


def changed(repo: Repo) -> dict[str, set[str]]:
    """Dep → the stages for which DVC names it as changed, groups without their members."""
    found: dict[str, set[str]] = {}
    for stage, reasons in repo.status().items():
        for reason in reasons:
            for path, how in reason["changed deps"].items():  # and there is no other reason
                for dep in [path] if isinstance(how, str) else [f"{path}:{key}" for key in how]:
                    found.setdefault(dep, set()).add(stage.split("@")[0])
    return found


def test_an_edit_reruns_what_depends_on_it(repo: Repo) -> None:
    values = {f"{file}:{key}": value for file, key, value, _ in VALUES}
    found: dict[str, set[str]] = {}
    for edits in rounds(EDITS, deps_of(repo)):
        before = {edit: Path(edit.split(":")[0]).read_text() for edit in edits}
        for edit in edits:
            file, _, key = edit.partition(":")
            if key:
                change(Path(file), {key: values[edit]})
            else:
                Path(file).write_text(before[edit] + "\n# edited\n")
        named = changed(repo)
        for edit in edits:
            found[edit] = set().union(*(stages for dep, stages in named.items() if inside(edit, dep)))
            Path(edit.split(":")[0]).write_text(before[edit])
        assert not [dep for dep in named if not any(inside(edit, dep) for edit in edits)]
    assert found == EDITS


def test_what_follows_from_lambda() -> None:
    """λ touches alignment runs, their evaluation and the report; variants have their own λ."""
    with Repo(str(ROOT)) as repo:
        graph = repo.index.graph  # from a stage to what it depends on
    aligned = [stage for stage in graph if stage.name.split("@")[0] in ("train_pag", "train_robust_pag")]
    reached = {other.name.split("@")[0] for other in graph if depends_on(graph, other, aligned)}
    assert reached == {"evaluate_pag", "evaluate_robust_pag", "report"}


def depends_on(graph, stage, targets: list) -> bool:
    return any(target is not stage and nx.has_path(graph, stage, target) for target in targets)


KEPT = {name: {name} for name in ("train_diffusion", "distill", "distill_sbg")} | {"train": TRAIN, "evaluate": EVALUATE}


def test_half_finished_work_is_given_up_for_the_same_edits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A state that DVC would go on from belongs to the code of its stage, and to no other: days may be in it."""
    copy_repository(tmp_path)
    monkeypatch.setattr(paths, "stages", SimpleNamespace(__path__=[str(tmp_path / "stages")]))
    before = {stage: paths.code_of(stage) for stage in KEPT}
    for name, changed in CODE.items():
        if not name.startswith("external/"):
            with (tmp_path / name).open("a") as file:
                file.write("# edited\n")
            after = {stage: paths.code_of(stage) for stage in KEPT}
            assert {stage for stage in KEPT if after[stage] != before[stage]} == {
                stage for stage, groups in KEPT.items() if groups & changed
            }, name
            before = after
