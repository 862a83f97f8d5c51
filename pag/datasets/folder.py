"""Any tree ``train/<class>/<image>`` + ``test/<class>/<image>``, as a folder or an archive of one."""

from pathlib import PurePosixPath

from PIL import Image

from pag.datasets.decoding import decode_splits
from pag.datasets.source import Source, SourceError, raw_root
from pag.datasets.tree import FileTree
from pag.foundation.config.conf import DataConfig

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
LAYOUT = "expected train/<class>/<image> and test/<class>/<image>"


def read(config: DataConfig) -> Source:
    """The images in order of class and file name; only those within the limits are decoded.

    Without a folder `test` the source has no test part. Raises SourceError for another layout, a class without
    images, a test class that is not in train, and images that cannot be used (see :func:`decode_splits`) or are of a
    format that is not read.
    """
    tree = FileTree(raw_root(config))
    train, test = _files_by_class(tree, "train"), _files_by_class(tree, "test")
    if not train:
        found = ", ".join(sorted({"/".join(name.split("/")[:2]) for name in tree.names})[:5]) or "nothing"
        raise SourceError(f"{tree.root} holds {found}: {LAYOUT}")
    for name in test:
        if name not in train:
            raise SourceError(f"class '{name}' of test/ is not in train/ of {tree.root}: both need the same classes")
    train_split, test_split = decode_splits(tree, train, test, config)
    return Source(train_split, test_split, tuple(train))


def _files_by_class(tree: FileTree, part: str) -> dict[str, list[str]]:
    """class name -> its image files, both sorted."""
    files: dict[str, list[str]] = {}
    for name in (name for name in tree.names if name.startswith(f"{part}/") and name != f"{part}/"):
        path = PurePosixPath(name)
        suffix = path.suffix.lower()
        is_image = suffix in SUFFIXES and not name.endswith("/")
        if suffix in Image.registered_extensions() and not is_image and not name.endswith("/"):
            raise SourceError(f"{name} of {tree.root} is not of {', '.join(SUFFIXES)}: convert or remove it")
        if is_image and len(path.parts) != 3:
            raise SourceError(f"{name} of {tree.root} is not in the folder of a class: {LAYOUT}")
        if len(path.parts) > 2 or name.endswith("/"):
            files.setdefault(path.parts[1], []).extend([name] if is_image else [])
    for class_name, images in files.items():
        if not images:
            raise SourceError(f"class '{class_name}' of {part}/ in {tree.root} has no image ({', '.join(SUFFIXES)})")
    return dict(sorted(files.items()))
