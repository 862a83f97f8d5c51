"""A store in object storage: the same directions as from its folder, copied by shard, nothing damaged accepted."""

import pickle
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import fsspec
import numpy as np
import pytest
from test_store import ATTRIBUTES, MANY, SHARD, SQUARE, directions_of, make_gradients, write

import pag
from pag.foundation.artifacts import ArtifactError
from pag.store import remote
from pag.store.format import shards
from pag.store.format.record import Record
from pag.store.reader import GradientStore
from pag.store.remote import default_cache

SMALL = (43, 10, 1, 8, 8)  # all classes of an image share a chunk
URL = "memory://bucket/sbg.zarr"


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "SHARD_BYTES", 1 << 13)


@pytest.fixture
def bucket() -> Iterator[fsspec.AbstractFileSystem]:
    files = fsspec.filesystem("memory")
    yield files
    files.rm("/bucket", recursive=True)


def upload(folder: Path, bucket: fsspec.AbstractFileSystem) -> None:
    bucket.put(f"{folder}/", "/bucket/sbg.zarr/", recursive=True)


def copies(cache: Path) -> list[str]:
    return sorted(path.parents[3].name for path in cache.glob("*/directions/c/*/0/0/0/0"))


@pytest.mark.parametrize("shape", [SMALL, SQUARE, MANY], ids=["small", "square", "many-classes"])
@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("bound", [None, 20_000, 0], ids=["all", "some", "nothing"])
def test_round_trip(shape: tuple[int, ...], bits: int, bound: int | None, tmp_path: Path, bucket) -> None:
    gradients = make_gradients(shape)
    upload(write(tmp_path / "store", gradients, bits), bucket)
    store = GradientStore.open(URL, ATTRIBUTES, cache=tmp_path / "cache", max_cached_bytes=bound)
    assert store.shape == shape and copies(tmp_path / "cache") == []
    expected, rng = directions_of(gradients, bits), np.random.default_rng(1)
    for _ in range(3):
        indices = rng.integers(0, shape[0], 15)
        classes = rng.permuted(np.tile(np.arange(shape[1]), (15, 1)), axis=1)[:, :3]
        np.testing.assert_array_equal(store.read(indices, classes), expected[indices[:, None], classes])
    sizes = [store.layout.shard_bytes(int(shard)) for shard in copies(tmp_path / "cache")]
    assert (sum(sizes) <= bound) if bound is not None else sizes
    again = pickle.loads(pickle.dumps(store))
    np.testing.assert_array_equal(again.read_all_classes([3, 0]), expected[[3, 0]])
    for wrong in ([-1], [shape[0]]):
        with pytest.raises(IndexError, match="does not exist"):
            store.read_all_classes(wrong)


def test_only_the_shards_that_are_read_are_copied_and_once(tmp_path: Path, bucket) -> None:
    upload(write(tmp_path / "store", make_gradients(SQUARE)), bucket)
    store = pag.open_gradients(URL, cache=tmp_path / "cache")
    last = store.layout.num_shards - 1
    store.read_all_classes([0, len(store) - 1])
    assert copies(tmp_path / "cache") == ["0", str(last)]
    bucket.rm("/bucket/sbg.zarr/directions", recursive=True)  # a later process does without
    assert GradientStore.open(URL, cache=tmp_path / "cache").read_all_classes([0]).any()
    with pytest.raises(ArtifactError, match=rf"^{URL} has no {SHARD}: expected"):
        GradientStore.open(URL, cache=tmp_path / "cache").read_all_classes([store.layout.images_per_shard])


