"""Variants: every one of the confs is valid, and a wrong one is refused with one line that names it."""

from pathlib import Path

import pytest

from pag.foundation.config.conf import load_conf
from pag.foundation.config.params import load_params
from pag.foundation.config.runs import run_of, variant_of
from pag.foundation.config.section import ConfigError

ROOT = Path(__file__).parents[2]
CONFS = sorted(path.stem for path in (ROOT / "conf").glob("*.yaml") if path.stem != "toy")
DIGITS = load_conf("digits", ROOT / "conf")


@pytest.mark.parametrize("dataset", CONFS)
def test_the_variants_of_every_conf_are_valid(dataset: str) -> None:
    conf = load_conf(dataset, ROOT / "conf")
    for name in conf.variants:
        variant_of(conf, dataset, name)


def test_digits_has_its_studies() -> None:
    variants = [variant_of(DIGITS, "digits", name) for name in DIGITS.variants]
    assert sorted(v.weight for v in variants if v.study == "sweep") == [0, 0.25, 0.5, 1, 2, 4]
    seeds = [v for v in variants if v.study == "seeds"]
    chosen = {(v.classes_per_image, v.training_seed) for v in seeds if v.classes_per_image is not None}
    assert chosen == {(k, seed) for k in (1, 2, 3, "all") for seed in range(3)}
    headline = {(v.method, v.training_seed) for v in seeds if v.classes_per_image is None}
    methods = load_params(ROOT / "params.yaml").methods()
    assert headline == {(method, seed) for method in methods for seed in (1, 2)}


@pytest.mark.parametrize(
    ("method", "robust", "realization"),
    [
        ("vanilla", None, None),
        ("trades-linf", "trades-linf", None),
        ("nn", None, "nn"),
        ("at-l2+cm", "at-l2", "cm"),
    ],
)
def test_a_method_is_taken_apart(method: str, robust: str | None, realization: str | None) -> None:
    conf = DIGITS.model_copy(update={"variants": {"a": {"method": method}}})
    variant = variant_of(conf, "digits", "a")
    assert (variant.robust, variant.realization) == (robust, realization)
    assert variant.study == "other"


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a", {"method": "sgb"}, "conf/digits.yaml: variants.a: unknown method 'sgb', did you mean 'sbg'?"),
        ("a", {"method": "at-l2+sgb"}, "did you mean 'at-l2+sbg'?"),
        ("a", {}, "variants.a: method: missing"),
        ("a", {"method": "sbg", "lamda": 1.0}, "unknown key 'lamda', did you mean 'lambda'?"),
        ("a", {"method": "sbg", "lambda": -1.0}, "lambda"),
        ("a", {"method": "at-l2", "lambda": 1.0}, "lambda = 1.0 means nothing for 'at-l2', which aligns no gradients"),
        ("a", {"method": "vanilla", "classes_per_image": "all"}, "classes_per_image = all means nothing for 'vanilla'"),
        ("a", {"method": "sbg", "penalty": 0.1}, "penalty = 0.1 means nothing for 'sbg', expected gradnorm"),
        ("a", {"method": "gradnorm", "lambda": 1.0}, "lambda = 1.0 means nothing for 'gradnorm'"),
        ("a", {"method": "gradnorm", "penalty": -1.0}, "penalty"),
        ("a", {"method": "sbg", "training_seed": -1}, "training_seed"),
        ("a", ["sbg"], "variants.a: expected keys with values"),
        ("lambda-0.5", {"method": "sbg"}, "variants.lambda-0.5: a name has lower-case letters"),
    ],
)
def test_a_wrong_variant_is_refused_in_one_line(name: str, content: object, expected: str) -> None:
    conf = DIGITS.model_copy(update={"variants": {name: content}})
    with pytest.raises(ConfigError) as caught:
        variant_of(conf, "digits", name)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_penalty_is_the_variants_or_else_confs() -> None:
    params = load_params(ROOT / "params.yaml")
    conf = DIGITS.model_copy(update={"variants": {"a": {"method": "gradnorm", "penalty": 0.0}}})
    assert DIGITS.methods.gradnorm is not None
    penalties = [run_of(name, "digits", "cnn", params, conf).penalty for name in ("a", "gradnorm", "noise", "sbg")]
    assert penalties == [0.0, DIGITS.methods.gradnorm.weight, None, None]
    run = run_of("a", "digits", "cnn", params, conf)
    assert (run.baseline, run.realization, run.weight) == ("gradnorm", None, 0)


@pytest.mark.parametrize("method", ["gradnorm", "noise"])
def test_a_control_without_its_section_is_refused_in_one_line(method: str) -> None:
    params, conf = load_params(ROOT / "params.yaml"), load_conf("stl10", ROOT / "conf")
    with pytest.raises(ConfigError) as caught:
        run_of(method, "stl10", "rn18", params, conf)
    assert str(caught.value) == f"conf/stl10.yaml: methods.{method}: missing, the run '{method}' needs it"


def test_an_unknown_variant_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"unknown run 'lamda-1': .* of conf/digits\.yaml, did you mean 'lambda-1'"):
        variant_of(DIGITS, "digits", "lamda-1")
    with pytest.raises(ConfigError, match=r"unknown run 'lambda-1': no method, and no variant of conf/stl10\.yaml"):
        variant_of(load_conf("stl10", ROOT / "conf"), "stl10", "lambda-1")


def test_no_foolbox_is_written_as_null(tmp_path: Path) -> None:
    text = (ROOT / "conf/cifar10.yaml").read_text()
    before, rest = text.split("  foolbox:", 1)
    (tmp_path / "cifar10.yaml").write_text(before + "  foolbox: null\n  large_eps:" + rest.split("  large_eps:", 1)[1])
    assert load_conf("cifar10", tmp_path).evaluation.foolbox == {}
