"""Which documents a limit takes."""

import pytest

from unmask.records.documents import TASK_STRIDE, chosen


def test_without_a_seed_each_task_gives_its_first_documents():
    assert chosen({"gsm8k": 5}, 3, None) == [0, 1, 2]
    assert chosen({"algebra": 2, "geometry": 4}, 3, None) == [0, 1, 100_000, 100_001, 100_002]
    assert chosen({"algebra": 2, "geometry": 1}, None, None) == [0, 1, 100_000]


def test_a_seed_takes_others_the_same_on_every_machine():
    assert chosen({"gsm8k": 1319}, 5, 0) == [12, 766, 590, 568, 1002]
    assert chosen({"gsm8k": 1319}, 5, 1) != chosen({"gsm8k": 1319}, 5, 0)
    one, two = (chosen({name: 1319}, 5, 0) for name in ("algebra", "geometry"))
    assert one != two, "tasks of one size are not sampled at the same places"


def test_a_larger_limit_goes_on_where_a_smaller_one_ended():
    documents = {"algebra": 50, "geometry": 30}
    for seed in (None, 3):
        few, more, every = (chosen(documents, limit, seed) for limit in (10, 40, None))
        for place in range(2):
            part = [[i for i in found if i // TASK_STRIDE == place] for found in (few, more, every)]
            assert part[0] == part[1][:10] and part[1] == part[2][:40]
        assert sorted(every) == chosen(documents, None, None)


def test_what_cannot_be_chosen_is_refused():
    for limit in (0, -1):
        with pytest.raises(ValueError, match=f"limit={limit}: must be 1 or more"):
            chosen({"a": 3}, limit, None)
    with pytest.raises(ValueError, match="task a: has 100001 documents"):
        chosen({"a": TASK_STRIDE + 1}, 1, None)
