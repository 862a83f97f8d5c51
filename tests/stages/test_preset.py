"""Presets: what they print is what DVC understands, and it makes a valid experiment."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from dvc.utils.cli_parse import to_path_overrides
from dvc.utils.hydra import apply_overrides, get_hydra_sweeps
from ruamel.yaml import YAML
from workspace import Workspace

from pag.foundation.config.conf import load_conf
from pag.foundation.config.params import load_params
from pag.foundation.config.runs import variant_of
from pag.foundation.config.section import ConfigError, read_yaml
from pag.report.paper_tables import TABLES
from stages.preset import NOTHING, STOP, arguments, load_preset, names
from stages.shared.edits import uncommitted

ROOT = Path(__file__).resolve().parents[2]
PRESETS = names(ROOT / "presets")
EXPERIMENTS = [name for name in PRESETS if load_preset(name, ROOT / "presets").params is not None]
EMBEDDED = ("digits", "mnist5k")  # in packages; all others have raw files
PAPER = [*(f"table{number}" for number in range(1, 8)), "figure5", "figure6", "figure7", "figure8", "toy", "runtime"]


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    for folder in ("conf", "presets"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    shutil.copy(ROOT / "params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    return Workspace(tmp_path)


def apply(words: list[str]) -> None:
    """Change params.yaml and conf/ in the working folder as `dvc exp run` does with these arguments."""
    assert words[0::2][:-1] == ["-S"] * (len(words) // 2)
    overrides = to_path_overrides(words[1::2])
    assert len(get_hydra_sweeps(overrides)) == 1  # one experiment, not a queue of them
    for path, values in overrides.items():
        apply_overrides(path, values)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_a_preset_makes_a_valid_experiment(workspace: Workspace, name: str) -> None:
    words = arguments(name)
    assert " ".join(words).split() == words  # what the shell makes of $(…)
    assert words[-1] == "report"
    apply(words)
    params, preset = load_params(), load_preset(name)
    raw = {"raw": [dataset for dataset in params.datasets if dataset not in EMBEDDED]}
    assert {**NOTHING, **preset.params, **raw} == {
        key: value for key, value in read_yaml(workspace.folder / "params.yaml").items() if "seed" not in key
    }
    for dataset in params.datasets:
        conf = load_conf(dataset)
        for variant in params.variants if dataset in params.variant_datasets else []:
            variant_of(conf, dataset, variant)


def test_a_preset_does_not_depend_on_the_one_before(workspace: Workspace) -> None:
    def states() -> Iterator[tuple[object, ...]]:
        for name, dataset in (("table3", "cifar10"), ("digits-few", "digits")):
            apply(arguments(name))
            yield load_params(), load_conf(dataset)

    before = list(states())
    for other in EXPERIMENTS:
        apply(arguments(other))
    assert list(states()) == before


def test_the_defaults_are_the_confs_own_values_and_cover_every_changed_key() -> None:
    """A preset that changed another key would leave it to the next preset of that dataset."""
    defaults = read_yaml(ROOT / "presets" / "defaults.yaml")
    for name in PRESETS:
        for dataset, values in read_yaml(ROOT / "presets" / f"{name}.yaml").get("conf", {}).items():
            assert set(values) <= set(defaults[dataset]), name
    for dataset, values in defaults.items():
        conf = load_conf(dataset, ROOT / "conf")
        for key, value in values.items():
            section, field = key.split(".")
            if key not in ("evaluation.foolbox", "evaluation.curve"):  # switched off, except where they are the subject
                assert getattr(getattr(conf, section), field) == value, key


def test_set_leaves_the_files_as_an_experiment_does(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    apply(arguments("digits-few"))
    files = [workspace.folder / "params.yaml", workspace.folder / "conf/digits.yaml"]
    expected = [read_yaml(file) for file in files]
    apply(arguments("digits-lambda"))
    assert workspace.run(monkeypatch, "preset", "digits-few", "--set") == 0
    assert [read_yaml(file) for file in files] == expected
    assert workspace.run(monkeypatch, "preset", "table4", "--set") == 1


def test_what_the_conf_says_already_is_not_written_out(workspace: Workspace) -> None:
    path = workspace.folder / "conf/digits.yaml"
    expected = read_yaml(path)
    expected["evaluation"]["images"] = None
    apply(arguments("digits-seeds"))
    assert read_yaml(path) == expected  # no `foolbox: null`, no `split: test`


def test_keys_of_any_depth_are_set(workspace: Workspace) -> None:
    preset = read_yaml(workspace.folder / "presets/digits-few.yaml")
    deep = {"evaluation.attack.version": "quick", "evaluation.attack.steps": 7, "methods.at-l2.eps": 0.25}
    with open(workspace.folder / "presets/digits-few.yaml", "w") as file:
        YAML().dump({**preset, "conf": {"digits": preset["conf"]["digits"] | deep}}, file)
    apply(arguments("digits-few"))
    conf = load_conf("digits")
    assert (conf.evaluation.attack.version, conf.evaluation.attack.steps, conf.methods.at_l2.eps) == ("quick", 7, 0.25)


def test_the_seeds_remain(workspace: Workspace) -> None:
    workspace.set("training_seed", 7, "params.yaml")
    apply(arguments("table1"))
    assert load_params().training_seed == 7


def test_every_table_and_figure_of_the_paper_has_its_preset() -> None:
    assert set(PAPER) <= set(PRESETS)
    for table in TABLES:
        assert set(table.presets.split(", ")) <= set(PRESETS)


def test_presets_of_a_table_run_all_its_cells(workspace: Workspace) -> None:
    for table in TABLES:
        run = set()
        for name in table.presets.split(", "):
            apply(arguments(name))
            params = load_params()
            run |= {(d, a, m) for d in params.datasets for a in params.archs for m in params.methods()}
        assert run == {(b.dataset, b.arch, method) for b in table.blocks for method in b.methods}, table.title


def test_the_radii_of_table_6_are_those_of_the_conf(workspace: Workspace) -> None:
    before = load_conf("cifar10").evaluation.foolbox
    apply(arguments("table1"))
    assert load_conf("cifar10").evaluation.foolbox == {}
    apply(arguments("table6"))
    assert load_conf("cifar10").evaluation.foolbox == before


def test_a_preset_runs_on_a_copy_of_its_dataset(workspace: Workspace) -> None:
    apply(arguments("figure5", "cifar10-jpeg"))
    params = load_params()
    assert params.datasets == params.variant_datasets == ["cifar10-jpeg"]
    assert params.raw == ["cifar10-jpeg"]
    assert load_conf("cifar10-jpeg").evaluation.foolbox == {}
    assert load_conf("cifar10").evaluation.foolbox != {}
    with pytest.raises(ConfigError, match="takes the place of one dataset, this preset has 2"):
        arguments("table2", "cifar10-jpeg")
    with pytest.raises(ConfigError, match="unknown dataset 'cifar10-jpg', did you mean 'cifar10-jpeg'"):
        arguments("table1", "cifar10-jpg")


def test_a_preset_like_another_has_its_conf_but_for_its_own(workspace: Workspace) -> None:
    hour, night, day, activation = (
        load_preset(f"cifar10-{name}").conf["cifar10"] for name in ("hour", "night", "day", "activation")
    )
    assert activation == night == day
    assert set(night) == set(hour)
    own = read_yaml(workspace.folder / "presets/cifar10-night.yaml")["conf"]["cifar10"]
    assert night == hour | own != hour


def test_a_day_begins_with_the_night(workspace: Workspace) -> None:
    """Whoever ran the one has all its artifacts for the other."""
    night, day = (load_preset(f"cifar10-{name}").values() for name in ("night", "day"))
    assert {key for key in night if night[key] != day[key]} == {"variants", "variant_datasets", "variant_archs"}
    assert night["variants"] == []


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["tabel1"], "unknown preset 'tabel1', did you mean 'table1'?"),
        (["table4"], "table4 takes more than one experiment, run: table4-rn18, table4-wrn"),
        (["runtime"], "run: python -m benchmarks.training_step --batch-size 1"),
    ],
)
def test_what_is_no_experiment_stops_dvc_too(
    workspace: Workspace,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
    words: list[str],
    expected: str,
) -> None:
    from dvc.cli import parse_args
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    assert workspace.run(monkeypatch, "preset", *words) == 1
    printed = capsys.readouterr()
    assert expected in printed.err
    assert printed.out.strip() == STOP
    assert parse_args(["exp", "run", STOP]).targets == [STOP]  # an option would print all of DVC's usage
    with pytest.raises(DvcException, match=f"'{STOP}' does not exist as an output or a stage name"):
        Repo(ROOT).stage.collect_granular(STOP)


def test_the_list_has_a_line_for_every_preset(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    assert workspace.run(monkeypatch, "preset") == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == PRESETS


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("description: x", "expected exactly one of params, parts and command"),
        ("description: x\nparams: {datasets: [a], archs: [cnn]}\ncommand: y", "expected exactly one"),
        ("description: x\nparams: {dataset: [a], archs: [cnn]}", "unknown key 'dataset', did you mean 'datasets'?"),
        ("description: x\nparams: {datasets: [digits], archs: [cnn], realizations: [nn]}", "not distilled"),
    ],
)
def test_a_wrong_preset_is_refused_in_one_line(workspace: Workspace, text: str, expected: str) -> None:
    (workspace.folder / "presets/mine.yaml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_preset("mine")
    assert expected in str(caught.value)
    assert "presets/mine.yaml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_preset_needs_the_variants_of_its_dataset(workspace: Workspace) -> None:
    with pytest.raises(ConfigError, match=r"unknown run 'lambda-0': no method, and no variant of conf/mnist5k\.yaml"):
        arguments("digits-lambda", "mnist5k")


def test_elsewhere_it_says_where_it_belongs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="presets does not exist: run from the repository's root"):
        arguments("table1")


def test_edits_that_undoing_would_take_are_named(workspace: Workspace, capsys: pytest.CaptureFixture) -> None:
    for command in (["init", "-q"], ["add", "."], ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "a"]):
        subprocess.run(["git", *command], cwd=workspace.folder, check=True)
    assert uncommitted() == []
    workspace.set("seed", 7, "params.yaml")
    assert uncommitted() == ["params.yaml"]
