"""Tokens by kind, and how sure a model is of them."""

from scripts.certainty_by_kind import kind_of, main


def test_kinds_of_tokens():
    assert [kind_of(text) for text in (" apples", "7", " +", "####", "\n", "x2")] == [
        "words",
        "digits",
        "signs",
        "signs",
        "words",
        "digits",
    ]


def test_a_table_of_the_shipped_models(tmp_path, capsys):
    main(["tiny_dream", "--limit", "1", "--results", str(tmp_path)])
    out = capsys.readouterr().out
    assert "tiny_dream" in out and "digits" in out and "right_at_once" in out
