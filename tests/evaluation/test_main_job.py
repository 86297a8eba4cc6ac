"""The main job, on random models: all arms answer the same problems, a second run decodes nothing."""

import json

from scripts.main_job import ARMS, main


def test_main_job_prints_a_table_and_draws_a_figure(models, tmp_path, capsys):
    overrides, figure = (*models, f"results={tmp_path}"), tmp_path / "figure.png"
    main(3, overrides, figure)
    out = capsys.readouterr().out
    assert "one token a step" in out and "APD" in out and "tiny stand-in family" in out
    last = json.loads(out.splitlines()[-1])
    assert {name: arm["n"] for name, arm in last.items()} == dict.fromkeys(ARMS, 3)
    assert figure.stat().st_size > 10_000

    main(3, overrides, figure)
    out = capsys.readouterr().out
    assert "nothing to decode" in out
    assert [arm["decoded_now"] for arm in json.loads(out.splitlines()[-1]).values()] == [0] * len(ARMS)
