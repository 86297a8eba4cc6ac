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


def test_a_draw_holds_every_template_in_its_share_at_every_length():
    templates = {"sums": [str(number % 7 and number % 3) for number in range(900)]}
    whole = chosen({"sums": 900}, None, 0, templates)
    assert sorted(whole) == list(range(900))
    for limit in (45, 200, 451):
        part = chosen({"sums": 900}, limit, 0, templates)
        assert part == whole[:limit]
        for template in set(templates["sums"]):
            share = templates["sums"].count(template) * limit / 900
            assert abs([templates["sums"][i] for i in part].count(template) - share) <= 1
    assert chosen({"sums": 900}, 45, 1, templates) != chosen({"sums": 900}, 45, 0, templates)


def test_documents_can_be_listed_or_permuted_as_datasets_shuffles():
    two = {"algebra": 5, "geometry": 4}
    assert chosen(two, None, None, listed=[100_003, 2]) == [100_003, 2]
    assert chosen(two, 1, 3, listed=[100_003, 2]) == [100_003]
    with pytest.raises(ValueError, match="task.documents.*no document 100004"):
        chosen(two, None, None, listed=[100_004])
    # DFlash's first GSM8K prompts, see ../shared/published_settings.md
    assert chosen({"gsm8k": 1319}, 5, None, listed="permutation") == [264, 725, 996, 586, 1010]
