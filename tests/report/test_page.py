"""report.py page=true: a page whose numbers are the summaries', made of records alone."""

import base64
import csv
import gzip
import io
import json
import re
import shlex

import pandas as pd
import pytest
from PIL import Image, ImageSequence
from tokenizers import Tokenizer

import report
from unmask.configuration.composition import composed
from unmask.configuration.settings import identity_of
from unmask.page.answers import telling
from unmask.page.boards import boards, told_apart
from unmask.page.build import write
from unmask.page.colours import CONTRAST, DARK, contrast, on_both, to_rgb
from unmask.page.data import by_document, command_of
from unmask.page.pieces import pieces
from unmask.page.tables import Section, cell, kinds
from unmask.page.tables import csv as csv_of
from unmask.paths import ROOT
from unmask.records import Run, find_runs
from unmask.records.collection import everything
from unmask.records.stats import Interval
from unmask.records.summary import summarise
from unmask.records.trace import write_traces
from unmask.report import listing
from unmask.report.published import points
from unmask.report.style import DECODERS

METRIC = "exact_match,flexible-extract"


@pytest.fixture
def page(tmp_path):
    """page(section, ...) -> (its text, its JSON, what is left out) of tmp_path/results."""

    def make(*extra):
        file, _, left_out = write(tmp_path / "results", tmp_path / "page", extra)
        text = file.read_text()
        data = re.search(r'<script type="application/gzip" id="data">(.*?)</script>', text)[1]
        return text, json.loads(gzip.decompress(base64.b64decode(data))), left_out

    return make


def board_of(text, number=1):
    """The rows of a board, from its CSV."""
    links = re.findall(r'href="data:text/csv;charset=utf-8;base64,([^"]+)"', text)
    return list(csv.DictReader(io.StringIO(base64.b64decode(links[number - 1]).decode())))


def test_numbers_are_those_of_the_summaries(record, page):
    folders = record("figure=fig3", right=lambda cfg: 3, per_step=2, documents=12, total=12)
    text, data, _ = page()
    assert data["runs"].keys() == {folder.name for folder in folders}
    rows = {row["run"]: row for row in board_of(text)}
    for folder in folders:
        summary = summarise(Run.read(folder).scored(METRIC))
        row, numbers = rows[folder.name], data["runs"][folder.name]["numbers"]
        for column, name, scale in (
            ("accuracy %", "accuracy", 100),
            ("useful tokens per step", "tokens_per_step", 1),
            ("tokens/s", "tokens_per_second", 1),
        ):
            wanted = [scale * value for value in (summary[name], *summary[f"{name}_interval"])]
            assert [float(row[key]) for key in (column, f"{column} low", f"{column} high")] == wanted
            assert numbers[name] == pytest.approx(wanted, rel=1e-5)
        assert row["n"] == "12" and row["answers without end"] == "0"
    assert data["tasks"]["gsm_symbolic"]["fronts"]["tokens_per_step"]
    assert "The models named tiny_* are small ones" in text and "Made by commit 0123456789ab" in text


def test_it_asks_nothing_of_the_network(record, page):
    record("figure=fig3", "arm=one,apd", "decoder.mixture_weight=0.0")
    text, _, _ = page()
    shown = re.sub(r"<script.*?</script>", "", text, flags=re.DOTALL)
    assert not re.findall(r"""(?:src|href)\s*=\s*["']?\s*(?:https?:|//)[^"'\s>]*""", text)
    assert not re.findall(r"url\((?!['\"]?data:)|@import", shown)
    assert "Content-Security-Policy\" content=\"default-src 'none'" in text
    assert str(ROOT) not in text


def test_times_stand_only_beside_times_that_compare(record, page):
    record("figure=fig3", "arm=one,apd", "decoder.mixture_weight=0.0,0.5")
    record("figure=fig3", "arm=apd", "decoder.mixture_weight=1.0", session=None)
    text, data, _ = page()
    times = {row["setting"]: row["tokens/s"] for row in board_of(text)}
    assert times["R=1.0"] == "" and all(value for name, value in times.items() if name != "R=1.0")
    assert "Times of 1 of 4 runs are left out: on a CPU they compare only" in text
    front = data["tasks"]["gsm_symbolic"]["fronts"]["tokens_per_second"]  # of those that compare
    assert front and all("tokens_per_second" in data["runs"][run]["numbers"] for run in front)
    assert sum("tokens_per_second" in run["numbers"] for run in data["runs"].values()) == 3


