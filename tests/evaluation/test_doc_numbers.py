"""The numbers of README.md and docs/ are those of the reference run."""

import pytest

from scripts import doc_numbers
from scripts.doc_numbers import numbers, written_as


def test_the_numbers_of_the_pages_are_the_reference_runs(capsys):
    assert doc_numbers.main(write=False) == 0, capsys.readouterr().out


def test_a_number_keeps_its_form():
    assert written_as("85.5% [80.0, 89.7]", [90.0, 85.04, 93.36]) == "90.0% [85.0, 93.4]"
    assert written_as("+1.0 [-1.5, +3.5]", [-2.0, -4.5, 0.5]) == "-2.0 [-4.5, +0.5]"
    assert written_as("1,234", [56789.4]) == "56,789"
    assert written_as("0.19", [0.194, 0.1, 0.3]) == "0.19"  # an interval is not asked for
    with pytest.raises(ValueError, match="there is no interval"):
        written_as("2.2 [2.0, 2.4]", [2.2])


def test_numbers_are_found_by_their_comments():
    text = "It makes 2.2<!-- a=1 b=2 against c: speedup --> times, at 80.0%<!-- a=1: accuracy -->; 3 of 4.\n"
    asked = []

    def look_up(words, measure):
        asked.append((words, measure))
        return 0.815, (0.7, 0.9)

    assert [new for _, new in numbers(text, look_up)] == ["0.8", "81.5%"]
    assert asked == [("a=1 b=2 against c", "speedup"), ("a=1", "accuracy")]
