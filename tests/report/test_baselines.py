"""What settings are compared with, and what a caption says of the second model."""

from unmask.report.baselines import baselines, with_changes
from unmask.report.definition import define
from unmask.report.figures import note, prepared

CURVE = {"kind": "curve", "title": "R", "x": "decoder.mixture_weight", "measures": ["accuracy", "speedup"]}
ARMS = ("figure=fig3", "arm=one,apd", "decoder.mixture_weight=0.0,0.5")


def apd(cfg):
    return cfg.decoder.name == "apd"


def test_a_ratio_is_paired_with_the_baseline_by_turn(record, hydra, read):
    record(
        *ARMS,
        documents=20,
        total=20,
        right=lambda cfg: 10 if apd(cfg) else 20,
        seconds=lambda cfg: 0.25 if apd(cfg) else 1.0,
    )
    found = with_changes(define("f", CURVE), read(*ARMS, limit=20))
    rows = found.rows.set_index("label")
    assert rows.speedup.tolist() == [1, 4, 4] and rows.accuracy_difference.tolist() == [0, -0.5, -0.5]
    assert rows.speedup_interval.iloc[1] == [4, 4] and set(rows.baseline) == {rows.run.iloc[0]}


def test_a_setting_without_a_baseline_has_no_ratio(record, hydra, read):
    record(*ARMS)
    found = with_changes(define("f", CURVE | {"baseline": "nothing of the kind"}), read(*ARMS))
    assert found.rows.speedup.isna().all() and found.rows.baseline.isna().all()


def test_times_of_other_sessions_make_no_ratio(record, hydra, read):
    record(*ARMS, session=lambda cfg: "0000000a" if apd(cfg) else "0000000b")
    rows = with_changes(define("f", CURVE), read(*ARMS)).rows
    assert rows.speedup.isna().tolist() == [False, True, True] and rows.accuracy_difference.notna().all()


def test_a_baseline_is_of_the_same_conditions(record, hydra, read):
    record(*ARMS)
    record("decoder=leftright", "seed=1")
    rows = read(*ARMS).rows
    rows.loc[rows.decoder == "leftright", "conditions"] = "others"
    assert list(baselines(define("f", CURVE), rows)) == [rows.run.iloc[0]]


def test_a_caption_names_the_forwards_beside_each_step(record, hydra, read):
    record(*ARMS, documents=20, total=20)
    definition = define("f", CURVE)
    words = note(definition, prepared(definition, read(*ARMS, limit=20)), False)
    assert "forwards beside each step: apd 1.0 of its auxiliary" in words
    assert "the baseline's tokens/s: leftright K=1 on tiny_dream, gsm_symbolic: 6" in words
