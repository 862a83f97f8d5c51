"""A stage in the place of all: processes of several nodes meet after every step; told to stop, the state is kept."""

import os
import sys
import time
from pathlib import Path

import torch
import torch.distributed as dist

from pag.foundation import interrupts

STEPS = 40


def main() -> None:
    state = Path(sys.argv[1]) / f"state-{os.environ['SLURM_NODEID']}"
    done = int(state.read_text()) if state.exists() else 0
    dist.init_process_group("gloo")
    total = torch.tensor(0)
    with interrupts.handled(), interrupts.held():
        for step in range(done, STEPS):
            told = torch.tensor(int(interrupts.waiting()))
            dist.all_reduce(told)  # the signal does not come everywhere in the same step
            if told:
                break
            total = torch.tensor(1 << dist.get_rank())
            dist.all_reduce(total)
            state.write_text(str(step + 1))
            print(f"step {step} begun at {done}", flush=True)
            time.sleep(0.05)
        dist.destroy_process_group()
    if told:
        raise interrupts.Interrupted
    if dist.is_initialized() or int(total) != 3:
        sys.exit(f"the ranks add up to {int(total)}")
    (Path(sys.argv[1]) / f"done-{os.environ['SLURM_NODEID']}").write_text(str(done))


if __name__ == "__main__":
    try:
        main()
    except interrupts.Interrupted:
        sys.exit(143)
