"""Damaged artifacts: every kind of file there is, each damaged in every way, read by the stage that reads it."""

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from benchmarks.faults.bench import Bench, Case, Finding, refused, same
from benchmarks.faults.forks import run
from benchmarks.faults.workspace import Workspace

TRAIN, REPORT = "train digits cnn", "report"
IMAGES, GRADIENTS, CLASSIFIER = "data/digits/images", "data/digits/gradients", "data/digits/classifiers/cnn/sbg"
ARRAYS = "results/arrays"
# file → the stage that reads it. Curves are not here: DVC alone draws them.
FILES = {
    f"{IMAGES}/train_images.npy": "train_diffusion digits",
    f"{IMAGES}/validation_labels.npy": f"{TRAIN} vanilla",
    f"{IMAGES}/test_images.npy": "evaluate digits cnn sbg",
    f"{IMAGES}/dataset.json": "distill digits nn",
    "data/toy/images/train_images.npy": "toy",
    "data/digits/diffusion/ema.safetensors": "distill_sbg digits",
    "data/digits/diffusion/ema.json": "distill_sbg digits",
    f"{GRADIENTS}/sbg.zarr/zarr.json": f"{TRAIN} sbg",
    f"{GRADIENTS}/sbg.zarr/directions/zarr.json": f"{TRAIN} sbg",
    f"{GRADIENTS}/sbg.zarr/directions/c/0/0/0/0/0": f"{TRAIN} sbg",
    f"{GRADIENTS}/cm.zarr/zarr.json": f"{TRAIN} cm",
    f"{GRADIENTS}/heldout.zarr/directions/c/0/0/0/0/0": "evaluate digits cnn sbg",
    f"{CLASSIFIER}/weights.safetensors": "evaluate digits cnn sbg",
    f"{CLASSIFIER}/weights.json": "evaluate digits cnn sbg",
    "results/records/digits/cnn/sbg.json": REPORT,
    "results/timings/digits/cnn/sbg.json": REPORT,
    "results/records/toy.json": REPORT,
    f"{ARRAYS}/digits/diffusion.npz": REPORT,
    f"{ARRAYS}/digits/realizations/sbg.npz": REPORT,
    f"{ARRAYS}/digits/large_eps/cnn/sbg.npz": REPORT,
    f"{ARRAYS}/toy.npz": REPORT,
}
Damage = Callable[[Bench, Path], None]


def flip_bit(bench: Bench, path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[bench.rng.randrange(len(content))] ^= 1 << bench.rng.randrange(8)
    path.write_bytes(content)


def cut(bench: Bench, path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: bench.rng.randrange(1, len(content))])


def empty(_: Bench, path: Path) -> None:
    path.write_bytes(b"")


def foreign(bench: Bench, path: Path) -> None:
    """A whole file of the same format, of something else."""
    others = {
        ".json": "results/records/digits/cnn/nn.json",
        ".npz": f"{ARRAYS}/digits/realizations/nn.npz",
        ".npy": f"{IMAGES}/test_labels.npy",
        ".safetensors": "data/digits/classifiers/cnn/nn/weights.safetensors",
        "": f"{GRADIENTS}/nn.zarr/directions/c/0/0/0/0/0",
    }
    path.write_bytes((bench.base.folder / others[path.suffix]).read_bytes())


def missing(_: Bench, path: Path) -> None:
    path.unlink()


def without_key(bench: Bench, path: Path) -> None:
    content = json.loads(path.read_text())
    del content[bench.rng.choice(sorted(content))]
    path.write_text(json.dumps(content, indent=2))


def edited(bench: Bench, path: Path) -> None:
    """A number or a text of some depth, changed by hand."""
    text = path.read_text()
    places = [place for place, letter in enumerate(text) if letter in "123456789"]
    place = bench.rng.choice(places)
    path.write_text(text[:place] + str(int(text[place]) % 9 + 1) + text[place + 1 :])


ANY: tuple[Damage, ...] = (flip_bit, cut, empty, foreign, missing)
OF_JSON: tuple[Damage, ...] = (without_key, edited)


def cases() -> Iterator[Case]:
    for file, command in FILES.items():
        for damage in ANY + (OF_JSON if file.endswith(".json") else ()):
            if damage is missing and "timings" in file:
                continue  # where a training took place elsewhere there are none
            name = f"{damage.__name__.replace('_', ' ')} of {file}, read by {command}"
            yield Case(
                "damage", name, f"one line that names {Path(file).name}", partial(_damaged, file, command, damage)
            )


def _damaged(file: str, command: str, damage: Damage, bench: Bench, workspace: Workspace) -> Finding:
    path = workspace.folder / file
    whole = path.read_bytes()
    damage(bench, path)
    outcome = run(workspace.folder, command)
    if outcome.code:
        return refused(outcome, (path.name, str(Path(file).parent), str(Path(file).parent.with_suffix(".zarr"))))
    if path.exists() and path.read_bytes() != whole:
        path.write_bytes(whole)
        return same(workspace, bench, "read to the same result")  # a bit that means nothing
    return refused(outcome, ())