def test_a_damaged_and_an_unfinished_run_are_left_out_with_the_reason(record, page, tmp_path):
    good, damaged, running, unscored = record(
        "figure=fig3", "arm=one,apd", "decoder.mixture_weight=0.0,0.5,1.0"
    )
    lines = (damaged / "samples.jsonl").read_text().replace('"useful": 6', '"useful": 5', 1)
    (damaged / "samples.jsonl").write_text(lines)
    with Run.open(running, Run.read(running).config, {}) as run:
        run.update(status="running")
    (unscored / "scores.jsonl").unlink()
    text, data, left_out = page()
    assert list(data["runs"]) == [good.name] and len(left_out) == 3
    for folder, why in ((damaged, "checksum"), (running, "is running, not finished"), (unscored, "no score")):
        assert any(each.startswith(folder.name) and why in each for each in left_out)
        assert folder.name in text
    assert str(tmp_path) not in text
    (good / "run.json").unlink()
    with pytest.raises(ValueError, match="no finished run to show"):
        page()


def test_the_command_writes_it_beside_the_runs_and_refuses_to_choose_among_them(
    record, run_command, tmp_path
):
    record("figure=fig3", "arm=one")
    results = tmp_path / "results"
    code, out, err = run_command(report, "page=true", f"results={results}")
    assert code == 0 and not err and "1 runs" in out
    file = (ROOT / json.loads(out.splitlines()[-1])["page"]).resolve()
    assert file == results / "figures" / "page" / "index.html" and file.exists()
    code, _, err = run_command(
        report, "page=true", f"results={results}", "figure=fig3", "limit=2", "seed=0,1"
    )
    assert code == 2 and "leave out figure=fig3 limit=2 seed=0,1" in err


def test_a_name_that_stands_for_several_says_which(record, tmp_path):
    record("figure=fig3", "arm=one,apd", "decoder.mixture_weight=0.0")
    record("figure=fig3", "arm=one", weights="cccccccccccc")
    record("figure=fig3", "arm=one", "task.split=validation")
    rows = told_apart(everything(find_runs(tmp_path / "results")[0]))
    assert set(rows.task) == {"gsm_symbolic, split=test", "gsm_symbolic, split=validation"}
    test = rows[rows.task == "gsm_symbolic, split=test"]
    assert set(test.model) == {"tiny_dream, weights=aaaaaaaaaaaa", "tiny_dream, weights=cccccccccccc"}
    assert set(rows.model[rows.task != "gsm_symbolic, split=test"]) == {"tiny_dream"}


def test_an_answer_is_told_by_its_commits(record, page):
    record("figure=fig3", "arm=apd", "decoder.mixture_weight=0.5", per_step=3)
    _, data, _ = page()
    (answers,) = data["answers"].values()
    assert len(answers) == 4 and [each["target"] for each in data["tasks"]["gsm_symbolic"]["documents"]]
    answer = answers["0"]
    assert [data["pieces"][piece] for piece in answer["tokens"]] == [
        f"⟨{i}⟩" for i in range(7)
    ]  # no such text
    assert answer["steps"] == [0, 0, 0, 1, 1, 1, 1] and answer["taken"] == [3, 4] and answer["ended"]
    assert "drafts" not in answer and "blocks" not in answer  # a trace tells them
    assert answers["2"]["correct"] == 1 and answers["3"]["correct"] == 0


def test_a_trace_adds_what_was_refused_and_the_forwards_of_each_step(record, page):
    (folder,) = record("figure=fig3", "arm=apd", "decoder.mixture_weight=0.5", per_step=3)
    forwards = {"denoiser": [1, 2], "auxiliary": [1, 2]}
    drafted = [[0, 1, 2, 9, 8], [3, 4, 5, 6]]
    steps = {"drafted": drafted, "accepted": [3, 4], "blocks": ["", ""], "forwards": forwards}
    trace = {"doc_id": 0, "repeat": 0, "question": "What?", **steps}
    fewer = {
        "drafted": [[]],
        "accepted": [0],
        "blocks": [""],
        "forwards": {"denoiser": [1], "auxiliary": [1]},
    }
    other = trace | {"doc_id": 1, **fewer}  # of another answer
    write_traces(folder, [trace, other], Run.read(folder).seal)
    _, data, left_out = page()
    (answers,) = data["answers"].values()
    assert answers["0"]["spent"] == forwards and answers["0"]["refused"] == ["⟨9⟩⟨8⟩", ""]
    assert answers["0"]["drafts"] == [[5, 3], [4, 4]] and not answers["0"]["own"]
    assert "blocks" not in answers["0"]
    assert "spent" not in answers["1"] and not left_out
    assert data["tasks"]["gsm_symbolic"]["documents"][0]["question"] == "What?"
    (folder / "trace.jsonl").write_text("{}\n")
    _, data, left_out = page()
    assert folder.name in data["runs"] and "trace.jsonl:1" in left_out[0]


