"""report.py: a figure reads the runs of its sweep, says what is missing and what it left out, and lies beside
its runs."""

import json
import re

import pandas as pd
import pytest
from omegaconf import OmegaConf

import report
from unmask.models.loading import Source
from unmask.models.settings import ModelConfig
from unmask.paths import ROOT
from unmask.report import command as report_command
from unmask.report import lookup as report_lookup
from unmask.report.command import pictures as pictures_of
from unmask.report.definition import define
from unmask.report.figures import draw, note
from unmask.report.lookup import FIGURES
from unmask.report.measures import comparable
from unmask.report.style import plt

SETTINGS = ["limit=4", "threads=1"]


@pytest.fixture
def draws(run_command, tmp_path):
    """draws("figure=fig3", ...) -> (exit code, stdout, stderr) of a report on tmp_path/results."""
    return lambda *arguments: run_command(report, f"results={tmp_path / 'results'}", *SETTINGS, *arguments)


def words_of(picture) -> str:
    """What an SVG says, lines joined."""
    return " ".join(re.sub("<[^>]+>", " ", picture.read_text()).split())


def define_of(name):
    pareto = {"kind": "pareto", "title": "Costs", "measures": ["tokens_per_step", "tokens_per_second"]}
    curve = {"kind": "curve", "title": "M", "x": "decoder.max_lookahead"}
    curve |= {"measures": ["accuracy", "tokens_per_second"]}
    return define(name, {"pareto": pareto, "curve": curve, "table": {"kind": "table", "title": "T"}}[name])


