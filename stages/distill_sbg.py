"""distill_sbg: score-based gradients for every training image and class, and for held-out images to measure against."""

import click

from pag.diffusion.model.schedule import gradient_t
from pag.diffusion.model.trained import load_diffusion
from pag.foundation.config.conf import load_conf
from pag.foundation.config.params import load_params
from pag.foundation.seeding import derive_seed
from pag.gradients.score import ScoreBased
from pag.images.balance import balanced
from pag.images.dataset import load
from stages.shared import paths
from stages.shared.command import run_stage
from stages.shared.device import best_device
from stages.shared.distillation import write_preview, write_store


@click.command()
@click.argument("dataset")
def main(dataset: str) -> None:
    seed, config, images = load_params().seed, load_conf(dataset).distill, load(paths.images(dataset))
    device = best_device()
    model = load_diffusion(paths.diffusion(dataset), device, images)
    t = gradient_t(model.config, config.t)
    attributes = {
        "realization": "sbg",
        "t": t,
        "alpha_bar": float(model.schedule.alpha_bar[t]),
        "noise_draws": config.noise_draws,
        "diffusion_sha256": model.sha256,
        "seed": seed,
    }

    gradients = ScoreBased(model, t, config.noise_draws, seed)
    rows = balanced(images.test.labels, config.heldout_images, seed, "heldout")
    # the training images' noise is theirs
    heldout = ScoreBased(model, t, config.noise_draws, derive_seed(seed, "heldout"))
    ruler = config.model_copy(update={"bits": 8})  # the same for every precision of the training images' directions

    with paths.scratch("distill_sbg", images.content_hash, attributes, config.model_dump(mode="json")) as scratch:
        store, of_train = paths.gradients(dataset, "sbg"), {**attributes, "split": "train"}
        write_store(gradients, images, images.train, store, config, of_train, device, scratch)
        write_preview(gradients, images, "sbg", device)
        store, of_test = paths.gradients(dataset, "heldout"), {**attributes, "split": "test", "rows": rows.tolist()}
        write_store(heldout, images, images.test.select(rows), store, ruler, of_test, device, scratch)


if __name__ == "__main__":
    run_stage(main, shared=True)
