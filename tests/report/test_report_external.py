"""Networks of others stand beside ours in tables, charts and provenance, and take no part in the claims."""

import re

import pytest
from experiments import Experiment, metrics_of

from pag.report.content import Content, content_of
from pag.report.page import markdown_page
from pag.report.results import read_results
from pag.report.web.page import web_page


def content(experiment: Experiment) -> Content:
    params, confs = experiment.load()
    return content_of(params, confs, read_results(params, confs, experiment.folder))


@pytest.fixture
def beside_theirs(metrics: Experiment) -> Experiment:
    metrics.lists |= {"externals": ["theirs"], "external_datasets": ["digits"]}
    numbers = metrics_of((0.97, 0.81, 0.3, 0.9, 0.4, 0.6, 0.0)) | {"seed": None, "train_images": None}
    numbers |= {"train_seconds": None, "seconds_per_step": None}
    metrics.write_metrics("theirs", numbers, arch="external")
    return metrics


def test_they_close_the_table_of_each_architecture(beside_theirs: Experiment) -> None:
    (group,) = content(beside_theirs).groups
    assert (group.title, group.main[-1].name) == ("digits / cnn", "theirs")
    table = group.tables[0]
    assert [row[0] for row in table.rows][-2:] == ["AT-L2+SBG", "theirs"]
    assert table.rows[-1][2].startswith("97.0 ± ")


def test_where_nothing_of_ours_ran_they_stand_alone(beside_theirs: Experiment) -> None:
    beside_theirs.lists |= {"baselines": [], "realizations": [], "robust": []}
    (group,) = content(beside_theirs).groups
    assert group.title == "digits / external"
    assert [row[0] for row in group.tables[0].rows] == ["theirs"]


def test_no_claim_is_judged_by_them(metrics: Experiment, beside_theirs: Experiment) -> None:
    findings = content(beside_theirs).findings
    metrics.lists["externals"] = []
    assert findings == content(metrics).findings


def test_the_page_draws_them_in_a_colour_that_it_has(beside_theirs: Experiment) -> None:
    found = content(beside_theirs)
    html = web_page(found, [], beside_theirs.folder, beside_theirs.folder)
    assert 'value="theirs"' in html
    used, known = set(re.findall(r"var\((--[\w-]+)\)", html)), set(re.findall(r"(--[\w-]+):", html))
    assert "--others" in used and used <= known
    assert "Networks of others: theirs" in markdown_page(found, [])