def test_a_figure_and_what_is_behind_it_lie_beside_its_runs(record, draws, tmp_path):
    record("figure=fig2", "model=tiny_dream", right=lambda cfg: 4 - cfg.decoder.tokens_per_step // 2)
    code, out, err = draws("figure=fig2", "model=tiny_dream")
    assert code == 0 and not err, err
    folder = tmp_path / "results" / "figures"
    assert (ROOT / json.loads(out.splitlines()[-1])["fig2"]).resolve() == folder / "fig2.png"
    assert (folder / "fig2.png").stat().st_size > 20_000
    words = words_of(folder / "fig2.svg")
    assert "n = 4" in words and "tiny stand-in family" in words and "this, 2 cores, 000000; 1 thread" in words
    assert "published: Dream-7B" in words and "commit 0123456789ab" in words and "AUP" not in words
    rows = pd.read_csv(folder / "fig2.csv")
    assert rows.K.tolist() == [1, 2, 3, 4, 5, 6, 7, 8]
    assert rows.accuracy.tolist() == [1, 0.75, 0.75, 0.5, 0.5, 0.25, 0.25, 0]
    first = (folder / "fig2.svg").read_bytes()
    draws("figure=fig2", "model=tiny_dream")
    assert (folder / "fig2.svg").read_bytes() == first


def test_threads_are_those_of_the_runs_unless_the_command_says_so(record, run_command, tmp_path):
    """SETTINGS ask for one thread; the default is two."""
    record("figure=fig4", "arm=one", "decoder.max_lookahead=4,8", identity={"threads": 1})

    def report_of(*threads):
        return run_command(
            report, f"results={tmp_path / 'results'}", "limit=4", "figure=fig4", "arm=one", *threads
        )

    code, out, _ = report_of("decoder.max_lookahead=4,8")
    assert code == 0 and "2 of 2 runs" in out
    assert report_of("decoder.max_lookahead=4,8", "threads=2")[0] == 2
    record("figure=fig4", "arm=one", "decoder.max_lookahead=4", identity={"threads": 2})
    code, _, err = report_of("decoder.max_lookahead=4,8")
    assert code == 2 and "are both of this setting (they differ in threads)" in err


def test_missing_points_are_named_and_drawn_without(record, draws, tmp_path):
    record("figure=fig3", "arm=one,apd", "decoder.mixture_weight=0.0,0.5,1.0")
    code, out, err = draws("figure=fig3")
    assert code == 0 and "4 of 8 runs" in out
    assert "fig3: missing apd R=0.3 on tiny_dream, gsm_symbolic: no such run" in err
    words = words_of(tmp_path / "results" / "figures" / "fig3.svg")
    assert "missing: 4 of 8 settings (apd R=0.1 on tiny_dream, gsm_symbolic; apd R=0.3" in words


def test_a_figure_without_any_run_is_refused_with_the_reason(record, draws):
    record("figure=fig4", "decoder.max_lookahead=4")
    code, _, err = draws("figure=fig2")
    assert code == 2 and "none of its 16 runs" in err and "scripts/figure.sh fig2" in err
    record("figure=fig3", "arm=one")
    code, _, err = draws("figure=fig3")
    assert code == 2 and "has 1 of its 8 runs, too few to draw" in err
    code, _, err = draws("figure=fig4", "seed=1", "decoder.max_lookahead=4")
    assert code == 2 and "differs in seed (0 there, 1 wanted)" in err


def test_all_figures_are_drawn_that_have_runs(record, draws, monkeypatch):
    assert {"fig2", "apd_fig6", "tab1"} < set(FIGURES)
    monkeypatch.setattr(report_command, "FIGURES", ["fig4", "tab1", "apd_tab1"])
    record("figure=fig4", "arm=one")
    code, out, err = draws()
    assert code == 0 and json.loads(out.splitlines()[-1]).keys() == {"fig4", "tab1"}
    assert "tab1: missing entropy T=48 on tiny_dream" in err and "apd_tab1: " in err
    assert "none of its 9 runs" in err


def test_lists_of_the_command_replace_the_figures(record, draws, tmp_path):
    given = ["figure=fig4", "arm=one", "decoder.max_lookahead=null,2"]
    record(*given)
    code, _, err = draws(*given)
    assert code == 0 and not err, err
    assert pd.read_csv(tmp_path / "results" / "figures" / "fig4.csv").M.fillna(0).tolist() == [0, 2]


def test_runs_of_a_gpu_are_read_on_any_machine(record, draws):
    gpu = {"device": "cuda", "dtype": "bfloat16", "threads": None}
    record("figure=fig4", "arm=one", identity=gpu, machine="NVIDIA H100, 16 cores, 111111")
    assert draws("figure=fig4", "arm=one")[0] == 0
    assert draws("figure=fig4", "arm=one", "device=cuda:0")[0] == 0
    assert draws("figure=fig4", "arm=one", "device=cpu")[0] == 2


@pytest.mark.parametrize(
    "given, message",
    [
        (["figure=fig9"], "fig9"),
        (["figure=fig4", "output=figures"], "output"),
        (["results=nowhere"], "no such folder"),
        (["results=" + "x" * 5000], "no such folder"),
        (["figure=fig4", "pictures=README.md"], "pictures=README.md: is no folder"),
        (["figure=fig4", "pictures=README.md/x"], "pictures=README.md/x: is no folder"),
        (["figure=fig4,fig9"], "fig9"),
        (["figure=fig4", "arm=three"], "arm=three: choose of one, apd"),
        (["figure=fig4", "draw.kind=pie"], "draw.kind=pie"),
        (["figure=fig4", "draw.kind=[curve]"], "draw.kind=['curve']"),
        (["figure=fig4", "draw.measures=[[1]]"], "draw.measures=[[1]]: must be a list[str]"),
        (["figure=fig4", "draw.title=[a]"], "draw.title=['a']: must be text"),
        (["figure=board", "arm=autoregressive", "draw.losses=[-1]"], "draw.losses=[-1]"),
        (["figure=apd_fig3", "draw.beside.series=3"], "draw.beside.series=3"),
        (["figure=fig4", "changed=-1"], "changed=-1"),
        (["figure=fig4", "draw.measures=[beauty]"], "draw.measures=beauty"),
        (["figure=fig4", "arm=one", "draw.x=decoder.beauty"], "draw.x=decoder.beauty: none of its runs"),
        (["figure=fig4", "~draw"], "has no section `draw`"),
        (["figure=[fig4]"], "is no name"),
        (["figure=fig4", "device=tpu"], "device=tpu"),
    ],
)
def test_bad_input_is_one_message(record, draws, given, message):
    record("figure=fig4", "arm=one")
    code, _, err = draws(*given)
    assert code == 2 and message in err and "Traceback" not in err


def test_pictures_have_a_place(tmp_path):
    def place(results, given=(), pictures=None):
        cfg = {"results": str(results), "pictures": pictures}
        return pictures_of(OmegaConf.create(cfg), list(given))

    reference = ROOT / "results" / "reference"
    assert place("results") == ROOT / "results" / "figures"
    assert place(tmp_path) == tmp_path / "figures"
    assert place("results/reference") == place(reference, ["published=false"]) == ROOT / "figures"
    # What is not the reference run as it is may not overwrite its pictures.
    assert place(reference, ["limit=5"]) == reference / "figures"
    assert place(reference, pictures="/tmp/mine").as_posix() == "/tmp/mine"


def test_times_of_several_machines_or_commits_are_left_out(record, read, tmp_path):
    record("figure=fig4", "arm=one", "decoder.max_lookahead=null", machine="other")
    record("figure=fig4", "arm=one")
    found = read("figure=fig4", "arm=one")
    draw(define_of("curve"), found, tmp_path)
    words = words_of(tmp_path / "curve.svg")
    assert "times of 1 of 5 settings are left out: runs of other machines" in words
    assert "useful tokens/s" in words  # of the four that are of one
    assert found.rows.tokens_per_second.notna().all()  # each is a time by itself


def test_times_of_runs_that_took_no_turns_are_left_out(record, read, tmp_path):
    record("figure=fig4", "arm=one", "decoder.max_lookahead=null", session="ffffffff")
    record("figure=fig4", "arm=one")
    found = read("figure=fig4", "arm=one")
    assert "times of 1 of 5 settings are left out: they did not" in note(define_of("curve"), found, False)
    draw(define_of("pareto"), found, tmp_path)
    words = words_of(tmp_path / "pareto.svg")  # a front over speed is of all settings or of none
    assert "useful tokens per step" in words and "useful tokens/s" not in words
    assert "times of 5 of 5 settings are left out" in note(define_of("pareto"), found, False)


@pytest.mark.parametrize(
    ("sessions", "kept"),
    [
        ([["a"], ["a"], ["b"]], [True, True, False]),
        ([["a"], ["b"], ["c"]], [False] * 3),  # one alone compares with nothing
        ([["alone"], ["alone"], ["alone"], ["a"], ["a"]], [False] * 3 + [True] * 2),
        ([["a", "alone"], ["a", "alone"]], [False] * 2),
        ([["a", "b"], ["a", "b"], ["a"]], [True, True, False]),
    ],
)
def test_times_compare_between_rows_that_shared_their_session(sessions, kept):
    n = len(sessions)
    alike = {"times_void": [None] * n, "machines": [["m"]] * n, "commits": [["c"]] * n, "device": "cpu"}
    timed, reason = comparable(pd.DataFrame(alike | {"sessions": sessions}))
    assert timed.tolist() == kept and (reason is None) == all(kept)
    timed, reason = comparable(pd.DataFrame(alike | {"sessions": sessions, "device": "cuda"}))
    assert timed.all() and reason is None


def test_on_a_cpu_speed_has_no_front_unless_settings_took_turns(record, read, tmp_path):
    record("figure=fig4", "arm=one")
    found = read("figure=fig4", "arm=one")
    definition = define_of("pareto")
    draw(definition, found, tmp_path)
    assert "useful tokens/s" in words_of(tmp_path / "pareto.svg")
    found.rows.sessions = [["alone"]] * len(found.rows)
    draw(definition, found, tmp_path)
    words = words_of(tmp_path / "pareto.svg")
    assert "useful tokens/s" not in words and "on a CPU" in words
    found.rows.device = "cuda"
    draw(definition, found, tmp_path)
    assert "useful tokens/s" in words_of(tmp_path / "pareto.svg")


def test_lines_join_the_settings_of_a_method_beside_published_ones(record, read, tmp_path):
    given = [
        "figure=dparallel_llada",
        "arm=confidence,threshold,entropy",
        "decoder.steps=null",
        "decoder.threshold=0.95,0.8,0.5",
    ]
    record(*given, per_step=lambda cfg: 1 + round(10 * (1 - (cfg.decoder.threshold or 1))))
    pareto = {"kind": "pareto", "title": "Costs", "measures": ["tokens_per_step"], "lines": "methods"}
    definition = define("dparallel", pareto | {"published": "dparallel_llada"})
    drawn = []
    real = plt.Axes.errorbar

    def errorbar(axes, x, y, **style):
        drawn.append((style["color"], len(x)))
        return real(axes, x, y, **style)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plt.Axes, "errorbar", errorbar)
        draw(definition, read(*given), tmp_path)
    assert sorted(n for _, n in drawn) == [1, 1, 2] and len(dict(drawn)) == 3
    words = words_of(tmp_path / "dparallel.svg")
    assert "Filled" not in words and "steps saved" in words and "arXiv 2509.26488" in words
    assert "dParallel-LLaDA" in words and "published: humaneval 0-shot" in words
    with pytest.raises(ValueError, match=r"draw\.lines=all: must be front or methods"):
        define("mine", pareto | {"lines": "all"})


