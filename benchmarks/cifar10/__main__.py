"""The paper's headline experiment on a GPU within a stated time.

``python -m benchmarks.cifar10 --minutes M --state DIR`` runs the project's own stages in DIR on a JPEG copy of
CIFAR-10: measure the machine, plan, diffusion model, gradients, classifiers, AutoAttack. DIR remembers what is done; a
further call with the same DIR goes on, and `--total-minutes` is what all calls together may take. Results are written
to DIR/out (or `--out`) after every stage.
"""

import os
from pathlib import Path

import click

from benchmarks.cifar10.experiment import Experiment, say
from benchmarks.cifar10.lanes import Lanes
from benchmarks.cifar10.settings import DATASET, FULL, MINIATURE, ROOT
from benchmarks.cifar10.state import Clock, OutOfTime, State
from pag.config.conf import load_conf
from stages.command import run_stage


@click.command()
@click.option("--minutes", type=click.FloatRange(min=0, min_open=True), required=True, help="Time of this call.")
@click.option("--total-minutes", type=click.FloatRange(min=0, min_open=True), help="Time of all calls; --minutes.")
@click.option("--state", "folder", type=click.Path(path_type=Path), required=True, help="Folder of the run.")
@click.option("--archive", type=click.Path(path_type=Path), help="Raw images; conf's data.root.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder of the results; DIR/out.")
@click.option("--check", is_flag=True, help="Only prepare and measure.")
@click.option("--miniature", is_flag=True, help="A few steps of everything.")
def main(
    minutes: float,
    total_minutes: float | None,
    folder: Path,
    archive: Path | None,
    out: Path | None,
    check: bool,
    miniature: bool,
) -> None:
    out = (out or folder / "out").absolute()
    archive = (archive or ROOT / str(load_conf(DATASET, ROOT / "conf").data.root)).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    os.chdir(folder)
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(Path("inductor").absolute()))  # a later call compiles less
    state, scale = State(Path("state.json")), MINIATURE if miniature else FULL
    clock = Clock(60 * minutes, 60 * (total_minutes or minutes) - state.used_seconds)
    lanes = Lanes(scale.lanes, Path("logs")) if scale.lanes else None
    experiment = Experiment(scale, archive, state, clock, out, lanes)
    finished = False
    try:
        with clock.alarm():
            finished = bool(experiment.measured()) if check else experiment.run()
    except OutOfTime:
        say("the time of this call is over")
    finally:
        for name, seconds in (lanes.stop() if lanes else {}).items():
            state.partial[name] = state.partial.get(name, 0.0) + seconds
        state.save(clock)
    experiment.write_results()
    say("everything is done" if finished else "call again with the same --state to go on")


if __name__ == "__main__":
    run_stage(main)