def test_a_section_is_a_table_of_any_columns(record, page):
    record("figure=fig3", "arm=one")
    best = pd.DataFrame(
        {"method": ["apd <b>"], "speed-up": [Interval(2.5, 2.25, 2.75)], "run": ["elsewhere"]}
    )
    text, _, _ = page(Section("Best settings", best, "Of each."))
    assert '<h2 id="title-2">Best settings</h2>' in text and "apd &lt;b&gt;" in text
    assert 'data-order="2.5"' in text and '2.50 <span class="ends">[2.25, 2.75]</span>' in text
    assert board_of(text, 2) == [
        {
            "method": "apd <b>",
            "speed-up": "2.5",
            "speed-up low": "2.25",
            "speed-up high": "2.75",
            "run": "elsewhere",
        }
    ]


def test_cells_have_three_digits_and_sort_by_all():
    nan = float("nan")
    assert [cell(x).text for x in (0.98123, 6.4247, 76.0, 100.0, 1556.1, 7, 200, 0.0)] == [
        *("0.981", "6.42", "76.0", "100", "1,556", "7", "200", "0.00"),
    ]
    assert cell(Interval(75.96, 69.6, 81.4)) == ("76.0", "[69.6, 81.4]", 75.96)
    assert cell(Interval(1.0, nan, nan)) == ("1.00", "", 1.0)
    assert [cell(x) for x in (None, nan, "")] == [("–", "", None)] * 3
    assert cell("2.21 [2.07, 2.35]") == ("2.21", "[2.07, 2.35]", 2.21) and cell("-1,234").order == -1234
    assert [cell(x) for x in ("0.55 / 0.60", "12, 13", "c=0.9")] == [
        (text, "", None) for text in ("0.55 / 0.60", "12, 13", "c=0.9")
    ]
    assert csv_of(pd.DataFrame({"a": [0.123456789], "b": ["x, y"]})) == 'a,b\n0.123456789,"x, y"\n'


def test_pieces_add_up_to_the_text_and_a_character_comes_whole():
    tokenizer = Tokenizer.from_file(str(ROOT / "checkpoints" / "tiny_dream" / "tokenizer.json"))
    ids = tokenizer.encode("David has £40 – no, ½ of it: 4².").ids

    def decode(ids):
        return tokenizer.decode(list(ids), skip_special_tokens=False)

    found = pieces(ids, decode)
    assert len(found) == len(ids) and "".join(found) == decode(ids)
    assert not [piece for piece in found if "\ufffd" in piece] and "" in found


@pytest.mark.parametrize("colour", DECODERS.values())
def test_a_colour_can_be_seen_on_the_dark_page(colour):
    light, dark = on_both(colour)
    assert light == colour and contrast(to_rgb(dark), to_rgb(DARK)) >= CONTRAST - 0.05
    assert DARK in (ROOT / "unmask" / "page" / "style.css").read_text()


def test_the_script_stays_small():
    assert len((ROOT / "unmask" / "page" / "script.js").read_text().splitlines()) < 600


def test_boards_leave_out_columns_that_are_empty(record, tmp_path):
    record("figure=fig3", "arm=one,apd", "decoder.mixture_weight=0.0", session=None)
    (board,) = boards(everything(find_runs(tmp_path / "results")[0]))
    assert not {"exact", "tokens/s"} & set(board.table)
    assert (
        board.title == "Board: gsm_symbolic"
        and len(board.table) == 2
        and "Times of 2 of 2 runs" in board.note
    )


