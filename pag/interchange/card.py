"""The model card: what a classifier is, what was measured of it, on which data, under which licence."""

from collections.abc import Iterator

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from pag.interchange.measured import Measured

NORMS = {"L2": "L2", "Linf": "L∞"}
TEXT = """
# {name}

A classifier of the architecture `{arch}` for the {classes} classes of `{dataset}`, trained as `{run}` with
`pag`, an open implementation of [*Do Perceptually Aligned Gradients Imply
Robustness?*](https://arxiv.org/abs/2207.11378) (Ganz, Kawar and Elad, ICML 2023). It takes images of {shape} in [0, 1],
and normalises them itself. To load it, install `pag` from a clone of its repository (`pip install .`): the
package of that name on PyPI is another project.

```python
from pag.interchange.classifier import load_folder

model = load_folder("{name}")  # the path of this folder: images (B, {shape}) in [0, 1] → logits (B, {classes})
```

## Measured

{table}

Clean accuracy on {n_clean} {split} images; robust accuracy by {measured_on}.

## Training

{training}

## Data and licence

{licence} The images of `{dataset}` are not part of this folder and keep their own licence;
their content, as it was split, has the SHA-256 {dataset_hash}. Classes: {class_names}.

A small research model: it was measured against the attacks above and no others.
"""

LICENSED = "The weights are under the {} licence."
UNLICENSED = (
    "The weights have no licence: whoever publishes this folder says which (`license:` at the top of this file)."
)


def model_card(measured: Measured) -> str:
    """The text of README.md, with the metadata that the Hub reads."""
    about, images, rows = measured.about, measured.images, list(_rows(measured))
    data = ModelCardData(
        license=measured.licence,
        library_name="pytorch",
        pipeline_tag="image-classification",
        tags=["adversarial-robustness", "perceptually-aligned-gradients"],
        model_name=measured.name,
        eval_results=[
            EvalResult(
                task_type="image-classification",
                dataset_type=images.name,
                dataset_name=images.name,
                metric_type="accuracy",
                metric_name=name,
                metric_value=value,
            )
            for name, value in rows
        ],
    )
    told = {key: value for key, value in about.items() if value is not None and key not in ("dataset_hash", "sha256")}
    text = TEXT.format(
        name=measured.name,
        arch=about["arch"],
        run=about["run"],
        dataset=images.name,
        classes=images.num_classes,
        class_names=", ".join(images.class_names),
        shape="×".join(map(str, images.image_shape)),
        table="\n".join(["| | % |", "|---|--:|", *(f"| {name} | {100 * value:.1f} |" for name, value in rows)]),
        n_clean=measured.metrics["n_clean"],
        split=measured.metrics["split"],
        measured_on=measured.measured_on,
        training="\n".join(f"- {key}: {value}" for key, value in told.items()),
        dataset_hash=images.content_hash,
        licence=LICENSED.format(measured.licence.upper()) if measured.licence else UNLICENSED,
    )
    return str(ModelCard(f"---\n{data.to_yaml()}\n---\n{text}"))


def _rows(measured: Measured) -> Iterator[tuple[str, float]]:
    on_test_images = measured.metrics["split"] == "test"
    yield f"clean accuracy{'' if on_test_images else measured.mark}", measured.metrics["clean_accuracy"]
    for norm, radii in measured.metrics["robust_accuracy"].items():
        for eps, value in radii.items():
            yield f"robust accuracy, {NORMS[norm]} {_radius(float(eps))}{measured.mark}", value


def _radius(eps: float) -> str:
    """In grey levels where they are whole and the decimal is a long one."""
    levels = round(255 * eps)
    return f"{levels}/255" if abs(255 * eps - levels) < 1e-6 and len(f"{eps:g}") > 4 else f"{eps:g}"
