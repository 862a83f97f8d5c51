"""How sure the difference of two accuracies is: one interval for every comparison of the report.

Both classifiers saw the same images, so each image has a difference d in [−1, 1]: of right and wrong, or of the shares
of threat models, or of training seeds, at which it was right. The interval is mean(d) ± t · its standard error, after
one image is added that each side alone got right. For a single threat model and seed this is the interval of Bonett and
Price (2012, "Adjusted Wald confidence interval for a difference of binomial proportions based on paired data"). One
formula instead of McNemar's exact test here and a bootstrap there: McNemar's knows no margin and no mean over threat
models, a bootstrap of images without a disagreement says ± 0, and in single comparisons all three agree.

Over several training seeds of both classifiers, the spread of their accuracies, pooled over both, is added to the
error, and t has the degrees of freedom of Welch and Satterthwaite: two seeds that differ widely leave a wide interval.
What seeds and images do together is in both parts, which errs towards "undecided". With a seed each, an outcome is
about these two trained networks, not about the methods that trained them.

Where the images are not recorded, the errors of both accuracies are added as if the images were different ones.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
from scipy import stats

LEVEL = 0.95


@dataclass(frozen=True, eq=False)
class Measurement:
    """An accuracy, or a mean of accuracies over threat models, for each training seed."""

    by_seed: tuple[float, ...]  # the main run's first
    error: float  # standard error over the images, of one seed
    images: str | None = None  # which images; None: not recorded
    correct: np.ndarray | None = None  # (seeds, N) in [0, 1]: share of the threat models at which an image is right

    @property
    def value(self) -> float:
        return float(np.mean(self.by_seed))

    def first_seed(self) -> "Measurement":
        return replace(self, by_seed=self.by_seed[:1], correct=None if self.correct is None else self.correct[:1])


@dataclass(frozen=True)
class Difference:
    """Of two accuracies, as a fraction."""

    value: float
    centre: float  # of the interval
    error: float
    freedom: float  # degrees of freedom of t; inf: the normal distribution
    paired: bool

    @property
    def interval(self) -> tuple[float, float]:
        reach = float(stats.t.ppf((1 + LEVEL) / 2, self.freedom)) * self.error
        return self.centre - reach, self.centre + reach

    def p(self, margin: float) -> float:
        """Two-sided, of a true difference equal to the margin: below 1 − LEVEL where the interval leaves it out."""
        return 2 * float(stats.t.sf(abs(self.centre - margin) / self.error, self.freedom))


def difference(ours: Measurement, other: Measurement) -> Difference:
    """ours − other, over as many seeds as both have: over all of them, or between the two main runs."""
    if min(len(ours.by_seed), len(other.by_seed)) < 2:
        ours, other = ours.first_seed(), other.first_seed()
    value = ours.value - other.value
    paired = ours.images is not None and ours.images == other.images
    if paired and ours.correct is not None and other.correct is not None:
        of_images = np.append(ours.correct.mean(axis=0) - other.correct.mean(axis=0), (1.0, -1.0))
        centre, variance = float(of_images.mean()), float(of_images.var()) / len(of_images)
    else:
        centre, variance = value, ours.error**2 + other.error**2
    spread, freedom = _spread(ours.by_seed, other.by_seed)
    total = variance + spread
    freedom = freedom * (total / spread) ** 2 if spread > 0 else math.inf
    return Difference(value, centre, math.sqrt(total), freedom, paired)


def _spread(ours: tuple[float, ...], other: tuple[float, ...]) -> tuple[float, float]:
    """Variance that training seeds give the difference of two means, and its degrees of freedom."""
    freedom = len(ours) + len(other) - 2
    if freedom == 0:
        return 0.0, 0.0
    pooled = (np.var(ours) * len(ours) + np.var(other) * len(other)) / freedom
    return float(pooled * (1 / len(ours) + 1 / len(other))), freedom
