"""Class-balanced parts of a data set, as sorted indices."""

from collections.abc import Sequence

import numpy as np


def balanced(labels: Sequence[int] | np.ndarray, limit: int | None) -> np.ndarray:
    """Indices of `limit` images with classes as equal in number as the data allow: the first ones of each class.

    They depend on the order of the source alone, not on a seed, so that a loader can choose before it decodes.
    """
    labels = np.asarray(labels)
    if limit is None or limit >= len(labels):
        return np.arange(len(labels))
    by_class = np.argsort(labels, kind="stable")
    first_of_class = np.searchsorted(labels[by_class], labels)
    rank = np.empty(len(labels), dtype=np.int64)  # 0 for the first image of its class, 1 for the second, …
    rank[by_class] = np.arange(len(labels))
    rank -= first_of_class
    return np.sort(np.lexsort((labels, rank))[:limit])
