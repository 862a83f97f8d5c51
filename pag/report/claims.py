"""What the paper claims of robustness (1 to 7), each a small function over a group of scores with an explicit rule.

A function returns the checks of its rule, or raises `NotTested` with what is missing; `judgement` calls them.
"""

from itertools import pairwise

import pandas as pd

from pag.report.formats import threat
from pag.report.rules import (
    AT_LEAST,
    BEATS,
    Check,
    NotTested,
    accuracy,
    at_least,
    beats,
    claim,
    gains,
    learnt,
    mean_accuracy,
    methods_of,
    require,
    scored,
    settled,
    smallest,
    threat_models,
)

ROBUST_GAIN = {"oi": 0.10, "cm": 0.10, "nn": 0.10, "sbg": 0.25}  # over vanilla at the smallest L2 radius
CLEAN_BELOW_ROBUST = 0.05  # clean accuracy may lie this far below that of adversarial training
CLEAN_BELOW_VANILLA = 0.20  # and, where no adversarial training ran, this far below vanilla's
LOW_DATA_IMAGES = 5000  # STL-10's training set, the paper's low-data setting
SWEEP_POINTS = 3
ALIGNMENT_SLACK = 0.02  # a mean cosine this much lower counts as equal


@claim(
    1,
    "Every realisation makes the model far more robust than vanilla, at a competitive clean accuracy.",
    "At the smallest L2 radius OI, CM and NN each reach vanilla + 10 points and SBG vanilla + 25. Clean accuracy "
    "is competitive if it is at most 5 points below the lowest clean accuracy of adversarial training or TRADES (of "
    "those above chance level), as it is in the paper, whose SBG is 3.9 points below its AT-L∞ and 8.2 below its AT-L2 "
    "on CIFAR-10; without them, at most 20 points below vanilla.",
)
def robust_gain(scores: pd.DataFrame) -> list[Check]:
    require(scores, *ROBUST_GAIN)
    norm, eps = smallest(scores, "L2")
    vanilla = accuracy(scores, "vanilla", norm, eps)
    robust_runs = [m for m in methods_of(scores) if "+" not in m and m.startswith(("at-", "trades-"))]
    trained = [score for method in robust_runs if (score := accuracy(scores, method)).learnt]
    if trained:
        reference, below = min(trained, key=lambda score: score.value), CLEAN_BELOW_ROBUST
    else:
        reference, below = accuracy(scores, "vanilla"), CLEAN_BELOW_VANILLA
    checks = []
    for method, gain in ROBUST_GAIN.items():
        robust, clean = accuracy(scores, method, norm, eps), accuracy(scores, method)
        checks.append(gains(threat(norm, eps), robust, vanilla, gain))
        checks.append(gains("clean", clean, reference, -below))
    return checks


@claim(
    2,
    "Score-based gradients do at least as well as the heuristics.",
    f"SBG is at least each of OI, CM and NN at every threat model. {AT_LEAST}",
)
def score_based_best(scores: pd.DataFrame) -> list[Check]:
    require(scores, *ROBUST_GAIN)
    return [
        at_least(threat(*model), accuracy(scores, "sbg", *model), accuracy(scores, heuristic, *model))
        for heuristic in ("oi", "cm", "nn")
        for model in threat_models(scores)
    ]


@claim(
    3,
    "SBG beats AT-L2 on the norm that it was not trained on and at larger radii.",
    f"SBG beats AT-L2 at every L∞ radius and at every L2 radius above the one AT-L2 was trained with. {BEATS}",
)
def beyond_adversarial_training(scores: pd.DataFrame) -> list[Check]:
    require(scores, "sbg", "at-l2")
    trained_eps = float(scores.loc[scores["method"] == "at-l2", "trained_eps"].iloc[0])
    models = [(norm, eps) for norm, eps in threat_models(scores) if norm == "Linf" or eps > 1.01 * trained_eps]
    if {norm for norm, _ in models} != {"L2", "Linf"}:
        raise NotTested(f"threat models Linf and L2 above {trained_eps:g}")
    return [beats(threat(*m), accuracy(scores, "sbg", *m), accuracy(scores, "at-l2", *m)) for m in models]


@claim(
    4,
    "SBG beats adversarial training with little data and with a ViT (judged where one of the two was used).",
    f"Tested where at most {LOW_DATA_IMAGES} training images (STL-10's number) or a ViT were used, and judged for "
    "what was used, as each check says: the mean of SBG's accuracies over all threat models beats that of AT-L2 and of "
    f"AT-L∞. {BEATS}",
)
def low_data_and_vit(scores: pd.DataFrame) -> list[Check]:
    images = scores["train_images"].max()
    vit, little_data = scores["arch"].str.startswith("vit").all(), images <= LOW_DATA_IMAGES
    if not vit and not little_data:
        known = "an unknown number of training images" if pd.isna(images) else f"{images:.0f} training images"
        raise NotTested(f"a ViT or at most {LOW_DATA_IMAGES} training images; this is {known}")
    require(scores, "sbg", "at-l2", "at-linf")
    models = threat_models(scores)
    setting = f"{images:.0f} training images" if little_data else "many training images"
    where = f"{setting}, {'a ViT' if vit else 'no ViT'}: mean over {', '.join(threat(*model) for model in models)}"
    return [
        beats(where, mean_accuracy(scores, "sbg", models), mean_accuracy(scores, method, models))
        for method in ("at-l2", "at-linf")
    ]