def test_the_table(record, read, tmp_path):
    right = {"leftright": 4, "apd": 3}
    per_step = {"apd": 3}
    record(
        "figure=tab1",
        right=lambda cfg: right.get(cfg.decoder.name, 0),
        per_step=lambda cfg: per_step.get(cfg.decoder.name, 1),
        exact=lambda cfg: True if cfg.decoder.name == "apd" else None,
    )
    path = draw(define_of("table"), read("figure=tab1"), tmp_path)
    rows = [line.split("|")[1:-1] for line in path.read_text().splitlines() if line.startswith("|")]
    head, _, *lines = [[cell.strip() for cell in row] for row in rows]
    cells = {(line[0], line[2]): dict(zip(head, line, strict=True)) for line in lines}
    assert len(cells) == 11
    base, apd = cells["tiny_dream", "leftright K=1"], cells["tiny_dream", "apd R=0.1"]
    assert base["difference to leftright K=1"] == "" and base["exact"] == ""
    assert apd["difference to leftright K=1"].startswith("-25.0 [") and apd["exact"] == "4 of 4"
    assert apd["forwards per answer"] == "denoiser 2.0, auxiliary 2.0" and apd["positions per answer"] == "32"
    assert float(apd["MFLOPs per useful token"]) == pytest.approx(0.1, abs=0.05)
    assert apd["tokens per step"].startswith("3.00") and apd["tokens/s"] == "6"
    assert base["on the front of"] == apd["on the front of"] == "tokens/step, positions"
    assert cells["tiny_dream", "entropy T=48"]["on the front of"] == ""
    assert apd["times the baseline's tokens/s"] == base["times the baseline's tokens/s"] == "1.00"
    order = list(apd)
    assert order.index("times the baseline's tokens/s") < order.index("tokens/s") and "AUP" not in apd
    slots = base["published per step: slots / non-EOS / re-tokenised"]
    assert slots == "16.00 / - / -", "96 slots in 6 steps, and no tokenizer's counts in these records"
    assert (
        base["leftmost commits %"] == "100"
        and base["unweighted acceptance / times the baseline"] == "- / 1.00"
    )
    assert "n = 4. tasks: gsm_symbolic" in path.read_text()
    assert r"\begin{tabular}" in path.with_suffix(".tex").read_text()


