"""--help: every choice and setting with its meaning, read from where it is written.

The comments of eval_config/*.yaml and of the dataclasses of settings are the help; nothing is said twice.
"""

import ast
import re
import textwrap
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from unmask.configuration.composition import CONFIGURATIONS, composed
from unmask.configuration.sweeps import figures_named, is_list
from unmask.paths import PACKAGE

WIDTH = 110
SCHEMA = Path(__file__).with_name("schema.py")
SETTINGS = {  # of each command: where its dataclass stands, its bases behind it
    "eval": [(SCHEMA, "EvalConfig")],
    "report": [(SCHEMA, "ReportConfig"), (SCHEMA, "EvalConfig")],
    "bench": [(SCHEMA, "BenchConfig"), (SCHEMA, "EvalConfig")],
    "demo": [(SCHEMA, "DemoConfig"), (SCHEMA, "EvalConfig")],
    "train": [(PACKAGE / "training" / "recipe.py", "TrainConfig")],
}
ELSEWHERE = (
    "model",
    "models",
    "decoder",
    "task",
    "draw",
    "arms",
    "grid",
    "setting",
)  # have sections, or none
MODEL = PACKAGE / "models" / "settings.py"
OBJECTIVES = PACKAGE / "training" / "objectives"
SYMBOLS = """\
Paper symbols (APD, arXiv 2506.00413): K decoder.tokens_per_step, R decoder.mixture_weight,
W decoder.kv_window, M decoder.max_lookahead, B decoder.block_length, T decoder.steps. Of rules:
tau decoder.threshold, f decoder.factor, gamma decoder.bound."""
FLAGS = "Hydra's own flags: -m (eval.py: a job for each setting), --cfg job, --info."

Rows = list[tuple[str, str]]  # a setting or choice, and what it means


def help_text(config_name: str, doc: str, words: list[str]) -> str:
    """What `python COMMAND.py WORDS --help` prints: for the decoder, model, task and recipe that the words
    choose."""
    cfg = composed(config_name, [word for word in words if "=" in word and not is_list(word)])
    figures = map(_figure, figures_named([word for word in words if "=" in word]))
    sections = [doc.strip(), *figures, *_choices(config_name)]
    if config_name == "train":
        rows = _settings(cfg, "", _comments(config_name))
        return "\n\n".join([*sections, _section("Settings of this recipe", rows), *_objectives()])
    for group in ("decoder", "task"):
        file = CONFIGURATIONS / group / f"{cfg[group].get('name')}.yaml"
        told = yaml_comments(file) if file.is_file() else {}
        title = f"{group}={cfg[group].get('name')}: {told.get('', '')}"
        sections.append(_section(title, _settings(cfg[group], group, told)))
    title = "model.KEY, and ROLE.KEY of the model of another role (auxiliary.path=FOLDER)"
    sections.append(_section(title, _settings(cfg.model, "model", class_comments(MODEL, "ModelConfig"))))
    told = {key: what for key, what in _comments(config_name).items() if key not in ELSEWHERE}
    return "\n\n".join([*sections, _section("Everything else", _settings(cfg, "", told)), SYMBOLS, FLAGS])


def yaml_comments(file: Path) -> dict[str, str]:
    """key -> the comment behind it, and "" -> the first line's; of a YAML file and those that it builds
    on."""
    text, found = file.read_text(encoding="utf-8"), {}
    for base in re.findall(r'defaults: \["?(/?[\w/]+)', text):
        folder = CONFIGURATIONS if base.startswith("/") else file.parent
        path = folder / f"{base.lstrip('/')}.yaml"
        found |= yaml_comments(path) if path.is_file() else {}
    head = re.search(r"^# (?!@)(.+)", text, re.MULTILINE)
    found |= {"": head[1]} if head else {}
    return found | dict(re.findall(r"^(\w+):.*?\s# (.+)$", text, re.MULTILINE))


