"""Parameter files: everything that is wrong is refused with one line that names the key."""

import copy
import math
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from pag.foundation.config.conf import load_conf
from pag.foundation.config.params import load_params
from pag.foundation.config.section import ConfigError, read_yaml
from pag.foundation.config.toy import load_toy
from pag.foundation.config.training import MethodsConfig

ROOT = Path(__file__).parents[2]
DIGITS = read_yaml(ROOT / "conf/digits.yaml")
CONFS = sorted(path.stem for path in (ROOT / "conf").glob("*.yaml") if path.stem != "toy")
OPTIONAL = {name for name, field in MethodsConfig.model_fields.items() if not field.is_required()}


@pytest.mark.parametrize("dataset", CONFS)
def test_every_conf_loads(dataset: str) -> None:
    conf = load_conf(dataset, ROOT / "conf")
    assert conf.evaluation.threat_models


def test_params_and_toy_load() -> None:
    assert "sbg" in load_params(ROOT / "params.yaml").methods()
    assert load_toy(ROOT / "conf/toy.yaml").seeds >= 10


def test_all_confs_have_the_same_sections_and_methods_but_for_the_controls() -> None:
    shapes = {
        name: (set(content), set(content["methods"]) - OPTIONAL)
        for name in CONFS
        for content in [read_yaml(ROOT / "conf" / f"{name}.yaml")]
    }
    assert len({repr(sorted(map(sorted, shape))) for shape in shapes.values()}) == 1, shapes