def test_a_group_task_has_the_mean_of_its_subjects(record, read, tmp_path):
    """MATH: subjects weigh alike, in figures and tables as in eval.py's last line."""
    subjects = [f"math_{name}" for name in ("algebra", "geometry")]
    record("task=math", "decoder=leftright", subjects=subjects, right=[4, 1], metric="exact_match,boxed")
    found = read("task=math", "decoder=leftright", limit=4, metric="exact_match,boxed")
    assert found.rows.accuracy.tolist() == [(1 + 0.25) / 2] and found.rows.n.tolist() == [8]
    path = draw(define_of("table"), found, tmp_path)
    assert "62.5 [" in path.read_text()
    two = read("task=math", "decoder=leftright", limit=2, metric="exact_match,boxed")
    assert two.rows.accuracy.tolist() == [(1 + 0.5) / 2] and two.rows.n.tolist() == [4]


def test_one_refused_figure_stops_no_other(record, draws, monkeypatch):
    monkeypatch.setattr(report_command, "FIGURES", ["fig4", "fig5"])
    monkeypatch.setattr(report_lookup, "weights_of", lambda configs: None)
    record("figure=fig4", "arm=one")
    record("figure=fig5", "arm=one")
    record("figure=fig5", "arm=one", "decoder.kv_window=4", weights="cccccccccccc")
    code, out, err = draws()
    assert code == 2 and "fig4: " in out and "fig5: leftright K=1 W=4: " in err
    assert "fig5: not drawn" in err


def test_weights_on_this_machine_decide(record, draws, tmp_path):
    """Two trainings of one model in the folder: the figure is of the checkpoint that lies here."""
    path = str(ROOT / "checkpoints" / "tiny_dream")
    model = ModelConfig(name="tiny_dream", path=path, kind="diffusion", end_tokens=["<|im_end|>"])
    record("figure=fig4", "arm=one", weights=Source(model).fingerprint)
    record("figure=fig4", "arm=one", right=0)
    code, _, err = draws("figure=fig4", "arm=one")
    assert code == 0, err
    assert set(pd.read_csv(tmp_path / "results" / "figures" / "fig4.csv").accuracy) == {0.75}
