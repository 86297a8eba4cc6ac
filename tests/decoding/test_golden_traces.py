"""What the published decoders did, step by step, is what is done here: `python -m unmask.testing.golden`."""

import json
from collections import Counter
from pathlib import Path

import pytest

from unmask.decoding.leftright import LeftRight
from unmask.testing import golden, golden_settings

TRACES = Path(__file__).parents[1] / "golden" / "traces"
TRACES_2026 = TRACES.parent / "traces_2026"
EQUAL = [  # (file, method): all traces of it give the same ids, steps and forwards
    ("dream", "apd"),
    ("dream", "leftright"),
    ("dream", "maskgit_plus"),
    ("dream", "entropy"),
    ("dream", "topk_margin"),
    ("dream", "dparallel"),
    ("dream", "d2f"),
    ("llada", "low_confidence"),
    ("llada", "leftright"),
    ("llada", "dparallel"),
    ("llada", "fast_dllm"),
    ("llada", "d2f"),
    ("revising", "wino"),
    ("revising", "saber"),
    ("revising", "joint_threshold"),
    ("revising", "lopa"),
    ("revising", "freedave"),
]
OF_2026 = [  # (file, method): all traces but those with a case, and what was fed
    ("unmasking", "klass"),
    ("unmasking", "dinfer_threshold"),
    ("unmasking", "dinfer_credit"),
    ("unmasking", "dinfer_hierarchy"),
    ("unmasking", "prophet"),
    ("unmasking", "slowfast"),
    ("unmasking", "pc_sampler"),
    ("unmasking", "dkv_cache"),
]


def chosen(traces, times):
    """Traces until every value of every setting was met so often in every method and case."""
    met = Counter()
    for trace in traces:
        settings = {k: v for k, v in trace["settings"].items() if k not in ("eos", "eos_token_id", "seed")}
        facts = [(trace["method"], trace["case"], name, str(value)) for name, value in settings.items()]
        if min(met[fact] for fact in facts) < times:
            met.update(facts)
            yield trace


@pytest.fixture(
    scope="module",
    params=[pytest.param(1, id="some"), pytest.param(10**6, id="all", marks=pytest.mark.slow)],
)
def replays(request, tmp_path_factory):
    """The replays of tests/golden/traces and traces_2026 by (file, method), and how many there must be."""
    folder = tmp_path_factory.mktemp("golden") / "traces"
    folder.mkdir()
    for model in (TRACES.parent / "llada", TRACES.parent / "dream"):
        (folder.parent / model.name).symlink_to(model)
    expected = Counter()
    for path in [*TRACES.iterdir(), *TRACES_2026.iterdir()]:
        if path.suffix == ".json" and "traces" in (data := json.loads(path.read_text())):
            traces = list(chosen(data["traces"], request.param))
            (folder / path.name).write_text(json.dumps({"traces": traces}))
            expected.update((path.stem, trace["method"]) for trace in traces)
        elif path.name != "README.md":
            (folder / path.name).symlink_to(path)
    return golden.replay_folder(folder), expected


@pytest.mark.parametrize(("file", "method"), EQUAL)
def test_published_traces_are_reproduced(replays, file, method):
    found, expected = replays
    assert len(found[file, method]) == expected[file, method] >= 5
    for replay in found[file, method]:
        assert replay.difference is None and replay.ids and replay.steps and replay.forwards


def test_fast_dllm_on_dream_is_reproduced_but_for_the_cap_of_its_uncached_code(replays):
    found, _ = replays
    caches = Counter()
    for replay in found["dream", "fast_dllm"]:
        if replay is not None:
            assert replay.difference is None
            caches[replay.trace["settings"]["cache"], replay.positions] += 1
    assert set(caches) == {("none", None), ("prefix", True), ("dual", True)}


@pytest.mark.parametrize("model", ["llada", "dream"])
def test_pipelined_decoders_feed_what_was_fed(replays, model):
    """All but the cases in which the published code trips; early stops write their end ids a step earlier."""
    found, _ = replays
    assert all(replay.positions for replay in found[model, "d2f"])
    delayed = 0
    for replay in found[model, "d3llm"]:
        if replay.trace["case"] is None:
            assert replay.ids and replay.forwards and replay.positions
            assert replay.steps or replay.trace["settings"]["early_stop"]
            delayed += replay.trace["settings"]["cache"] == "delayed"
    assert delayed >= 4


