"""How the report writes numbers and names, in tables, claims and figures alike."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from pag.foundation.config.section import without_activation

NORM_NAMES = {"L2": "L2", "Linf": "L∞"}
MISSING = "missing"

METHOD_NAMES = {
    "vanilla": "Vanilla",
    "oi": "OI",
    "cm": "CM",
    "nn": "NN",
    "sbg": "SBG",
    "at-l2": "AT-L2",
    "at-linf": "AT-L∞",
    "trades-linf": "TRADES-L∞",
    "gradnorm": "Gradient norm",
    "noise": "Noise",
}
REALIZATION_NAMES = {"oi": "one image", "cm": "class mean", "nn": "nearest neighbour", "sbg": "score-based gradients"}

METHOD_WORDS = {
    "vanilla": "plain training",
    "at-l2": "adversarial training within an L2 radius",
    "at-linf": "adversarial training within an L∞ radius",
    "trades-linf": "TRADES within an L∞ radius",
    "gradnorm": "penalty on the size of the input gradient",
    "noise": "training on noisy images",
}
ARCH_WORDS = {
    "cnn": "4 convolutions and a linear layer",
    "mlp": "perceptron of two layers",
    "rn8": "pre-activation ResNet of 8 layers",
    "rn14": "pre-activation ResNet of 14 layers",
    "rn18": "ResNet-18 for small images",
    "wrn-34-10": "Wide ResNet 34-10",
    "vgg11": "VGG-11 with BatchNorm",
    "vgg13": "VGG-13 with BatchNorm",
    "vgg16": "VGG-16 with BatchNorm",
    "vit": "vision transformer of 7 layers",
    "vit-mini": "vision transformer of 3 layers",
    "mixer": "MLP-Mixer of 8 blocks",
}
ACTIVATION_NAMES = {"relu": "ReLU", "silu": "SiLU"}


def arch_name(arch: str) -> str:
    """'rn8-silu (pre-activation ResNet of 8 layers; its activation is SiLU)'; a name of timm's says what it is."""
    base = without_activation(arch)
    words = [ARCH_WORDS[base]] if base in ARCH_WORDS else []
    if base != arch:
        words.append(f"its activation is {ACTIVATION_NAMES[arch.removeprefix(f'{base}-')]}")
    return f"{arch} ({'; '.join(words)})" if words else arch


def method_name(method: str) -> str:
    """'AT-L2+SBG' for 'at-l2+sbg'."""
    return "+".join(METHOD_NAMES.get(part, part) for part in method.split("+"))


def name_of(method: str, penalty: float | None) -> str:
    """'Gradient norm 3/255': with the weight of its penalty, where it has one."""
    return method_name(method) if penalty is None else f"{method_name(method)} {radius(penalty)}"


def radius(eps: float) -> str:
    """'0.5', '1', or '8/255' for a radius that is a whole number of grey levels and no short decimal."""
    text = f"{eps:g}"
    levels = round(eps * 255)
    if len(text) > 4 and levels > 0 and math.isclose(eps * 255, levels, rel_tol=2e-3):
        return f"{levels}/255"
    return f"{eps:.3g}"


def unit_of(radii: np.ndarray) -> int:
    """255 where all radii of an axis are whole numbers of grey levels, which read better than decimals; else 1."""
    levels = 255 * radii
    return 255 if np.allclose(levels, levels.round(), atol=0.02, rtol=0) else 1


def threat(norm: str, eps: float) -> str:
    return f"{NORM_NAMES[norm]} {radius(eps)}"


def percent(value: float) -> str:
    return f"{100 * value:.1f}"


def points(difference: float) -> str:
    """A difference of two fractions in percentage points, with its sign."""
    return f"{100 * difference:+.1f}"


def p_value(p: float) -> str:
    return "p < 0.001" if p < 0.001 else f"p = {p:.2g}"


def duration(seconds: float | None) -> str:
    """'45 s', '12 min', '1.5 h', 'missing'."""
    if seconds is None:
        return MISSING
    if seconds < 100:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def measured(value: float | None, error: float | None) -> str:
    """'74.5 ± 2.2' in percent, 'missing' where there is no number."""
    if value is None or math.isnan(value):
        return MISSING
    return percent(value) if error is None or math.isnan(error) else f"{percent(value)} ± {percent(error)}"


def compared(value: float | None, error: float | None, published: float | None) -> str:
    """'74.5 ± 2.2', followed by '/ 55.39 / +19.1' where the paper has a number: all in percent or points."""
    text = measured(value, error)
    if published is None or math.isnan(published):
        return text
    difference = "–" if value is None or math.isnan(value) else points(value - published)
    return f"{text} / {100 * published:.2f} / {difference}"


# Of a caption, as pandas does it in the cells.
ESCAPED = str.maketrans(
    {character: f"\\{character}" for character in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "`": ""}
)
# What LaTeX does not know as it is.
TEX = {"L∞": r"$L_\infty$", "±": r"$\pm$", "λ": r"$\lambda$", "ε": r"$\varepsilon$", "×": r"$\times$", "−": "$-$"}


@dataclass(frozen=True)
class Table:
    """One table for every page: in Markdown, in HTML (web/index.html.j2), in LaTeX."""

    name: str  # of its files, and of its place on a page
    title: str  # empty: it goes on where the one before ends
    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]

    def markdown(self) -> str:
        """All columns but the first are aligned to the right."""
        lines = [self.header, [":--", *["--:"] * (len(self.header) - 1)], *self.rows]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)

    def latex(self, about: str = "") -> str:
        """A table of the package booktabs, to be read with \\input; its caption begins with `about`."""
        style = pd.DataFrame(self.rows, columns=list(self.header)).style.hide(axis="index")
        style = style.format(escape="latex").format_index(escape="latex", axis="columns")
        columns = "l" + "r" * (len(self.header) - 1)
        caption = ". ".join(part.rstrip(".") for part in (about, self.title, self.caption) if part)
        text = style.to_latex(
            hrules=True,
            column_format=columns,
            position_float="centering",
            label=f"tab:{self.name}",
            caption=f"{caption}.".translate(ESCAPED) if caption else None,
        )
        for character, command in TEX.items():
            text = text.replace(character, command)
        return text
