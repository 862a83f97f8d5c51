"""For a short loan of a GPU: `python -m benchmarks.gpu --archive cifar10-jpeg.tar.xz --out gpu.json`, from the root.

Agreement with the CPU, step ratios, throughputs, and ResNet-18 aligned with SBG, ReLU and SiLU, for some minutes each.
The file is written after every step; one that fails leaves its error. Without a GPU all of it runs on the CPU.
"""

import json
import time
from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import click

from benchmarks import diffusion, distill, harness
from benchmarks.agreement import agreement
from benchmarks.small_pipeline import aligned, stage, workspace
from benchmarks.training_step import short_ratios
from pag.foundation.config.conf import load_conf
from stages.shared.device import best_device

QUICK = {"evaluation.attack": {"version": "quick"}, "evaluation.images": 200}


def run(out: Path, seconds: float, values: dict[str, Any], sizes: tuple[int, ...], compiled: tuple[bool, ...]) -> None:
    device, unet = best_device(), load_conf("cifar10").diffusion
    variants = {name: diffusion.VARIANTS[name] for name in ("plain", "channels_last+bf16")}
    steps: dict[str, Callable[[], Any]] = {"agreement": partial(agreement, device, sizes[0], attacked=64)}
    for compile, size, bf16 in product(compiled, sizes, (False, True)):
        steps[f"rn18 step, {size=}, {compile=}, {bf16=}"] = partial(short_ratios, "rn18", size, compile, bf16)
    steps["diffusion"] = partial(diffusion.throughput, unet, variants, 3, 3, device)
    steps["distill"] = partial(distill.score_based, distill.random_images(256), Path(), device, 3)
    steps |= {name: partial(stage, name) for name in ("raw", "prepare", "train_diffusion", "distill_sbg")}
    steps |= {f"{arch} with sbg": partial(aligned, arch, seconds) for arch in ("rn18", "rn18-silu")}
    results: dict[str, Any] = {"machine": harness.machine()}
    with workspace(values):
        for name in sorted(steps, key=lambda name: "compile=True" in name):  # last: compiling takes minutes
            start = time.perf_counter()
            try:
                outcome = steps[name]()
            except Exception as error:
                outcome = repr(error)
            results[name] = {"seconds": time.perf_counter() - start, "outcome": outcome}
            out.write_text(json.dumps(results, indent=1))


@click.command()
@click.option("--archive", required=True, type=click.Path(exists=True, resolve_path=True), help="the JPEG copy")
@click.option("--out", required=True, type=click.Path(resolve_path=True, path_type=Path), help="JSON")
@click.option("--minutes", default=1.0, show_default=True, help="of training, for each of the two networks")
def main(archive: str, out: Path, minutes: float) -> None:
    run(out, 60 * minutes, {"data.root": archive, **QUICK}, (64, 512), (False, True))


if __name__ == "__main__":
    main()
