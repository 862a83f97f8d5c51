"""What `git restore` would take from a user who was told of it."""

import subprocess


def uncommitted() -> list[str]:
    """Of params.yaml and conf/ the files that git knows and has not as they are; none where there is no git."""
    try:
        asked = ["git", "diff", "--name-only", "HEAD", "--", "params.yaml", "conf"]
        done = subprocess.run(asked, check=False, capture_output=True, text=True)
    except OSError:
        return []
    return done.stdout.split("\n")[:-1] if done.returncode == 0 else []
