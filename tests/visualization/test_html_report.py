"""The HTML report, opened as its reader opens it: from disk, in a browser, at a desk, on a phone, on paper."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil

import cv2
import numpy as np
import pytest

from config.environment import load_settings
from config.files import sha256
from pysot_toolkit.datasets import open_benchmark
from pysot_toolkit.evaluation.evaluate import evaluate
from pysot_toolkit.evaluation.ope import OnePassEvaluation
from pysot_toolkit.evaluation.protocol import Scores
from pysot_toolkit.evaluation.report import Report, TrackerScores
from pysot_toolkit.visualization import filmstrip
from pysot_toolkit.visualization.figure import Figure
from pysot_toolkit.visualization.html.provenance import annotation_digest
from pysot_toolkit.visualization.html.sparkline import POINTS
from pysot_toolkit.visualization.html_report import write_html

EVIL = "<img src=x onerror=document.title='owned'>"
VIDEOS = {"video-2": 40, "video-10": 110, EVIL: 50, "unseen": 30}  # name to frames
INCOMPLETE = "almost_perfect"
COMMAND = "python scripts/eval.py -d Own --vis > 'a & b'"


class Compared:
    """What a comparison gives the page."""

    def tables(self):
        return [("Difference from <worse>", ["tracker", "difference"], [["good", "+0.12 [0.01, 0.23]"]])]


def picture() -> bytes:
    ramp = np.tile(np.arange(300, dtype=np.uint8), (200, 1))
    return cv2.imencode(".png", cv2.merge([ramp, ramp, ramp]))[1].tobytes()


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A benchmark of four videos, the frames of one of them missing, four trackers; its report and page."""
    root = tmp_path_factory.mktemp("report")
    rng = np.random.default_rng(3)
    truth, table = {}, {}
    for number, (name, frames) in enumerate(VIDEOS.items()):
        boxes = np.column_stack(
            [20 + np.arange(frames), np.full(frames, 30), np.full(frames, 24), np.full(frames, 20)]
        )
        truth[name] = boxes.astype(float)
        images = [f"{number}/{k:04d}.jpg" for k in range(frames)]
        (root / "Own" / str(number)).mkdir(parents=True)
        for image in images if name != "unseen" else ():
            cv2.imwrite(
                str(root / "Own" / image),
                rng.integers(0, 255, (12, 16, 3), np.uint8).repeat(10, 0).repeat(10, 1),
            )
        table[name] = {
            "img_names": images,
            "gt_rect": truth[name].tolist(),
            "attr": ["Fast Motion", "<i>&amp;"] if number % 2 else ["Occlusion"],
            "absent": [int(not 10 <= k < 15) for k in range(frames)],
        }
    (root / "Own.json").write_text(json.dumps(table))
    shifts = {INCOMPLETE: 0.0, "good": 3.0, "worse": 5.0, EVIL: 8.0}
    for tracker, shift in shifts.items():
        (root / "results" / "Own" / tracker).mkdir(parents=True)
        for number, (name, boxes) in enumerate(truth.items()):
            predicted = boxes + np.array([shift + number / 4, 0, 0, 0])
            if tracker == EVIL:
                predicted[20:29, 0] += 40
            if tracker == INCOMPLETE and name == "video-10":
                continue
            np.savetxt(root / "results" / "Own" / tracker / f"{name}.txt", predicted, "%.3f", ",")
    note = {"arch": "transt", "sha256": "ab" * 32, "settings": {"window": 0.49}}
    (root / "results" / "Own" / "good" / "checkpoint.json").write_text(json.dumps(note))
    settings = load_settings(["paths.test.Own", str(root / "Own"), "paths.var", str(root / "var")])
    report = evaluate(settings, "Own", results=root / "results", allow_missing=True, keep_overlaps=True)
    figures = [Figure("success", "Success", "Success curves; <good> is best", picture())]
    path = write_html(report, root / "page", settings, figures, Compared(), root / "results", COMMAND)
    return report, path