def class_comments(file: Path, name: str) -> dict[str, str]:
    """field -> the comment behind or above it, of a dataclass of a Python file, which is not imported."""
    text = file.read_text(encoding="utf-8")
    lines, told = text.splitlines(), {}
    for node in _class(text, name).body:
        if isinstance(node, ast.AnnAssign):
            behind = lines[node.end_lineno - 1][node.end_col_offset :]
            above, number = [], node.lineno - 2
            while lines[number].strip().startswith("#"):
                above.insert(0, lines[number].strip(" #"))
                number -= 1
            told[node.target.id] = behind.replace("# type: ignore[assignment]", "").strip(" #") or " ".join(
                above
            )
    return told


def _class(text: str, name: str) -> ast.ClassDef:
    return next(n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.ClassDef) and n.name == name)


def _comments(config_name: str) -> dict[str, str]:
    """Of all settings of a command, its own before those of every command."""
    found = {}
    for file, name in SETTINGS[config_name]:
        found = found | {k: told for k, told in class_comments(file, name).items() if k not in found}
    return found


def _figure(name: str) -> str:
    """What a figure's file says of it, its arms, and how long it takes."""
    from unmask.report.definition import Beside  # takes a moment: only where it is used

    cfg = composed("eval", [f"figure={name}"])
    text = (CONFIGURATIONS / "figure" / f"{name}.yaml").read_text(encoding="utf-8")
    head = " ".join(re.findall(r"# (?!@)(.+)", re.match(r"(#.*\n)*", text)[0]))
    rows = [("arm=", " ".join(map(str, cfg.arms)))]
    if hours := Beside(**(cfg.draw or {}).get("beside", {})).duration:
        rows.append(("takes", hours))
    return _section(textwrap.fill(f"figure={name}: {head}", WIDTH, subsequent_indent="  "), rows)


def _choices(config_name: str) -> list[str]:
    """The choices of every group that this command has; decoders with what they are."""
    if config_name == "train":
        return [_section("Choices", [("recipe=", _names("recipe"))])]
    rows = [
        ("model=", _names("model")),
        ("auxiliary=, drafter=, ROLE=", "a model for another role of the decoder, or none"),
        ("task=", _names("task")),
        *([("bench=", _names("bench"))] if config_name == "bench" else [("figure=", _names("figure"))]),
    ]
    files = sorted((CONFIGURATIONS / "decoder").glob("*.yaml"))
    decoders = [(file.stem, yaml_comments(file).get("", "")) for file in files]
    return [_section("Choices", rows), _section("decoder=", decoders)]


def _names(group: str) -> str:
    return " ".join(
        sorted(path.stem for path in (CONFIGURATIONS / group).glob("*.yaml") if path.stem != "none")
    )


def _settings(cfg: DictConfig, prefix: str, told: dict[str, str]) -> Rows:
    """key=value of every setting, and what it means."""
    rows = []
    for key in cfg:
        if key in ("_target_", "name") or (not prefix and key not in told):
            continue
        value = OmegaConf.select(cfg, key, throw_on_missing=False)
        shown = "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
        rows.append((f"{prefix}.{key}={shown}" if prefix else f"{key}={shown}", told.get(key, "")))
    return rows


def _objectives() -> list[str]:
    """Of every training objective its options, as its class tells them."""
    found = []
    for file in sorted(OBJECTIVES.glob("*.py")):
        text = file.read_text(encoding="utf-8")
        if file.stem != "objective" and "class Options" in text:
            told = ast.get_docstring(_class(text, "Options"))
            found.append(f"objective={file.stem}, objective_options.KEY\n{textwrap.indent(told, '  ')}")
    return found


def _section(title: str, rows: Rows) -> str:
    """Two columns; a left cell that is too long has its line alone."""
    wide = min(34, max((len(left) for left, _ in rows), default=0))
    lines = [title]
    for left, right in rows:
        begin = f"  {left:{wide}}  "
        if len(left) > wide:
            lines.append(f"  {left}")
            begin = " " * (wide + 4)
        lines.append(
            textwrap.fill(right, WIDTH, initial_indent=begin, subsequent_indent=" " * (wide + 4)) or begin
        )
    return "\n".join(line.rstrip() for line in lines)
