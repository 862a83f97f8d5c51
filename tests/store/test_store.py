"""The gradient store: round trips, other Zarr readers, damage, determinism, memory."""

import gc
import json
import os
import pickle
import shutil
import subprocess
import sys
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
import zarr

from pag.foundation.artifacts import ArtifactError, sha256
from pag.gradients.distillation.store_writer import StoreWriter, _create_array, required_bytes
from pag.store.format import shards
from pag.store.format.quantization import quantize, unpack
from pag.store.format.record import describe, fingerprint, save_record
from pag.store.format.shards import DIRECTIONS, Layout, MappedShards, StreamedShards
from pag.store.reader import GradientStore

ROOT = Path(__file__).resolve().parents[2]
ATTRIBUTES = {"dataset_hash": "d" * 64, "realization": "sbg", "diffusion_sha256": "w" * 64, "t": 1983}
DIGITS, SQUARE, ODD, MANY = (43, 10, 1, 8, 8), (23, 4, 3, 16, 16), (9, 3, 1, 31, 31), (4, 200, 3, 16, 16)
SHAPES = pytest.mark.parametrize("shape", [DIGITS, SQUARE, ODD, MANY], ids=["digits", "square", "odd", "many-classes"])
BITS = pytest.mark.parametrize("bits", [8, 4])
READERS = pytest.mark.parametrize("max_resident_bytes", [1 << 30, 0], ids=["mapped", "streamed"])

