"""The page in a real browser, opened from the disk: it sorts, filters, draws and plays, and asks nobody for
anything."""

import csv
import re
import shutil

import numpy as np
import pytest
from PIL import Image
from scipy import stats

from unmask.page.build import write
from unmask.paths import ROOT
from unmask.records import Run, find_runs
from unmask.records.comparing import changed, compare
from unmask.records.stats import mcnemar, paired_difference

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


def board_box(page):
    """What the table's library puts around a board."""
    return page.locator("#section-1 .dt-container")


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
    page.locator("#choice [name=document]").select_option(index=0)  # of which there is a trace
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
    page.get_by_role("button", name="One step on").press("Enter")
    assert (
        "denoiser 3 of " in panel.inner_text() and panel.locator("progress").evaluate("bar => bar.value") == 3
    )
    page.get_by_role("button", name="One step back").press("Enter")
    assert "denoiser 2 of " in panel.inner_text()
    command = page.locator("#race-command").inner_text()
    assert command.startswith("python report.py race gsm_symbolic-tiny_dream-apd-") and "document=" in command
    page.locator("#speed").select_option("15")
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


CUT = """() => [...document.querySelectorAll("body *")].filter((element) => {
  const box = element.getBoundingClientRect();
  if (!element.checkVisibility() || element.closest("svg, select, progress, .skip") || !box.width) return 0;
  const [scrolls, overflow] = [element.closest(".scroll"), element.scrollWidth - element.clientWidth];
  const hides = getComputedStyle(element).overflowX !== "visible" && element !== scrolls && overflow > 1;
  return hides || (!scrolls && (box.left < 0 || box.right > innerWidth + 1));
}).map((element) => element.outerHTML.slice(0, 90))"""  # what stands outside of the window, or of its own box


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 900, 1400])
def test_nothing_is_cut_at_any_width(page, width, scheme):
    """The page never scrolls sideways; a board does where it must, with rank and method in sight."""
    page.set_viewport_size({"width": width, "height": 700})
    page.emulate_media(color_scheme=scheme)
    page.reload()
    page.locator("html[data-ready]").wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate(CUT) == []
    behind = "box => getComputedStyle(box).backgroundColor"  # of the columns that stay, and of the others
    assert page.locator("#section-1 tbody td").first.evaluate(behind) == page.locator("body").evaluate(behind)
    assert board_box(page).evaluate(behind) == "rgba(0, 0, 0, 0)"
    page.get_by_role("link", name=column(page, "run")[0]).press("Enter")
    page.locator("#run[open]").wait_for()
    assert page.evaluate(CUT) == []
    page.keyboard.press("Escape")
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
    name = column(page, "run")[0]
    page.get_by_role("link", name=name).click()
    assert page.locator("#run-command").inner_text().startswith("python eval.py model=tiny_")
    cite = page.locator("#run-bibtex").inner_text()
    code = page.locator("#run-tables tr", has_text="commits of all answers").locator("td").last.inner_text()
    assert cite.startswith("@software{unmask,")
    assert f"note = {{run {name}, code {code}}},".replace("_", "\\_") in cite
    page.locator("#run").get_by_role("button", name="Copy the command").click()
    page.get_by_role("button", name="Copied").wait_for()
    page.keyboard.press("Escape")
    assert "@software{unmask," in page.locator("#bibtex").inner_text()


def test_points_are_reached_by_the_keyboard(page):
    chart = page.locator("#chart")
    chart.focus()
    page.keyboard.press("End")
    last = page.locator("#chart-point").inner_text()
    shown = page.locator("#chart .points path.point").count()
    assert last.startswith(f"{shown} of {shown}: ") and "useful tokens per step" in last
    page.locator("#chart .hovertext").wait_for()
    page.keyboard.press("ArrowLeft")
    assert page.locator("#chart-point").inner_text().startswith(f"{shown - 1} of {shown}: ")
    page.keyboard.press("Home")
    page.keyboard.press("ArrowLeft")  # there is none before
    assert page.locator("#chart-point").inner_text().startswith(f"1 of {shown}: ")
    page.keyboard.press("Enter")
    page.locator("#run[open]").wait_for()
    assert page.locator("#run-title").inner_text() == chart.get_attribute("data-run")


