"""Reading the records of an experiment into one tidy table of scores.

The methods come from params.yaml, never from what lies in the folder: a result that an earlier experiment left behind
is not read.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import pandas as pd

from pag.foundation.artifacts import ArtifactError
from pag.foundation.config import runs as training
from pag.foundation.config.conf import Conf
from pag.foundation.config.external import EXTERNAL
from pag.foundation.config.params import Params
from pag.foundation.config.runs import Study, run_of, variant_of
from pag.foundation.config.section import RobustMethod
from pag.report import paper
from pag.report.metrics import Metrics, ToyMetrics, read_metrics, read_toy_metrics, require_same_images
from pag.report.outcomes import Outcomes, Sample, read_outcomes

QUICK = "quick attack"  # in the place of AutoAttack; such a number is no result

# One row of the table of scores is one number of one classifier.
COLUMNS = [
    "dataset",
    "arch",
    "method",
    "run",  # "main": a method of params.yaml; the study that the run of a variant belongs to; "external"
    "variant",  # its name; missing for main runs
    "name",  # of the run: the variant's, or the method
    "replica",  # whether it is a main run but for the training seed
    "measure",  # clean | clean_attacked (of the attacked images) | robust | foolbox | alignment | seconds_per_step
    "attack",  # none | AutoAttack | QUICK | PGD or grid (toy) | a Foolbox attack
    "norm",  # L2 | Linf; for Foolbox the distance of the attack
    "eps",  # radius; NaN without one
    "n",  # examples behind the value (toy: seeds)
    "value",  # accuracy in [0, 1], mean cosine, or seconds; NaN where it was not measured
    "error",  # standard error of the value (toy: deviation over seeds)
    "sample",  # the images behind an accuracy, right or wrong (pag.report.outcomes.Sample); None: not recorded
    "chance",  # accuracy of naming the commonest class of the images, beside clean accuracies; NaN: not recorded
    "paper",
    "difference",
    "median_distance",  # Foolbox
    "weight",  # lambda of the run; NaN without alignment
    "penalty",  # weight of the gradient-norm penalty; NaN without it
    "trained_norm",  # threat model of adversarial training; missing without it
    "trained_eps",
    "train_images",
    "hardware",
    "note",  # what is special about the data, e.g. "JPEG copy"
]


@dataclass(frozen=True)
class Evaluated:
    """One evaluated classifier; of an external network, `method` is its name and `arch` is EXTERNAL."""

    dataset: str
    arch: str
    method: str
    metrics: Metrics
    outcomes: Outcomes | None = None  # None: not recorded
    penalty: float | None = None  # weight of the gradient-norm penalty
    variant: str | None = None  # a name under `variants` of conf
    study: Study | Literal["main", "external"] = "main"
    replica: bool = False  # a main run but for the training seed

    @property
    def name(self) -> str:
        return self.variant or self.method


@dataclass(frozen=True)
class Results:
    """Everything that the records say about the experiment of params.yaml."""

    runs: tuple[Evaluated, ...]  # the methods of params.yaml
    variants: tuple[Evaluated, ...]
    externals: tuple[Evaluated, ...]  # networks of others: beside ours in every table of their data set
    toy: ToyMetrics | None  # None: the toy experiment was not run
    scores: pd.DataFrame  # columns COLUMNS


def read_results(params: Params, confs: dict[str, Conf], folder: Path) -> Results:
    """Read the metrics, timings and outcomes of every dataset, architecture and method of `params`.

    Raises ArtifactError when the file of a listed method is missing, damaged, of another run, of other values or of
    other images than the rest, or says what no evaluation can find.
    """
    runs = tuple(
        _run(dataset, arch, method, params, confs[dataset], folder)
        for dataset in params.datasets
        for arch in params.archs
        for method in params.methods()
    )
    variants = tuple(
        _run(dataset, arch, name, params, confs[dataset], folder)
        for dataset in params.variant_datasets
        for arch in params.variant_archs
        for name in params.variants
    )
    externals = tuple(_external(d, name, folder) for d in params.external_datasets for name in params.externals)
    every = (*runs, *variants, *externals)
    for dataset in confs:
        own = {f"{run.arch}/{run.name}": run.metrics for run in every if run.dataset == dataset}
        require_same_images(own, dataset)
    toy = read_toy_metrics(folder) if params.point_sets else None
    rows = [row for run in every for row in _run_rows(run, confs[run.dataset])]
    rows += _toy_rows(toy) if toy else []
    scores = pd.DataFrame(rows, columns=COLUMNS)
    numbers = ["eps", "value", "error", "chance", "paper", "median_distance"]
    numbers += ["weight", "penalty", "trained_eps", "train_images"]
    scores[numbers] = scores[numbers].astype("float64")
    scores["replica"] = scores["replica"].eq(True)
    scores["difference"] = scores["value"] - scores["paper"]
    return Results(runs, variants, externals, toy, scores)


def _run(dataset: str, arch: str, name: str, params: Params, conf: Conf, folder: Path) -> Evaluated:
    """A method of params.yaml or a variant of conf, with its metrics and outcomes."""
    settings = run_of(name, dataset, arch, params, conf)
    metrics = read_metrics(folder, dataset, arch, name)
    _require_asked_for(f"{dataset}/{arch}/{name}", metrics, settings)
    outcomes = read_outcomes(folder / "arrays" / dataset / "outcomes" / arch / f"{name}.npz")
    penalty = settings.penalty if settings.method == "gradnorm" else None
    run = Evaluated(dataset, arch, settings.method, metrics, outcomes, penalty)
    if name == settings.method:
        return run
    replica = False
    if settings.method in params.methods():
        main = run_of(settings.method, dataset, arch, params, conf)
        another_seed = settings.training_seed != main.training_seed
        replica = another_seed and replace(settings, name=main.name, training_seed=main.training_seed) == main
    return replace(run, variant=name, study=variant_of(conf, dataset, name).study, replica=replica)


def _external(dataset: str, name: str, folder: Path) -> Evaluated:
    metrics = read_metrics(folder, dataset, EXTERNAL, name)
    outcomes = read_outcomes(folder / "arrays" / dataset / "outcomes" / EXTERNAL / f"{name}.npz")
    return Evaluated(dataset, EXTERNAL, name, metrics, outcomes, study="external")


def _require_asked_for(name: str, metrics: Metrics, settings: training.Run) -> None:
    """Raises ArtifactError when the classifier behind the metrics `name` was trained with other values than those of
    params.yaml and conf."""
    aligned = settings.realization is not None
    asked_for = {
        "alignment_weight": settings.weight if aligned else None,
        "classes_per_image": settings.alignment.classes_per_image if aligned else None,
        "gradient_of": settings.alignment.gradient_of if aligned else None,
        "penalty": settings.penalty,
        "seed": settings.training_seed,
    }
    for key, value in asked_for.items():
        if (found := getattr(metrics, key)) != value:
            raise ArtifactError(
                f"the metrics {name} are of a classifier with {key} = {found}, the parameters say {value}: "
                "run `dvc repro`"
            )


def _run_rows(run: Evaluated, conf: Conf) -> list[dict[str, Any]]:
    """The scores of one run; a radius of conf that the metrics lack becomes a row without a value."""
    metrics = run.metrics
    compared = run.variant is None and metrics.attack is None  # the paper has no variants and no quick attack
    name = (run.dataset, run.arch, run.method if compared else "")
    attack_name = "AutoAttack" if metrics.attack is None else QUICK
    robust: Any = run.method.split("+")[0]  # "at-l2" of "at-l2+sbg"
    trained = conf.methods.adversarial(robust) if robust in get_args(RobustMethod) else None
    common = {
        "dataset": run.dataset,
        "arch": run.arch,
        "method": run.method,
        "run": run.study,
        "variant": run.variant,
        "name": run.name,
        "replica": run.replica,
        "penalty": run.penalty,
        "weight": metrics.alignment_weight,
        "trained_norm": trained.norm if trained else None,
        "trained_eps": trained.eps if trained else None,
        "train_images": metrics.train_images,
        "hardware": metrics.hardware,
        "note": metrics.note,
    }
    clean = _accuracy("clean", "none", metrics.clean_accuracy, metrics.n_clean, paper.paper_clean(*name))
    outcomes = run.outcomes
    rows = [clean | {"chance": metrics.chance_accuracy, "sample": outcomes.clean if outcomes else None}]
    rows.append(_accuracy("clean_attacked", "none", metrics.attacked_clean_accuracy, metrics.n_examples, None))
    for norm, radii in conf.evaluation.threat_models.items():
        measured = metrics.robust_accuracy.get(norm, {})
        for eps in radii:
            value = next((v for key, v in measured.items() if paper.same_radius(key, eps)), None)
            published = paper.paper_robust(*name, norm, eps)
            row = _accuracy("robust", attack_name, value, metrics.n_examples, published)
            sample = outcomes.robust(norm, eps) if outcomes and value is not None else None
            rows.append(row | {"norm": norm, "eps": eps, "sample": sample})
    for attack in conf.evaluation.foolbox:
        result = metrics.foolbox.get(attack)
        published = paper.paper_foolbox(*name, attack)
        row = _accuracy("foolbox", attack, result.accuracy if result else None, metrics.n_examples, published)
        if result:
            row |= {"norm": result.distance, "eps": result.eps, "median_distance": result.median_distance}
        rows.append(row)
    rows.append({"measure": "alignment", "attack": "none", "value": metrics.alignment})
    timed_on = {"hardware": metrics.train_hardware or metrics.hardware}
    rows.append({"measure": "seconds_per_step", "attack": "none", "value": metrics.seconds_per_step} | timed_on)
    for row in rows:
        _check_sample(run, row)
    return [common | row for row in rows]


def _check_sample(run: Evaluated, row: dict[str, Any]) -> None:
    """The metrics and the outcomes are of one evaluation."""
    sample: Sample | None = row.get("sample")
    if sample is not None and abs(sample.correct.mean() - row["value"]) > 1e-6:
        where = f"{run.dataset}/{run.arch}/{run.name}: {row['measure']} accuracy {row['value']:.4f}"
        raise ArtifactError(f"{where}, but {sample.correct.mean():.4f} by its outcomes: run `dvc repro`")


def _accuracy(measure: str, attack: str, value: float | None, n: int, published: float | None) -> dict[str, Any]:
    error = None if value is None else binomial_error(value, n)
    return {"measure": measure, "attack": attack, "n": n, "value": value, "error": error, "paper": published}


def binomial_error(accuracy: float, n: int) -> float:
    """Standard error of an accuracy that was measured on n images, with two successes and two failures added.

    Without them (Agresti and Coull, 1998) 0 of 200 would have no error at all and 1 of 200 would beat it.
    """
    p = (accuracy * n + 2) / (n + 4)
    return (p * (1 - p) / (n + 4)) ** 0.5


def _toy_rows(toy: ToyMetrics) -> list[dict[str, Any]]:
    rows = []
    for method, scores in (("vanilla", toy.vanilla), ("nn", toy.nn)):
        for attack, key, spread in (
            ("none", "clean", scores.clean),
            ("PGD", "pgd", scores.pgd),
            ("grid", "worst", scores.worst),
        ):
            row: dict[str, Any] = {"dataset": "toy", "arch": "mlp", "method": method, "run": "main", "n": toy.seeds}
            row |= {"measure": "clean", "norm": None} if attack == "none" else {"measure": "robust", "norm": "L2"}
            row |= {"attack": attack, "value": spread.mean, "error": spread.std}
            rows.append(row | {"paper": paper.paper_toy(method, key)})
    return rows
