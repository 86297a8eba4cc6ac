"""report.py compare: two runs by folder or by settings, side by side, or one message why not."""

import json

import pytest

import report

ONE, APD = "decoder=leftright", "decoder=apd decoder.mixture_weight=0.5"


@pytest.fixture
def compare(run_command, tmp_path):
    """compare(A, B, ...) -> (exit code, stdout, stderr) of report.py on tmp_path/results."""
    return lambda *words: run_command(report, "compare", *words, f"results={tmp_path / 'results'}")


def test_settings_name_runs_and_nothing_is_written(record, compare, tmp_path):
    (one,) = record(ONE)
    (apd,) = record(*APD.split(), right=1, per_step=3)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    code, out, err = compare(ONE, APD, "limit=4", "threads=1", "changed=1")
    assert code == 0 and not err, err
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
    found = json.loads(out.splitlines()[-1])
    assert found["a"]["run"].endswith(one.name) and found["b"]["run"].endswith(apd.name)
    change = found["b_against_a"]
    assert (change["n"], change["improved"], change["worsened"], change["p_value"]) == (4, 0, 2, 0.5)
    assert change["accuracy_difference"] == -0.5 and change["identical"] == 4
    # 8 positions a step of each role: 6 tokens in 6 steps, and in 2 steps of two roles
    assert change["tokens_per_step_ratio"] == 3 and change["positions_ratio"] == pytest.approx(2 / 3)
    assert change["speedup"] == 1 and found["b"]["tokens_per_second"] == 6
    words = " ".join(out.split())
    assert "apd R=0.5 on tiny_dream, gsm_symbolic, n = 4" in words
    assert "decoder leftright apd models.auxiliary - tiny_qwen" in words
    assert "McNemar p = 0.5" in words and "3.00 times" in words
    assert "2 became wrong (the first 1; changed=null shows all)" in words and "target: 1" in words
    assert "became right" not in words and "gsm_symbolic 1 " in words and "gsm_symbolic 2 " not in words


def test_folders_name_runs_and_times_need_turns(record, compare):
    (one,) = record(ONE, session=None)
    (two,) = record(ONE, "seed=1", right=2)
    code, out, err = compare(str(one), two.name)  # a path, a name inside results=
    assert code == 0 and not err, err
    found = json.loads(out.splitlines()[-1])
    assert found["b_against_a"]["n"] == 4 and found["b_against_a"]["worsened"] == 1
    assert found["b_against_a"]["speedup"] is None and "tokens_per_second" not in found["a"]
    assert "tokens/s do not compare: they did not answer in turns" in " ".join(out.split())
    code, out, _ = compare(one.name, two.name, "limit=2")
    assert code == 0 and json.loads(out.splitlines()[-1])["b_against_a"]["n"] == 2


def test_what_is_no_pair_is_one_message(record, compare):
    (one,), (damaged,) = record(ONE), record(ONE, "seed=2")
    path = damaged / "samples.jsonl"
    path.write_text(path.read_text().replace('"useful": 6', '"useful": 5', 1))
    refusals = [
        (record(ONE, "task=chain_sum")[0].name, "different tasks cannot be paired"),
        (record(ONE, "seed=3", prompts="cccccccccccc")[0].name, "prompts of 4 of 4 common documents differ"),
        (record(ONE, "seed=4", scored=0)[0].name, "4 of 4 samples have no score"),
        (damaged.name, "does not match its checksum"),
        (f"{ONE} seed=2", "does not match its checksum"),
        ("nowhere", "nowhere: no run there"),
    ]
    for other, message in refusals:
        refused(compare(one.name, other), message)
    refused(compare(one.name, one.name, "seed=1"), "seed: chooses no run")


def refused(result, message):
    code, out, err = result
    assert code == 2 and err.startswith("error: ") and message in err and not out, (out, err)
