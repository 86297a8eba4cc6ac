"""A figure as data: the section `draw` of eval_config/figure/NAME.yaml, checked.

    draw:
      kind: curve                      # measures over one setting, a line per series
      title: "APD: how far the denoiser is trusted"
      x: decoder.mixture_weight        # the setting on the x axis, by its key in the configuration
      x_label: R (its weight)
      measures: [accuracy, tokens_per_second, tokens_per_step]
      published: 3                     # of the papers' points, drawn in panels of their own
      beside: {...}                    # a published table whose rows stand beside ours: see published.Beside

`kind: pareto` draws accuracy over each of `measures`; `kind: table` writes Markdown and LaTeX; `kind: board`
does both for many methods; `kind: rivals` puts every setting beside a plain one of equal cost; `kind:
acceptance` shows how much of a draft is taken; `kind: parallel` draws what an ideal model scores beside
ours; `kind: hero` is the first picture, one column wide. So a new figure is a file
of settings: the code knows kinds, and no figure by name.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, get_args, get_origin

from unmask.report.measures import MEASURES

BASELINE = "leftright K=1"  # one token a step, from the left, without cache and limit


@dataclass(frozen=True)
class Beside:
    """Which points of published_points.csv (and APD's) stand beside which of our settings.

    paper: their column source. tables: of their column figure, in this order. tasks: our task's name -> their
    column task. series: our arm, or what follows its first "_" -> their column series. setting: key of a
    configuration -> a pattern; a setting of ours that has the key is of the points whose column setting has
    the pattern, with our value as its number. nearest: of the settings that are left, the one whose cost is
    nearest to the point's. hours: documents -> (on one A100, on one H100), computed, not measured; None where
    nothing says.
    """

    paper: str = ""
    tables: list[str] = field(default_factory=list)
    tasks: dict[str, str] = field(default_factory=dict)
    series: dict[str, str] = field(default_factory=dict)
    setting: dict[str, str] = field(default_factory=dict)
    nearest: bool = False
    hours: dict[str, list[float | None]] = field(default_factory=dict)

    @property
    def duration(self) -> str:
        """The hours in words; empty where nothing says."""
        said = (
            f"{documents} {' / '.join('-' if of is None else f'{of:g}' for of in both)}"
            for documents, both in self.hours.items()
        )
        words = "; ".join(said)
        return words and f"hours on one A100 / H100, computed and not measured: {words}"


@dataclass(frozen=True)
class Definition:
    """What all kinds have."""

    name: str
    title: str
    measures: list[str] = field(default_factory=list)  # columns of `measures.MEASURES`
    published: str | None = None  # which figures of `published.points_of`
    baseline: str = BASELINE  # label of what the others are compared with
    # in its stead the arm of this name: of arm gsm8k_d2f it is gsm8k_vanilla where this is vanilla
    baseline_arm: str = ""
    beside: dict[str, Any] = field(default_factory=dict)  # see `published.Beside`

    def __post_init__(self):
        for measure in self.measures:
            if measure not in MEASURES:
                _refuse(self.name, "measures", measure, f"choose of {', '.join(MEASURES)}")
        known = {f.name: f.type for f in fields(Beside)}
        for key, value in self.beside.items():
            if key not in known or not _fits(value, known[key]):
                wanted = f"must be a {known[key]}" if key in known else f"it has {', '.join(known)}"
                _refuse(self.name, f"beside.{key}", value, wanted)

    @property
    def first_points(self) -> tuple[list[str], dict[str, str]]:
        """(labels of the settings that others are compared with and where an AUP begins, the model that has
        one, by model: else its own)."""
        return [self.baseline], {}


@dataclass(frozen=True)
class Curve(Definition):
    """Measures over one setting: a column of panels per model and task, a row per measure."""

    x: str = ""  # key of a setting, as in decoder.mixture_weight
    x_label: str = ""  # empty: its symbol, or its last word

    def __post_init__(self):
        super().__post_init__()
        if not self.x:
            _refuse(self.name, "x", self.x, "must be the key of the setting on the x axis")
        if not self.measures:
            _refuse(self.name, "measures", self.measures, f"choose of {', '.join(MEASURES)}")


@dataclass(frozen=True)
class Pareto(Definition):
    """Accuracy over each measure: a column of panels per task, every setting a point.

    lines: front, through the settings that no other beats; or methods, one through all settings of each model
        and decoder.
    """

    lines: str = "front"

    def __post_init__(self):
        super().__post_init__()
        if self.lines not in ("front", "methods"):
            _refuse(self.name, "lines", self.lines, "must be front or methods")
        if not self.measures or "accuracy" in self.measures:
            choices = ", ".join(name for name in MEASURES if name != "accuracy")
            _refuse(self.name, "measures", self.measures, f"accuracy is drawn over them: choose of {choices}")


@dataclass(frozen=True)
class Listing(Definition):
    """A table: a row per setting, beside the baseline of the same task and of `baseline_model` (empty: of the
    same model)."""

    baseline_model: str = ""


@dataclass(frozen=True)
class Acceptance(Definition):
    """How much of a draft the target takes, of every setting that drafts."""


@dataclass(frozen=True)
class Board(Pareto):
    """Every method at its best setting within a loss of accuracy, beside the picture of all settings.

    losses: points that may be lost. one_token: labels of the settings that losses are counted against, one of
        each model. parents: a student's model -> the model that it comes from, whose setting that is.
    """

    losses: list[float] = field(default_factory=lambda: [1, 3])
    one_token: list[str] = field(default_factory=lambda: [BASELINE, "autoregressive"])
    parents: dict[str, str] = field(default_factory=dict)

    def __post_init__(self):
        super().__post_init__()
        if not self.losses or min(self.losses) < 0:
            _refuse(self.name, "losses", self.losses, "must be points, 0 or more")

    @property
    def first_points(self) -> tuple[list[str], dict[str, str]]:
        return self.one_token, self.parents


@dataclass(frozen=True)
class Rivals(Pareto):
    """Every setting against the setting of a plain decoder that costs as much, beside the picture of all.

    plain: decoders. costs: of `measures.MEASURES`; for each, a setting's rival is their setting of the
        nearest cost on the same model, if that is within `within` per cent.
    """

    plain: list[str] = field(default_factory=lambda: ["threshold"])
    costs: list[str] = field(default_factory=lambda: ["tokens_per_step", "flops_per_useful_token"])
    within: int = 20

    def __post_init__(self):
        super().__post_init__()
        for cost in self.costs:
            if cost not in MEASURES or cost == "accuracy":
                _refuse(self.name, "costs", cost, f"choose of {', '.join(MEASURES)}")


@dataclass(frozen=True)
class Parallel(Definition):
    """Accuracy over tokens a step for each task of ParallelBench, beside what an ideal model scores.

    levels: percent of right answers at which the table gives the most tokens a step (PB).
    """

    levels: list[float] = field(default_factory=lambda: [90, 80, 70])


@dataclass(frozen=True)
class Hero(Definition):
    """Accuracy over what a method saves against the arm `baseline_arm`, a line per arm.

    loss: points below it that a band shows. depth: points below it where the picture ends. ghosts: a decoder
        -> its published series and the series whose first point it is compared with.
    """

    loss: float = 3
    depth: float = 40
    ghosts: dict[str, list[str]] = field(default_factory=dict)

    def __post_init__(self):
        super().__post_init__()
        if not self.baseline_arm:
            _refuse(self.name, "baseline_arm", "", "must be the arm that the others are compared with")
        for decoder, both in self.ghosts.items():
            if len(both) != 2:
                _refuse(
                    self.name, f"ghosts.{decoder}", both, "must be a series and the one it is compared with"
                )

    @property
    def ghost_words(self) -> str:
        return "Pale: published, GSM8K, on the papers' models and GPUs." if self.ghosts else ""


KINDS = {
    "curve": Curve,
    "pareto": Pareto,
    "table": Listing,
    "acceptance": Acceptance,
    "board": Board,
    "rivals": Rivals,
    "parallel": Parallel,
    "hero": Hero,
}


def define(name: str, draw: Any) -> Definition:
    """The definition of figure `name` from its section `draw` (plain dicts and lists).

    ValueError, naming the key, where the section is missing, incomplete or says something unknown.
    """
    if not isinstance(draw, Mapping):
        raise ValueError(f"figure {name}: has no section `draw`, which says how it is drawn; see fig3.yaml")
    given = dict(draw)
    kind = given.pop("kind", None)
    if not isinstance(kind, str) or kind not in KINDS:
        _refuse(name, "kind", kind, f"must be one of {', '.join(KINDS)}")
    known = {f.name: f.type for f in fields(KINDS[kind]) if f.name != "name"}
    for key, value in given.items():
        if key not in known:
            _refuse(name, key, value, f"is no key of a {kind}; it has {', '.join(known)}")
        if not _fits(value, known[key]):
            wanted = "text" if known[key] in (str, str | None) else f"a {known[key]}"
            _refuse(name, key, value, f"must be {wanted}")
    if "title" not in given:
        _refuse(name, "title", None, "every figure needs one")
    if "published" in given:
        given["published"] = str(given["published"])
    return KINDS[kind](name=name, **given)


def _fits(value: Any, kind: Any) -> bool:
    """Whether a value of a YAML file is of a field's type; a whole number is text too, as a figure's name."""
    inner = get_args(kind)
    if get_origin(kind) is list:
        return isinstance(value, list) and all(_fits(each, inner[0]) for each in value)
    if get_origin(kind) is dict:
        return isinstance(value, dict) and all(
            _fits(key, inner[0]) and _fits(each, inner[1]) for key, each in value.items()
        )
    if inner:
        return any(_fits(value, each) for each in inner)
    if kind in (str, float):
        return type(value) in (str, int) if kind is str else type(value) in (int, float)
    return kind is Any or isinstance(value, kind)


def _refuse(name: str, key: str, value: Any, message: str) -> None:
    raise ValueError(f"figure {name}: draw.{key}={value}: {message}")
