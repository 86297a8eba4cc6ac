"""The page in a real browser, opened from the disk: it sorts, filters, draws and plays, and asks nobody for
anything."""

import csv
import re
import shutil

import pytest

from unmask.page.build import write
from unmask.paths import ROOT
from unmask.records import Run, find_runs

playwright = pytest.importorskip("playwright.sync_api")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not shutil.which("chromium"), reason="needs Debian's chromium"),
]


@pytest.fixture(scope="module")
def context():
    from scripts.page_picture import browser

    with browser() as found:
        yield found


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    results = shutil.copytree(ROOT / "tests" / "reference", tmp_path_factory.mktemp("page") / "results")
    trace(results, next(run for run in find_runs(results)[0] if run.config["decoder"].get("kv_window") == 16))
    return write(results, results.parent)[0]


def trace(results, archived):
    """Write a trace of the first answer, whose every draft has one more token, which was refused."""
    sample = archived.samples()[0]
    steps = [step for step in sample["commits"] if step >= 0]
    drafted = [
        [token for token, at in zip(sample["ids"], steps, strict=True) if at == step] + sample["ids"][:1]
        for step in range(sample["forwards"]["denoiser"])
    ]
    forwards = {role: [count] * len(drafted) for role, count in sample["forwards"].items()}
    found = {
        "doc_id": sample["doc_id"],
        "repeat": 0,
        "question": "How many?",
        "drafted": drafted,
        "accepted": [len(ids) - 1 for ids in drafted],
        "blocks": [""] * len(drafted),
        "forwards": forwards,
    }
    with Run.open(results / archived.folder.name, archived.config, archived.info) as run:
        run.write_traces([found])


