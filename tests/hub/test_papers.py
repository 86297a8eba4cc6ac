"""The published tables: every configuration composes on published models, its rows find the published ones,
and one cell runs from a fake Hub to the table."""

import io
import json
import re
import threading
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pandas as pd
import pytest
import torch
from huggingface_hub import constants
from omegaconf import OmegaConf
from rich.console import Console

import eval as eval_door
import report
from unmask.configuration.command_line import refusals
from unmask.configuration.help import help_text
from unmask.configuration.settings import identity_of
from unmask.configuration.sweeps import settings
from unmask.paths import ROOT
from unmask.records.collection import Collection
from unmask.records.identity import canonical
from unmask.report.definition import Beside, define
from unmask.report.published import ALONE, _is_of, _nearest, for_terminal, note_of, points, table_of

TEXT = (ROOT / "docs" / "papers.md").read_text()
FIGURES = re.findall(r"^\|.*`python eval\.py figure=(\w+)", TEXT, re.MULTILINE)
EVERY = sorted(path.stem for path in (ROOT / "eval_config" / "figure").glob("*.yaml"))
LARGE = {"board", "parallelbench"}  # hundreds of settings, which take seconds to compose
COMPOSED = [pytest.param(name, marks=[pytest.mark.slow] * (name in LARGE)) for name in EVERY]
OURS = {"dflash_smollm2"}  # a model that is neither tiny nor of a paper

MAKES = "make"


@cache
def composed_figure(name):
    """(configurations, their identities) of all settings of a figure."""
    configs = settings([f"figure={name}"])
    return configs, [identity_of(cfg) for cfg in configs]


@pytest.mark.parametrize("name", COMPOSED)
def test_every_figure_composes_has_its_runs_once_and_can_be_drawn(name):
    configs, identities = composed_figure(name)
    assert len(set(map(canonical, identities))) == len(identities) > 1
    assert define(name, OmegaConf.to_container(configs[0].draw)).name == name


@pytest.mark.parametrize("name", COMPOSED)
def test_no_figure_mixes_tiny_and_published_models(name):
    # A role that the decoder has not is left out of the identity.
    used = {model["name"] for found in composed_figure(name)[1] for model in found["models"].values()}
    tiny = {
        model.startswith("tiny_")
        for model in used
        if model.startswith(("tiny_", "dream", "llada", "qwen", "d2f"))
    }
    assert len(tiny) <= 1 and (name not in FIGURES or True not in tiny)


def test_the_page_names_every_published_figure():
    assert len(FIGURES) == len(set(FIGURES)) == 17 and set(FIGURES) <= set(EVERY)


@pytest.mark.parametrize("name", FIGURES)
def test_settings_of_a_table_are_published_rows(name):
    """Every setting of ours that an arm's series names is of one published point of a measure."""
    configs, identities = composed_figure(name)
    definition = define(name, OmegaConf.to_container(configs[0].draw))
    beside = Beside(**definition.beside)
    if "beside" not in configs[0].draw:
        return
    assert beside.series
    every = points()
    theirs = every[(every.source == beside.paper) & every.figure.isin(beside.tables)]
    unmatched = []
    for cfg, identity in zip(configs, identities, strict=True):
        row = pd.Series({"arm": cfg.arm, "task": cfg.task.name})
        named = beside.series.keys() & {cfg.arm, cfg.arm.partition("_")[2]}
        fitting = [p for _, p in theirs.iterrows() if _is_of(row, p, beside, identity)]
        if not beside.nearest:
            assert len({(p.figure, p.x_name) for p in fitting}) == len(fitting), cfg.arm
        if named and not fitting:
            unmatched.append(cfg.arm)
    assert set(unmatched) <= {"one"} or not unmatched, unmatched


def test_published_rows_stand_alone_without_runs():
    (cfg,) = settings(["figure=dparallel_table1", "arm=gsm8k_vanilla"])
    definition = define("x", OmegaConf.to_container(cfg.draw))
    table = table_of(definition, Collection(pd.DataFrame()))
    assert len(table) == 24 and set(table.ours) == {ALONE}
    assert table.published.tolist()[:2] == ["75.7", "72.9"] and table["published cost"][0] == "256 steps"


def test_a_point_of_unstated_settings_has_the_run_of_the_nearest_cost():
    roles = {"step_role": "denoiser", "max_new_tokens": 256}
    rows = [pd.Series(roles | {"forwards_per_answer": {"denoiser": steps}}) for steps in (128, 64, 32)]
    for ratio, nearest in ((1.0, 0), (3.5, 1), (7.9, 2), (50, 2)):  # theirs: 256 slots over steps
        (found,) = _nearest(rows, pd.Series({"x_name": "step ratio", "x": ratio}))
        assert found is rows[nearest]
    assert not _nearest(rows, pd.Series({"x_name": "tok/s", "x": 3}))  # times are of other machines
    (cfg,) = settings(["figure=dparallel_fig4", "arm=gsm8k_llada", "decoder.threshold=0.5"])
    assert "nearest cost" in note_of(*table_without_runs("dparallel_fig4")) and cfg.draw.beside.nearest


