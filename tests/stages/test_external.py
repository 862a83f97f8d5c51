"""Networks of others: checked before anything runs, evaluated like ours, beside ours in the report, never trained."""

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from workspace import Workspace

from pag.foundation.config.conf import load_conf
from pag.foundation.config.external import external_of
from pag.foundation.config.section import ConfigError
from stages import evaluate

NETWORK = """
    import torch
    from torch import nn

    from theirs_blocks import head  # from the same folder


    class Standardised(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = head()

        def forward(self, images):
            return self.head((images - 0.3) / 0.4)


    def build():
        return Standardised()


    def wide():
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 1000))


    def words():
        return "a network"


    def broken():
        raise RuntimeError("no such size")


    def exits():
        raise SystemExit(3)


    def local():
        class Local(nn.Linear):
            pass

        return nn.Sequential(nn.Flatten(), Local(64, 10))


    def certain():
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.Softmax(1))


    class Blind(nn.Module):
        def forward(self, images):
            return images.detach().flatten(1)[:, :10] - 1


    def blind():
        return Blind()


    class Starved(nn.Module):
        def forward(self, images):
            raise MemoryError


    def starved():
        return Starved()
"""
BLOCKS = """
    from torch import nn


    def head():
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
"""


@pytest.fixture
def workspace(chain: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workspace]:
    """With a network `theirs`. What a stage imports is forgotten afterwards, as when its process ends."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    workspace = chain.copy(tmp_path)
    folder = tmp_path / "external/theirs"
    folder.mkdir(parents=True)
    (folder / "theirs_network.py").write_text(dedent(NETWORK))
    (folder / "theirs_blocks.py").write_text(dedent(BLOCKS))
    weights = {
        "head.1.weight": torch.randn(10, 64, generator=torch.Generator().manual_seed(0)),
        "head.1.bias": torch.zeros(10),
    }
    save_file(weights, folder / "weights.safetensors")
    torch.save(weights, folder / "weights.pt")
    torch.save(nn.Linear(64, 10), folder / "pickled.pt")
    torch.save({"state_dict": weights, "epoch": 3}, folder / "checkpoint.pt")
    save_file({"head.1.bias": torch.zeros(10)}, folder / "part.safetensors")
    (folder / "cut.safetensors").write_bytes((folder / "weights.safetensors").read_bytes()[:-20])
    describe(workspace)
    workspace.set("externals", ["theirs"], "params.yaml")
    yield workspace
    for name in ("theirs_network", "theirs_blocks"):
        sys.modules.pop(name, None)


def describe(workspace: Workspace, **values: Any) -> None:
    theirs = {"import": "theirs_network:build", "weights": "weights.safetensors"}
    workspace.set("external", {"theirs": theirs | values})


@pytest.mark.usefixtures("two_threads")
def test_a_network_of_others_is_checked_evaluated_and_reported(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key in ("baselines", "realizations", "robust"):
        workspace.set(key, [], "params.yaml")
    assert workspace.run(monkeypatch, "validate") == 0
    # the attacks of the two norms run in two processes, which import the code again
    assert workspace.run(monkeypatch, "evaluate", "digits", "external", "theirs") == 0
    metrics = json.loads((workspace.folder / "results/records/digits/external/theirs.json").read_text())
    assert set(metrics["robust_accuracy"]) == {"L2", "Linf"}
    assert (metrics["arch"], metrics["run"], metrics["seed"]) == ("external", "theirs", None)
    assert metrics["train_images"] is None and -1 <= metrics["alignment"] <= 1
    assert workspace.run(monkeypatch, "report") == 0
    page = (workspace.folder / "results/report/report.md").read_text()
    assert f"| theirs |  | {100 * metrics['clean_accuracy']:.1f} ± " in page
    assert (workspace.folder / "results/report/figures/digits-external-large-eps.png").exists()


def test_weights_may_come_from_torch_save(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    handed: list[torch.Tensor] = []
    monkeypatch.setattr(evaluate, "evaluate_run", lambda model, *_: handed.append(next(model.parameters())))
    for weights in ("weights.pt", "weights.safetensors"):
        describe(workspace, weights=weights)
        assert workspace.run(monkeypatch, "evaluate", "digits", "external", "theirs") == 0
    assert torch.equal(*handed)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"import": "theirs_network.build"}, "import: expected package.module:function (got 'theirs_network.build')"),
        ({"import": "elsewhere.network:build"}, "has no module elsewhere.network: expected external/theirs/elsewhere/"),
        ({"weights": "../weights.pt"}, "weights: expected a path in the network's own folder (got '../weights.pt')"),
        ({"weights": "wieghts.pt"}, "external/theirs/wieghts.pt is missing"),
        ({"weight": "weights.pt"}, "unknown key 'weight', did you mean 'weights'?"),
        ({"import": "theirs_network.py:build"}, "a module is named without .py (got 'theirs_network.py:build')"),
    ],
)
def test_validate_stops_before_anything_runs(
    workspace: Workspace,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture,
    values: dict[str, str],
    expected: str,
) -> None:
    describe(workspace, **values)
    assert workspace.run(monkeypatch, "validate") == 1
    (line,) = capfd.readouterr().err.splitlines()
    assert expected in line


def test_a_value_that_stays_in_the_file_is_pointed_out(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    """As `dvc exp run -S` leaves it there; edits of other files, or none, have nothing to do with it."""
    workspace.set("archs", ["cnnn"], "params.yaml")
    for edited, stays in ((["params.yaml", "conf/other.yaml"], True), (["conf/other.yaml"], False), ([], False)):
        monkeypatch.setattr("stages.validate.uncommitted", lambda edited=edited: edited)
        assert workspace.run(monkeypatch, "validate") == 1
        (line,) = capfd.readouterr().err.splitlines()
        assert "did you mean 'cnn'?" in line
        assert (" (params.yaml is not as in git: a value of `-S`, if that was it, stays there)" in line) == stays
        assert ("not as in git" in line) == stays


def test_files_of_a_network_that_is_not_chosen_may_be_elsewhere(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    describe(workspace, weights="elsewhere.pt")
    workspace.set("externals", [], "params.yaml")
    assert workspace.run(monkeypatch, "validate") == 0


@pytest.mark.parametrize("command", [("evaluate", "digits", "external", "theirs"), ("check", "digits")])
@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"weights": "cut.safetensors"}, "cut.safetensors holds no weights (SafetensorError): expected a whole file"),
        ({"import": "theirs_network:exits", "weights": None}, "theirs_network:exits fails: SystemExit: 3"),
        ({"weights": "pickled.pt"}, "external/theirs/pickled.pt holds no weights"),
        ({"weights": "checkpoint.pt"}, "is a dict of state_dict, epoch: expected tensors by name"),
        ({"weights": "part.safetensors"}, "does not fit theirs_network:build: Error(s) in loading state_dict for"),
        ({"import": "theirs_network:build_all"}, "theirs_network:build_all fails: AttributeError"),
        ({"import": "theirs_network:broken"}, "theirs_network:broken fails: RuntimeError: no such size"),
        ({"import": "theirs_network:starved", "weights": None}, "out of memory"),
        ({"import": "theirs_network:words", "weights": None}, "returns a str: expected a torch.nn.Module"),
        (
            {"import": "theirs_network:wide", "weights": None},
            "gives (2, 1000) for 2 images of digits: expected logits (2, 10)",
        ),
    ],
)
def test_what_cannot_be_evaluated_is_refused_in_one_line(
    workspace: Workspace,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture,
    command: tuple[str, ...],
    values: dict[str, str],
    expected: str,
) -> None:
    describe(workspace, **values)
    before = workspace.files()
    assert workspace.run(monkeypatch, *command) == 1
    assert expected in capfd.readouterr().err.splitlines()[-1]
    assert workspace.files() == before


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        ("local", "cannot be handed to worker processes"),
        ("certain", "the model returns probabilities, whose gradient vanishes where it is sure"),
        ("blind", "the model gives no gradient with respect to its images"),
    ],
)
@pytest.mark.usefixtures("two_threads")
def test_what_the_attacks_would_refuse_stops_before_anything_is_trained(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture, function: str, expected: str
) -> None:
    describe(workspace, **{"import": f"theirs_network:{function}", "weights": None})
    assert workspace.run(monkeypatch, "check", "digits", "--external", "theirs") == 1
    assert expected in capfd.readouterr().err.splitlines()[-1]


def test_networks_have_modules_of_the_same_names(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    """Each finds its own helper, and what is doubtful about it is said."""
    folder = workspace.folder / "external"
    shutil.copytree(folder / "theirs", folder / "others")
    (folder / "others/theirs_blocks.py").write_text(dedent(BLOCKS).replace("head", "blocks"))
    network = (folder / "theirs/theirs_network.py").read_text()
    (folder / "others/theirs_network.py").write_text(network.replace("import head ", "import blocks as head "))
    theirs = {"import": "theirs_network:build", "weights": "weights.safetensors"}
    workspace.set("external", {"theirs": theirs, "others": theirs})
    workspace.set("externals", ["theirs", "others"], "params.yaml")
    assert workspace.run(monkeypatch, "check", "digits") == 0
    said = capfd.readouterr().out
    assert "digits / theirs: clean accuracy is " in said and "digits / others: can be attacked" in said
    workspace.set("external_datasets", [], "params.yaml")
    workspace.set("externals", [], "params.yaml")
    assert workspace.run(monkeypatch, "check", "digits") == 0
    assert not capfd.readouterr().out


@pytest.mark.parametrize(
    ("name", "known", "expected"),
    [
        (
            "thiers",
            "theirs",
            "unknown external network 'thiers': not under `external` of conf/digits.yaml, did you mean",
        ),
        ("vanilla", "vanilla", "external.vanilla: 'vanilla' is the name of a run of ours"),
        ("Their_s", "Their_s", "external.Their_s: a name has lower-case letters, digits and single hyphens"),
    ],
)
def test_a_name_tells_it_from_all_other_runs(name: str, known: str, expected: str) -> None:
    conf = load_conf("digits", Path(__file__).parents[2] / "conf")
    conf = conf.model_copy(update={"external": {known: {"import": "network:build"}}})
    with pytest.raises(ConfigError) as caught:
        external_of(conf, "digits", name)
    assert expected in str(caught.value)
