"""index.html: the report as one file that needs no network."""

import base64
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import altair as alt
import pandas as pd
import vl_convert
from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from pag.report.content import TITLE, Content, Group
from pag.report.figures import Illustration
from pag.report.formats import method_name
from pag.report.style import COLOURS, colour, ink, marker
from pag.report.web import charts, marks
from pag.report.web.provenance import provenance

DARK = "#15181c"  # the page of the dark theme; style.css has it too
PICTURES = 3_500_000  # characters of all of them, so that the page stays well below 6 MB
LOSSLESS = 100
QUALITIES = (LOSSLESS, 80, 60, 40, 20)  # of WebP
GLYPHS = {"o": "●", "s": "■", "D": "◆", "^": "▲", "v": "▼", "P": "✚"}


@dataclass(frozen=True)
class Picture:
    source: str  # a data URI
    width: int  # pixels
    height: int


def web_page(content: Content, shown: Sequence[Illustration], figures: Path, curves: Path) -> str:
    """The page as HTML.

    Args:
        content: what report.md says too.
        shown: the figures, whose PNGs lie in `figures`; charts are drawn anew.
        curves: the folder of the curves of the trainings, <dataset>/<arch>/<run>.csv, if they took place here.
    """
    environment = Environment(
        loader=PackageLoader("pag.report", "web"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    groups = [(group, _headline(group), _sections(group, _curves(group, curves))) for group in content.groups]
    specs = {c.name: c.spec for _, *parts in groups for part in parts for _, _, drawn in part for c in drawn}
    embedded = [item for item in shown if item.kind != "chart"]
    pictures, without_loss = _embedded([figures / f"{item.name}.png" for item in embedded])
    methods = dict.fromkeys(run.method for group in content.groups for run in group.runs)
    return environment.get_template("index.html.j2").render(
        title=TITLE,
        content=content,
        groups=groups,
        specs=json.dumps(specs, ensure_ascii=False, sort_keys=True, separators=(",", ":")).replace("<", "\\u003c"),
        methods=[(m, method_name(m), GLYPHS[marker(m)], marks.variable(m)) for m in methods],
        light={marks.variable(method): colour(method) for method in (*COLOURS, "others")},
        dark={marks.variable(method): ink(method, DARK) for method in (*COLOURS, "others")},
        pictures=pictures,
        without_loss=without_loss,
        shown=embedded,
        provenance=provenance(content),
        vega=vega(),
    )


@cache
def vega() -> str:
    """The libraries that draw the charts, in the version that the specifications are written for."""
    version = alt.SCHEMA_VERSION.removeprefix("v").rpartition(".")[0]
    return vl_convert.javascript_bundle(vl_version=version)  # type: ignore[call-arg] # its stub demands the snippet


Section = tuple[str, str, list[charts.Chart]]  # title, what to know, charts


def _headline(group: Group) -> list[Section]:
    about = "Bars: accuracy with its standard error."
    if group.scores["paper"].notna().any():
        about += " The line across: the paper's number."
    return _drawn([("", about, charts.accuracy_charts(group))])


def _sections(group: Group, curves: pd.DataFrame) -> list[Section]:
    quick = charts.quick_charts(group)
    radii = "The images under attack, with the standard error; at 0 without an attack."
    if quick:
        radii += " A quick attack is as a rule at or above AutoAttack's accuracy; it is for the shape of the curves."
    points = "A point per run, variants too: do classifiers whose gradients look like SBG resist attacks?"
    return _drawn(
        [
            ("Accuracy over the radius", radii, [*charts.radius_charts(group), *quick]),
            ("Alignment against robustness", points, charts.alignment_charts(group)),
            ("Over λ", "λ weighs the alignment; the axis is to scale.", charts.weight_charts(group)),
            ("Cost", "", charts.cost_charts(group)),
            (
                "Training curves",
                "Of the main runs, as their training recorded them.",
                charts.training_charts(group, curves),
            ),
        ]
    )


def _drawn(sections: list[Section]) -> list[Section]:
    return [section for section in sections if section[2]]


def _curves(group: Group, folder: Path) -> pd.DataFrame:
    """The recorded curves of the main runs: method, run, epoch, quantity, value."""
    frames = [pd.DataFrame(columns=["method", "run", "epoch", "quantity", "value"])]
    for run in group.main:
        path = folder / run.dataset / run.arch / f"{run.name}.csv"
        if path.exists():
            recorded = pd.read_csv(path).melt("epoch", var_name="quantity")
            frames.append(recorded.assign(method=run.method, run=run.name))
    return pd.concat(frames[1:] or frames, ignore_index=True)


def _embedded(pngs: Sequence[Path]) -> tuple[dict[str, Picture], bool]:
    """By name, and whether all are without loss: the best quality at which they fit the page."""
    for quality in QUALITIES:
        pictures = {png.stem: _picture(png, quality) for png in pngs}
        if sum(len(picture.source) for picture in pictures.values()) <= PICTURES:
            break
    return pictures, quality == LOSSLESS


def _picture(png: Path, quality: int) -> Picture:
    image, packed = Image.open(png).convert("RGB"), io.BytesIO()
    image.save(packed, "WEBP", lossless=quality == LOSSLESS, quality=quality, method=4)
    return Picture(f"data:image/webp;base64,{base64.b64encode(packed.getvalue()).decode()}", *image.size)
