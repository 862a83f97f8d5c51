from pathlib import Path

import pytest
from image_trees import write_image


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Two classes, 3 training and 2 test images of each, PNG and BMP, beside files that are no images."""
    root = tmp_path / "pets"
    for part, count in (("train", 3), ("test", 2)):
        for label, name in enumerate(("dog", "cat")):
            for i in range(count):
                suffix = "bmp" if i == 1 else "PNG"
                write_image(root / part / name / f"{i}.{suffix}", seed=100 * label + 10 * i + count)
    (root / "README.md").write_text("about pets")
    (root / "train/cat/notes.txt").write_text("not an image")
    (root / "train/.hidden").mkdir()
    (root / "train/cat/._0.png").write_bytes(b"what macOS adds")
    return root
