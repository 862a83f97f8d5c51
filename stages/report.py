"""report: tables, figures and the claims as Markdown and as a web page, from result files only."""

import click

from pag.foundation.config.conf import load_conf
from pag.foundation.config.params import load_params
from pag.report.page import write_report
from stages.shared import paths
from stages.shared.command import run_stage


@click.command()
def main() -> None:
    params = load_params()
    confs = {dataset: load_conf(dataset) for dataset in params.datasets}
    write_report(params, confs, paths.RESULTS, paths.REPORT)
    click.echo(f"{paths.REPORT / 'report.md'} and {paths.REPORT / 'index.html'}")


if __name__ == "__main__":
    run_stage(main)