def table_without_runs(name):
    definition = define(name, OmegaConf.to_container(settings([f"figure={name}"])[0].draw))
    return definition, table_of(definition, Collection(pd.DataFrame()))


@pytest.mark.parametrize("width", [80, 100, 140])
@pytest.mark.parametrize("name", [name for name in FIGURES if name != "apd_tab1"])
def test_a_terminal_breaks_no_word_and_no_number(name, width):
    definition, table = table_without_runs(name)
    ours, difference = "100.0 [34.2, 100.0]", "-23.4"
    table = table.assign(ours=ours, difference=difference)
    table["in half intervals"], table["our cost"] = "-1.2", "256.0"
    console = Console(width=width, file=io.StringIO(), record=True)
    console.print(for_terminal(definition, table, width))
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= width
    assert text.count(ours) == text.count("-23.4 (-1.2)") == len(table)
    words = " ".join([*table.method, *table.task, *table.published]).split()
    assert set(words) <= set(text.replace(",", "").split()) | set(text.split())
    costs = any(table["published cost"])
    assert ("256.0" in text) or "Costs: in" in " ".join(text.split()) or not costs
    if width == 140 and costs:
        assert text.count("256.0") == len(table)


def test_the_hours_are_told_before_a_figure_starts():
    text = help_text("eval", "", ["figure=dparallel_table1", "limit=2"])
    assert "hours on one A100 / H100, computed and not measured: all documents 94 / 43" in " ".join(
        text.split()
    )
    assert "Consistency distillation has no published weights" in " ".join(text.split())
    assert "arm=" in text and "mbpp_dparallel" in text
    dflash = help_text("eval", "", ["figure=dflash_table1"])
    assert "all documents - / 16; limit=12 - / 0.4" in " ".join(dflash.split())
    for name in FIGURES:  # the page says the same
        (row,) = re.findall(rf"^\|.*figure={name}[` ].*", TEXT, re.MULTILINE)
        draw = settings([f"figure={name}"])[0].draw
        hours = OmegaConf.to_container(draw).get("beside", {}).get("hours", {})
        for of in hours.get("all documents", []):
            assert (f"{of:g}" if of else "-") in row


@pytest.fixture
def offline(monkeypatch):
    """offline(folder): what HF_HUB_OFFLINE=1 HF_HOME=folder set, in this process; and a wide terminal."""

    def at(folder):
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder / "hub"))
        monkeypatch.setenv("COLUMNS", "160")

    return at


def small(tmp_path):
    return ["limit=2", "warm_up=0", "threads=1", f"results={tmp_path}"]


def test_a_cell_runs_from_the_hub_to_the_table(hub, offline, run_command, tmp_path):
    offline(hub)
    words = ["figure=dparallel_table1", "arm=gsm8k_dparallel", *small(tmp_path), "task.max_new_tokens=32"]
    words.append(f"task.data={hub}/rows/gsm8k")
    code, out, err = run_command(eval_door, *words)
    assert code == 0, err
    assert "Beside dParallel 2509.26488" in out and "76.1" in out and ALONE in out
    assert "hours on one A100 / H100" in err
    (mine,) = json.loads(out.splitlines()[-1]).values()
    assert mine["n"] == 2
    code, _, err = run_command(report, *words)
    assert code == 0, err
    table = pd.read_csv(tmp_path / "figures" / "dparallel_table1_published.csv")
    row = table[table.method.str.startswith("dParallel") & (table.task == "GSM8K-CoT 0-shot")].iloc[0]
    ours = float(row.ours.split()[0])
    assert row.difference == pytest.approx(ours - 76.1) and row.n == 2 and (table.ours == ALONE).sum() == 23


# --- what a newcomer is told ---


def refused(done, folder):
    """The one line that a refused command says, with nothing written."""
    assert done.returncode == 2, done.stderr
    error, hint = [line for line in done.stderr.splitlines() if line.strip()]
    assert error.startswith("error: ") and "--help" in hint
    assert not list(folder.glob("*/run.json"))
    return error


@pytest.fixture
def gate():
    """The address of a server that answers as the Hub does for what is gated, without a login."""

    class Gate(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(401)
            self.send_header("X-Error-Code", "GatedRepo")
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_HEAD = do_GET

        def log_message(self, *args):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Gate) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


