"""Seconds of one training step: plain, gradient alignment, adversarial training, and the recipe as it was released.

    python -m benchmarks.training_step [--arch rn18 --arch vit] [--batch-size 64] [--settings] [--json]

CIFAR shapes (3×32×32, 10 classes), random pixels. A step is the objective, its backward pass and the optimizer's
update. All sides run the code that training runs, with the same network, memory format, precision and compilation. The
long ones (k > 1, PGD-20, TRADES, combinations) are timed on a part of the batch, beside an alignment step of that size,
and fewer times: once by default. So is the recipe, which repeats its images for all classes and takes 0.17 GB for each;
it is compared, per image, with an alignment step of the whole batch.
"""

from collections.abc import Callable
from itertools import product
from typing import Any, cast

import click
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.harness import measure, report
from pag.classifiers import ARCHITECTURES, build, fastest_layout
from pag.foundation.config.training import ClassifierConfig
from pag.objectives.alignment.objective import Alignment
from pag.objectives.baselines.adversarial import AdversarialTraining, Trades
from pag.objectives.baselines.cross_entropy import cross_entropy
from pag.report.paper import load_paper
from pag.threat.threat_model import ThreatModel
from pag.training.batch import Batch, Objective
from pag.training.loop import build_optimizer

NUM_CLASSES, IMAGE_SHAPE = 10, (3, 32, 32)
THREAT = ThreatModel("L2", 0.5)
LONG_PART, RECIPE_PART = 4, 8  # the long steps, and the recipe, are timed on a batch smaller by this factor


