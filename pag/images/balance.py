"""Class-balanced parts of a data set, as sorted indices."""

from collections.abc import Sequence

import numpy as np

from pag.foundation.seeding import derive_seed


def balanced(labels: Sequence[int] | np.ndarray, limit: int | None, seed: int, purpose: str) -> np.ndarray:
    """Indices of `limit` images, drawn at random with classes as equal in number as the data allow; None: of all.

    Not the first ones: files of one name are often of one video, patient or day. The images of a smaller limit are
    among those of a larger one with the same seed and purpose.
    """
    labels = np.asarray(labels)
    if limit is None or limit >= len(labels):
        return np.arange(len(labels))
    order = np.random.default_rng(derive_seed(seed, "balanced", purpose)).permutation(len(labels))
    by_class = order[np.argsort(labels[order], kind="stable")]
    rank = np.empty(len(labels), dtype=np.int64)  # 0 for the first one drawn of its class, 1 for the second, …
    rank[by_class] = np.arange(len(labels)) - np.searchsorted(labels[by_class], labels[by_class])
    return np.sort(np.lexsort((order.argsort(), rank))[:limit])
