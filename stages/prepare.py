"""prepare: raw images → data/<dataset>/images, split and hashed."""

import click

from pag.datasets.preparation import prepare
from pag.foundation.artifacts import load_json
from pag.foundation.config.conf import load_conf
from pag.foundation.config.params import load_params, not_looked_at
from pag.images.dataset import save
from stages.shared import paths
from stages.shared.command import run_stage
from stages.shared.progress import progress


@click.command()
@click.argument("dataset")
def main(dataset: str) -> None:
    params, conf = load_params(), load_conf(dataset)
    if conf.data.root is not None:
        if not paths.raw_files(dataset).exists() and dataset not in params.raw:
            raise not_looked_at(dataset)
        load_json(paths.raw_files(dataset), sealed=True, keys=("files", "bytes", "content"))
    with progress(f"reading the images of {dataset}"):
        prepared = prepare(dataset, conf.data, params.seed)
    save(prepared, paths.images(dataset))
    sizes = ", ".join(
        f"{len(split.labels)} {name}"
        for name, split in zip(
            ("training", "validation", "test"), (prepared.train, prepared.validation, prepared.test), strict=True
        )
    )
    click.echo(f"{dataset}: {sizes} images of {prepared.image_shape} in {prepared.num_classes} classes")


if __name__ == "__main__":
    run_stage(main)