SHARD_BYTES = shards.SHARD_BYTES


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several shards, the last one shorter, from a few images."""
    monkeypatch.setattr(shards, "SHARD_BYTES", 1 << 13)


def make_gradients(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def write(path: Path, gradients: np.ndarray, bits: int = 8, batch: int = 5, **attributes: object) -> Path:
    with StoreWriter(path, gradients.shape, {**ATTRIBUTES, **attributes}, bits) as writer:
        for start in range(0, len(gradients), batch):
            writer.append(torch.from_numpy(gradients[start : start + batch]))
    return path


def directions_of(gradients: np.ndarray, bits: int) -> np.ndarray:
    return quantize(gradients.reshape(-1, np.prod(gradients.shape[2:])), bits)[0].reshape(gradients.shape)


@SHAPES
@BITS
@READERS
def test_round_trip(tmp_path: Path, shape: tuple[int, ...], bits: int, max_resident_bytes: int) -> None:
    gradients = make_gradients(shape)
    store = GradientStore.open(write(tmp_path / "store", gradients, bits), ATTRIBUTES, max_resident_bytes)
    assert store.shape == shape and len(store) == shape[0]
    assert isinstance(store._shards, MappedShards if max_resident_bytes else StreamedShards)
    expected = directions_of(gradients, bits)
    rng = np.random.default_rng(1)
    indices = rng.integers(0, shape[0], 40)
    everything = store.read_all_classes(indices)
    assert everything.dtype == np.int8 and everything.flags.writeable
    np.testing.assert_array_equal(everything, expected[indices])
    for k in {1, 2, shape[1]}:
        classes = rng.permuted(np.tile(np.arange(shape[1]), (40, 1)), axis=1)[:, :k]
        read = store.read(torch.from_numpy(indices), torch.from_numpy(classes))
        np.testing.assert_array_equal(read, expected[indices[:, None], classes])
    assert store.read([], np.empty((0, 2), int)).shape == (0, 2, *shape[2:])


@SHAPES
@BITS
def test_zarr_reads_the_same(tmp_path: Path, shape: tuple[int, ...], bits: int) -> None:
    gradients = make_gradients(shape)
    path = write(tmp_path / "store", gradients, bits)
    group = zarr.open_group(path, mode="r", zarr_format=3)
    array = group["directions"]
    assert array.shape[:4] == shape[:4] and array.shards[0] < shape[0]
    stored = array[:] if bits == 8 else unpack(array[:], shape[-1])
    np.testing.assert_array_equal(stored, directions_of(gradients, bits))
    assert group.attrs["content"]["dataset_hash"] == ATTRIBUTES["dataset_hash"]


@BITS
def test_the_attributes_explain_the_encoding(tmp_path: Path, bits: int) -> None:
    array = zarr.open_group(write(tmp_path / "store", make_gradients(ODD), bits), mode="r")["directions"]
    assert array.attrs["bits"] == bits
    assert ("4-bit values a byte" in array.attrs["encoding"]) == (bits == 4)


def test_zarr_notices_a_flipped_bit(tmp_path: Path) -> None:
    path = write(tmp_path / "store", make_gradients(SQUARE))
    flip(path / "directions/c/1/0/0/0/0", 100)
    with pytest.raises(ValueError, match=r"(?i)checksum"):
        zarr.open_group(path, mode="r")["directions"][:]


@BITS
def test_the_batches_do_not_change_a_byte(tmp_path: Path, bits: int) -> None:
    gradients = make_gradients((70, 4, 3, 16, 16))
    contents = [contents_of(write(tmp_path / f"{batch}", gradients, bits, batch)) for batch in (1, 7, 64)]
    assert contents[0] == contents[1] == contents[2]
    assert len(contents[0]) > 5


def contents_of(store: Path) -> dict[str, bytes]:
    return {str(path.relative_to(store)): path.read_bytes() for path in store.rglob("*") if path.is_file()}


def test_attributes_record_the_cosine(tmp_path: Path) -> None:
    gradients = make_gradients(SQUARE)
    store = GradientStore.open(write(tmp_path / "store", gradients))
    read = store.read_all_classes(np.arange(len(store))).astype(np.float64)
    products, axes = (read * gradients).sum((2, 3, 4)), (2, 3, 4)
    cosines = products / np.sqrt((read**2).sum(axes) * (gradients.astype(np.float64) ** 2).sum(axes))
    assert store.attributes["cosine_mean"] == pytest.approx(cosines.mean(), abs=2e-6)
    assert store.attributes["cosine_min"] == pytest.approx(cosines.min(), abs=2e-6)
    assert store.attributes["cosine_mean"] >= 0.9995


# Failures: each a ruin of a good store, and what the reader says. `None` leaves opening fine and fails at reading.


def flip(path: Path, offset: int) -> None:
    content = bytearray(path.read_bytes())
    content[offset] ^= 1
    path.write_bytes(content)


def edit_group(store: Path, change) -> None:
    group = json.loads((store / "zarr.json").read_text())
    change(group["attributes"])
    (store / "zarr.json").write_text(json.dumps(group))


SHARD = "directions/c/1/0/0/0/0"
DAMAGES = {
    "missing store": (lambda s, o: shutil.rmtree(s), "is missing: run `dvc repro`"),
    "no record": (
        lambda s, o: (s / "zarr.json").unlink(),
        "is no gradient store or is incomplete, it has no zarr.json",
    ),
    "record cut short": (lambda s, o: (s / "zarr.json").write_bytes(b'{"attributes": {'), "zarr.json is damaged"),
    "record empty": (lambda s, o: (s / "zarr.json").write_bytes(b""), "zarr.json is damaged"),
    "record without files": (lambda s, o: edit_group(s, lambda a: a.pop("files")), "zarr.json is damaged"),
    "record altered": (lambda s, o: edit_group(s, lambda a: a["content"].update(t=5)), "zarr.json is damaged"),
    "no array": (lambda s, o: (s / "directions/zarr.json").unlink(), "it has no directions/zarr.json"),
    "array altered": (lambda s, o: flip(s / "directions/zarr.json", 30), "directions/zarr.json is damaged"),
    "missing shard": (lambda s, o: (s / SHARD).unlink(), f"is incomplete, it has no {SHARD}"),
    "empty shard": (lambda s, o: (s / SHARD).write_bytes(b""), "has 0 bytes, expected"),
    "truncated shard": (lambda s, o: (s / SHARD).write_bytes((s / SHARD).read_bytes()[:-1]), "bytes, expected"),
    "flipped bit": (lambda s, o: flip(s / SHARD, 100), f"{SHARD} is damaged or of another store"),
    "flipped bit in the index": (lambda s, o: flip(s / SHARD, -5), f"{SHARD} is damaged or of another store"),
    "shard of another store": (lambda s, o: shutil.copy(o / SHARD, s / SHARD), f"{SHARD} is damaged or of another"),
    "swapped shards": (
        lambda s, o: shutil.copy(s / "directions/c/0/0/0/0/0", s / SHARD),
        f"{SHARD} is damaged or of another store",
    ),
}


@READERS
@pytest.mark.parametrize("damage", DAMAGES, ids=lambda name: name.replace(" ", "-"))
def test_damage_is_refused_in_one_line(tmp_path: Path, damage: str, max_resident_bytes: int) -> None:
    path = write(tmp_path / "store", make_gradients(SQUARE))
    other = write(tmp_path / "other", make_gradients(SQUARE, seed=1))
    ruin, message = DAMAGES[damage]
    ruin(path, other)
    with pytest.raises(ArtifactError) as error:
        GradientStore.open(path, max_resident_bytes=max_resident_bytes).read_all_classes(np.arange(SQUARE[0]))
    assert message in str(error.value) and str(path) in str(error.value)
    assert "\n" not in str(error.value) and "dvc repro" in str(error.value)


@pytest.mark.parametrize(
    ("expect", "message"),
    [
        ({"dataset_hash": "e" * 64}, "has dataset_hash = dddddddddddd…, but this run needs eeeeeeeeeeee…"),
        ({"diffusion_sha256": "v" * 64}, "has diffusion_sha256 = wwwwwwwwwwww…, but this run needs vvvvvvvvvvvv…"),
        ({"realization": "nn"}, "has realization = 'sbg', but this run needs 'nn'"),
        ({"num_classes": 5}, "has num_classes = 4, but this run needs 5"),
        ({"num_images": 24}, "has num_images = 23, but this run needs 24"),
        ({"image_shape": (3, 32, 32)}, r"has image_shape = \[3, 16, 16\], but this run needs \(3, 32, 32\)"),
        ({"noise_draws": 2}, "has noise_draws = None, but this run needs 2"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_store_of_something_else_is_refused(tmp_path: Path, expect: dict, message: str) -> None:
    path = write(tmp_path / "store", make_gradients(SQUARE))
    with pytest.raises(ArtifactError, match=message) as error:
        GradientStore.open(path, {**ATTRIBUTES, **expect})
    assert "\n" not in str(error.value)
    GradientStore.open(path, {**ATTRIBUTES, "image_shape": (3, 16, 16), "num_classes": 4, "bits": 8})


@READERS
def test_damage_in_one_shard_leaves_the_others_readable(tmp_path: Path, max_resident_bytes: int) -> None:
    path = write(tmp_path / "store", make_gradients(SQUARE))
    flip(path / SHARD, 100)
    store = GradientStore.open(path, max_resident_bytes=max_resident_bytes)
    assert store.read_all_classes([0]).any()
    for _ in range(2):  # again: a shard once found damaged does not become good
        with pytest.raises(ArtifactError, match="damaged"):
            store.read_all_classes([0, store.layout.images_per_shard])


@READERS
@pytest.mark.parametrize(
    ("indices", "classes", "message"),
    [
        ([-1], [[0]], "image -1"),
        ([-24], [[0]], "image -24"),  # of 23: as far below as one that is there is above
        ([23], [[0]], "image 23"),
        ([0], [[-1]], "class -1"),
        ([0], [[-6]], "class -6"),
        ([0, 1], [[0], [4]], "class 4"),
    ],
)
def test_what_is_not_there_cannot_be_read(tmp_path: Path, max_resident_bytes, indices, classes, message) -> None:
    store = GradientStore.open(write(tmp_path / "store", make_gradients(SQUARE)), max_resident_bytes=max_resident_bytes)
    with pytest.raises(IndexError, match=f"{message} does not exist, expected 0"):
        store.read(indices, classes)


# Writing: nothing is left behind that could be read.


class StopError(Exception):
    pass


def test_an_exception_leaves_no_store(tmp_path: Path) -> None:
    gradients = make_gradients(SQUARE)
    with pytest.raises(StopError), StoreWriter(tmp_path / "store", SQUARE, ATTRIBUTES) as writer:
        writer.append(gradients[:10])
        raise StopError
    assert list(tmp_path.iterdir()) == []


def test_an_exception_keeps_the_store_of_before(tmp_path: Path) -> None:
    path = write(tmp_path / "store", make_gradients(SQUARE))
    with pytest.raises(StopError), StoreWriter(path, SQUARE, ATTRIBUTES):
        raise StopError
    GradientStore.open(path, ATTRIBUTES).read_all_classes([0])


@pytest.mark.parametrize("place", [0, 12, 22], ids=["first", "middle", "last"])
def test_errors_of_the_writing_thread_reach_the_caller(tmp_path: Path, place: int) -> None:
    gradients = make_gradients(SQUARE)
    gradients[place, 1, 0, 0, 0] = np.nan
    with pytest.raises(FloatingPointError, match="store: a gradient is not finite"):
        write(tmp_path / "store", gradients)
    assert list(tmp_path.iterdir()) == []


def test_too_few_images_make_no_store(tmp_path: Path) -> None:
    with (
        pytest.raises(ValueError, match="22 images of 23 were appended"),
        StoreWriter(tmp_path / "store", SQUARE, ATTRIBUTES) as writer,
    ):
        writer.append(make_gradients(SQUARE)[:22])
    assert list(tmp_path.iterdir()) == []


def test_spikes_that_8_bits_cannot_hold_are_refused(tmp_path: Path) -> None:
    gradients = np.random.default_rng(0).standard_t(1.5, SQUARE).astype(np.float32)
    with pytest.raises(ValueError, match=r"8 bits keep a cosine of 0.9\d+ with the gradients, expected ≥ 0.9995"):
        write(tmp_path / "store", gradients)
    assert list(tmp_path.iterdir()) == []


# Size and memory.


@pytest.mark.parametrize(
    ("shape", "bits", "most"),
    [
        ((50_000, 10, 3, 32, 32), 8, 1.01),
        ((50_000, 10, 3, 32, 32), 4, 0.51),
        ((50_000, 100, 3, 32, 32), 8, 1.01),
        ((100_000, 200, 3, 64, 64), 8, 1.01),
        ((5_000, 10, 3, 96, 96), 8, 1.01),
        ((5_000, 10, 1, 28, 28), 8, 1.03),
        ((1_293, 10, 1, 8, 8), 8, 1.1),
        ((1_293, 10, 1, 8, 8), 4, 0.6),
    ],
    ids=str,
)
def test_bytes_per_pixel_and_number_of_files(
    shape: tuple[int, ...], bits: int, most: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "SHARD_BYTES", SHARD_BYTES)
    layout = Layout(shape, bits)
    assert required_bytes(shape, bits) / np.prod(shape, dtype=float) <= most
    assert layout.num_shards <= 512
    assert layout.num_shards == 1 or layout.shard_bytes(0) >= 64 << 20
    assert layout.num_shards > 500 or layout.shard_bytes(0) <= 130 << 20
    assert sum(map(layout.images_in, range(layout.num_shards))) == shape[0]


@SHAPES
@BITS
def test_required_bytes_are_the_bytes_on_disk(tmp_path: Path, shape: tuple[int, ...], bits: int) -> None:
    write(tmp_path / "store", make_gradients(shape), bits)
    on_disk = sum(path.stat().st_size for path in (tmp_path / "store/directions/c").rglob("*") if path.is_file())
    assert required_bytes(shape, bits) == on_disk


def resident_file_bytes() -> int:
    """Pages of files in this process."""
    with open("/proc/self/status") as lines:
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith("RssFile"))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
def test_a_store_larger_than_its_bound_leaves_nothing_resident(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(shards, "SHARD_BYTES", 4 << 20)
    gradients = make_gradients((400, 10, 3, 32, 32))
    size = gradients.nbytes // 4
    path = write(tmp_path / "store", gradients, batch=400)
    for bound, resident in ((size // 2, 1 << 20), (2 * size, size + (1 << 20))):
        store = GradientStore.open(path, max_resident_bytes=bound)
        before = resident_file_bytes()
        for start in range(0, 400, 50):
            store.read_all_classes(np.arange(start, start + 50))
        assert resident_file_bytes() - before <= resident


def read_in_worker(store: GradientStore, indices: list[int]) -> np.ndarray:
    return store.read_all_classes(indices)


@READERS
def test_a_store_travels_to_other_processes(tmp_path: Path, max_resident_bytes: int) -> None:
    store = GradientStore.open(write(tmp_path / "store", make_gradients(DIGITS)), ATTRIBUTES, max_resident_bytes)
    expected = store.read_all_classes([22, 3])
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(store)).read_all_classes([22, 3]), expected)
    with get_context("fork").Pool(1) as pool:
        np.testing.assert_array_equal(pool.apply(read_in_worker, (store, [22, 3])), expected)


TINY_IMAGENET = (100_000, 200, 3, 64, 64)
READ_THERE = """
import json, sys
from pathlib import Path
import numpy as np
from pag.store.reader import GradientStore
def memory(key):
    return next(1024 * int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(key))
Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
before = memory("VmRSS")
store, rng = GradientStore.open(Path(sys.argv[1])), np.random.default_rng(0)
for _ in range(2):
    read = store.read(rng.integers(0, len(store), 2), rng.integers(0, store.shape[1], (2, 10)))
    assert read.shape == (2, 10, 3, 64, 64) and not read.any()