def broken_conf(tmp_path: Path, key: str, value: object) -> ConfigError:
    """The error of digits' conf with one key changed; the key path is dotted, '/' where a key holds a dot."""
    content = copy.deepcopy(DIGITS)
    *parents, last = key.split(".")
    section = content
    for parent in parents:
        section = section[parent]
    section[last] = value
    YAML().dump(content, tmp_path / "digits.yaml")
    with pytest.raises(ConfigError) as caught:
        load_conf("digits", tmp_path)
    message = str(caught.value)
    assert "\n" not in message
    return caught.value


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("diffusion.stepz", 5, "unknown key 'diffusion.stepz', did you mean 'steps'?"),
        ("classifier.epoch", 5, "did you mean 'epochs'?"),
        ("diffusionn", {}, "did you mean 'diffusion'?"),
        ("diffusion.checkpoint", {"path": "a.pt"}, "diffusion.checkpoint.sha256: missing"),
        ("diffusion.checkpoint", "a.pt", "diffusion.checkpoint: expected keys with values, or null (got 'a.pt')"),
        ("diffusion.checkpoint", {"path": "a.pt", "sha256": "12"}, "diffusion.checkpoint.sha256: expected text that"),
        ("diffusion.checkpoint", {"path": "a.pt", "sha256": "0" * 64, "order": "new"}, "unknown key 'diffusion.checkp"),
        ("methods.sgb", {"lambda": {"default": 1.0}}, "did you mean 'sbg'?"),
        ("methods.at-l2.epsilon", 0.5, "did you mean 'eps'?"),
        ("classifier.epochs", "many", "classifier.epochs"),
        ("classifier.epochs", 2.5, "classifier.epochs: expected a whole number (got 2.5)"),
        ("classifier.flip", 1, "classifier.flip: expected true or false (got 1)"),
        ("classifier.epochs[0]", 3, "unknown key 'classifier.epochs[0]', did you mean 'epochs'?"),
        ("methods.sbg.lambda", {"default": 1.0, "rn18[x]": -1.0}, "methods.sbg.lambda.rn18[x]: expected at least 0"),
        ("diffusion.band", [0.1, 0.2, 0.3], "diffusion.band: expected at most 2 of them"),
        ("diffusion.band", "wide", "diffusion.band: expected a list (got 'wide')"),
        ("evaluation.threat_models", {"l2": 5}, "threat_models.l2: expected"),
        ("classifier.lr", True, "classifier.lr"),
        ("distill.t", 1000, "distill.t = 1000 lies outside the schedule 0..999"),
        ("distill.t", -1, "distill.t"),
        ("heuristics.computed", ["cm", "nn"], "heuristics.computed.1: expected 'oi' or 'cm' (got 'nn')"),
        ("heuristics.computed", ["cm", "cm"], "heuristics.computed names a realization twice: cm, cm"),
        ("heuristics.computed", "cm", "heuristics.computed: expected a list (got 'cm')"),
        ("heuristics.compute", ["cm"], "did you mean 'computed'?"),
        ("diffusion.noise_levels", "some", "'all', 'single' or 'band'"),
        ("diffusion.band", [0.6, 0.4], "low < high"),
        ("diffusion.alpha_bar", 1.5, "diffusion.alpha_bar"),
        ("methods.sbg.lambda", {"default": -1.0}, "methods.sbg.lambda.default"),
        ("methods.sbg.lambda", {"rn18": 1.0}, "needs the key 'default'"),
        ("methods.gradnorm", {}, "methods.gradnorm.weight: missing"),
        ("methods.gradnorm", {"weight": -0.1}, "methods.gradnorm.weight"),
        ("methods.noise", {"sigma": 0.0}, "methods.noise.sigma"),
        ("methods.noise", {"sgima": 0.1}, "did you mean 'sigma'?"),
        ("methods.at-l2.eps", 0.0, "methods.at-l2.eps"),
        ("methods.at-linf.eps", 2.0, "methods.at-linf.eps = 2.0 for Linf: expected above 0 and at most 1"),
        ("evaluation.threat_models", {"Linf": [0.1, 2.5]}, "evaluation.threat_models.Linf = 2.5 for Linf"),
        ("evaluation.threat_models", {"L2": [-0.5]}, "evaluation.threat_models.L2.0"),
        ("evaluation.threat_models", {"L2": [1.0, 0.5]}, "increasing"),
        ("evaluation.threat_models", {"L2": ["big"]}, "evaluation.threat_models.L2.0"),
        ("evaluation.threat_models", {"L3": [1.0]}, "'L2' or 'Linf'"),
        ("alignment.classes_per_image", 0, "alignment.classes_per_image: expected 'all' or at least 1 and at most"),
        ("alignment.classes_per_image", "ALL", "classes_per_image: expected 'all' or a whole number (got 'ALL')"),
        ("evaluation.threat_models", {"L2": []}, "threat_models.L2: expected at least 1 of them (got [])"),
        ("evaluation.threat_models", {"l2": [1.0]}, "evaluation.threat_models.l2: expected 'L2' or 'Linf' (got 'l2')"),
        ("methods.at-l2.norm", "Linf", "methods.at-l2.norm: expected L2, got Linf"),
        ("methods.at-linf.norm", "L2", "methods.at-linf.norm: expected Linf, got L2"),
        ("methods.at-l2.beta", 6.0, "methods.at-l2.beta: expected null, as only TRADES has it (got 6.0)"),
        ("methods.trades-linf.beta", None, "methods.trades-linf.beta: expected a number, as TRADES weighs by it"),
        ("methods.at-l2.step_size", 1e30, "methods.at-l2.step_size: expected above 0 and at most 10000: no two images"),
        ("methods.at-l2.step_size", 1.1, "methods.at-l2.step_size = 1.1: expected at most 1, the width of the ball"),
        ("diffusion.channels", 10**7, "diffusion.channels: expected at least 1 and at most 2,048: no machine holds"),
        ("diffusion.timesteps", 10**9, "diffusion.timesteps: expected at least 2 and at most 100,000"),
        ("classifier.batch_size", 10**10, "classifier.batch_size: expected at least 1 and at most 65,536"),
        ("classifier.crop_padding", 10**6, "classifier.crop_padding: expected at least 0 and at most 4,096"),
        ("classifier.epochs", 10**9, "classifier.epochs: expected at least 1 and at most 100,000: more would not end"),
        ("classifier.weight_decay", 1e6, "classifier.weight_decay: expected at least 0 and at most 10"),
        ("classifier.lr", 100.0, "classifier.lr: expected above 0 and at most 10: beyond, weights run away"),
        ("methods.sbg.lambda", {"default": 1e30}, "methods.sbg.lambda.default: expected at least 0 and at most 1e+06"),
        ("evaluation.threat_models", {"L2": [1e300]}, "evaluation.threat_models.L2.0: expected above 0 and at most"),
        ("heuristics.nn_candidates", 1, "heuristics.nn_candidates: expected at least 2"),
        ("alignment.gradient_of", "softmax", "'log_softmax' or 'logit'"),
    ],
)
def test_bad_conf_is_refused_with_the_key(tmp_path: Path, key: str, value: object, expected: str) -> None:
    assert expected in str(broken_conf(tmp_path, key, value))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"lamda": 1.0}, "unknown key 'lamda', did you mean 'lambda'?"),
        ({"lambda": -1.0}, "lambda"),
        ({"lambda": "big"}, "lambda"),
        ({"lambda": math.nan}, "lambda"),
        ({"baselines": ["vanila"]}, "'vanilla'"),
        ({"realizations": ["sgb"]}, "'sbg'"),
        ({"heuristics": []}, "not distilled"),
        ({"datasets": None}, "datasets"),
        ({"archs": []}, "archs"),
        ({"seed": -1}, "seed"),
        ({"seed": 10**30}, "seed: expected at least 0 and at most 4,294,967,295: a seed has 32 bits (got 1000000000"),
        ({"lambda": 1e30}, "lambda: expected at least 0 and at most 1e+06"),
        ({"datasets": [], "point_sets": []}, "datasets and point_sets: both are empty"),
        (
            {"baselines": [], "realizations": [], "robust": []},
            "datasets: nothing is run on digits, expected baselines, realizations, robust, variants, externals or",
        ),
        ({"robust_realizations": []}, "robust_realizations: empty, expected what is added to at-l2"),
        ({"variants": ["lambda-1"], "variant_datasets": []}, "variant_datasets: empty, expected what the variants run"),
        ({"variants": ["lambda-1"], "variant_archs": []}, "variant_archs: empty, expected what the variants run on"),
        ({"lambda": float("inf")}, "lambda: expected a finite number"),
        ({"baselines": ["vanilla", "at-l2", "vanilla"]}, "baselines: 'vanilla' is listed twice"),
        ({"datasets": ["digits", "digits"]}, "datasets: 'digits' is listed twice"),
        ({"variants": ["lambda-1"], "variant_archs": ["rn18"]}, "variant_archs: 'rn18' is not part of the experiment"),
        ({"variants": ["lambda-1"], "variant_datasets": ["stl10"]}, "variant_datasets: 'stl10'"),
        ({"raw": ["cifar10"]}, "raw: 'cifar10' is not part of the experiment (digits)"),
        ({"noise_level_figures": ["cifar10"]}, "noise_level_figures: 'cifar10' is not part of the experiment (digits)"),
    ],
)
def test_bad_params_are_refused_with_the_key(tmp_path: Path, change: dict, expected: str) -> None:
    content = read_yaml(ROOT / "params.yaml")
    YAML().dump(content | change, tmp_path / "params.yaml")
    with pytest.raises(ConfigError) as caught:
        load_params(tmp_path / "params.yaml")
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unknown_dataset_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="unknown dataset 'digit', did you mean 'digits'"):
        load_conf("digit", ROOT / "conf")