@pytest.fixture
def page(context, file):
    """The page, and at the end: whether all was asked of this machine and no error was logged."""
    from scripts.page_picture import ready

    page, asked, errors = context.new_page(), [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    ready(page, file)
    yield page
    page.close()
    assert asked and not [url for url in asked if not url.startswith(("file:", "blob:", "data:"))]
    assert not errors


def column(page, name, section=1):
    """The texts of a column of a board, as they stand."""
    board = page.locator(f"#section-{section}")
    names = [text.strip() for text in board.locator("thead th .dt-column-title").all_inner_texts()]
    return board.locator(f"tbody td:nth-child({1 + names.index(name)})").all_inner_texts()


def eventually(page, true):
    """Wait until something holds: a table is drawn again a moment after the key."""
    for _ in range(100):
        if true():
            return
        page.wait_for_timeout(50)
    assert true()


def test_a_board_sorts_by_the_number_and_not_by_the_text(page):
    def values():
        return [float(text.split()[0]) for text in column(page, "positions per useful token")]

    header = page.locator("#section-1 th", has_text="positions per useful token")
    assert values() != sorted(values())
    header.click(position={"x": 5, "y": 5})
    eventually(page, lambda: values() == sorted(values()))
    assert max(values()) > 100 > min(values())
    header.get_by_role("button", name="Activate").focus()
    page.keyboard.press("Enter")
    eventually(page, lambda: values() == sorted(values(), reverse=True))


def test_a_board_is_filtered_by_a_choice_a_number_and_a_word(page):
    def filter_of(name):
        page.locator("#section-1 th", has_text=name).get_by_role("button", name="Filter").click()
        return page.get_by_role("dialog", name="Filter")

    every = column(page, "method")
    filter_of("method").get_by_role("button", name="apd").click()
    eventually(page, lambda: len(every) > every.count("apd") == len(column(page, "method")))
    page.keyboard.press("Escape")
    box = filter_of("accuracy %")
    box.locator("select").select_option(label="Greater than")
    box.locator("input").fill("60")

    def accuracies():
        return [float(text.split()[0]) for text in column(page, "accuracy %")]

    eventually(page, lambda: 0 < len(accuracies()) < every.count("apd") and min(accuracies()) > 60)
    page.reload()
    page.locator("html[data-ready]").wait_for()
    page.locator("#section-1").get_by_label("Search all columns").fill("K=1")
    eventually(page, lambda: set(column(page, "setting")) == {"K=1"})
    assert len(column(page, "setting")) < len(every)


def test_the_csv_of_a_board_has_every_row_and_every_digit(page, tmp_path):
    with page.expect_download() as download:
        page.locator("#section-1 .download").click()
    assert download.value.suggested_filename == "board-gsm_symbolic.csv"
    download.value.save_as(tmp_path / "board.csv")
    rows = list(csv.DictReader((tmp_path / "board.csv").open()))
    assert [row["run"] for row in rows] == column(page, "run")
    assert all(float(row["accuracy % low"]) < float(row["accuracy %"]) + 1e-9 for row in rows)


def test_the_chart_changes_its_axis_and_a_point_opens_its_settings(page):
    assert "useful tokens per step" in page.locator("#chart .xtitle").text_content()
    page.locator("#axes [name=measure]").select_option(label="positions fed per useful token")
    assert "positions fed per useful token (less is better)" in page.locator("#chart .xtitle").text_content()
    points = page.locator("#chart .points path.point")
    before = points.count()
    page.locator("#methods").get_by_label("apd").uncheck()
    assert points.count() < before
    box = points.last.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.locator("#chart .hovertext").wait_for()
    assert "n = 3" in page.locator("#chart .hovertext").text_content()
    page.mouse.down()
    page.mouse.up()
    page.locator("#run[open]").wait_for()
    assert "decoder.name" in page.locator("#run").inner_text()
    page.keyboard.press("Escape")
    assert not page.locator("#run[open]").count()


def test_a_run_opens_from_the_board_by_the_keyboard(page):
    name = column(page, "run")[0]
    page.get_by_role("link", name=name).focus()
    page.keyboard.press("Enter")
    assert page.locator("#run-title").inner_text() == name
    assert "models.denoiser.weights" in page.locator("#run").inner_text()
    assert page.locator("#run-csv").get_attribute("download") == f"{name}.csv"


def test_an_answer_plays_to_its_end(page):
    page.locator("#choice [name=setting]").first.select_option(label="apd R=0.7 W=16 M=40 on tiny_dream")
    panel = page.locator(".panel").first
    whole = panel.locator(".tokens").inner_text()
    assert "####" in whole and panel.locator(".right, .wrong").count() == 1
    page.locator("#step").fill("1")
    assert panel.locator(".masked").count() and panel.locator(".committed.latest").count()
    assert "denoiser 1 of " in panel.inner_text() and "accepted" in panel.inner_text()
    assert page.locator("#question").inner_text() == "How many?" and "refused “" in panel.inner_text()
    page.locator("#step").press("ArrowRight")
    assert "denoiser 2 of " in panel.inner_text()
    page.locator("#choice [name=setting]").nth(1).select_option("")
    page.locator("#choice [name=setting]").nth(2).select_option("")
    assert page.locator(".panel").count() == 1
    page.get_by_role("button", name="Play").click()
    page.get_by_role("button", name="Pause").wait_for()
    page.get_by_role("button", name="Play").wait_for(timeout=30_000)
    assert not panel.locator(".masked").count() and panel.locator(".tokens").inner_text() == whole


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_follows_the_system_and_its_switch(page, scheme):
    page.emulate_media(color_scheme=scheme)
    page.locator(f"html.{scheme}").wait_for()
    background = "getComputedStyle(document.body).backgroundColor"
    first = page.evaluate(background)
    assert (first == "rgb(255, 255, 255)") == (scheme == "light")
    page.locator("#theme").click()
    assert page.evaluate(background) != first
    assert page.evaluate("document.querySelector('#chart .main-svg').style.background") == page.evaluate(
        background
    )


@pytest.mark.parametrize("width", [360, 390, 1400])
def test_nothing_is_cut_at_any_width(page, width):
    """The page never scrolls sideways; a board does on a phone, with rank and method in sight."""
    page.set_viewport_size({"width": width, "height": 700})
    page.reload()
    page.locator("html[data-ready]").wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    board = page.locator("#section-1 .scroll")
    overflow = board.evaluate("box => box.scrollWidth - box.clientWidth")
    assert (overflow > 0) == (width < 1000), overflow
    board.evaluate("box => box.scrollLeft = box.scrollWidth")
    for name in ("rank", "method"):
        box = page.locator("#section-1 thead th", has_text=name).first.bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] < width / 1.5
    last = page.locator("#section-1 tbody td").last.bounding_box()
    assert last["x"] + last["width"] <= width


