"""Trees ``train/<class>/<image>`` + ``test/<class>/<image>``, or just ``<class>/<image>``; folders or archives."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import PurePosixPath

from pag.datasets.decoding import decode_splits
from pag.datasets.source import Source, SourceError, raw_root
from pag.datasets.tree import FileTree
from pag.foundation.config.data import DataConfig

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
COMPANIONS = (".csv", ".db", ".html", ".ini", ".json", ".md", ".pdf", ".tsv", ".txt", ".xml", ".yaml", ".yml")
VALIDATION = ("val", "valid", "validation")  # what people call the folder of the validation part
LAYOUT = "expected train/<class>/<image> and test/<class>/<image>, or <class>/<image> alone"


def read(config: DataConfig, seed: int) -> Source:
    """The images in order of class and file name; only those within the limits are decoded.

    Without a folder `test` the source has no test part; a folder of VALIDATION is its validation part. Where there is
    none of these folders and no `train`, the folders are classes, and all images are training images. Raises
    SourceError for another layout, a class without images, a class that is not in train, images that cannot be used
    (see :func:`decode_splits`), and files that are neither of SUFFIXES nor of COMPANIONS; notes name what is not read.
    """
    tree = FileTree(raw_root(config))
    folders = _folders(tree)
    source = decode_splits(tree, files_of(tree), config, seed)
    return replace(source, notes=(*_notes(tree, folders), *source.notes))


def files_of(tree: FileTree) -> dict[str, dict[str, list[str]]]:
    """part → class → its image files, all sorted; `test` is empty where there is none. Raises SourceError as `read`."""
    folders = _folders(tree)
    files = {part: _files_by_class(tree, folder) for part, folder in folders.items()}
    if not files["train"]:
        others = [name for name in tree.names if not name.endswith("/") and _suffix(name) not in COMPANIONS]
        if others and not any(_suffix(name) in SUFFIXES for name in others):
            raise SourceError(
                f"none of the {len(others)} files in {tree.root} is of {', '.join(SUFFIXES)}: convert {_some(others)}"
            )
        found = _some({"/".join(name.split("/")[:2]) for name in tree.names}) or "nothing"
        raise SourceError(f"{tree.root} holds {found}: {LAYOUT}")
    for part, folder in folders.items():
        if unknown := [name for name in files[part] if name not in files["train"]]:
            raise SourceError(
                f"class '{unknown[0]}' of {folder} is not in train/ of {tree.root}: both need the same classes"
            )
    files.setdefault("test", {})
    return files


def _folders(tree: FileTree) -> dict[str, str]:
    """The folder of each part, with '/' at its end; '' where the classes are not in a folder."""
    tops = _tops(tree)
    if (classes := _folder_of_classes(tree)) is not None and not tops.intersection(("train", "test", *VALIDATION)):
        return {"train": classes}
    return {"train": "train/", "test": "test/"} | _validation_folder(tree, tops)


def _tops(tree: FileTree) -> set[str]:
    return {name.split("/")[0] for name in tree.names if "/" in name}


def _validation_folder(tree: FileTree, tops: set[str]) -> dict[str, str]:
    """{"validation": its folder, with '/'} where there is one."""
    found = sorted(tops.intersection(VALIDATION))
    if len(found) > 1:
        raise SourceError(f"{tree.root} has {' and '.join(found)}, expected one validation part: remove the other")
    return {"validation": f"{found[0]}/"} if found else {}


def _folder_of_classes(tree: FileTree) -> str | None:
    """'' or 'folder/', the only top folder: what has folders of images in it; None where nothing has."""
    images = [name.split("/") for name in tree.names if _suffix(name) in SUFFIXES]
    if any(len(parts) == 2 for parts in images):
        return ""
    tops = {parts[0] for parts in images}
    return f"{tops.pop()}/" if len(tops) == 1 and any(len(parts) == 3 for parts in images) else None


def _files_by_class(tree: FileTree, folder: str) -> dict[str, list[str]]:
    """class name -> its image files, both sorted. folder: '' for the tree itself, or with '/' at its end."""
    files: dict[str, list[str]] = {}
    for name in (name for name in tree.names if name.startswith(folder) and name != folder):
        parts = name.removeprefix(folder).rstrip("/").split("/")
        is_image = _suffix(name) in SUFFIXES
        if is_image and len(parts) != 2:
            raise SourceError(f"{name} of {tree.root} is not in the folder of a class: {LAYOUT}")
        if len(parts) > 1 or name.endswith("/"):
            files.setdefault(parts[0], []).extend([name] if is_image else [])
    unread = [name for name in _others(tree, folder) if _suffix(name) not in COMPANIONS]
    if unread:
        raise SourceError(
            f"{len(unread)} of the files in {_where(tree, folder)} are not of {', '.join(SUFFIXES)}: "
            f"convert, rename or remove {_some(unread)}"
        )
    for class_name, images in files.items():
        if not images:
            raise SourceError(
                f"class '{class_name}' of {_where(tree, folder)} has no image ({', '.join(SUFFIXES)}): add some or "
                "remove the folder"
            )
    return dict(sorted(files.items()))


def _where(tree: FileTree, folder: str) -> str:
    return f"{folder} of {tree.root}" if folder else str(tree.root)


def _others(tree: FileTree, folder: str) -> list[str]:
    """The files of `folder` that are no images by their names."""
    inside = (name for name in tree.names if name.startswith(folder) and not name.endswith("/"))
    return [name for name in inside if _suffix(name) not in SUFFIXES]


def _notes(tree: FileTree, folders: dict[str, str]) -> Iterator[str]:
    """A line for each thing that the user may expect to be read, or not to be."""
    if companions := [name for folder in folders.values() for name in _others(tree, folder)]:
        yield f"not read, as they are no images: {len(companions)} files ({_some(companions)})"
    beside = _tops(tree).difference(folder.rstrip("/") for folder in folders.values())
    if beside and "test" in folders:
        yield f"not read, as they are no parts of the data set: {_some(f'{top}/' for top in beside)}"
    if "validation" in folders:
        yield f"{folders['validation']} is the validation part: data.validation_fraction is not used"


def _suffix(name: str) -> str:
    """In small letters; '' for a folder."""
    return "" if name.endswith("/") else PurePosixPath(name).suffix.lower()


def _some(names: Iterable[str]) -> str:
    """The first five, and that there are more."""
    first = sorted(names)
    return ", ".join(first[:5]) + ", …" * (len(first) > 5)