def test_broken_yaml_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("seed: [0\n")
    with pytest.raises(ConfigError, match=r"not valid YAML") as caught:
        load_params(tmp_path / "params.yaml")
    assert "\n" not in str(caught.value)


def test_methods_are_listed_in_table_order() -> None:
    assert load_params(ROOT / "params.yaml").methods() == [
        "vanilla", "at-l2", "at-linf", "oi", "cm", "nn", "sbg", "at-l2+sbg",
    ]  # fmt: skip


def test_weight_is_by_architecture_with_a_default(tmp_path: Path) -> None:
    conf = load_conf("digits", ROOT / "conf")
    aligned = conf.methods.aligned("sbg", None)
    assert aligned.for_arch("unheard-of") == aligned.weight["default"]
    assert aligned.for_arch("vit-mini-silu") == aligned.weight["vit-mini"] != aligned.weight["default"]
    named = aligned.model_copy(update={"weight": {"default": 2.0, "rn18": 1.0, "rn18-silu": 0.5}})
    assert [named.for_arch(arch) for arch in ("rn18-silu", "rn18", "rn8-silu")] == [0.5, 1.0, 2.0]
    assert conf.methods.aligned("sbg", "at-l2") is conf.methods.at_pag
    assert conf.methods.aligned("nn", "trades-linf") is conf.methods.trades_pag


@pytest.mark.parametrize("written", ["1e-05", "1e-5", "1.0e-5", "0.00001"])
def test_numbers_are_read_as_dvc_writes_them(tmp_path: Path, written: str) -> None:
    """`dvc exp run -S lambda=0.00001` writes 1e-05."""
    path = tmp_path / "params.yaml"
    path.write_text((ROOT / "params.yaml").read_text().replace("lambda: null", f"lambda: {written}"))
    assert load_params(path).weight == 0.00001


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("seed: 0\ndatasets: []\nseed: 1\n", 'is not valid YAML: found duplicate key "seed" .*, line 3$'),
        ("lambda: 2001-99-99\n", "is not valid YAML: month must be in 1..12"),
        ("", r"expected keys with values \(got None\)"),
        ("- digits\n", r"expected keys with values \(got \['digits'\]\)"),
    ],
)
def test_a_file_that_is_not_parameters_is_refused_by_its_name(tmp_path: Path, content: str, expected: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(content)
    with pytest.raises(ConfigError, match=rf"params\.yaml:? {expected}"):
        load_params(path)
