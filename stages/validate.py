"""validate: every parameter file, whatever else is up to date; a misspelt key would otherwise do nothing, silently."""

import click

from pag.config.conf import load_conf
from pag.config.params import load_params
from pag.config.toy import load_toy
from pag.config.variants import variant_of
from stages.command import run_stage


@click.command()
def main() -> None:
    params = load_params()
    for dataset in params.datasets:
        conf = load_conf(dataset)
        for name in conf.variants:
            variant_of(conf, dataset, name)
    load_toy()


if __name__ == "__main__":
    run_stage(main)
