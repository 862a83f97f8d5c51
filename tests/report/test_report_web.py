"""index.html in a browser: nothing fails, everything is there, and it fits a narrow screen."""

import base64
import io
import json
import shutil
from collections.abc import Iterator

import numpy
import pandas
import pytest
from PIL import Image

from pag.foundation.artifacts import load_json
from pag.report.content import Content, content_of
from pag.report.page import write_report
from pag.report.results import read_results
from pag.report.rules import CLAIMS
from pag.report.web import page as web
from pag.report.web.charts import _over_radius
from pag.report.web.page import web_page
from pag.report.web.provenance import provenance

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
METHODS = ["Vanilla", "AT-L2", "AT-L∞", "OI", "CM", "NN", "SBG", "AT-L2+SBG"]


@pytest.fixture
def page(experiment) -> Iterator:
    """The report of an experiment, opened at a width of 400 pixels; what its console says is in `page.said`."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install -e '.[test]'")
    if CHROMIUM is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    for method in ("vanilla", "sbg"):
        path = experiment.folder / "curves/digits/cnn" / f"{method}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("epoch,cross_entropy,validation_accuracy\n1,2.0,0.5\n2,1.0,0.8\n")
    for method, seconds in (("vanilla", 30.0), ("sbg", 9000.0), ("at-l2", 150.0)):
        experiment.change(method, train_seconds=seconds)
    out = experiment.folder / "report"
    write_report(*experiment.load(), experiment.folder, out)
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        context = browser.new_context(viewport={"width": 400, "height": 800}, color_scheme="dark", offline=True)
        opened = context.new_page()
        opened.said = []
        opened.on("console", lambda message: opened.said.append(f"{message.type}: {message.text}"))
        opened.on("pageerror", lambda error: opened.said.append(str(error)))
        opened.goto((out / "index.html").as_uri())
        opened.wait_for_selector("html[data-drawn]")
        yield opened
        browser.close()


def cells(page, column: int) -> list[str]:
    return page.locator(f"#table-digits-cnn ~ .scroll >> nth=0 >> tbody tr > :nth-child({column})").all_inner_texts()


def names_of_bars(page) -> list[str]:
    labels = page.locator("#digits-cnn-accuracy-0 .role-axis-label text").evaluate_all(
        "labels => labels.map((label) => [label.getBoundingClientRect().y, label.textContent])"
    )
    return [name for _, name in sorted(labels) if not name.isdigit()]


def test_the_page_works_in_a_browser(page) -> None:
    """One visit, as opening a browser takes longer than looking at the page."""
    # every method, and every picture
    assert cells(page, 1) == METHODS
    assert names_of_bars(page) == METHODS
    assert page.evaluate("[...document.images].every((image) => image.complete && image.naturalWidth > 100)")
    assert page.locator("img").count() == 6
    assert all(text.endswith(".") for text in page.evaluate("[...document.images].map((image) => image.alt)"))

    # no sideways scrolling, with everything opened
    page.evaluate("document.querySelectorAll('details').forEach((details) => { details.open = true; })")
    assert page.evaluate("document.documentElement.scrollWidth") == 400
    assert page.locator("#claims details").count() == len(CLAIMS)
    assert "must be above" in page.locator("#claims").inner_text()

    # tables sort, by the number that a cell begins with, and by the time that it means
    head = page.locator("#table-digits-cnn ~ .scroll >> nth=0 >> thead th")
    head.nth(5).locator("button").click()
    accuracies = [float(text.split(" ")[0]) for text in cells(page, 6)]
    assert accuracies == sorted(accuracies, reverse=True)
    assert head.nth(5).get_attribute("aria-sort") == "descending"
    head.nth(5).locator("button").press("Enter")
    assert [float(text.split(" ")[0]) for text in cells(page, 6)] == sorted(accuracies)
    assert head.nth(5).get_attribute("aria-sort") == "ascending"
    cost = page.locator("#table-digits-cnn-cost ~ .scroll >> nth=0")
    cost.locator("thead button").nth(1).click()
    assert cost.locator("tbody td:nth-child(2)").all_inner_texts()[:4] == ["2.6 h", "2.5 h", "2.5 min", "30.0 s"]

    # methods are switched off and on, without a mouse
    marks = page.locator("#digits-cnn-radius-L2 .mark-symbol path")
    assert marks.count() == 8 * 3
    page.locator("#methods input").first.press("Space")
    page.wait_for_function("document.querySelectorAll('#digits-cnn-radius-L2 .mark-symbol path').length === 21")
    page.locator("#methods input").first.press("Space")
    page.wait_for_function("document.querySelectorAll('#digits-cnn-radius-L2 .mark-symbol path').length === 24")
    assert names_of_bars(page) == METHODS  # in their old order

    # the number under the pointer
    page.locator("#digits-cnn-accuracy-1 .mark-rect path[aria-label*='label: SBG']").hover()
    tooltip = page.locator("#vg-tooltip-element")
    tooltip.wait_for(state="visible")
    assert "SBG" in tooltip.inner_text()
    assert "80" in tooltip.inner_text()

    # a picture is enlarged, and closed by Escape
    page.locator("button.enlarge").first.press("Enter")
    assert page.locator("dialog img").is_visible()
    page.keyboard.press("Escape")
    assert not page.locator("dialog").is_visible()

    assert page.said == []


def test_the_page_is_one_file_and_the_same_every_time(experiment) -> None:
    """What it loads is in it; addresses in the libraries are names of formats, and in their own messages."""
    text = html(experiment)
    assert text == html(experiment)
    own = text[: text.index('<script type="module">')]
    for attribute in ("src=", "href="):
        for value in own.split(attribute)[1:]:
            assert value.startswith(('"#', '"data:')), value[:60]


def test_names_are_no_markup(experiment) -> None:
    experiment.change("sbg", data_note="</script><script>alert(1)</script>")
    text = html(experiment)
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert(1)" in text


def test_the_datas_note_stands_above_the_claims_once(experiment) -> None:
    for name in ("vanilla", "sbg"):
        experiment.change(name, data_note="a copy")
    claims = html(experiment).split('<section id="claims">')[1].split("</section>")[0]
    assert claims.count("a copy") == 1
    assert claims.index("<p>Everything on digits/cnn, digits: a copy.</p>") < claims.index("<details>")


def test_what_was_not_recorded_is_left_out(experiment) -> None:
    assert "Time of a training step" in html(experiment)
    experiment.lists |= {"point_sets": []}
    for path in (experiment.folder / "records/digits/cnn").glob("*.json"):
        experiment.change(path.stem, train_seconds=None, seconds_per_step=None, alignment=None)
    text = html(experiment)
    for absent in ("Training curves", "Time of a training step", 'id="toy"', "Alignment against robustness"):
        assert absent not in text


def test_provenance_names_hashes_parameters_and_versions(experiment) -> None:
    confs = experiment.load()[1]
    found = {table.name: table for table in provenance(content(experiment))}
    sbg = next(row for row in found["runs"].rows if row[0] == "digits / cnn / SBG")
    assert sbg == ["digits / cnn / SBG", "0", "d" * 12, "w" * 12, "30.0 s", "missing", "2 CPU cores"]
    values = dict(found["parameters"].rows)
    assert values["params.yaml: baselines"] == "vanilla, at-l2, at-linf"
    assert values["conf/digits.yaml: classifier.epochs"] == str(confs["digits"].classifier.epochs)
    assert "conf/digits.yaml: data.allow_dark" not in values  # it has its default
    assert ["numpy", numpy.__version__] in found["versions"].rows


def test_networks_of_others_have_charts_and_a_colour(experiment) -> None:
    experiment.lists |= {"externals": ["theirs"], "external_datasets": ["digits"]}
    known = load_json(experiment.metrics_path("sbg"), sealed=True)
    experiment.write_metrics("theirs", known | {"arch": "external", "run": "theirs", "seed": None}, arch="external")
    text = html(experiment)
    specs = json.loads(text.partition('id="charts">')[2].partition("</script>")[0])
    bars = specs["digits-cnn-accuracy-0"]
    assert bars["datasets"]["rows"][-1]["label"] == "theirs"
    assert bars["layer"][0]["encoding"]["color"]["scale"]["range"][-1] == "var(--others)"
    assert text.count("--others: #") == 2  # light and dark


def test_pictures_are_without_loss_where_they_fit(tmp_path, monkeypatch) -> None:
    pixels = numpy.random.default_rng(0).integers(0, 256, (128, 128, 3), dtype=numpy.uint8)
    Image.fromarray(pixels).save(tmp_path / "noise.png")
    pictures, without_loss = web._embedded([tmp_path / "noise.png"])
    source = pictures["noise"].source.partition(",")[2]
    assert without_loss
    assert (numpy.asarray(Image.open(io.BytesIO(base64.b64decode(source)))) == pixels).all()
    monkeypatch.setattr(web, "PICTURES", len(source) // 2)
    pictures, without_loss = web._embedded([tmp_path / "noise.png"])
    assert not without_loss
    assert len(pictures["noise"].source) <= len(source) // 2


def content(experiment) -> Content:
    params, confs = experiment.load()
    return content_of(params, confs, read_results(params, confs, experiment.folder))


def html(experiment) -> str:
    """The page without its pictures, which take longest."""
    return web_page(content(experiment), [], experiment.folder, experiment.folder / "curves")


@pytest.mark.parametrize(
    ("radii", "title", "places"),
    [([4 / 255, 8 / 255], "L∞ radius ε (1/255)", [0, 4, 8]), ([0.1, 0.2], "L∞ radius ε", [0, 0.1, 0.2])],
)
def test_radii_of_whole_grey_levels_are_counted_in_them(radii: list[float], title: str, places: list[float]) -> None:
    rows = pandas.DataFrame({"method": "sbg", "run": "sbg", "value": [90.0, 50.0, 20.0], "eps": [0.0, *radii]})
    spec = _over_radius("a", "L∞, AutoAttack", rows).spec
    assert spec["layer"][0]["encoding"]["x"]["title"] == title
    assert [row["x"] for row in spec["datasets"]["rows"]] == pytest.approx(places)
