"""The repository that a stage works for."""

import os
from pathlib import Path


def repository() -> Path:
    """The repository, which the working folder may be DVC's temporary copy of, without the files that git ignores.

    DVC says in DVC_ROOT where a copy comes from, but a stage that runs another project passes its own root on: so it
    is believed only where the copies of that root lie, under its .dvc/tmp.
    """
    root, here = Path(os.environ.get("DVC_ROOT", ".")).resolve(), Path.cwd().resolve()
    return root if here.is_relative_to(root / ".dvc" / "tmp") else Path()
