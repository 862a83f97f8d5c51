"""The conf files of the data sets: valid, complete, and at the paper's values where it states them."""

import re
from pathlib import Path

import pytest

from pag.datasets.loaders import LOADERS
from pag.foundation.config.conf import Conf, load_conf
from pag.foundation.config.section import read_yaml
from pag.foundation.config.training import MethodsConfig

FOLDER = Path(__file__).parents[2] / "conf"
NAMES = ["cifar10", "cifar10-jpeg", "cifar100", "mnist5k", "stl10", "tinyimagenet"]
PAPER = ["cifar10", "cifar10-jpeg", "cifar100", "stl10", "tinyimagenet"]
OPTIONAL = {name for name, field in MethodsConfig.model_fields.items() if not field.is_required()}


@pytest.fixture(params=NAMES)
def conf(request) -> Conf:
    return load_conf(request.param, FOLDER)


def test_loader_exists(conf):
    assert conf.data.loader in LOADERS


def test_same_sections_in_every_file():
    files = [read_yaml(FOLDER / f"{name}.yaml") for name in NAMES]
    for content in files:
        assert list(content) == list(files[0])
        methods = [[m for m in each["methods"] if m not in OPTIONAL] for each in (content, files[0])]
        assert methods[0] == methods[1]


@pytest.mark.parametrize("name", NAMES)
def test_lists_stay_two_line_diffs(name):
    """Block style with unindented lists, which is what `dvc exp run -S` writes back."""
    text = (FOLDER / f"{name}.yaml").read_text()
    assert "[" not in re.sub("#.*", "", text)
    for line, following in zip(text.splitlines(), text.splitlines()[1:], strict=False):
        if following.lstrip().startswith("- ") and not line.lstrip().startswith("- "):
            assert len(line) - len(line.lstrip()) == len(following) - len(following.lstrip()), following


@pytest.mark.parametrize("name", PAPER)
def test_training_as_in_the_paper(name):
    conf = load_conf(name, FOLDER)
    training = conf.classifier
    assert (training.epochs, training.lr, training.momentum, training.weight_decay) == (100, 0.01, 0.9, 1e-4)
    assert (training.crop_padding, training.flip) == (4, True)
    assert training.batch_size == (32 if name == "stl10" else 64)
    linf = 4 / 255 if name == "stl10" else 8 / 255
    assert (conf.methods.at_l2.eps, conf.methods.at_l2.steps) == (0.5, 7)
    assert conf.methods.at_linf.eps == pytest.approx(linf, abs=1e-16)
    assert conf.evaluation.threat_models["L2"][0] == 0.5
    assert conf.evaluation.threat_models["Linf"][0] == pytest.approx(linf, abs=1e-16)
    assert conf.evaluation.images is None, "the full test set"


@pytest.mark.parametrize(
    ("name", "arch", "expected"),  # OI, CM, NN, SBG of Table 8 and Table 5; None where it states nothing
    [
        ("cifar10", "rn18", (0.5, 0.4, 0.4, 2)),
        ("cifar10", "vit", (0.1, 0.1, 0.1, 2)),
        ("cifar10", "vgg16", (None, None, None, 0.5)),
        ("cifar10", "mixer", (None, None, None, 0.5)),
        ("cifar10-jpeg", "rn18", (0.5, 0.4, 0.4, 2)),
        ("stl10", "rn18", (None, 0.2, None, 1)),
        ("cifar100", "rn18", (None, 0.5 * 10 / 100, None, 1 * 10 / 100)),  # its sums had 10 of the 100 classes
    ],
)
def test_lambda_as_in_the_paper(name, arch, expected):
    methods = load_conf(name, FOLDER).methods
    for section, value in zip((methods.oi, methods.cm, methods.nn, methods.sbg), expected, strict=True):
        assert value is None or section.for_arch(arch) == pytest.approx(value)


def test_combined_lambda_as_in_the_paper():
    methods = load_conf("cifar10", FOLDER).methods
    assert methods.at_pag.for_arch("rn18") == 0.2
    assert methods.trades_pag.for_arch("wrn-34-10") == 0.5


def test_jpeg_copy_differs_in_its_data_only():
    original, copy = (load_conf(name, FOLDER).model_dump(exclude={"data"}) for name in ("cifar10", "cifar10-jpeg"))
    assert original == copy
