"""A folder of runs read by a sweep: exactly its runs, and what is missing by name."""

import pytest

from unmask.configuration.settings import identity_of
from unmask.configuration.sweeps import settings
from unmask.records import RecordError, find_runs
from unmask.records.collection import Setting, collect

METRIC = "exact_match,flexible-extract"


FIG4 = ["figure=fig4", "arm=one"]


def test_the_runs_of_a_sweep_in_its_order(record, read):
    record(*FIG4, right=lambda cfg: 4 if cfg.decoder.max_lookahead is None else 2)
    found = read(*FIG4)
    rows = found.rows
    assert not found.missing and rows.M.fillna(0).tolist() == [0, 32, 16, 8, 4]
    assert rows.accuracy.tolist() == [1, 0.5, 0.5, 0.5, 0.5] and set(rows.n) == {4}
    assert rows.label.tolist() == ["leftright K=1", *(f"leftright K=1 M={m}" for m in (32, 16, 8, 4))]
    assert rows.positions_per_useful_token.tolist() == [8] * 5
    assert set(rows.machines.map(tuple)) == {("this, 2 cores, 000000",)}
    assert found.scored.keys() == found.configs.keys() == set(rows.run)


STRAYS = [
    "seed=1",
    "batch_size=4",
    "task.max_new_tokens=48",
    "task=chain_sum",
    "task.num_fewshot=2",
    "decoder.temperature=0.5",
    "decoder.kv_window=16",
    "dtype=bfloat16",
    "model=tiny_llada",
]


def test_strays_change_nothing(record, read):
    """Before, runs were grouped by the names of model and task: any of these landed on the figure's line."""
    record(*FIG4)
    before = read(*FIG4)
    strays = [folder for stray in STRAYS for folder in record("decoder=leftright", stray, right=0)]
    assert len({*strays, *record(*FIG4)}) == len(STRAYS) + 5
    record("decoder=leftright", "seed=2", documents=3, total=3)
    after = read(*FIG4)
    assert after.rows.equals(before.rows) and after.missing == before.missing


def test_a_number_is_found_however_it_was_written(record, read):
    (whole,) = record("decoder=apd", "decoder.mixture_weight=0")
    assert read("decoder=apd", "decoder.mixture_weight=0.0").rows.run.tolist() == [whole.name]
    (point,) = record("decoder=apd", "decoder.mixture_weight=0.0")
    for value, folder in ((0, whole), (0.0, point)):
        assert read("decoder=apd", f"decoder.mixture_weight={value}").rows.run.tolist() == [folder.name]


def test_a_stray_of_other_weights_is_refused_or_told_apart(record, read):
    record(*FIG4)
    before = read(*FIG4)
    (stray,) = record(*FIG4, "decoder.max_lookahead=8", weights="cccccccccccc", right=0)
    with pytest.raises(RecordError, match="leftright K=1 M=8.*models.denoiser.weights") as refused:
        read(*FIG4)
    assert str(stray) in str(refused.value)
    after = read(*FIG4, weights=lambda model: {"tiny_dream": "aaaaaaaaaaaa"}[model["name"]])
    assert after.rows.equals(before.rows)


def test_runs_of_two_trainings_make_no_figure(record, read):
    record(*FIG4, weights=lambda cfg: "aaaaaaaaaaaa" if cfg.decoder.max_lookahead else "cccccccccccc")
    with pytest.raises(RecordError, match="weights of tiny_dream"):
        read(*FIG4)


def test_runs_of_other_prompts_make_no_figure(record, read):
    record(*FIG4, prompts=lambda cfg: "aaaaaaaaaaaa" if cfg.decoder.max_lookahead else "cccccccccccc")
    with pytest.raises(RecordError, match="prompts for tiny_dream"):
        read(*FIG4)


def test_a_copied_run_is_refused(record, read, tmp_path):
    folder = record(*FIG4)[0]
    copy = folder.with_name("copy")
    copy.mkdir()
    for file in folder.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    with pytest.raises(RecordError, match="one is a copy"):
        read(*FIG4)


def test_missing_points_say_why(record, read):
    record(*FIG4, "decoder.max_lookahead=null,32")
    record(*FIG4, "decoder.max_lookahead=16", documents=3)
    record(*FIG4, "decoder.max_lookahead=8", metric="exact_match,strict-match")
    found = read(*FIG4)
    assert found.rows.M.fillna(0).tolist() == [0, 32]
    why = {label.split(" on ")[0]: reason for label, reason in found.missing}
    assert why.keys() == {"leftright K=1 M=16", "leftright K=1 M=8", "leftright K=1 M=4"}
    assert "3 of 4 documents" in why["leftright K=1 M=16"]
    assert f"no score by {METRIC}" in why["leftright K=1 M=8"]
    assert "differs in decoder.max_lookahead" in why["leftright K=1 M=4"]
    assert " on tiny_dream, gsm_symbolic" in found.missing[0][0]


def test_a_run_that_goes_on_counts_for_the_documents_that_it_has(record, read):
    """No status is asked for: interrupted, being extended, or finished long ago."""
    record("decoder=leftright", documents=5, total=6, right=2, status="running")
    (row,) = read("decoder=leftright", limit=4).rows.itertuples()
    assert (row.n, row.accuracy) == (4, 0.5)
    assert "5 of 6 documents" in read("decoder=leftright", limit=None).missing[0][1]


def test_an_interrupted_run_counts_for_what_was_scored(record, read):
    """3 of 4 documents decoded, then limit=2: two are scored. Before, no figure at all was drawn."""
    record("decoder=leftright", documents=3, scored=2)
    assert read("decoder=leftright", limit=2).rows.n.tolist() == [2]
    assert "1 of 3 samples have no score" in read("decoder=leftright", limit=3).missing[0][1]


def test_a_damaged_run_is_named_and_kills_nothing(record, read, tmp_path):
    folders = record(*FIG4)
    samples = folders[-1] / "samples.jsonl"
    samples.write_text(samples.read_text().replace('"useful": 6', '"useful": 5', 1))
    (folders[-2] / "run.json").write_text("nonsense")
    found = read(*FIG4)
    assert len(found.rows) == 3 and len(found.missing) == 2
    err = "\n".join(find_runs(tmp_path / "results")[1])  # what report.py says on stderr
    assert str(folders[-1]) in err and str(folders[-2]) in err


def test_auto_is_left_open(record, read):
    record("decoder=leftright", "batch_size=4")
    assert read("decoder=leftright", "batch_size=auto").rows.batch_size.tolist() == [4]


def test_settings_of_one_label_are_told_apart(record, read):
    record("decoder=leftright", "seed=0,1")
    rows = read("decoder=leftright", "seed=0,1").rows
    assert rows.label.tolist() == ["leftright K=1, seed=0", "leftright K=1, seed=1"]
    assert rows.plain.tolist() == ["leftright K=1"] * 2 and rows.conditions.nunique() == 2


def test_two_limits_are_no_two_settings(hydra):
    wanted = [Setting(identity_of(settings([])[0]), METRIC, limit) for limit in (2, 3)]
    with pytest.raises(RecordError, match="limit"):
        collect([], wanted)
