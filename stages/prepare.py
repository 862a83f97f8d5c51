"""prepare: raw images → data/<dataset>/images, split and hashed."""

import click

from pag.config.conf import load_conf
from pag.config.params import load_params
from pag.datasets.base import save
from pag.datasets.preparation import prepare
from stages import paths
from stages.command import run_stage


@click.command()
@click.argument("dataset")
def main(dataset: str) -> None:
    prepared = prepare(dataset, load_conf(dataset).data, load_params().seed)
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
