"""The shape of the house: imports run one way, and the package imports no door."""

import ast
from graphlib import CycleError, TopologicalSorter

from unmask.paths import ROOT

DOORS = {"eval", "train", "bench", "demo", "report", "harness"}
BELOW = {  # a room of the package -> the rooms that it may import
    "decoding": {"models"},
    "models": set(),
    "records": set(),
    "tasks": set(),
    "configuration": {"decoding", "models", "records", "training"},
}


def modules():
    """name -> file of every module of the package and of the two layouts at the root."""
    files = [f for folder in ("unmask", "dream", "llada") for f in (ROOT / folder).rglob("*.py")]
    return {".".join(f.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): f for f in files}


def imports(name, file, known, everywhere):
    """Modules that a module imports: at its top, or everywhere in it."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for node in ast.walk(tree) if everywhere else tree.body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            yield from (inner & known) or {node.module}


def graph(everywhere=False):
    known = modules()
    return {
        name: {found for found in imports(name, file, known.keys(), everywhere) if found in known} - {name}
        for name, file in known.items()
    }


def room(name):
    return name.split(".")[1] if name.startswith("unmask.") and name.count(".") > 1 else None


def test_imports_have_no_circle():
    try:
        TopologicalSorter(graph()).prepare()
    except CycleError as error:
        raise AssertionError(" -> ".join(error.args[1])) from None


def test_the_package_imports_no_door():
    known = modules()
    for name, file in known.items():
        assert not DOORS & set(imports(name, file, known.keys(), everywhere=True)), name


def test_rooms_import_what_lies_below_them():
    for name, found in graph().items():
        if room(name) in BELOW:
            rooms = {room(other) for other in found} - {room(name), None}
            assert rooms <= BELOW[room(name)], f"{name} imports {rooms - BELOW[room(name)]}"


def test_doors_are_short():
    for door in DOORS:
        assert len((ROOT / f"{door}.py").read_text(encoding="utf-8").splitlines()) < 60, door
