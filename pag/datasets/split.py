"""Which images belong where: seeded stratified splits, as sorted indices."""

from collections.abc import Sequence

import numpy as np
from sklearn.model_selection import train_test_split

from pag.foundation.config.section import ConfigError
from pag.foundation.seeding import derive_seed


def stratified(
    labels: np.ndarray, fraction: float, seed: int, purpose: str, class_names: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Sorted indices (kept, held out), the latter `fraction` of all with the class proportions of all.

    Raises ConfigError when there are too few images to hold some out and keep every class.
    """
    counts = np.bincount(labels, minlength=len(class_names))
    held_out = int(np.ceil(fraction * len(labels)))
    rarest = int(counts.argmin())
    problem = ConfigError(
        f"data.{purpose}_fraction = {fraction} cannot be held out of {len(labels)} images with each of the "
        f"{len(class_names)} classes on both sides ('{class_names[rarest]}' has {counts[rarest]}): "
        "use more images or another fraction"
    )
    if counts.min() < 2 or not len(class_names) <= held_out <= len(labels) - len(class_names):
        raise problem
    random_state = derive_seed(seed, "split", purpose) % 2**32  # the width that NumPy's generator takes
    kept, held = train_test_split(
        np.arange(len(labels)), test_size=fraction, stratify=labels, random_state=random_state
    )
    if len(np.unique(labels[kept])) < len(class_names):  # a small class and a large fraction
        raise problem
    return np.sort(kept), np.sort(held)