def ratios(arch: str, size: int, recipe_images: int, repeats: int, compile: bool, bf16: bool) -> dict[str, Any]:
    """The step times of one architecture, relative to each other and in milliseconds per image."""
    steps = Steps(arch, compile, bf16)
    part = max(1, size // LONG_PART)
    short = short_steps(steps, size, repeats)
    long = measure(
        {
            "plain": steps.of(cross_entropy, part),
            "pag": steps.of(Alignment(2.0), part, k=1),
            "k2": steps.of(Alignment(2.0), part, k=2),
            "all": steps.of(Alignment(2.0), part, k=NUM_CLASSES),
            "at20": steps.of(adversarial_training(20), part),
        },
        max(1, repeats // 2),
    )
    aligned, at7, trades = Alignment(2.0), adversarial_training(7), Trades(THREAT, 10, 0.1, beta=6.0)
    robust = measure(
        {
            "pag": steps.of(aligned, part, k=1),
            "trades": steps.of(trades, part),
            "at7+pag": steps.of(both(at7, aligned), part, k=1),
            "trades+pag": steps.of(both(trades, aligned), part, k=1),
        },
        repeats=1,
        warm_up=compile,  # else nothing is new: attacks and alignment have run at this size
    )
    # Uncompiled, in PyTorch's default memory format: as the recipe was released, and the faster one for it.
    recipe_steps = Steps(arch, compile=False, bf16=bf16, memory_format=torch.contiguous_format)
    recipe = measure(
        {
            "pag": steps.of(aligned, size, k=1),
            "recipe": recipe_steps.of(released_recipe, recipe_images, k=NUM_CLASSES),
        },
        repeats=1,
    )
    return {
        "pag_over_plain": short["pag"] / short["plain"],
        "at7_over_pag": short["at7"] / short["pag"],
        "at20_over_pag": long["at20"] / long["pag"],
        "over_pag": {name: seconds / robust["pag"] for name, seconds in robust.items() if name != "pag"},
        "recipe_over_pag": (recipe["recipe"] / recipe_images) / (recipe["pag"] / size),
        "k_over_plain": {
            "1": short["pag"] / short["plain"],
            "2": long["k2"] / long["plain"],
            "all": long["all"] / long["plain"],
        },
        "ms_per_image": {
            **{name: 1e3 * seconds / size for name, seconds in short.items()},
            **{name: 1e3 * robust[name] / part for name in robust if name != "pag"},
            "at20": 1e3 * long["at20"] / part,
            "recipe": 1e3 * recipe["recipe"] / recipe_images,
        },
    }


def short_steps(steps: "Steps", size: int, repeats: int) -> dict[str, float]:
    """Seconds of a plain step, of one of alignment (k = 1) and of adversarial training with PGD-7."""
    return measure(
        {
            "plain": steps.of(cross_entropy, size),
            "pag": steps.of(Alignment(2.0), size, k=1),
            "at7": steps.of(adversarial_training(7), size),
        },
        repeats,
    )


def short_ratios(arch: str, size: int, compile: bool, bf16: bool, repeats: int = 5) -> dict[str, float]:
    """Milliseconds of the short steps on `size` images, and how they compare."""
    seconds = short_steps(Steps(arch, compile, bf16), size, repeats)
    compared = {"pag_over_plain": seconds["pag"] / seconds["plain"], "at7_over_pag": seconds["at7"] / seconds["pag"]}
    return {f"{name}_ms": 1e3 * value for name, value in seconds.items()} | compared


def settings_table(arch: str, size: int, repeats: int) -> dict[str, dict[str, float]]:
    """How many times faster the short steps are in each setting than in float32, contiguous and eager."""
    layouts = {"contiguous": torch.contiguous_format, "channels-last": torch.channels_last}
    plain = short_steps(Steps(arch, compile=False, bf16=False, memory_format=torch.contiguous_format), size, repeats)
    rows: dict[str, dict[str, float]] = {"milliseconds": {name: 1e3 * value for name, value in plain.items()}}
    for precision, (layout, memory_format), how in product(("float32", "bf16"), layouts.items(), ("eager", "compiled")):
        if (precision, layout, how) != ("float32", "contiguous", "eager"):
            torch.compiler.reset()
            steps = Steps(arch, how == "compiled", precision == "bf16", memory_format)
            seconds = short_steps(steps, size, repeats)
            rows[f"{precision}, {layout}, {how}"] = {name: plain[name] / value for name, value in seconds.items()}
    return rows


class Steps:
    """Training steps of one network, as `pag.training.loop` makes them."""

    def __init__(self, arch: str, compile: bool, bf16: bool, memory_format: torch.memory_format | None = None) -> None:
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.bf16 = bf16
        model = build(arch, NUM_CLASSES, IMAGE_SHAPE, seed=0).train()
        model.to(self.device).to(memory_format=memory_format or fastest_layout(model))
        self.network = cast(nn.Module, torch.compile(model)) if compile else model
        self.optimizer = build_optimizer(model, ClassifierConfig(lr=1e-6))

    def of(self, objective: Objective, size: int, k: int = 0) -> Callable[[], None]:
        """One step of `objective` on a batch of `size` images with k target classes each."""
        batch = random_batch(size, k, self.device)

        def step() -> None:
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
                loss = torch.stack(list(objective(self.network, batch).values())).sum()
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self.optimizer.step()
            if self.device.type == "cuda":
                torch.cuda.synchronize()

        return step


def released_recipe(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
    """The objective as the authors' script computes it.

    Every image is repeated for all classes, in a forward pass of its own, and PyTorch differentiates twice.
    """
    assert batch.target_classes is not None and batch.class_gradients is not None
    images = batch.images.repeat_interleave(NUM_CLASSES, dim=0).requires_grad_()
    log_p = F.log_softmax(model(images), dim=1).gather(1, batch.target_classes.view(-1, 1))
    (gradients,) = torch.autograd.grad(log_p.sum(), images, create_graph=True)
    cos = F.cosine_similarity(gradients.flatten(1), batch.class_gradients.flatten(0, 1).flatten(1), dim=1)
    terms = cross_entropy(model, batch)
    return terms | {"alignment": 2.0 * (1 - cos).sum() / len(batch.labels)}


def adversarial_training(steps: int) -> AdversarialTraining:
    return AdversarialTraining(THREAT, steps, step_size=1.5 * THREAT.eps / steps)


def both(robust: Objective, aligned: Alignment) -> Objective:
    """A robust objective with the alignment term, as in stages/train_robust_pag.py."""
    return lambda model, batch: {**robust(model, batch), **aligned.term(model, batch)}


def random_batch(size: int, k: int, device: torch.device) -> Batch:
    g = torch.Generator().manual_seed(0)
    return Batch(
        images=torch.rand(size, *IMAGE_SHAPE, generator=g).to(device),
        labels=torch.randint(NUM_CLASSES, (size,), generator=g).to(device),
        seed=0,
        target_classes=torch.rand(size, NUM_CLASSES, generator=g).topk(k).indices.to(device) if k else None,
        class_gradients=torch.randint(-127, 128, (size, k, *IMAGE_SHAPE), generator=g, dtype=torch.int8).to(device),
    )


@click.command()
@click.option(
    "--arch", "archs", multiple=True, default=["rn18"], type=click.Choice([a for a in ARCHITECTURES if a != "mlp"])
)
@click.option("--batch-size", default=64, help="1 is the setting of the paper's appendix H")
@click.option(
    "--recipe-images", type=click.IntRange(min=1), help="timed with the recipe; an eighth of the batch by default"
)
@click.option(
    "--repeats", default=3, help="of which the medians are reported; half as many of the long steps, one of the recipe"
)
@click.option("--compile", is_flag=True, help="torch.compile, as classifier.compile does")
@click.option("--bf16", is_flag=True, help="bfloat16 autocast, as classifier.precision does")
@click.option("--settings", is_flag=True, help="instead, short steps by precision, memory layout and compilation")
@click.option("--json", "as_json", is_flag=True, help="print one JSON object")
def main(
    archs: tuple[str, ...],
    batch_size: int,
    recipe_images: int | None,
    repeats: int,
    compile: bool,
    bf16: bool,
    settings: bool,
    as_json: bool,
) -> None:
    if settings:
        faster = {arch: settings_table(arch, batch_size, repeats) for arch in archs}
        report("training_step", {"batch_size": batch_size, "times_faster": faster}, as_json)
        return
    recipe_images = recipe_images or max(1, batch_size // RECIPE_PART)
    per_arch = {arch: ratios(arch, batch_size, recipe_images, repeats, compile, bf16) for arch in archs}
    asked = {"batch_size": batch_size, "recipe_images": recipe_images, "compile": compile, "bf16": bf16}
    published = load_paper()["runtime"]
    same = batch_size == published["batch_size"] and archs[0] == published["arch"]
    paper = {"paper": published["pag_faster_than"]} if same else {}
    report("training_step", asked | next(iter(per_arch.values())) | paper | {"per_arch": per_arch}, as_json)


if __name__ == "__main__":
    main()