@pytest.mark.parametrize(("file", "method"), OF_2026)
def test_traces_of_2026_are_reproduced(replays, file, method):
    found, expected = replays
    plain = [replay for replay in found[file, method] if replay is None or replay.trace["case"] is None]
    assert len(found[file, method]) == expected[file, method] and len(plain) >= 4
    for replay in plain:
        assert replay.difference is None and replay.ids and replay.steps and replay.forwards
        assert replay.positions


def test_both_factor_rules_are_replayed(replays):
    found, _ = replays
    rules = {r.trace["settings"].get("factor_rule") for r in found["llada", "fast_dllm"]}
    assert rules == {None, "corrected", "published"}


def test_no_required_trace_differs(replays):
    found, expected = replays
    assert {key: len(traces) for key, traces in found.items()} == expected
    assert not [r for traces in found.values() for r in traces if r is not None and r.fails]


@pytest.fixture
def folder(tmp_path):
    """A folder of its own with a few traces of left-to-right decoding, and the models beside it."""
    traces = json.loads((TRACES / "llada.json").read_text())["traces"]
    few = [trace for trace in traces if trace["method"] == "leftright"][:4]
    (tmp_path / "traces").mkdir()
    (tmp_path / "traces" / "few.json").write_text(json.dumps({"traces": few}))
    (tmp_path / "llada").symlink_to(TRACES.parent / "llada")
    return tmp_path / "traces"


def test_a_clean_replay_exits_with_0(folder, capsys):
    assert golden.main([str(folder)]) == 0
    out = capsys.readouterr().out
    assert out.split()[-8:] == ["few", "leftright", "4", "4", "4", "4", "-", "0"]


def test_a_broken_decoder_exits_with_1_and_its_first_difference(folder, capsys, monkeypatch):
    class Broken(LeftRight):
        """Commits another id at canvas position 5."""

        def step(self, board):
            return [
                (positions, [(t + 1) % 318 if p == 5 else t for p, t in zip(positions, ids, strict=True)])
                for positions, ids in super().step(board)
            ]

    monkeypatch.setattr(golden_settings, "LeftRight", Broken)
    (trace, *_) = json.loads((folder / "few.json").read_text())["traces"]
    at, (positions, ids) = next((i, step) for i, step in enumerate(trace["steps"]) if 5 in step[0])
    published = dict(sorted(zip(positions, ids, strict=True)))
    ours = published | {5: (published[5] + 1) % 318}
    assert golden.main([str(folder)]) == 1
    out = " ".join(capsys.readouterr().out.split())
    assert out.endswith(f"few, leftright, trace 0: step {at}: {ours}, published {published}")


def test_a_difference_that_is_allowed_does_not_fail(folder, capsys, monkeypatch):
    """A case in which the published code is not followed."""
    data = json.loads((folder / "few.json").read_text())
    for trace in data["traces"]:
        trace["case"], trace["forwards"] = "some_quirk", trace["forwards"] + 1
    (folder / "few.json").write_text(json.dumps(data))
    assert golden.main([str(folder)]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "few leftright 4 4 4 0 - 0" in out and "trace 0 (case some_quirk, allowed)" in out
    first = data["traces"][0]["forwards"]
    assert f"{first - 1} forwards, published {first}" in out


def test_a_method_that_is_not_implemented_is_counted_and_allowed(folder, capsys):
    data = json.loads((folder / "few.json").read_text())
    data["traces"][1]["method"] = "telepathy"
    (folder / "few.json").write_text(json.dumps(data))
    assert golden.main([str(folder)]) == 0
    out = capsys.readouterr().out.split()
    assert out[-8:] == ["few", "telepathy", "1", "-", "-", "-", "-", "1"]


def test_a_folder_without_traces_is_refused(tmp_path, capsys):
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(SystemExit) as stopped:
            golden.main([str(folder)])
        assert stopped.value.code == 2
        out, err = capsys.readouterr()
        assert f"error: {folder}: holds no traces" in err and not out
