"""metrics.json, report.md and figures of what is there so far, at most eight small files in one folder."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from benchmarks.cifar10.settings import DATASET, grouped
from benchmarks.cifar10.state import State
from benchmarks.harness import machine
from pag.checkpoint import load_json, save_json
from pag.config.conf import Conf
from pag.config.params import Params
from pag.report import arrays, tables
from pag.report.figures import alignment_figure
from pag.report.formats import REALIZATION_NAMES, method_name
from pag.report.grids import Panel, diffusion_figure, large_eps_figure, realization_figure
from pag.report.results import Results, read_results
from pag.report.style import save
from stages import paths


@dataclass(frozen=True)
class Drawing:
    """A figure that is not drawn yet, and the files that it shows."""

    name: str
    sources: list[Path]
    draw: Callable[[], Figure]


def write_results(out: Path, state: State, params: Params, conf: Conf) -> None:
    """Write the folder `out`; earlier files are replaced one by one, figures only if what they show has changed."""
    out.mkdir(parents=True, exist_ok=True)
    finished = finished_methods(params)
    results = {arch: _read(params, conf, arch, methods) for arch, methods in finished.items()}
    drawings = list(_drawings(params, results))
    for drawing in drawings:
        path = out / f"{drawing.name}.png"
        if not path.exists() or path.stat().st_mtime <= max(source.stat().st_mtime for source in drawing.sources):
            save(drawing.draw(), path)
    save_json(out / "metrics.json", _everything(state, params, conf, finished))
    (out / "report.md").write_text(_page(state, conf, results, [d.name for d in drawings]), encoding="utf-8")


def finished_methods(params: Params) -> dict[str, list[str]]:
    """The evaluated methods by architecture, in the order of the tables."""
    found = {
        arch: [method for method in params.methods() if paths.metrics(DATASET, arch, method).exists()]
        for arch in params.archs
    }
    return {arch: methods for arch, methods in found.items() if methods}


def _read(params: Params, conf: Conf, arch: str, methods: list[str]) -> Results:
    lists = grouped(methods)
    lists["heuristics"] = [name for name in lists["realizations"] if name != "sbg"]
    own = params.model_copy(update={"archs": [arch], **lists})
    return read_results(own, {DATASET: conf}, paths.RESULTS)


def _everything(state: State, params: Params, conf: Conf, finished: dict[str, list[str]]) -> dict[str, Any]:
    names = [(arch, method) for arch in params.archs for method in params.methods()]
    return {
        "benchmark": "cifar10",
        "data": f"{DATASET} ({conf.data.note})",
        "machine": machine(),
        "used_minutes": round(state.used_seconds / 60, 2),
        "stages": state.stages,
        "unfinished_stages_seconds": state.partial,
        "given_up": state.notes,
        "decisions": state.decisions,
        "settings": conf.model_dump(mode="json"),
        "metrics": {
            f"{arch}/{method}": load_json(paths.metrics(DATASET, arch, method))
            for arch, methods in finished.items()
            for method in methods
        },
        "training": {
            f"{arch}/{method}": load_json(paths.timings(DATASET, arch, method))
            for arch, method in names
            if paths.timings(DATASET, arch, method).exists()
        },
    }


def _drawings(params: Params, results: dict[str, Results]) -> Iterator[Drawing]:
    diffusion = paths.diffusion_preview(DATASET)
    if diffusion.exists():
        yield Drawing("diffusion", [diffusion], lambda: diffusion_figure(DATASET, arrays.read_diffusion(diffusion)))
    previews = {name: paths.realization_preview(DATASET, name) for name in (*params.heuristics, "sbg")}
    previews = {name: path for name, path in previews.items() if path.exists()}
    if previews:
        yield Drawing("realizations", list(previews.values()), lambda: _realizations(previews))
    for arch, found in results.items():
        grids = {run.method: paths.large_eps(DATASET, arch, run.method) for run in found.runs}
        yield Drawing(f"large-eps-{arch}", list(grids.values()), partial(_large_eps, arch, grids))
        if len(found.runs) > 1:
            metrics = [paths.metrics(DATASET, arch, method) for method in grids]
            yield Drawing(f"alignment-{arch}", metrics, partial(alignment_figure, DATASET, found.scores))


def _realizations(previews: dict[str, Path]) -> Figure:
    panels = [
        Panel(f"{method_name(name)}: {REALIZATION_NAMES[name]}", arrays.read_gradients(path))
        for name, path in previews.items()
    ]
    return realization_figure(DATASET, panels)


def _large_eps(arch: str, paths_by_method: dict[str, Path]) -> Figure:
    grids = {method: arrays.read_large_eps(path) for method, path in paths_by_method.items()}
    eps = next(iter(grids.values())).eps
    return large_eps_figure(DATASET, arch, eps, [Panel(method_name(name), grid) for name, grid in grids.items()])


def _page(state: State, conf: Conf, results: dict[str, Results], figures: list[str]) -> str:
    about = machine()
    sections = [
        f"# CIFAR-10 ({conf.data.note}), measured on {about.get('gpu', about['cpu'])}",
        _how(state, conf),
    ]
    for arch, found in results.items():
        caption = tables.accuracy_caption(DATASET, arch, found.scores)
        sections += [f"## {arch}", caption, tables.accuracy_table(found.runs, found.scores)]
        flags = [f"- {method_name(r.method)}: {flag}" for r in found.runs for flag in r.metrics.autoattack_warnings]
        sections += ["AutoAttack's own warnings:", "\n".join(flags)] if flags else []
    throughput = state.decisions.get("throughput", {})
    if throughput:
        rows = [[name, f"{value:,.3g}" if value < 100 else f"{value:,.0f}"] for name, value in throughput.items()]
        sections += ["## Throughput", tables.markdown(["", "measured"], rows)]
    rows = [[name, f"{s['seconds']:.0f}", f"{s.get('peak_memory_gb', '')}"] for name, s in state.stages.items()]
    sections += ["## Stages", tables.markdown(["", "seconds", "peak GPU memory (GB)"], rows)]
    if state.notes:
        sections += ["## Given up, or done again", "\n".join(f"- {note}" for note in state.notes)]
    sections += [f"![{name}]({name}.png)" for name in figures]
    return "\n\n".join(sections) + "\n"


def _how(state: State, conf: Conf) -> str:
    diffusion, classifier, evaluation = conf.diffusion, conf.classifier, conf.evaluation
    lines = [
        f"- Diffusion: {diffusion.steps:,} steps of {diffusion.batch_size}, noise levels: {diffusion.noise_levels} "
        f"(alpha_bar {diffusion.alpha_bar:g}), {diffusion.channels} channels, {diffusion.blocks} blocks, "
        f"{diffusion.precision}{', compiled' if diffusion.compile else ''}",
        f"- Classifiers: {classifier.epochs} epochs of batch {classifier.batch_size} (the paper: 100 of 64), lr "
        f"{classifier.lr:g} {classifier.lr_schedule}, {classifier.precision}"
        f"{', compiled' if classifier.compile else ''}; one seed",
        f"- AutoAttack standard on n = {evaluation.images} class-balanced test images; the network in float32, whose "
        "convolutions PyTorch computes in TF32 on such GPUs by default",
        f"- {state.used_seconds / 60:.1f} minutes used before this call",
    ]
    return "\n".join(lines)