@pytest.mark.parametrize(("spare", "copied"), [(0, ["0"]), (-1, [])])
def test_two_gigabytes_of_the_disk_stay_free(
    spare: int, copied: list[str], tmp_path: Path, bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    gradients = make_gradients(SQUARE)
    upload(write(tmp_path / "store", gradients), bucket)
    store = GradientStore.open(URL, cache=tmp_path / "cache")
    disk = SimpleNamespace(free=store.layout.shard_bytes(0) + 2 * 1024**3 + spare)
    monkeypatch.setattr(remote.shutil, "disk_usage", lambda folder: disk)
    np.testing.assert_array_equal(store.read_all_classes([0]), directions_of(gradients, 8)[[0]])
    assert copies(tmp_path / "cache") == copied


@pytest.mark.parametrize("bound", [None, 0], ids=["copied", "from-afar"])
def test_a_damaged_shard_is_refused_in_one_line(bound: int | None, tmp_path: Path, bucket) -> None:
    folder = write(tmp_path / "store", make_gradients(SQUARE))
    content = bytearray((folder / SHARD).read_bytes())
    content[100] ^= 1
    (folder / SHARD).write_bytes(content)
    upload(folder, bucket)
    store = GradientStore.open(URL, cache=tmp_path / "cache", max_cached_bytes=bound)
    assert store.read_all_classes([0]).any()
    for _ in range(2):
        with pytest.raises(ArtifactError, match=rf"^{URL}/{SHARD} is damaged") as error:
            store.read_all_classes([0, store.layout.images_per_shard])
        assert "\n" not in str(error.value)


def test_after_a_failed_copy_no_other_is_begun(tmp_path: Path, bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write(tmp_path / "store", make_gradients(SQUARE))
    (folder / SHARD).write_bytes(b"damaged")
    upload(folder, bucket)
    monkeypatch.setattr(remote, "COPIES_AT_ONCE", 1)
    store, begun = GradientStore.open(URL, cache=tmp_path / "cache"), []
    copy = remote.Remote.copy

    given_up, shutdown = threading.Event(), ThreadPoolExecutor.shutdown

    def recorded(self: remote.Remote, name: str, record: Record) -> Path:
        begun.append(name)
        if SHARD in begun[:-1]:
            given_up.wait(10)  # the copy that had begun ends after the others were given up, if they were
        return copy(self, name, record)

    def announced(self: ThreadPoolExecutor, **options: bool) -> None:
        shutdown(self, **{**options, "wait": False})
        given_up.set()
        shutdown(self)

    monkeypatch.setattr(remote.Remote, "copy", recorded)
    monkeypatch.setattr(remote.ThreadPoolExecutor, "shutdown", announced)
    with pytest.raises(ArtifactError, match="is damaged"):
        store.read_all_classes(range(len(store)))
    assert len(begun) <= begun.index(SHARD) + 2 < store.layout.num_shards


def test_a_damaged_copy_is_made_again(tmp_path: Path, bucket) -> None:
    upload(write(tmp_path / "store", make_gradients(SQUARE)), bucket)
    read = GradientStore.open(URL, cache=tmp_path / "cache").read_all_classes([0])
    (copy,) = (tmp_path / "cache").glob("*/directions/c/0/0/0/0/0")
    copy.write_bytes(bytes(copy.stat().st_size))
    np.testing.assert_array_equal(GradientStore.open(URL, cache=tmp_path / "cache").read_all_classes([0]), read)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("memory://bucket/nothing", "memory://bucket/nothing has no zarr.json: expected the address"),
        ("nowhere://bucket/store", "nowhere://bucket/store/zarr.json cannot be read: Protocol not known"),
    ],
)
def test_what_cannot_be_opened_is_refused_in_one_line(url: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=message):
        GradientStore.open(url, cache=tmp_path)


def test_a_store_of_something_else_is_refused_by_its_address(tmp_path: Path, bucket) -> None:
    upload(write(tmp_path / "store", make_gradients(SQUARE)), bucket)
    with pytest.raises(ArtifactError, match=rf"^{URL} has realization = 'sbg', but this run needs 'nn'"):
        GradientStore.open(URL, {"realization": "nn"}, cache=tmp_path / "cache")
    bucket.pipe_file("/bucket/sbg.zarr/zarr.json", b'{"attributes": {')
    with pytest.raises(ArtifactError, match=rf"^{URL}/zarr.json is damaged"):
        GradientStore.open(URL, cache=tmp_path / "cache")


def test_copies_go_to_the_users_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Of the XDG base directory specification; ~/.cache where it is not set."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache() == tmp_path / "pag/stores"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert default_cache() == tmp_path / "home/.cache/pag/stores"


def test_a_shard_that_is_not_there_is_named(tmp_path: Path, bucket) -> None:
    upload(write(tmp_path / "store", make_gradients(SQUARE)), bucket)
    bucket.rm(f"/bucket/sbg.zarr/{SHARD}")
    store = GradientStore.open(URL, cache=str(tmp_path / "cache"), max_cached_bytes=0)
    assert store.read_all_classes([0]).any()
    with pytest.raises(ArtifactError, match=rf"^{URL} has no {SHARD}: expected the address of a whole gradient store$"):
        store.read_all_classes([0, store.layout.images_per_shard])


def test_a_server_that_ignores_ranges_is_not_taken_for_damage(
    tmp_path: Path, bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload(write(tmp_path / "store", make_gradients(SQUARE)), bucket)
    store = GradientStore.open(URL, cache=tmp_path / "cache", max_cached_bytes=0)
    monkeypatch.setattr(type(bucket), "cat_ranges", lambda self, paths, *_, **__: [self.cat_file(p) for p in paths])
    with pytest.raises(ArtifactError, match=rf"^{URL}: its server sends whole files where \d+ bytes are asked for"):
        store.read_all_classes([0])


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path, bucket) -> None:
    upload(write(tmp_path / "store", make_gradients(SQUARE)), bucket)
    (tmp_path / "file").touch()
    with pytest.raises(ArtifactError, match=rf"^cache {tmp_path}/file: copies cannot be written there \("):
        GradientStore.open(URL, cache=tmp_path / "file")