def test_a_board_ranks_by_paired_tests_the_best_first(record, tmp_path):
    """Of 20 documents 20, 19 and 2 are right: the first two are a group (p = 1), the third is not."""
    right = {0.0: 19, 0.5: 2, 1.0: 20}
    record(
        "figure=fig3",
        "arm=apd",
        "decoder.mixture_weight=0.0,0.5,1.0",
        right=lambda cfg: right[cfg.decoder.mixture_weight],
        documents=20,
        total=20,
    )
    (board,) = boards(everything(find_runs(tmp_path / "results")[0]))
    assert board.table["rank"].tolist() == [1, 1, 3]
    assert board.table["setting"].tolist() == ["R=1.0", "R=0.0", "R=0.5"]
    assert "paired test" in board.note


def test_forwards_and_exactness_sort_by_number(record, tmp_path):
    record("figure=fig3", "arm=one,apd", "decoder.mixture_weight=0.5")
    (board,) = boards(everything(find_runs(tmp_path / "results")[0]))
    cells = [cell(value) for value in board.table["forwards per answer"]]
    assert all(each.order == float(re.search(r"[\d.]+", each.text)[0]) for each in cells)
    assert kinds(board.table)[list(board.table).index("forwards per answer")] == "number"


def test_a_command_makes_the_very_run(hydra):
    for words in (
        ["decoder=apd", "decoder.mixture_weight=0.25", "decoder.kv_window=8", "decoder.max_lookahead=null"],
        ["model=tiny_qwen_large", "drafter=tiny_dflash", "decoder=dflash", "seed=3", "batch_size=4"],
        ["model=tiny_llada", "decoder=threshold", "task=chain_sum", "task.stop=['Q: ','=']"],
    ):
        config = identity_of(composed("eval", words))
        command = shlex.split(command_of(config, 7))
        assert command[:2] == ["python", "eval.py"] and command[-1] == "limit=7"
        assert identity_of(composed("eval", command[2:])) == config
    config["models"]["denoiser"]["name"] = "somebody's"
    assert command_of(config, 7) is None


def test_no_cell_of_a_csv_is_a_formula():
    table = pd.DataFrame({"a": ["=1+1", "-1.5", "-cmd", "@x", "+1 [0, 2]", "\tx"], "b": [-1.5] * 6})
    cells = [line.split(",")[0] for line in csv_of(table).splitlines()[1:4]]
    assert cells == ["'=1+1", "-1.5", "'-cmd"] and csv_of(pd.DataFrame({"a": ["-"]})) == "a\n-\n"
    assert "'@x" in csv_of(table) and "'+1" not in csv_of(table) and "'\tx" in csv_of(table)


def test_a_latex_table_is_latex(tmp_path):
    """A percent sign in a header would take the rest of its line away."""
    table = pd.DataFrame({"accuracy %": ["-1.5", "=1+1"], "a_b": ["50% of x_y", "\\input{x}"]})
    listing.write(table, tmp_path / "table", "note")
    lines = (tmp_path / "table.tex").read_text().splitlines()
    assert lines[2] == r"accuracy \% & a\_b \\" and lines[4] == r"-1.5 & 50\% of x\_y \\"
    assert lines[5] == r"=1+1 & \textbackslash input\{x\} \\"


def test_controls_of_the_direction_are_words(record, page):
    """Else a setting could turn the text around it."""
    record("figure=fig3", "arm=one", prompts="\u202efedcba\u2066")
    text, data, _ = page()
    assert not re.findall("[\u202a-\u202e\u2066-\u2069]", text + json.dumps(data, ensure_ascii=False))
    (run,) = data["runs"].values()
    assert run["settings"]["Settings"]["task.prompts"] == "⟨U+202E⟩fedcba⟨U+2066⟩"


def test_answers_begin_with_three_settings_worth_seeing(record, page):
    """One token a forward, right in 19 of 20; the fastest that a test does not tell from it; the worst."""
    right, fast = {0.0: 20, 0.3: 16, 0.5: 4, 1.0: 0}, {0.0: 2, 0.3: 3, 0.5: 6, 1.0: 6}
    (one,) = record("figure=fig3", "arm=one", right=19, documents=20, total=20)
    folders = {
        mixture: record(
            *("figure=fig3", "arm=apd", f"decoder.mixture_weight={mixture}"),
            **{"right": right[mixture], "per_step": fast[mixture], "documents": 20, "total": 20},
        )[0]
        for mixture in right
    }
    _, data, _ = page()
    worth = data["tasks"]["gsm_symbolic"]["worth"]
    assert list(worth) == [one.name, folders[0.3].name, folders[1.0].name]  # p = 0.25 and 4e-6
    assert worth[one.name] == "One token a forward." and "-15.0 points, p = 0.25" in worth[folders[0.3].name]
    assert "-95.0 points, p = 3.8e-06" in worth[folders[1.0].name]
    assert data["tasks"]["gsm_symbolic"]["first"] == 0  # both right, and the last wrong