print(json.dumps({"peak": memory("VmHWM") - before}))
"""


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="measures through /proc")
def test_a_store_of_tiny_imagenet_takes_no_more_memory(tmp_path: Path, monkeypatch) -> None:
    """100,000 images × 200 classes in 4 bits: 123 GB, of which the disk holds the metadata alone."""
    monkeypatch.setattr(shards, "SHARD_BYTES", 128 << 20)
    layout, path = Layout(TINY_IMAGENET, 4), tmp_path / "store"
    path.mkdir()
    _create_array(path, layout)
    files, digests = {DIRECTIONS: fingerprint(path / DIRECTIONS)}, {}
    for shard in range(layout.num_shards):
        file, size = path / layout.file(shard), layout.shard_bytes(shard)
        file.parent.mkdir(parents=True)
        with open(file, "wb") as hole:
            hole.truncate(size)
        digests[size] = digests.get(size) or sha256(file)  # all alike: nothing but zeros
        files[layout.file(shard)] = (size, digests[size])
    save_record(path, describe(ATTRIBUTES, TINY_IMAGENET, 4), files)
    assert layout.total_bytes() > 121e9 and sum(file.stat().st_blocks for file in path.rglob("*")) * 512 < 20e6
    done = subprocess.run(
        [sys.executable, "-c", READ_THERE, str(path)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    peak = json.loads(done.stdout)["peak"]
    print(f"peak memory of reading: {peak / 1e6:.1f} MB")
    assert 0 < peak < 32 << 20


def test_a_store_that_is_let_go_closes_its_files(tmp_path: Path) -> None:
    path = write(tmp_path / "store", make_gradients(SQUARE))
    before = psutil.Process().num_fds()
    store = GradientStore.open(path, max_resident_bytes=0)
    store.read_all_classes(np.arange(SQUARE[0]))
    assert psutil.Process().num_fds() >= before + store.layout.num_shards
    del store
    gc.collect()
    assert psutil.Process().num_fds() == before
