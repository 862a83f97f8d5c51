"""Tiny ImageNet in its official layout; its validation part serves as test part, as its test labels are not public."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

from torchvision.datasets.utils import download_url

from pag.datasets.decoding import decode_splits
from pag.datasets.source import Source, SourceError, raw_root
from pag.datasets.tree import FileTree
from pag.foundation.atomic import atomic_file
from pag.foundation.config.data import DataConfig
from pag.foundation.config.section import ConfigError

URL = "http://cs231n.stanford.edu/tiny-imagenet-200.zip"
MD5 = "90528d7ca1a48142e341f4ef8d21d0de"
LAYOUT = "expected train/<wnid>/images/*.JPEG, val/images/*.JPEG, val/val_annotations.txt and words.txt"


def read(config: DataConfig, seed: int) -> Source:
    """The images in order of WordNet id and file name, as RGB (the few grey ones too).

    `data.root` is the folder tiny-imagenet-200 or an archive of it, of all images or a subset; only those within the
    limits are decoded. Raises SourceError for another layout or images that cannot be used.
    """
    root = raw_root(config)
    if config.download and not root.exists():
        _download(root)
    tree = FileTree(root)
    train = _training_files(tree)
    test = _validation_files(tree)
    for wnid, names in test.items():
        if wnid not in train:
            raise SourceError(f"{names[0]} is of class '{wnid}', which is not in train/ of {tree.root}")
    in_colour = config.model_copy(update={"channels": 3})
    source = decode_splits(tree, {"train": train, "test": test}, in_colour, seed)
    return replace(source, class_names=_class_names(tree, list(train)))


def _training_files(tree: FileTree) -> dict[str, list[str]]:
    """wnid -> its files, both sorted."""
    files: dict[str, list[str]] = {}
    for name in tree.names:
        match name.split("/"):
            case ["train", wnid, "images", image] if image.endswith(".JPEG"):
                files.setdefault(wnid, []).append(name)
            case ["train", wnid, *_] if wnid:
                files.setdefault(wnid, [])
    if not any(files.values()):
        raise SourceError(f"{tree.root} has no train/<wnid>/images/*.JPEG: {LAYOUT}")
    for wnid, images in files.items():
        if not images:
            raise SourceError(f"class '{wnid}' has no train/{wnid}/images/*.JPEG in {tree.root}")
    return dict(sorted(files.items()))


def _validation_files(tree: FileTree) -> dict[str, list[str]]:
    """wnid -> its files, both sorted; annotations of images that a subset does not have are passed over."""
    lines = (line.split("\t") for line in tree.read_text("val/val_annotations.txt").splitlines())
    wnid_of = {f"val/images/{columns[0]}": columns[1] for columns in lines if len(columns) > 1}
    files: dict[str, list[str]] = {}
    for name in (name for name in tree.names if name.startswith("val/images/") and name.endswith(".JPEG")):
        if name not in wnid_of:
            raise SourceError(f"{name} has no line in val/val_annotations.txt of {tree.root}")
        files.setdefault(wnid_of[name], []).append(name)
    if not files:
        raise SourceError(f"{tree.root} has no val/images/*.JPEG: {LAYOUT}")
    return dict(sorted(files.items()))


def _class_names(tree: FileTree, wnids: list[str]) -> tuple[str, ...]:
    """The first English word of each class, with its id where two classes share it."""
    words = dict(line.split("\t", 1) for line in tree.read_text("words.txt").splitlines() if "\t" in line)
    names = [words.get(wnid, wnid).split(",")[0].strip() for wnid in wnids]
    count = Counter(names)
    return tuple(name if count[name] == 1 else f"{name} ({wnid})" for name, wnid in zip(names, wnids, strict=True))


def _download(root: Path) -> None:
    """Fetch the official archive to `root` and verify its MD5."""
    if root.suffix != ".zip":
        raise ConfigError(f"data.root = {root}: data.download fetches a .zip file, name the file that it becomes")
    try:
        with atomic_file(root) as partial:
            download_url(URL, partial.parent, partial.name, MD5)
    except (OSError, RuntimeError) as error:
        raise SourceError(
            f"the download of {URL} failed ({' '.join(str(error).split())}): put the archive or its folder at {root}"
        ) from None
