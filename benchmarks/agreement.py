"""Does a GPU compute what the CPU computes? Logits, alignment loss and its gradients, robust flags.

`python -m benchmarks.agreement` says how far float32 is from float64 on one CPU: the yardstick for the gradients.
"""

from dataclasses import replace

import click
import torch
from torch import Tensor, nn

from benchmarks.evaluation import adversarially_trained
from benchmarks.harness import report
from benchmarks.training_step import NUM_CLASSES, random_batch
from pag.classifiers import build
from pag.datasets.preparation import prepare
from pag.evaluation.autoattack import evaluate_autoattack
from pag.evaluation.standard import quick
from pag.foundation.config.conf import load_conf
from pag.images.balance import balanced
from pag.images.dataset import Split
from pag.objectives.alignment.objective import Alignment

EPS = 0.1  # L∞ radius on the digits


def agreement(device: torch.device, batch_size: int, attacked: int) -> dict[str, float]:
    """Float32 without TF32: the largest difference of a logit, relative ones of loss and weight gradients; and of
    `attacked` digits how many have the same robust flag (attacks draw other random numbers on a GPU)."""
    digits = prepare("digits", load_conf("digits").data, seed=0)
    robust = adversarially_trained(digits.train.unit(), torch.from_numpy(digits.train.labels))
    test = digits.test.select(balanced(digits.test.labels, attacked, 0, "attacked"))
    tf32, torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.allow_tf32, False
    try:
        ours, theirs = (_computed(robust, test, side, batch_size) for side in (torch.device("cpu"), device))
    finally:
        torch.backends.cudnn.allow_tf32 = tf32
    logits, loss, gradient, robust_flags = zip(ours, theirs, strict=True)
    return {
        "logits": float((logits[0] - logits[1]).abs().max()),
        "loss": float((loss[0] - loss[1]).abs() / loss[0].abs()),
        "gradient": float((gradient[0] - gradient[1]).norm() / gradient[0].norm()),
        "equal_flags": int((robust_flags[0] == robust_flags[1]).sum()),
        "attacked": attacked,
    }


def _computed(robust: nn.Module, test: Split, device: torch.device, batch_size: int) -> tuple[Tensor, ...]:
    """Logits and alignment loss of an untrained ResNet-18, the loss's weight gradients; flags of `robust`."""
    logits, loss, gradient = _alignment("rn18", batch_size, device, torch.float32)
    images, labels = test.unit().to(device), torch.from_numpy(test.labels).to(device)
    found = evaluate_autoattack(
        robust.to(device), images, labels, {"Linf": [EPS]}, batch_size=len(test), seed=0, budget=quick()
    )
    return logits, loss, gradient, found.by_norm["Linf"].radius.cpu() > EPS


def rounding(arch: str, batch_size: int) -> dict[str, float]:
    """Relative differences of alignment loss and weight gradients between float32 and float64, on the CPU. Rounding
    moves some of a ReLU's inputs across zero, where its derivative jumps; SiLU's is continuous."""
    rounded, exact = (
        _alignment(arch, batch_size, torch.device("cpu"), dtype) for dtype in (torch.float32, torch.float64)
    )
    return {
        "loss": float((rounded[1] - exact[1]).abs() / exact[1].abs()),
        "gradient": float((rounded[2] - exact[2]).norm() / exact[2].norm()),
    }


def _alignment(arch: str, batch_size: int, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Logits and alignment loss of an untrained network, and the loss's weight gradients in a row."""
    model, batch = build(arch, NUM_CLASSES, (3, 32, 32), seed=0).to(device, dtype), random_batch(batch_size, 1, device)
    batch = replace(batch, images=batch.images.to(dtype))
    logits = model.eval()(batch.images)
    loss = torch.stack(list(Alignment(2.0)(model.train(), batch).values())).sum()
    gradient = torch.cat([part.flatten() for part in torch.autograd.grad(loss, list(model.parameters()))])
    return logits.detach().cpu(), loss.detach().cpu(), gradient.cpu()


@click.command()
@click.option("--json", is_flag=True, help="one JSON object on the last line")
def main(json: bool) -> None:
    report("agreement", {arch: rounding(arch, batch_size=64) for arch in ("rn18", "rn18-silu")}, json)


if __name__ == "__main__":
    main()