UNREACHABLE = {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": "http://127.0.0.1:1"}  # tried for half a minute


WITHOUT_NETWORK = {
    "llada": "model llada.*cannot be read from the Hub.*connect",
    "tiny_llada": "openai/gsm8k: cannot be read from the Hub.*set task.data to a local copy",
}


@pytest.mark.parametrize("environment", [{}, pytest.param(UNREACHABLE, marks=pytest.mark.slow)])
@pytest.mark.parametrize("model", ["llada", pytest.param("tiny_llada", marks=pytest.mark.slow)])
def test_without_the_network_one_line(tmp_path, environment, model, run):
    """Neither model nor rows."""
    words = [f"model={model}", "task=gsm8k", "decoder=confidence", *small(tmp_path)]
    error = refused(run(tmp_path / "empty", *words, **environment), tmp_path)
    assert re.search(WITHOUT_NETWORK[model], error)


GATED = {
    "meta-llama/Meta-Llama-3-8B-Instruct": ["figure=d2f_fig2", "arm=gsm8k_llama"],
    "datasets/Idavidrein/gpqa": ["model=tiny_dream", "task=gpqa"],
}


@pytest.mark.parametrize(
    "page", [pytest.param(page, marks=[pytest.mark.slow] * page.startswith("meta")) for page in GATED]
)
def test_without_the_login_one_line(hub, tmp_path, gate, page, run):
    environment = {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": gate}
    error = refused(run(tmp_path / "empty", *GATED[page], *small(tmp_path), **environment), tmp_path)
    assert f"gated: accept its terms at https://huggingface.co/{page}, then log in with `hf auth" in error


TURNS = ["figure=board", "arm=leftright,apd", "task=chain_sum"]


@pytest.mark.parametrize("command", [pytest.param(TURNS, marks=pytest.mark.slow), []])
def test_with_too_little_memory_one_line(tmp_path, command, run):
    """Less than the models of one setting weigh, or than those of all that take turns."""
    memory = 21 if command else 5
    program = f"""
import runpy, sys
from unmask.models import resources
resources.memory_of = lambda device: {memory} * 10**6
sys.argv[0] = "eval.py"
runpy.run_path("eval.py", run_name="__main__")
"""
    error = refused(run(tmp_path, *command, *small(tmp_path), program=["-c", program]), tmp_path)
    assert re.search(rf"tiny_dream.*weights of .* GB in float32 do not fit in the 0.0{memory:02} GB", error)


@pytest.mark.parametrize(
    "error",
    [MemoryError(), torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nGPU 0 has ...")],
)
def test_memory_that_ends_on_the_way_is_one_line_too(error, capsys):
    with pytest.raises(SystemExit) as ended, refusals():
        raise error
    (line,) = capsys.readouterr().err.splitlines()
    assert ended.value.code == 1 and line.startswith("error: out of memory") and "batch_size=1" in line
    with pytest.raises(RuntimeError, match="other"), refusals():
        raise RuntimeError("other")


def test_a_data_set_that_a_folder_lacks_is_named(hub, tmp_path, run):
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows" / "gsm8k.jsonl").write_text('{"question": "?", "answer": "#### 1"}\n')
    words = [*small(tmp_path), f"task.data={tmp_path}/rows", "allow_code_execution=true"]
    error = refused(run(hub, "figure=dparallel_table1", *words), tmp_path)
    assert "math/test.jsonl or math_test.jsonl or math.jsonl" in error


@pytest.mark.slow
def test_the_whole_table_of_a_paper_is_drawn_from_the_hub(hub, tmp_path, run):
    """All arms on all tasks: no published row that an arm names stays alone."""
    words = [*small(tmp_path), f"task.data={hub}/rows", "allow_code_execution=true"]
    done = run(hub, "figure=dparallel_table1", *words)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "Beside dParallel 2509.26488" in done.stdout
    assert len(json.loads(done.stdout.splitlines()[-1])) == 20
    drawn = run(hub, "figure=dparallel_table1", *words, program="report.py")
    assert drawn.returncode == 0, drawn.stderr[-2000:]
    table = pd.read_csv(tmp_path / "figures" / "dparallel_table1_published.csv", dtype=str)
    alone = table[table.ours == ALONE]
    assert len(table) == 24 and set(alone.method) == {"consistency distillation LLaDA-8B-Instruct"}
    ours = table.drop(alone.index)
    assert set(ours.n) == {"2"} and not ours.difference.isna().any()
    for line in ours.itertuples():
        mine = float(line.ours.split()[0])
        assert float(line.difference) == pytest.approx(mine - float(line.published), abs=0.06)


@pytest.mark.slow
@pytest.mark.parametrize("name", FIGURES)
def test_an_arm_of_every_figure_runs_from_the_hub(hub, tmp_path, name, run):
    """The last one, on all of its tasks: it is the paper's own method."""
    arm = list(settings([f"figure={name}"])[0].arms)[-1]
    short = [] if name.startswith("fast_dllm") else ["task.max_new_tokens=32"]  # there it is the row's own
    words = [f"figure={name}", f"arm={arm}", *small(tmp_path), *short, f"task.data={hub}/rows"]
    done = run(hub, *words, "allow_code_execution=true")
    assert done.returncode == 0, done.stderr[-2000:]
    assert "Beside" in done.stdout or name == "apd_tab1"
    assert json.loads(done.stdout.splitlines()[-1])


GPU = re.findall(r"^python eval\.py (.*?)(?: +#.*)?$", (ROOT / "docs" / "gpu.md").read_text(), re.MULTILINE)


@pytest.mark.slow
@pytest.mark.parametrize("command", GPU)
def test_a_command_of_the_gpu_page_runs_from_the_hub(hub, tmp_path, command, run):
    words = [word for word in command.split() if word != "gpus=all"]  # there is no card here
    done = run(hub, *words, *small(tmp_path), "task.max_new_tokens=32", f"task.data={hub}/rows")
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout.splitlines()[-1])["n"] == 2
