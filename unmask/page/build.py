"""Records -> the page: index.html with everything that it needs inside."""

import base64
import gzip
import json
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path

import itables
import jinja2
from plotly.offline import get_plotlyjs

from unmask.page.boards import ONE_TOKEN, boards, told_apart
from unmask.page.data import plain_data
from unmask.page.tables import Cell, Section, cell, csv, kinds, number
from unmask.records.collection import Collection, everything
from unmask.records.files import RecordError, write_atomic
from unmask.records.run import find_runs
from unmask.report.baselines import with_changes
from unmask.report.measures import every

HERE = Path(__file__).parent
# They turn the text around them, also that of others, and cannot be seen.
BIDI_CONTROLS = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")

BIBTEX = """\
@software{{unmask,
  title = {{unmask: a benchmark for parallel decoding of diffusion language models}},
  author = {{{{The unmask maintainers}}}},
  note = {{results made by code {commits}}},
  year = {{2026}}
}}"""


def write(
    results: Path, folder: Path, extra: Sequence[Section] = (), read: Callable = find_runs
) -> tuple[Path, int, list[str]]:
    """Write the page of all finished runs of `results` into a folder.

    extra: more sections, below the boards. read: find_runs, or what remembers its answer. Returns
    (index.html, how many runs it shows, for each run that is left out its folder and why). ValueError where
    there is nothing to show.
    """
    runs, problems = read(results)
    found = everything(runs)
    left_out = [why.replace(f"{results}/", "") for why in (*problems, *(why for _, why in found.missing))]
    if found.rows.empty:
        raise ValueError("; ".join([f"{results}: has no finished run to show", *left_out[:2]]))
    found.rows = told_apart(found)
    found = with_changes(ONE_TOKEN, found)
    sections = [*boards(found), *extra]
    traces = {}
    for run in runs:
        try:
            traces[run.folder.name] = run.traces()
        except RecordError as error:  # the answers themselves are unharmed
            traces[run.folder.name] = {}
            left_out.append(str(error).replace(f"{results}/", ""))
    data = plain_data(found, {run.folder.name: run.info for run in runs}, traces)
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / "index.html", html(found, sections, data, left_out))
    return folder / "index.html", len(found.rows), left_out


def html(found: Collection, sections: Sequence[Section], data: Mapping, left_out: Sequence[str]) -> str:
    """The whole page. Data and libraries are packed: three megabytes instead of eight."""
    templates = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE / "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters["visible"] = visible
    rows = found.rows
    commits = every(rows.commits)
    text = templates.get_template("page.html.j2").render(
        sections=[_section(section) | {"number": i} for i, section in enumerate(sections, 1)],
        tiny=any(name.startswith("tiny_") for name in rows.model),
        answers=number(int(rows.samples.sum())),
        machines=every(rows.machines),
        commits=commits,
        left_out=left_out,
        bibtex=BIBTEX.format(commits=", ".join(commits)),
        data=data,
        packed_data=packed(visible(json.dumps(data, ensure_ascii=False, separators=(",", ":")))),
        style=(HERE / "style.css").read_text(),
        script=(HERE / "script.js").read_text(),
        **libraries(),
    )
    return visible(text)


def visible(text: str) -> str:
    """A text in which controls of the writing direction are words."""
    return BIDI_CONTROLS.sub(lambda found: f"⟨U+{ord(found[0]):04X}⟩", text)


@cache
def libraries() -> dict[str, str]:
    """DataTables and plotly.js, the scripts packed."""
    tables = Path(itables.__file__).parent / "html"
    return {
        "tables_style": (tables / "dt_bundle.css").read_text(),
        "tables_script": packed((tables / "dt_bundle.js").read_text()),
        "charts_script": packed(get_plotlyjs()),
    }


def _section(section: Section) -> dict:
    title, table, note = section
    rows: list[list[Cell]] = [
        [cell(value) for value in line] for line in zip(*map(table.get, table), strict=True)
    ]
    return {
        "title": title,
        "note": note,
        "file": f"{'-'.join(title.lower().replace(':', '').replace(',', '').split())}.csv",
        "ranked": table.columns[0] == "rank",
        "columns": list(zip(table.columns, kinds(table), strict=True)),
        "rows": rows,
        "csv": base64.b64encode(csv(table).encode()).decode(),
    }


def packed(text: str) -> str:
    """A text as gzip in base64, the same for the same text."""
    return base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode()