def test_a_chart_is_saved_with_what_it_needs_to_be_read(page, tmp_path):
    code = re.search(r"results made by code (\w+)", page.locator("#bibtex").inner_text())[1]
    for kind in ("SVG", "PNG"):
        with page.expect_download() as download:
            page.get_by_role("button", name=f"Download as {kind}").click()
        assert download.value.suggested_filename == f"gsm_symbolic-tokens_per_step.{kind.lower()}"
        download.value.save_as(tmp_path / kind)
    text = re.sub(r"<[^>]+>", "|", (tmp_path / "SVG").read_text())
    assert f"gsm_symbolic, n = 3 documents a run, 95% intervals; unmask, code {code}" in text
    assert all(f"|{name}|" in text for name in ("apd", "leftright", "tiny_dream", "tiny_llada"))
    with Image.open(tmp_path / "PNG") as picture:
        assert picture.size == (2000, 1280) and len(picture.getcolors(1 << 24)) > 50


def test_two_runs_are_compared(page, file):
    """The page's numbers are those of `report.py compare`, but for how the interval is made."""
    runs = {run.folder.name: run for run in find_runs(file.parent / "results")[0]}
    names = [name for name in column(page, "run") if "tiny_dream-apd" in name or "tiny_llada-conf" in name][
        :2
    ]
    scored = [runs[name].scored(runs[name].info["metric"]) for name in names]
    wanted, (better, worse) = compare(*scored), changed(*scored)
    page.get_by_role("link", name=names[0]).press("Enter")
    page.get_by_role("button", name="Compare with another run").press("Enter")
    page.locator("#pair [name=b]").select_option(names[1])
    words = page.locator("#pair-result").inner_text()
    assert f"{len(better)} became right, {len(worse)} wrong" in words and better + worse
    value = float(re.search(r"B is (\S+) points", words)[1].replace("−", "-"))
    assert value == pytest.approx(100 * wanted["accuracy_difference"], abs=0.05)
    assert float(re.search(r"p = (\S+)\.", words)[1]) == pytest.approx(wanted["p_value"], rel=0.06)
    row = page.locator("#pair-costs tr", has_text="useful tokens per step").locator("td").all_inner_texts()
    assert float(row[3]) == pytest.approx(wanted["tokens_per_step_ratio"], rel=0.01)
    documents = page.locator("#pair-documents tbody td:first-child").all_inner_texts()
    assert documents == [str(pair[0]["doc_id"]) for pair in better + worse]
    page.reload()
    page.locator("html[data-ready]").wait_for()
    assert page.locator("#pair-result").inner_text() == words
    assert [page.locator(f"#pair [name={side}]").input_value() for side in "ab"] == names
    page.locator("#pair-documents button").first.press("Enter")
    assert page.locator("#choice [name=document]").input_value() == documents[0]
    assert [page.locator("#choice [name=setting]").nth(i).input_value() for i in (0, 1, 2)] == [*names, ""]


def test_statistics_are_those_of_the_records(page):
    """McNemar's exact p, and Student's interval, which the bootstrap comes to."""
    found = (
        page.evaluate("window.statistics.mcnemar(3, 11)"),
        page.evaluate("window.statistics.mcnemar(700, 800)"),
    )
    assert found == (pytest.approx(mcnemar(3, 11)), pytest.approx(mcnemar(700, 800)))
    change = [1] * 8 + [-1] * 21 + [0] * 71
    mine = page.evaluate("changes => window.statistics.difference(changes.map((c, i) => [i, c]))", change)
    mean, error = np.mean(change), np.std(change, ddof=1) / 10
    half = stats.t.ppf(0.975, 99) * error
    assert mine == pytest.approx([100 * mean, 100 * (mean - half), 100 * (mean + half)], abs=0.01)
    theirs = paired_difference([0] * 100, change)
    assert mine == pytest.approx([100 * each for each in theirs[:3]], abs=1)
    few = page.evaluate(
        "window.statistics.difference([[0, 1], [1, 0], [2, 1], [3, -1]], ['a', 'a', 'b', 'b'])"
    )
    assert few[0] == pytest.approx(25)  # the mean of 0.5 and 0


def test_hostile_text_is_only_text(context, tmp_path):
    """In every text that a record holds: an answer's, the wanted one's, a question's, a setting's."""
    from scripts.page_picture import ready

    evil = "<img src=x onerror=window.hacked=1></script></pre><script>window.hacked=1</script>\u202e@=1+1"
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
    for name in ("a", "b"):
        every = page.locator(f"#pair [name={name}] option").all_inner_texts()
        page.locator(f"#pair [name={name}]").select_option(
            index=next(i for i, text in enumerate(every) if "onerror" in text)
        )
    with page.expect_download():
        page.get_by_role("button", name="Download as SVG").click()
    assert "⟨U+202E⟩" in page.locator("#pair").inner_text() and "\u202e" not in page.content()
    page.get_by_role("link", name="onerror").first.click()
    assert "onerror" in page.locator("#run").inner_text()
    assert page.evaluate("window.hacked") is None and not page.locator("img[src=x]").count() and not errors
    page.close()