def test_the_address_keeps_what_is_shown(page):
    page.locator("#axes [name=measure]").select_option(label="positions fed per useful token")
    page.locator("#axes [name=scale]").select_option("linear")
    page.locator("#methods").get_by_label("apd").uncheck()
    page.locator("#choice [name=setting]").nth(1).select_option("")
    page.locator("#step").fill("2")
    page.get_by_role("link", name=column(page, "run")[1]).click()
    page.reload()
    page.locator("html[data-ready]").wait_for()
    assert page.locator("#run-title").inner_text() == column(page, "run")[1]
    page.keyboard.press("Escape")
    assert "positions fed per useful token" in page.locator("#chart .xtitle").text_content()
    assert page.locator("#axes [name=scale]").input_value() == "linear"
    assert not page.locator("#methods").get_by_label("apd").is_checked()
    assert page.locator("#choice [name=setting]").nth(1).input_value() == ""
    assert page.locator("#step").input_value() == "2" and "run=" not in page.url


def test_every_column_sorts_and_ticks_are_numbers(page):
    before = column(page, "forwards per answer")
    page.locator("#section-1 th", has_text="forwards per answer").click(position={"x": 5, "y": 5})
    first = lambda text: float(re.search(r"[\d.,]+", text)[0].replace(",", ""))  # noqa: E731
    eventually(
        page, lambda: list(map(first, column(page, "forwards per answer"))) == sorted(map(first, before))
    )
    ticks = page.locator("#chart .xtick text").all_text_contents()
    assert len(ticks) > 1 and all(float(tick.replace(",", "")) > 0 for tick in ticks)
    assert list(map(float, ticks)) == sorted(map(float, ticks))  # 5, 10, 20 and not 5, 10, 2


def test_a_command_is_copied(page):
    page.get_by_role("link", name=column(page, "run")[0]).click()
    assert page.locator("#run-command").inner_text().startswith("python eval.py model=tiny_")
    page.get_by_role("button", name="Copy the command").click()
    page.get_by_role("button", name="Copied").wait_for()
    page.keyboard.press("Escape")
    assert "@software{unmask," in page.locator("#bibtex").inner_text()


def test_hostile_text_is_only_text(context, tmp_path):
    """In every text that a record holds: an answer's, the wanted one's, a question's, a setting's."""
    from scripts.page_picture import ready

    evil = "<img src=x onerror=window.hacked=1><script>window.hacked=1</script>"
    results = shutil.copytree(ROOT / "tests" / "reference", tmp_path / "results")
    run = next(run for run in find_runs(results)[0] if run.config["decoder"].get("kv_window") == 16)
    config = run.config | {"decoder": run.config["decoder"] | {"name": evil, "kv_window": evil}}
    samples = [sample | {"text": evil, "machine": evil} for sample in run.samples()]
    scores = [score | {"extracted": evil, "target": evil} for score in run.every_score()]
    with Run.open(results / evil.replace("/", ""), config, run.info) as hostile:
        for sample in samples:
            hostile.append(sample)
        hostile.write_scores(scores)
        hostile.update(status="finished", metric=run.info["metric"])
    page, errors = context.new_page(), []
    page.on("pageerror", lambda error: errors.append(str(error)))
    ready(page, write(results, results.parent)[0])
    page.locator("#section-1 th", has_text="method").get_by_role("button", name="Filter").click()
    page.get_by_role("dialog", name="Filter").get_by_role("button").first.wait_for()
    page.keyboard.press("Escape")
    for _ in range(3):
        page.locator("#chart .points path.point").last.hover(force=True)
    page.get_by_role("link", name="onerror").first.click()
    assert "onerror" in page.locator("#run").inner_text()
    assert page.evaluate("window.hacked") is None and not page.locator("img[src=x]").count() and not errors
    page.close()
