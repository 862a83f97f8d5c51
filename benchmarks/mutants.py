"""A sample of cosmic-ray's mutants, as many of each room; all others are marked as skipped.

python -m benchmarks.mutants mutants.sqlite   # after `cosmic-ray init` and `cr-filter-operators`

What does not parse (`*` of a signature replaced by `|`) is passed over: any test fails on it, which says nothing.
"""

import random
import warnings
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:  # of the extra `mutation`
    from cosmic_ray.work_db import WorkDB
    from cosmic_ray.work_item import MutationSpec


@click.command(help=__doc__)
@click.argument("session", type=click.Path(exists=True, path_type=Path))
@click.option("--per-room", default=40, show_default=True)
@click.option("--seed", default=20, show_default=True)
def main(session: Path, per_room: int, seed: int) -> None:
    from cosmic_ray.work_db import use_db
    from cosmic_ray.work_item import WorkerOutcome, WorkResult

    with use_db(session) as database:
        for room, jobs in sorted(_pending(database).items()):
            random.Random(f"{seed} {room}").shuffle(jobs)
            passed_over, kept = 0, 0
            while kept < per_room and kept + passed_over < len(jobs):
                parses = _parses(jobs[kept][1])
                kept += parses
                if not parses:
                    passed_over += 1
                    jobs.append(jobs.pop(kept))
            skipped = [job for job, _ in jobs[kept:]]
            database.set_multiple_results(skipped, WorkResult(WorkerOutcome.SKIPPED, "not in the sample"))
            print(f"{room}: {kept} of {len(jobs)} mutants; {passed_over} passed over, which do not parse")


def _pending(database: "WorkDB") -> dict[str, list[tuple[str, "MutationSpec"]]]:
    """Room → its jobs by what they change: the numbers of the jobs are other ones in every session."""
    jobs = [(item.job_id, item.mutations[0]) for item in database.pending_work_items]
    rooms = defaultdict(list)
    for job, spec in sorted(jobs, key=lambda pair: (pair[1].module_path, pair[1].operator_name, pair[1].occurrence)):
        rooms[spec.module_path.parts[1]].append((job, spec))
    return rooms


def _parses(spec: "MutationSpec") -> bool:
    from cosmic_ray.mutating import mutate_code
    from cosmic_ray.plugins import get_operator

    operator = get_operator(spec.operator_name)(**spec.operator_args)
    code = mutate_code(spec.module_path.read_text(), operator, spec.occurrence)
    with warnings.catch_warnings(action="ignore"):  # of `is` beside a number
        try:
            compile(code, str(spec.module_path), "exec")
        except SyntaxError:
            return False
    return True


if __name__ == "__main__":
    main()
