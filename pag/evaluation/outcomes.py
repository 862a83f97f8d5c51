"""An evaluation image by image, as arrays: what paired comparisons of two classifiers are made of."""

from collections.abc import Mapping

import numpy as np

from pag.evaluation.autoattack import NormResult
from pag.foundation.config.section import Norm


def outcome_arrays(found: Mapping[Norm, NormResult], curve: Mapping[Norm, NormResult]) -> dict[str, np.ndarray]:
    """For each norm, over the attacked images (N,) in their order:

    radius_<norm>: float64, the smallest attacked radius that broke the image; 0 if it is misclassified as it is, inf if
        it survived. broken_by_<norm>: the attack, "clean", or "".
    curve_radius_<norm>: the same under the quick attack at the radii curve_eps_<norm> (R,), where there is a curve.
    """
    arrays: dict[str, np.ndarray] = {}
    for norm, result in found.items():
        arrays[f"radius_{norm}"] = result.radius.cpu().numpy()
        arrays[f"broken_by_{norm}"] = np.array(result.broken_by)
    for norm, result in curve.items():
        arrays[f"curve_eps_{norm}"] = np.array(result.eps)
        arrays[f"curve_radius_{norm}"] = result.radius.cpu().numpy()
    return arrays
