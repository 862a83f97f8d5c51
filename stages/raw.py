"""raw: were the raw files of a data set changed? data/raw_files/<dataset>.json says what they are, by content.

DVC runs this every time, and prepare again when the answer is another one. A file whose size, times and inode are those
of the last look is not read. What `data.download` lets prepare fetch is not there at the first look: after the second
one prepare runs once more, to the same images.
"""

from pathlib import Path

import click

from pag.datasets.raw_files import RawFiles, Seen, load_seen, location, look, save_seen
from pag.foundation.artifacts import save_json
from pag.foundation.config.conf import load_conf
from pag.foundation.config.section import ConfigError
from stages.shared import paths
from stages.shared.command import run_stage


@click.command()
@click.argument("dataset")
def main(dataset: str) -> None:
    config = load_conf(dataset).data
    if config.root is None:
        raise ConfigError(f"conf/{dataset}.yaml has no data.root: remove {dataset} from `raw` of params.yaml")
    before = load_seen(paths.last_look(dataset))
    found = look(config, before)
    if found.seen != before:
        save_seen(paths.last_look(dataset), found.seen)
    about = {"files": found.files, "bytes": found.bytes, "content": found.content}
    save_json(paths.raw_files(dataset), about, sealed=True)
    click.echo(f"{dataset}: {_sentence(found, before, location(config))}")


def _sentence(found: RawFiles, before: Seen, where: Path) -> str:
    if not found.files:
        return f"no files at {where}; with data.download prepare fetches them"
    gone = len(before.keys() - found.seen.keys())
    read = f", {found.read:,} of them read as new or changed" if found.read else ""
    return f"{found.files:,} files{read}{f', {gone:,} gone' if gone else ''}{'' if read or gone else ' as before'}"


if __name__ == "__main__":
    run_stage(main)
