"""The section `draw` of a figure: kinds and measures, and what is said of a wrong one."""

import pytest

from unmask.report.definition import Curve, Listing, Pareto, define

CURVE = {"kind": "curve", "title": "a", "x": "decoder.steps", "measures": ["accuracy"], "published": 3}


def test_kinds():
    curve = define("mine", CURVE)
    assert isinstance(curve, Curve) and curve.published == "3"
    assert isinstance(define("mine", {"kind": "table", "title": "a"}), Listing)
    pareto = {"kind": "pareto", "title": "a", "measures": ["tokens_per_step"]}
    assert isinstance(define("mine", pareto), Pareto)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"kind": "pie"}, "draw.kind=pie: must be one of curve, pareto, table"),
        ({"kind": None}, "draw.kind=None"),
        ({"x": None}, "draw.x=None: must be text"),
        ({"x": ""}, "draw.x=: must be the key"),
        ({"measures": ["speed"]}, "draw.measures=speed: choose of accuracy, tokens_per_step"),
        ({"measures": "accuracy"}, "draw.measures=accuracy: must be a list"),
        ({"measures": []}, "draw.measures"),
        ({"colour": "red"}, "draw.colour=red: is no key of a curve; it has title, measures"),
        ({"lines": "front"}, "draw.lines=front: is no key of a curve"),
        ({"kind": "pareto"}, "draw.x=decoder.steps: is no key of a pareto"),
    ],
)
def test_a_wrong_definition_names_its_key(change, message):
    with pytest.raises(ValueError) as refused:
        define("mine", CURVE | change)
    assert str(refused.value).startswith(f"figure mine: {message}")


def test_what_is_needed_is_asked_for():
    with pytest.raises(ValueError, match="mine: has no section `draw`"):
        define("mine", None)
    with pytest.raises(ValueError, match=r"draw.title"):
        define("mine", {"kind": "table"})
    with pytest.raises(ValueError, match="accuracy is drawn over them"):
        define("mine", {"kind": "pareto", "title": "a", "measures": ["accuracy"]})
