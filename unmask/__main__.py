"""The commands in one:  unmask eval decoder=apd,  as  python eval.py decoder=apd  in a checkout

Installed from a wheel, it is all there is: configurations and checkpoints are the package's own, and results
go to the folder that it is started in.
"""

import ast
import runpy
import sys
from pathlib import Path

from unmask.paths import INSTALLED, PACKAGE

DOORS = ("eval", "train", "report", "demo", "bench")
MODULES = ("doctor", "golden", "prompts")  # of the package


def main() -> int:
    """Runs the command that the first word names, with the others; 2 where there is none of that name."""
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in ("-h", "--help"):
        print(__doc__.strip().splitlines()[0], end="\n\n")
        for each in (*DOORS, *MODULES):
            print(f"  unmask {each:8}{_summary(each)}")
        print("\nunmask COMMAND --help tells more.")
        return 0
    if name not in (*DOORS, *MODULES):
        print(f"error: unmask {name[:80]}: there are {', '.join((*DOORS, *MODULES))}", file=sys.stderr)
        return 2
    sys.argv[:2] = [f"unmask {name}"]
    runpy.run_path(str(_file(name)), run_name="__main__")
    return 0


def _file(name: str) -> Path:
    if name in MODULES:
        return PACKAGE / f"{name}.py"
    return (PACKAGE / "doors" if INSTALLED else PACKAGE.parent) / f"{name}.py"


def _summary(name: str) -> str:
    """The first sentence of a command's docstring."""
    text = ast.get_docstring(ast.parse(_file(name).read_text(encoding="utf-8")))
    return text.splitlines()[0].partition(":  ")[0].rstrip(".")


if __name__ == "__main__":
    sys.exit(main())