def test_the_document_to_begin_with_tells_runs_apart():
    def answers(*right):
        return [{"doc_id": i, "repeat": 0, "correct": each} for i, each in enumerate(right)]

    documents = [{"id": i, "question": None} for i in range(4)]
    runs = [answers(1, 1, 1, 1), answers(0, 1, 1, 1), answers(0, 1, 0, 0)]
    assert telling(documents, runs) == 2
    assert telling([*documents[:3], {"id": 3, "question": "What?"}], runs) == 3
    assert telling(documents, [answers(1, 1, 1, 1)] * 3) == 0


def test_a_comparison_has_every_document(record, page):
    record("figure=fig3", "arm=one", right=3, documents=5, total=5)
    record("figure=fig3", "arm=apd", "decoder.mixture_weight=0.5", right=1, documents=4, total=5)
    _, data, _ = page()
    one, apd = data["runs"].values()
    assert data["tasks"]["gsm_symbolic"]["ids"] == [0, 1, 2, 3, 4]
    assert one["correct"] == [1, 1, 1, 0, 0] and apd["correct"] == [1, 0, 0, 0, -1]
    assert [data["pieces"][each] for each in one["read"]] == ["1"] * 5 and apd["read"][4] is None


def test_a_document_has_the_mean_of_its_repeats():
    facts = {"extraction_failed": False, "extracted": "x" * 100}
    scored = [
        {"doc_id": document, "repeat": repeat, "correct": correct} | facts
        for document, repeat, correct in ((0, 0, 1.0), (0, 1, 0.0), (1, 0, None), (3, 0, 1.0), (3, 1, None))
    ]
    found = by_document(scored, [0, 1, 2, 3], words := {})
    assert found == {"correct": [0.5, None, -1, 1], "read": [0, 0, None, 0]}
    assert list(words) == ["x" * 60 + "…"]


def test_published_rows_stand_apart(record, run_command, tmp_path):
    record("figure=fig3", "arm=one")
    words = ["page=true", f"results={tmp_path / 'results'}"]
    file = tmp_path / "results" / "figures" / "page" / "index.html"
    assert run_command(report, *words)[0] == 0
    text = file.read_text()
    rows = board_of(text, 2)
    assert len(rows) == len(points()) and "Nothing here was run by this repository" in text
    assert {"D2F 2508.09192", "APD 2506.00413"} < {row["source"] for row in rows} and "rank" not in rows[0]
    run_command(report, *words, "published=false")
    assert "Published by the papers" not in file.read_text()


def test_a_race_is_a_picture_a_forward(record, run_command, tmp_path):
    (one,) = record("figure=fig3", "arm=one", right=4)
    (apd,) = record("figure=fig3", "arm=apd", "decoder.mixture_weight=0.5", per_step=3, right=0)
    results = f"results={tmp_path / 'results'}"
    code, out, err = run_command(report, "race", one.name, apd.name, results, "document=2")
    assert code == 0 and not err, err
    with Image.open(ROOT / json.loads(out.splitlines()[-1])["race"]) as gif:
        assert gif.n_frames == 7  # 6 forwards, and the masks before
        pictures = [frame.convert("L") for frame in ImageSequence.Iterator(gif)]
        assert gif.info["duration"] > 1000  # the end is held
    half = pictures[0].width // 2
    left = [picture.crop((0, 0, half, picture.height)) for picture in pictures]
    right = [picture.crop((half, 0, picture.width, picture.height)) for picture in pictures]
    assert len({part.tobytes() for part in left}) == 7
    assert len({part.tobytes() for part in right}) == 3  # 2 forwards, and done while the other goes on
    code, out, _ = run_command(report, "race", results)  # those that the page begins with
    assert code == 0 and "race.gif (6 forwards)" in out
    for words, why in (
        ([one.name, "document=9"], "document=9: not all of"),
        (["nothing"], "no run there"),
        (["limit=3"], "leave out limit=3"),
    ):
        code, _, err = run_command(report, "race", *words, results)
        assert code == 2 and why in err, err
