"""The numbers of README.md and docs/ are those of the reference run."""

import pytest

from scripts import doc_numbers
from scripts.doc_numbers import renewed, written_as


def test_pages_have_numbers_that_are_checked():
    pages = {page.name for page in doc_numbers.PAGES if doc_numbers.MARK.search(page.read_text())}
    assert pages == {"README.md", "apd.md", "d2f.md", "dparallel.md", "dflash.md"}
    for page in doc_numbers.PAGES:  # a comment that begins a line would end its paragraph
        assert not any(doc_numbers.MARK.match(line) for line in page.read_text().splitlines()), page


def test_the_numbers_of_the_pages_are_the_reference_runs(capsys):
    assert doc_numbers.main(write=False) == 0, capsys.readouterr().out


def test_a_number_keeps_its_form():
    assert written_as("85.5% [80.0, 89.7]", [90.0, 85.04, 93.36]) == "90.0% [85.0, 93.4]"
    assert written_as("+1.0 [-1.5, +3.5]", [-2.0, -4.5, 0.5]) == "-2.0 [-4.5, +0.5]"
    assert written_as("1,234", [56789.4]) == "56,789"
    assert written_as("85% [80, 90]", [1.0, 2.0, 3.0]) == "1% [2, 3]"
    assert written_as("0.19", [0.194, 0.1, 0.3]) == "0.19"  # an interval is not asked for
    with pytest.raises(ValueError, match="there is no interval"):
        written_as("2.2 [2.0, 2.4]", [2.2])


def test_the_last_numbers_before_a_comment_are_its():
    asked = []

    def look_up(words, measure):
        asked.append((words, measure))
        return [0.815, 0.7, 0.9]

    text = (
        "above 0.9: 80.0% at 3 <!-- a=1 b=2: accuracy tokens_per_step -->, 2.2 <!-- c against d: speedup -->"
    )
    found, changes = renewed(text, look_up)
    assert found == text.replace("80.0%", "81.5%").replace("at 3", "at 1").replace("2.2", "0.8")
    assert [change[:2] for change in changes] == [("80.0%", "81.5%"), ("3", "1"), ("2.2", "0.8")]
    assert asked == [("a=1 b=2", "accuracy"), ("a=1 b=2", "tokens_per_step"), ("c against d", "speedup")]
    assert renewed(found, look_up) == (found, [])
    with pytest.raises(ValueError, match="2 measures, and 1 numbers"):
        renewed("3 <!-- a: n accuracy -->", look_up)