@pytest.fixture(scope="module")
def browser():
    executable = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if not executable:
        pytest.skip("no chromium or google-chrome (set CHROMIUM)")
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=executable, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@pytest.fixture
def visit(browser, made):
    """``visit(width)`` opens the page; what it asked for and complained about is checked in the end."""
    contexts, complaints, requests = [], [], []

    def visit(width=1280, **options):
        contexts.append(browser.new_context(viewport={"width": width, "height": 800}, **options))
        page = contexts[-1].new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(made[1].as_uri())
        return page

    yield visit
    for context in contexts:
        context.close()
    assert complaints == []
    foreign = [url for url in requests if url != made[1].as_uri() and not url.startswith("data:")]
    assert foreign == []


def column(page, index):
    """The texts of a column of the table of videos, the first line of each cell."""
    return page.eval_on_selector_all(
        "#video-table tbody tr",
        "(rows, k) => rows.filter(r => !r.hidden).map(r => r.cells[k].innerText.split('\\n')[0].replace('★', '').trim())",
        index,
    )


@pytest.mark.parametrize("width", [1280, 360])
def test_it_fits_the_screen_and_shows_every_picture(visit, width):
    page = visit(width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate("document.scrollingElement.scrollWidth <= document.scrollingElement.clientWidth")
    if width == 360:
        box = page.locator(".scroll", has=page.locator("#video-table"))
        assert box.evaluate("box => box.scrollWidth > box.clientWidth")  # tables scroll in their boxes
    assert page.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
    assert page.locator("img").count() > 10


def test_scores_carry_protocol_version_and_marks(visit, made):
    report, page = made[0], visit()
    summary = page.locator("section", has=page.locator("#summary"))
    for protocol in report.protocols:
        caption = summary.locator("caption", has_text=f"{protocol.name} v{protocol.version}")
        assert protocol.source in caption.inner_text()
    rows = {row.locator("th").inner_text(): row for row in summary.locator("tbody tr").all()}
    assert list(rows) == report.trackers
    for name, row in rows.items():
        assert f"{report.value(name):.4f}" in row.inner_text()
    assert report.trackers[0] == INCOMPLETE
    assert (
        "3/4" in rows[INCOMPLETE].inner_text() and rows[INCOMPLETE].get_by_label("with faults").count() == 1
    )
    assert rows[INCOMPLETE].get_by_label("best").count() == 0  # it lacks a video
    starred = [name for name, row in rows.items() if row.locator("td").first.get_by_label("best").count()]
    assert starred == ["good"]
    attributes = page.locator("section", has=page.locator("#attributes"))
    expected = report.scores["pysot-ope"]["good"].attributes["Occlusion"].values["auc"]
    assert f"{expected:.4f}" in attributes.locator("tr", has_text="Occlusion").inner_text()
    assert "+0.12 [0.01, 0.23]" in page.locator("section", has=page.locator("#comparison")).inner_text()


@pytest.mark.parametrize("keyboard", [False, True])
def test_videos_sort_by_number_and_by_name(visit, made, keyboard):
    report, page = made[0], visit()
    heads = page.locator("#video-table thead th")

    def press(head, key):
        button = head.get_by_role("button")
        if keyboard:
            button.focus()
            page.keyboard.press(key)
        else:
            button.click()

    assert column(page, 0) == list(VIDEOS)
    index = 1 + report.trackers.index(INCOMPLETE)
    scores = {name: s.values["auc"] for name, s in report.scores["pysot-ope"][INCOMPLETE].sequences.items()}
    assert "video-10" not in scores
    head = heads.nth(index)
    for order, sign in (("descending", -1), ("ascending", 1), ("descending", -1)):
        press(head, "Enter")
        assert head.get_attribute("aria-sort") == order
        shown = column(page, 0)
        assert shown[-1] == "video-10" and column(page, index)[-1] == "–"  # no score: last either way
        values = [sign * scores[name] for name in shown[:-1]]
        assert values == sorted(values) and len(values) == 3
    press(heads.nth(0), "Space")
    assert column(page, 0) == sorted(VIDEOS, key=lambda name: (name[0] != "<", name[0] != "u", len(name)))
    assert [h.get_attribute("aria-sort") for h in heads.all()] == ["ascending"] + ["none"] * (
        heads.count() - 1
    )
    frames = [h.inner_text().strip() for h in heads.all()].index("Frames")
    press(heads.nth(frames), "Enter")
    assert column(page, frames) == [str(n) for n in sorted(VIDEOS.values(), reverse=True)]


def test_videos_filter_by_name_and_attribute(visit):
    page = visit(360)
    box, told = page.get_by_label("Filter by name or attribute"), page.locator("output")
    for text, expected in (
        ("VIDEO", ["video-2", "video-10"]),
        ("motion", ["video-10", "unseen"]),
        ("motion video", ["video-10"]),
        ("<i>", ["video-10", "unseen"]),
        ("nothing", []),
        ("", list(VIDEOS)),
    ):
        box.fill(text)
        assert column(page, 0) == expected
        assert told.inner_text() == (f"{len(expected)} of 4 videos" if text else "4 videos")


def test_without_script_all_is_there(visit):
    page = visit(java_script_enabled=False)
    assert page.locator("#video-table tbody tr:visible").count() == len(VIDEOS)
    assert page.locator("button").count() == 0  # nothing that would do nothing
    assert not page.get_by_label("Filter by name or attribute").is_visible()


def test_on_paper_nothing_is_cut(visit):
    page = visit(1016)  # A4 across, less the margins
    page.set_viewport_size({"width": 1016, "height": 200})  # on the screen, all tables would scroll
    page.emulate_media(media="print")
    assert not page.locator(".filter").is_visible() and not page.locator("nav").is_visible()
    cut = (
        "boxes => boxes.filter(b => b.scrollWidth > b.clientWidth || b.scrollHeight > b.clientHeight).length"
    )
    assert page.eval_on_selector_all(".scroll", cut) == 0
    assert page.evaluate("document.documentElement.scrollWidth") <= 1016
    page.emulate_media(media="screen")
    paper = page.pdf(prefer_css_page_size=True)
    assert paper.startswith(b"%PDF-") and len(re.findall(rb"/Type\s*/Page\b", paper)) >= 3


def test_names_stay_text(visit):
    page = visit()
    assert page.title() == "Own: 4 trackers" and page.locator("img[src=x]").count() == 0
    for section in ("summary", "videos", "worst-segments", "provenance"):
        assert EVIL in page.locator("section", has=page.locator(f"#{section}")).inner_text()
    assert page.get_by_role("img", name="Success curves; <good> is best").count() == 1


def test_the_policy_forbids_requests(visit):
    blocked = """() => new Promise(done => {
        document.addEventListener("securitypolicyviolation", event => done(event.effectiveDirective));
        setTimeout(done, 5000, "nothing");
        document.body.append(Object.assign(new Image(), {src: "https://example.invalid/pixel.png"}));
    })"""
    context = visit().context
    page = context.new_page()  # its complaint is what we want
    page.goto(context.pages[0].url)
    assert page.evaluate(blocked) == "img-src"


def test_it_can_be_read_with_the_keyboard_and_by_ear(visit):
    page = visit()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "content"
    outline = page.locator(".scroll").first
    outline.focus()
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Tab")
    assert outline.evaluate("box => getComputedStyle(box).outlineStyle") == "solid"
    assert page.evaluate("document.documentElement.lang") == "en"
    assert page.locator("h1").count() == 1 and page.locator("main").count() == 1
    assert page.locator("table:not(:has(> caption))").count() == 0
    assert page.locator("th:not([scope])").count() == 0
    assert page.locator("img:not([alt]), img[alt='']").count() == 0
    assert page.locator("[role=region]:not([aria-label])").count() == 0
    ids = page.eval_on_selector_all("[id]", "all => all.map(e => e.id)")
    assert len(ids) == len(set(ids))
    targets = page.eval_on_selector_all(
        "a[href^='#']", "all => all.map(a => a.getAttribute('href').slice(1))"
    )
    assert set(targets) <= set(ids)


def test_segments_are_drawn_where_frames_are_and_told_where_not(visit, made):
    report, page = made[0], visit()
    section = page.locator("section", has=page.locator("#worst-segments"))
    found = filmstrip.worst_segments(report.overlaps, report.trackers)[EVIL]
    assert {segment.video for segment in found} == set(VIDEOS)
    figures = {figure.locator("strong").inner_text(): figure for figure in section.locator("figure").all()}
    for segment in found:
        assert f"frames {segment.first + 1}–{segment.last + 1}" in figures[segment.video].inner_text()
        tiles = figures[segment.video].locator("img").count()
        assert tiles == (0 if segment.video == "unseen" else len(segment.shown))
    assert "1 of 4 segments have no pictures here" in section.inner_text()
    assert "0019.jpg: is missing" in section.inner_text()


def test_faults_and_provenance(visit, made):
    report, page = made[0], visit()
    faults = page.locator("section", has=page.locator("#faults"))
    assert faults.locator("tbody tr").count() == sum(map(len, report.faults.values())) == 1
    assert "no result file" in faults.inner_text()
    provenance = page.locator("section", has=page.locator("#provenance")).inner_text()
    for fact in (
        COMMAND,
        report.source,
        sha256(report.source),
        f"numpy {np.__version__}",
        "transt",
        "ab" * 32,
    ):
        assert fact in provenance


def test_a_report_without_overlaps_says_so(made, tmp_path):
    report, path = made
    root = path.parents[1]
    settings = load_settings(["paths.test.Own", str(root / "Own"), "paths.var", str(tmp_path)])
    (tmp_path / "results" / "Own").mkdir(parents=True)
    bare = Report(
        report.dataset, report.source, report.sequences, report.protocols, report.scores, report.faults
    )
    page = write_html(bare, tmp_path, settings, []).read_text("utf-8")
    assert "no overlap over time" in page and "<svg" not in page and 'id="plots"' not in page
    assert "pytest" in page  # the command line of this process


def test_a_large_benchmark_stays_small(tmp_path):
    """280 videos and 5 trackers with noise in every line, which is what takes most space."""
    rng = np.random.default_rng(0)
    names, trackers, frames = (
        [f"category-{k}" for k in range(280)],
        [f"tracker_ep{k:04d}_t" for k in range(5)],
        240,
    )
    video = {
        "img_names": ["0.jpg"] * frames,
        "gt_rect": [[5, 5, 9, 9]] * frames,
        "attr": ["Occlusion", "Fast Motion"],
    }
    (tmp_path / "Own").mkdir()
    (tmp_path / "Own.json").write_text(json.dumps(dict.fromkeys(names, video)))
    settings = load_settings(["paths.test.Own", str(tmp_path / "Own"), "paths.var", str(tmp_path)])
    protocol = OnePassEvaluation()
    curves = {key: np.full(51, 0.5) for key in ("success", "precision", "norm_precision")}
    score = Scores(dict.fromkeys(("auc", "precision", "norm_precision", "fps"), 0.5), curves, frames)
    table = {name: TrackerScores(score, {}, {}, dict.fromkeys(names, score)) for name in trackers}
    overlaps = {t: {v: rng.random(frames, np.float32) for v in names} for t in trackers}
    report = Report(
        "Own",
        str(tmp_path / "Own.json"),
        names,
        [protocol],
        {protocol.name: table},
        {t: [] for t in trackers},
        overlaps,
    )
    size = write_html(report, tmp_path, settings, []).stat().st_size
    assert 280 * 5 * POINTS * 3 < size < 3_000_000  # leaves 5 MB for plots and strips


def test_a_file_of_annotations_is_hashed_as_it_is(made):
    settings = load_settings(["paths.test.Own", str(made[1].parents[1] / "Own")])
    benchmark = open_benchmark("Own", settings)
    assert annotation_digest(benchmark) == (
        "that file",
        hashlib.sha256(benchmark.source.read_bytes()).hexdigest(),
    )
