"""Artifacts on a real S3 server of this machine: pushed, pulled into a clone, up to date there; damage is noticed."""

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import fsspec
import numpy as np
import pytest
from dvc.exceptions import DvcException
from dvc.repo import Repo

import pag
from benchmarks.miniature import copy_repository, edit
from pag.foundation.artifacts import ArtifactError
from pag.gradients.distillation.store_writer import StoreWriter

pytest.importorskip("dvc_s3", reason="needs pip install -c constraints.txt -e '.[s3-test]'")
server = pytest.importorskip("moto.server", reason="needs pip install -c constraints.txt -e '.[s3-test]'")

# In the place of every stage: notes that it ran, and writes outs of its name; those of distillation are folders.
STUB = """
import json, os, pathlib
stage = os.environ["DVC_STAGE"]
with open("ran.txt", "a") as log:
    log.write(stage + "\\n")
for out in json.load(open("outs.json"))[stage]:
    path = pathlib.Path(out)
    if path.suffix == ".zarr":
        path /= "directions"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"out": out}))
"""
ONE_OF_EACH = {"baselines": ["vanilla"], "heuristics": ["nn"], "realizations": ["sbg"], "point_sets": []}
STORE = "data/digits/gradients/sbg.zarr"


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[fsspec.AbstractFileSystem]:
    """A file system of an empty server, which DVC and fsspec find through the environment too."""
    moto = server.ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    moto.start()
    host, port = moto.get_host_and_port()
    with pytest.MonkeyPatch.context() as monkeypatch:
        for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.setenv(key, "test")
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        monkeypatch.setenv("NO_PROXY", host)
        monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path_factory.mktemp("site")))
        files = fsspec.filesystem("s3")
        files.mkdir("bucket")
        yield files
    moto.stop()


@pytest.fixture(scope="module")
def pushed(s3: fsspec.AbstractFileSystem, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository whose pipeline has run, and whose artifacts are on the server."""
    folder = tmp_path_factory.mktemp("pushed")
    copy_repository(folder)
    (folder / "dvc.lock").unlink()
    edit(folder / "params.yaml", ONE_OF_EACH)
    for script in (folder / "stages").glob("*.py"):
        script.write_text(STUB)
    (folder / ".gitignore").write_text((folder / ".gitignore").read_text() + "/ran.txt\n")
    with Repo(str(folder)) as repo, repo.config.edit() as config:
        config["core"]["remote"] = "storage"
        config["remote"]["storage"] = {"url": "s3://bucket/artifacts", "verify": True}
    with opened(folder) as repo:
        outs = {stage.name: [out.def_path for out in stage.outs] for stage in repo.index.stages}
        (folder / "outs.json").write_text(json.dumps(outs))
        assert len(repo.reproduce()) == len(outs)
        assert repo.push() >= len(outs)
    for git in (["add", "--all"], ["commit", "--quiet", "--message", "Run"]):
        subprocess.run(["git", *git], cwd=folder, check=True)
    return folder


@contextlib.contextmanager
def opened(folder: Path) -> Iterator[Repo]:
    with pytest.MonkeyPatch.context() as monkeypatch, Repo(str(folder)) as repo:
        monkeypatch.chdir(folder)
        monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=":")
        yield repo


def clone(pushed: Path, folder: Path) -> Path:
    subprocess.run(["git", "clone", "--quiet", str(pushed), str(folder)], check=True)
    return folder


@pytest.mark.slow
def test_a_clone_pulls_everything_and_computes_nothing(pushed: Path, tmp_path: Path) -> None:
    there = clone(pushed, tmp_path / "clone")
    with opened(there) as repo:
        repo.pull()
        assert repo.status() == {}
        assert repo.reproduce() == []
    assert (there / STORE / "directions").read_bytes() == (pushed / STORE / "directions").read_bytes()
    assert not (there / "ran.txt").exists()
    assert "train@digits-cnn-vanilla" in (pushed / "ran.txt").read_text()


@pytest.mark.slow
def test_an_object_that_was_damaged_on_the_remote_is_noticed(
    pushed: Path, s3: fsspec.AbstractFileSystem, tmp_path: Path
) -> None:
    objects = {name: s3.cat_file(name) for name in s3.find("bucket/artifacts")}
    (damaged,) = [name for name, content in objects.items() if content == (pushed / STORE / "directions").read_bytes()]
    s3.pipe_file(damaged, objects[damaged].replace(b"s", b"t"))
    there = clone(pushed, tmp_path / "clone")
    with opened(there) as repo, pytest.raises(DvcException) as error:
        repo.pull()
    s3.pipe_file(damaged, objects[damaged])
    assert "sbg.zarr" in str(error.value)
    assert not (there / STORE).exists()
    with opened(there) as repo:
        repo.pull()
        assert repo.status() == {}


def test_a_store_is_read_from_its_address(s3: fsspec.AbstractFileSystem, tmp_path: Path) -> None:
    gradients = np.random.default_rng(0).standard_normal((20, 4, 3, 16, 16)).astype(np.float32)
    with StoreWriter(tmp_path / "store", gradients.shape, {"realization": "nn"}) as writer:
        writer.append(gradients)
    s3.put(f"{tmp_path}/store/", "bucket/nn.zarr/", recursive=True)
    expected = pag.open_gradients(tmp_path / "store").read_all_classes([3, 17])
    for cache, bound in (("copies", None), ("nothing", 0)):
        store = pag.open_gradients("s3://bucket/nn.zarr", cache=tmp_path / cache, max_cached_bytes=bound)
        np.testing.assert_array_equal(store.read_all_classes([3, 17]), expected)
    with pytest.raises(ArtifactError, match=r"^s3://bucket/sbg.zarr has no zarr.json"):
        pag.open_gradients("s3://bucket/sbg.zarr", cache=tmp_path / "copies")