@claim(
    5,
    "Robustness grows with λ as alignment grows.",
    f"Over {SWEEP_POINTS} or more values of λ (vanilla is λ = 0), SBG at the smallest L2 radius: the largest λ beats "
    "the smallest and each is at least the best smaller λ; the mean alignment at the largest λ is above that at the "
    f"smallest and no step loses more than {ALIGNMENT_SLACK:g}. {BEATS} {AT_LEAST}",
    scope="sweep",
)
def grows_with_weight(scores: pd.DataFrame) -> list[Check]:
    """The rows of `sbg`, one run per λ, and vanilla as λ = 0."""
    norm, eps = smallest(scores, "L2")
    swept = scores[scores["method"].isin(["vanilla", "sbg"])].copy()
    swept.loc[swept["method"] == "vanilla", "weight"] = 0.0
    at_radius = swept[(swept["measure"] == "robust") & (swept["norm"] == norm) & (swept["eps"] == eps)]
    robust = at_radius.dropna(subset=["value", "weight"]).drop_duplicates("weight").set_index("weight").sort_index()
    aligned = swept[swept["measure"] == "alignment"].dropna(subset=["value", "weight"])
    alignment = aligned.drop_duplicates("weight").set_index("weight").sort_index()["value"]
    weights = [float(weight) for weight in robust.index if weight in alignment.index]
    if len(weights) < SWEEP_POINTS:
        known = ", ".join(f"{weight:g}" for weight in weights) or "none"
        raise NotTested(f"sbg at {SWEEP_POINTS} or more values of λ, vanilla counting as 0; there are: {known}")
    sweep = []
    for w in weights:
        sweep.append(scored(f"λ {w:g}", robust.loc[[w]], learnt(swept[swept["weight"] == w])))
    checks = [beats(threat(norm, eps), sweep[-1], sweep[0])]
    for before, score in enumerate(sweep[1:], start=1):
        checks.append(at_least(threat(norm, eps), score, max(sweep[:before], key=lambda smaller: smaller.value)))
    cosines = [float(alignment[weight]) for weight in weights]
    rising = all(b >= a - ALIGNMENT_SLACK for a, b in pairwise(cosines))
    listed = ", ".join(f"{cosine:.3f} at λ {weight:g}" for cosine, weight in zip(cosines, weights, strict=True))
    return [*checks, settled(f"alignment: {listed}", rising and cosines[-1] > cosines[0])]


@claim(
    6,
    "Adding the objective to AT or TRADES improves robustness to seen and unseen attacks.",
    "For each robust method with and without alignment: the mean accuracy over the radii of the norm it was trained "
    f"on beats the plain method's, and so does the mean over the radii of the other norm. {BEATS}",
)
def improves_robust_training(scores: pd.DataFrame) -> list[Check]:
    trained = methods_of(scores)
    pairs = [(m, m.split("+")[0]) for m in trained if "+" in m and m.split("+")[0] in trained]
    if not pairs:
        raise NotTested("adversarial training or TRADES with and without alignment")
    checks = []
    for combined, plain in pairs:
        seen = scores.loc[scores["method"] == plain, "trained_norm"].iloc[0]
        models = threat_models(scores)
        for title, norms in (("seen", {seen}), ("unseen", {"L2", "Linf"} - {seen})):
            group = [model for model in models if model[0] in norms]
            if not group:
                raise NotTested(f"threat models of the norm {title} by {plain}")
            where = f"{title}, mean over {', '.join(threat(*model) for model in group)}"
            checks.append(beats(where, mean_accuracy(scores, combined, group), mean_accuracy(scores, plain, group)))
    return checks


@claim(
    7,
    "It holds across architectures.",
    "On a dataset with two or more architectures, SBG reaches vanilla + 25 points at the smallest L2 radius on each.",
    scope="dataset",
)
def across_architectures(scores: pd.DataFrame) -> list[Check]:
    """On the scores of all architectures of a dataset."""
    archs = list(dict.fromkeys(scores["arch"]))
    if len(archs) < 2:
        raise NotTested(f"a second architecture besides {archs[0]}" if archs else "two architectures")
    checks = []
    for arch in archs:
        group = scores[(scores["arch"] == arch) & scores["method"].isin(["vanilla", "sbg"])]
        require(group, "vanilla", "sbg")
        norm, eps = smallest(group, "L2")
        robust, vanilla = accuracy(group, "sbg", norm, eps), accuracy(group, "vanilla", norm, eps)
        checks.append(gains(f"{arch}, {threat(norm, eps)}", robust, vanilla, ROBUST_GAIN["sbg"]))
    return checks
