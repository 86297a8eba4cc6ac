// The page's own script. Data, tables and charts are in the page; nothing is fetched.
const $ = (id) => document.getElementById(id);
const root = document.documentElement;

// What is kept as gzip in base64: data as text, a library as the URL of a script in memory.
async function unpacked(id) {
  const bytes = Uint8Array.from(atob($(id).textContent), (letter) => letter.charCodeAt(0));
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
}
const library = async (id) => URL.createObjectURL(new Blob([await unpacked(id)], { type: "text/javascript" }));
const data = JSON.parse(await unpacked("data"));

function make(tag, attributes = {}, ...children) {
  const element = Object.assign(document.createElement(tag), attributes);
  element.append(...children);
  return element;
}

// What a hover label shows: plotly.js reads markup in it.
const escaped = (text) => String(text).replace(/[&<>]/g, (letter) => `&#${letter.charCodeAt(0)};`);

function options(select, pairs, chosen) {
  select.replaceChildren(...pairs.map(([value, text]) => new Option(text, value, false, value === chosen)));
}

// [folder, run] of a task, and what a select says of it.
const runsOf = (task) => Object.entries(data.runs).filter(([, run]) => run.task === task);
const named = ([name, run]) => [name, `${run.label} on ${run.model}`];

function table(head, lines, attributes = {}) {
  const cells = (tag, line) => make("tr", {}, ...line.map((cell) => make(tag, tag === "th" ? { scope: "col" } : {}, cell)));
  return make("table", attributes, make("thead", {}, cells("th", head)), make("tbody", {}, ...lines.map((line) => cells("td", line))));
}

// Theme: the system's, until the switch says otherwise.
const system = matchMedia("(prefers-color-scheme: dark)");
let dark = system.matches;
function theme(isDark) {
  dark = isDark;
  root.className = dark ? "dark" : "light";
  $("theme").textContent = dark ? "Light" : "Dark";
  $("theme").setAttribute("aria-label", `Switch to the ${dark ? "light" : "dark"} page`);
  if (window.Plotly) chart();
}

// Tables.
function tables({ default: DataTable }) {
  const filter = (kind) => [{ extend: "dropdown", icon: "search", text: "Filter", content: [{ extend: kind, title: "Filter" }] }];
  for (const table of document.querySelectorAll("table.board")) {
    const target = (kind) => [...table.tHead.rows[0].cells].flatMap((cell, i) => (cell.classList.contains(kind) ? i : []));
    new DataTable(table, {
      paging: false,
      order: [],
      autoWidth: false,
      columnControl: filter("search"),
      columnDefs: [
        { targets: target("number"), type: "num", className: "number" },
        { targets: target("choice"), columnControl: filter("searchList") },
      ],
      layout: { topStart: "info", topEnd: "search", bottomStart: null, bottomEnd: null },
      language: { search: "Search all columns:", info: "_TOTAL_ rows", infoFiltered: "of _MAX_" },
      initComplete() {
        const scroll = make("div", { className: "scroll", tabIndex: 0, role: "region" });
        scroll.setAttribute("aria-label", "Table, scrolls sideways");
        table.replaceWith(scroll);
        scroll.append(table);
      },
    });
  }
}

// Charts.
const axes = $("axes").elements;

const hover = (name, run, measure) =>
  [
    `<b>${escaped(run.label)}</b> on ${escaped(run.model)}, n = ${run.n}`,
    ...["accuracy", measure].map((axis) => `${data.measures[axis].label}: ${run.words[axis]}`),
    `<span style="font-size:.85em">${escaped(name)}</span>`,
  ].join("<br>");

// A trace of the chart: runs of one method.
function points(method, measure, runs, front) {
  const best = (name, run, axis, end) => (front.has(name) ? run.numbers[axis][end] ?? run.numbers[axis][0] : run.numbers[axis][0]);
  const bar = (axis) => ({
    type: "data",
    symmetric: false,
    array: runs.map(([name, run]) => best(name, run, axis, 2) - run.numbers[axis][0]),
    arrayminus: runs.map(([name, run]) => run.numbers[axis][0] - best(name, run, axis, 1)),
    ...{ thickness: 1, width: 0 },
  });
  return {
    mode: "markers",
    name: escaped(method),
    x: runs.map(([, run]) => run.numbers[measure][0]),
    y: runs.map(([, run]) => run.numbers.accuracy[0]),
    error_x: bar(measure),
    error_y: bar("accuracy"),
    customdata: runs.map(([name]) => name),
    text: runs.map(([name, run]) => hover(name, run, measure)),
    hovertemplate: "%{text}<extra></extra>",
    marker: {
      size: runs.map(([name]) => (front.has(name) ? 10 : 8)),
      symbol: runs.map(([name, run]) => data.marks[run.model][0] + (front.has(name) ? "" : "-open")),
      line: { width: 1.5 },
      color: data.colours[method][Number(dark)],
    },
  };
}

// 1, 2 and 5 times the powers of ten, written out.
function logTicks(values) {
  const [low, high] = [Math.min(...values), Math.max(...values)].map((value) => Math.floor(Math.log10(value)));
  const powers = Array.from({ length: high - low + 2 }, (_, i) => 10 ** (low + i));
  const tickvals = powers.flatMap((power) => (powers.length > 4 ? [power] : [power, 2 * power, 5 * power]));
  return { type: "log", tickvals, ticktext: tickvals.map((value) => value.toLocaleString("en", { maximumSignificantDigits: 3 })) };
}

// The legend is boxes to tick, so that the keyboard can take methods and models away.
const ticked = (id) => new Set([...$(id).querySelectorAll(":checked")].map((box) => box.value));

// What is drawn: the runs, their front, traces and layout for plotly.js.
function drawing() {
  const [task, measure] = [axes.task.value, axes.measure.value];
  const [methods, models] = [ticked("methods"), ticked("models")];
  const known = runsOf(task);
  const runs = known.filter(([, run]) => run.numbers[measure] && run.numbers.accuracy && methods.has(run.decoder) && models.has(run.model));
  const front = new Set(data.tasks[task].fronts[measure]);
  const edge = runs.filter(([name]) => front.has(name)).map(([, run]) => [run.numbers[measure][0], run.numbers.accuracy[0]]);
  edge.sort(([a], [b]) => a - b);
  const line = { x: edge.map(([x]) => x), y: edge.map(([, y]) => y), mode: "lines", name: "no other is better in both", line: { color: "#999", width: 1 }, hoverinfo: "skip" };
  const used = [...methods].filter((method) => runs.some(([, run]) => run.decoder === method));
  const byMethod = used.map((method) => points(method, measure, runs.filter(([, run]) => run.decoder === method), front));
  const { label, higher } = data.measures[measure];
  const style = getComputedStyle(document.body);
  const look = { gridcolor: dark ? "#3a3f49" : "#e3e5e9", zeroline: false };
  const reached = runs.map(([, run]) => run.numbers[measure][0]).filter((value) => value > 0);
  const ticks = axes.scale.value === "log" && reached.length ? logTicks(reached) : { type: "linear" };
  const layout = {
    paper_bgcolor: style.backgroundColor,
    plot_bgcolor: style.backgroundColor,
    font: { family: style.fontFamily, color: style.color, size: 13 },
    margin: { l: 50, r: 10, t: 10, b: 45 },
    showlegend: false,
    hovermode: "closest",
    hoverlabel: { align: "left", bgcolor: style.backgroundColor, font: { color: style.color } },
    xaxis: { ...look, ...ticks, title: { text: `${label} (${higher ? "more" : "less"} is better)` } },
    yaxis: { ...look, title: { text: "accuracy (%)" }, range: [-3, 105] },
  };
  return { task, measure, known, runs, front, layout, traces: [line, ...byMethod] };
}

function chart() {
  const { task, measure, known, runs, front, layout, traces } = drawing();
  const buttons = ["zoom2d", "pan2d", "zoomIn2d", "zoomOut2d", "resetScale2d"]; // none that shares
  Plotly.react("chart", traces, layout, { responsive: true, displaylogo: false, modeBarButtons: [buttons] });
  const words = [`${runs.length} of ${known.length} runs. A click on a point opens its settings; so does Enter, after the arrow keys.`];
  if (front.size) words.push("Filled, with intervals and joined: no other run is better in both.");
  if (data.measures[measure].time && data.tasks[task].why) words.push(`Times are left out: ${data.tasks[task].why}.`);
  $("chart-note").textContent = words.join(" ");
  $("chart-point").textContent = "";
}

// Points by the keyboard, from left to right.
function reached(event) {
  const all = $("chart").data.flatMap(({ customdata = [], x }, curveNumber) => customdata.map((name, pointNumber) => ({ name, x: x[pointNumber], curveNumber, pointNumber })));
  all.sort((a, b) => a.x - b.x);
  const at = all.findIndex(({ name }) => name === $("chart").dataset.run);
  const to = { ArrowRight: at + 1, ArrowUp: at + 1, ArrowLeft: at - 1, ArrowDown: at - 1, Home: 0, End: all.length - 1 }[event.key];
  if ((to === undefined && event.key !== "Enter") || !all.length) return;
  event.preventDefault(); // also of Enter, which would press the button that gets the focus
  if (event.key === "Enter") return at < 0 ? undefined : openRun(all[at].name);
  const i = Math.min(Math.max(to, 0), all.length - 1);
  $("chart").dataset.run = all[i].name;
  const { curveNumber, pointNumber } = all[i];
  Plotly.Fx.hover("chart", [{ curveNumber, pointNumber }]);
  const run = data.runs[all[i].name];
  const words = ["accuracy", axes.measure.value].map((axis) => `${data.measures[axis].label} ${run.words[axis]}`);
  $("chart-point").textContent = `${i + 1} of ${all.length}: ${named([, run])[1]}, ${words.join(", ")}.`;
}

// The chart as a file, with its legend, n, code and, of times, the machines written into it.
async function picture({ currentTarget: button }) {
  const { task, measure, runs, layout, traces } = drawing();
  const each = (key) => [...new Set(runs.map(([, run]) => key(run)))];
  const marks = each((run) => run.model).map((model) => ({
    ...{ x: [null], y: [null], mode: "markers", name: escaped(model) },
    marker: { symbol: data.marks[model][0], color: layout.font.color, size: 8 },
  }));
  const machines = data.measures[measure].time ? each((run) => run.settings.Made["machines of all answers"]) : [];
  const code = each((run) => run.settings.Made["commits of all answers"]);
  const words = [`${task}, n = ${each((run) => run.n).join(" or ")} documents a run, 95% intervals; unmask, code ${code.join(", ")}`, ...machines];
  const text = escaped(words.join("; "));
  const size = { width: 1000, height: 640 };
  Object.assign(layout, size, {
    showlegend: true,
    margin: { l: 60, r: 10, t: 20, b: 90 },
    annotations: [{ text, showarrow: false, xref: "paper", yref: "paper", x: 0, y: 0, yshift: -80, xanchor: "left", font: { size: 11 } }],
  });
  const { format } = button.dataset;
  const href = await Plotly.toImage({ data: [...traces, ...marks], layout }, { format, ...size, scale: format === "png" ? 2 : 1 });
  make("a", { href, download: `${task}-${measure}.${format}` }).click();
}

function charts() {
  $("axes").addEventListener("change", () => (chart(), save()));
  chart();
  $("chart").on("plotly_click", ({ points: [point] }) => openRun(point.customdata));
  $("chart").addEventListener("keydown", reached);
  for (const button of document.querySelectorAll(".picture")) button.addEventListener("click", picture);
}

// Two runs, document by document.
const pair = $("pair").elements;

function pairs() {
  const { worth } = data.tasks[pair.pair.value];
  const all = runsOf(pair.pair.value).map(named);
  const [first, second] = [...Object.keys(worth), ...all.map(([name]) => name)];
  options(pair.a, all, first);
  options(pair.b, all, second ?? first);
  compare();
}

// The mean of [document, change], unweighted over subjects, with a 95% interval: Student's, of the fewest documents.
function difference(changes, subjects) {
  const parts = Object.values(Object.groupBy(changes, ([i]) => subjects?.[i] ?? "")).map((part) => {
    const mean = part.reduce((sum, [, change]) => sum + change, 0) / part.length;
    return { n: part.length, mean, square: part.reduce((sum, [, change]) => sum + (change - mean) ** 2, 0) / (part.length - 1) / part.length };
  });
  const mean = parts.reduce((sum, part) => sum + part.mean, 0) / parts.length;
  const error = Math.sqrt(parts.reduce((sum, part) => sum + part.square, 0)) / parts.length;
  const [z, free] = [1.959964, Math.min(...parts.map(({ n }) => n)) - 1];
  const t = z + (z ** 3 + z) / (4 * free) + (5 * z ** 5 + 16 * z ** 3 + 3 * z) / (96 * free ** 2); // Abramowitz and Stegun 26.7.5
  return [mean, mean - t * error, mean + t * error].map((value) => 100 * Math.min(1, Math.max(-1, value)));
}

// McNemar's exact test, two-sided, of so many documents that went up and down.
function mcnemar(up, down) {
  let [log, tail] = [-(up + down) * Math.LN2, 0];
  for (let k = 0; k <= Math.min(up, down); k++) {
    tail += Math.exp(log);
    log += Math.log((up + down - k) / (k + 1));
  }
  return Math.min(1, 2 * tail);
}

function compare() {
  const names = [pair.a.value, pair.b.value];
  const [a, b] = names.map((name) => data.runs[name]);
  const { ids, targets, subjects } = data.tasks[pair.pair.value];
  const here = (run) => ids.map((_, i) => i).filter((i) => run.correct[i] !== -1);
  const both = here(a).filter((i) => b.correct[i] !== -1);
  const same = both.length === here(a).length && both.length === here(b).length;
  const changes = both.filter((i) => a.correct[i] !== null && b.correct[i] !== null).map((i) => [i, b.correct[i] - a.correct[i]]);
  const [better, worse] = [changes.filter(([, change]) => change > 0), changes.filter(([, change]) => change < 0)];
  const words = [`${changes.length} documents were answered by both.`];
  if (changes.length > 1) {
    const [value, low, high] = difference(changes, subjects).map((each) => `${each < 0 ? "−" : "+"}${Math.abs(each).toFixed(1)}`);
    const p = mcnemar(better.length, worse.length);
    words.push(`B is ${value} points [${low}, ${high}] from A: ${better.length} became right, ${worse.length} wrong. McNemar's exact p = ${Number(p.toPrecision(2))}.`);
  }
  const [mine, theirs] = [a, b].map((run) => run.settings.Settings);
  if (mine["task.prompts"] !== theirs["task.prompts"]) words.push("Their prompts differ.");
  const timed = (run) => Boolean(run.numbers.tokens_per_second);
  if (!(timed(a) && timed(b))) words.push("Their times do not compare.");
  if (!same) words.push("Their documents differ, so costs have no ratio.");
  $("pair-result").textContent = words.join(" ");
  const costs = Object.entries(data.measures).filter(([measure, { time }]) => a.numbers[measure] && b.numbers[measure] && (!time || (timed(a) && timed(b))));
  const ratio = ([x], [y]) => (same && x > 0 ? (y / x).toPrecision(3) : "–");
  const lines = costs.map(([measure, { label }]) => [label, a.words[measure], b.words[measure], measure === "accuracy" ? "" : ratio(a.numbers[measure], b.numbers[measure])]);
  const keys = [...new Set([...Object.keys(mine), ...Object.keys(theirs)])].filter((key) => mine[key] !== theirs[key]);
  const settings = keys.map((key) => [key, mine[key] ?? "–", theirs[key] ?? "–"]);
  $("pair-costs").replaceChildren(table(["measured", "A", "B", "B / A"], lines), table(["what differs", "A", "B"], settings));
  const text = (number) => data.pieces[number] ?? "nothing";
  const line = ([i]) => [documentCell(ids[i], names), text(targets[i]), text(a.read[i]), text(b.read[i])];
  const list = (title, part) => [make("h3", {}, `${part.length} ${title}`), make("div", { className: "scroll", tabIndex: 0 }, table(["document", "wanted", "A read", "B read"], part.map(line)))];
  $("pair-documents").replaceChildren(...[["became right: A wrong, B right", better], ["became wrong: A right, B wrong", worse]].flatMap(([title, part]) => (part.length ? [make("section", {}, ...list(title, part))] : [])));
  $("pair-command").textContent = `python report.py compare ${names.join(" ")}`;
}

// A document's number; a button that shows both answers where the page has them.
function documentCell(id, names) {
  if (!names.every((name) => data.answers[name][id])) return String(id);
  const button = make("button", { type: "button", title: "Show both answers step by step" }, String(id));
  button.addEventListener("click", () => {
    choice.task.value = pair.pair.value;
    documents();
    choice.document.value = id;
    settings();
    [...choice.setting].forEach((select, i) => (select.value = names[i] ?? ""));
    (panels(), save());
    $("answers").scrollIntoView();
  });
  return button;
}

// The address holds what is shown: #task=...&measure=...&hide=apd&pair=...&a=RUN&b=RUN&document=3&setting=RUN&step=7&run=RUN
const controls = () => ({ ...{ task: axes.task, measure: axes.measure, scale: axes.scale, pair: pair.pair, a: pair.a, b: pair.b }, of: choice.task, document: choice.document, step: $("step") });
const boxes = () => [...document.querySelectorAll("#methods input, #models input")];
const address = () => new URLSearchParams(location.hash.slice(1));

function save() {
  const state = new URLSearchParams(Object.entries(controls()).map(([key, control]) => [key, control.value]));
  for (const box of boxes()) if (!box.checked) state.append("hide", box.value);
  for (const select of choice.setting) state.append("setting", select.value);
  if ($("run").open) state.set("run", $("run-title").textContent);
  history.replaceState(null, "", `#${state}`);
}

function restore() {
  const state = address();
  const take = (control, value) => {
    if ([...control.options].some((option) => option.value === value)) control.value = value;
  };
  for (const key of ["task", "measure", "scale"]) take(controls()[key], state.get(key));
  for (const box of boxes()) box.checked = !state.getAll("hide").includes(box.value);
  take(pair.pair, state.get("pair"));
  pairs();
  for (const side of ["a", "b"]) take(pair[side], state.get(side));
  compare();
  take(choice.task, state.get("of"));
  documents();
  take(choice.document, state.get("document"));
  settings();
  state.getAll("setting").slice(0, choice.setting.length).forEach((name, i) => take(choice.setting[i], name));
  panels();
  if (state.has("step")) $("step").value = state.get("step");
  draw();
}

async function copy({ currentTarget: button }) {
  const source = $(button.dataset.of);
  getSelection().selectAllChildren(source); // for those whose browser keeps the clipboard to itself
  await navigator.clipboard.writeText(source.textContent);
  button.textContent = "Copied";
}

// A run: #run=FOLDER opens one.
function openRun(name = address().get("run")) {
  if (name === null || !Object.hasOwn(data.runs, name)) return;
  const run = data.runs[name];
  $("run-command").textContent = run.command ?? "no choices of eval.py give these models";
  const note = `  note = {run ${name}, code ${run.settings.Made["commits of all answers"]}},`.replaceAll("_", "\\_");
  $("run-bibtex").textContent = $("bibtex").textContent.replace(/^ *note = .*$/m, () => note);
  const groups = Object.entries(run.settings);
  $("run-title").textContent = name;
  $("run-tables").replaceChildren(
    ...groups.flatMap(([title, group]) => {
      return [make("h3", {}, title), table(["", ""], Object.entries(group))];
    }),
  );
  const safe = (text) => (/^[=+\-@\t\r\n]/.test(text) && isNaN(text) && text !== "-" ? `'${text}` : text); // no formula for a spreadsheet
  const quoted = (text) => `"${safe(text).replaceAll('"', '""')}"`;
  const csv = groups.flatMap(([title, group]) => Object.entries(group).map((pair) => [title, ...pair].map(quoted).join(",")));
  const href = URL.createObjectURL(new Blob([["group,key,value", ...csv].join("\n")], { type: "text/csv" }));
  Object.assign($("run-csv"), { href, download: `${name}.csv` });
  if (!$("run").open) $("run").showModal();
  save();
}

// Answers, step by step.
const choice = $("choice").elements;
let timer = null;

function documents() {
  const { documents, first } = data.tasks[choice.task.value];
  options(choice.document, documents.map(({ id, target }) => [String(id), `${id} (wanted: ${target ?? "unknown"})`]), String(first));
  settings();
}

function settings() {
  const document = data.tasks[choice.task.value].documents.find(({ id }) => String(id) === choice.document.value);
  $("question").textContent = document.question ?? "";
  const runs = runsOf(choice.task.value).filter(([name]) => data.answers[name][choice.document.value]).map(named);
  const first = Object.keys(data.tasks[choice.task.value].worth);
  [...choice.setting].forEach((select, i) => {
    const all = i ? [["", "none"], ...runs] : runs;
    const kept = select.length && all.some(([name]) => name === select.value);
    options(select, all, kept ? select.value : first[i]);
  });
  panels();
}

const shown = () => [...new Set([...choice.setting].map((select) => select.value).filter(Boolean))];

function panels() {
  pause();
  const most = Math.max(...shown().map((name) => data.answers[name][choice.document.value].taken.length));
  $("step").max = most;
  $("step").value = most;
  draw();
}

function draw() {
  const step = Number($("step").value);
  $("step-shown").textContent = `${step} of ${$("step").max}`;
  $("race-command").textContent = `python report.py race ${shown().join(" ")} document=${choice.document.value}`;
  $("panels").replaceChildren(...shown().map((name) => panel(name, data.answers[name][choice.document.value], step)));
}

function panel(name, answer, wanted) {
  const run = data.runs[name];
  const [main] = Object.keys(answer.forwards);
  const total = answer.taken.length;
  const step = Math.min(wanted, total);
  const done = answer.steps.filter((at, i) => at < step || stood(answer, i, step)).length;
  const outcome = answer.correct === null ? ["", "not scored"] : answer.correct ? ["right", "✓ right"] : ["wrong", "✗ wrong"];
  const element = make("article", { className: "panel" }, make("h3", {}, make("a", { href: `#run=${encodeURIComponent(name)}` }, `${run.label} on ${run.model}`)));
  const result = make("p", {}, make("span", { className: outcome[0] }, outcome[1]), `, answer: ${answer.answer ?? "none could be read"}`);
  const why = data.tasks[run.task].worth[name];
  if (why) element.append(make("p", { className: "note" }, why));
  const bar = make("progress", { max: total, value: step });
  bar.setAttribute("aria-label", "Forwards");
  element.append(bar, step === total ? result : make("p", {}, "not finished"), tokens(answer, step));
  const spent = (role) => (step && answer.spent ? `${answer.spent[role][step - 1]} of` : "in all");
  const others = Object.entries(answer.forwards).slice(1).map(([role, count]) => `${role} ${spent(role)} ${count}`);
  element.append(make("p", {}, `Forwards: ${[`${main} ${step} of ${total}`, ...others].join(", ")}.`));
  element.append(make("p", {}, `Tokens: ${Math.min(done, answer.useful)} of ${answer.useful} useful${step === total ? ending(answer) : ""}.`));
  if (answer.lost) element.append(make("p", {}, revised(answer, step)));
  if (answer.drafts && step) element.append(make("p", {}, drafting(answer, step - 1)));
  if (answer.blocks && step) element.append(blocks(answer.blocks[step - 1]));
  return element;
}

const ending = ({ after, ended }) => (ended ? `, the end${after ? `, and ${after} after it` : ""}` : ", and no end within the max_new_tokens");

// What stood at a position after a step and was taken back later: [position, piece, step, step that took it back].
const stood = (answer, i, step) => answer.lost?.find(([at, , written, taken]) => at === i && written < step && step <= taken);

function revised({ lost }, step) {
  const now = lost.filter(([, , , taken]) => taken === step - 1).map(([, piece]) => `“${data.pieces[piece]}”`);
  const until = lost.filter(([, , , taken]) => taken < step).length;
  return `Taken back: ${until} of ${lost.length}${now.length ? `, in this step ${now.join(", ")}` : ""}.`;
}

function tokens(answer, step) {
  const box = make("div", { className: "tokens" });
  const [drafted, accepted] = answer.drafts?.[step - 1] ?? [0, 0];
  let refused = drafted - accepted;
  const last = answer.steps.lastIndexOf(step - 1);
  answer.tokens.forEach((piece, i) => {
    const before = stood(answer, i, step);
    const at = before ? before[2] : answer.steps[i];
    const span = make("span", { className: at < step ? "committed" : "masked" }, data.pieces[before ? before[1] : piece]);
    if (at < step) {
      span.classList.toggle("lost", Boolean(before));
      span.style.setProperty("--step", `var(--step-${at % 6})`);
      span.title = `step ${at + 1}`;
      span.classList.toggle("latest", at === step - 1);
      span.classList.toggle("own", Boolean(answer.own) && i === last);
    } else {
      span.ariaHidden = "true";
      span.classList.toggle("refused", step > 0 && last >= 0 && refused-- > 0);
    }
    box.append(span);
  });
  return box;
}

function drafting({ drafts, own, refused }, step) {
  const [drafted, accepted] = drafts[step];
  const text = refused[step] ? `, refused “${refused[step]}”` : "";
  const broke = accepted < drafted ? `broke at its token ${accepted + 1}${text}` : "all of it";
  if (!drafted) return "Draft: none in this step.";
  return `Draft: ${drafted} tokens, ${accepted} accepted, ${broke}${own ? "; the last token of the step is the target's own" : ""}.`;
}

function blocks(states) {
  const names = { w: "waiting", b: "begun", f: "full", d: "decoded" };
  const count = (letter) => [...states].filter((state) => state === letter).length;
  const words = Object.entries(names).map(([letter, name]) => `${count(letter)} ${name}`).join(", ");
  const boxes = [...states].map((state, i) => make("span", { className: `block ${state}`, title: `block ${i + 1}: ${names[state]}` }, state));
  return make("div", {}, make("p", {}, `Blocks: ${words}.`), make("div", { className: "blocks", ariaHidden: "true" }, ...boxes));
}

function pause() {
  clearTimeout(timer);
  timer = null;
  $("play").textContent = "Play";
}

function play() {
  if (timer) return pause();
  if ($("step").value === $("step").max) $("step").value = 0;
  $("play").textContent = "Pause";
  draw();
  const next = () => {
    $("step").value = Number($("step").value) + 1;
    draw();
    if ($("step").value === $("step").max) return (pause(), save());
    timer = setTimeout(next, 1000 / Number($("speed").value));
  };
  timer = setTimeout(next, 1000 / Number($("speed").value));
}

function move({ currentTarget: button }) {
  pause();
  $("step").value = Number($("step").value) + Number(button.dataset.by);
  (draw(), save());
}

theme(dark);
$("theme").hidden = false;
choice.task.addEventListener("change", () => (documents(), save()));
choice.document.addEventListener("change", () => (settings(), save()));
for (const select of choice.setting) select.addEventListener("change", () => (panels(), save()));
$("step").addEventListener("input", () => (pause(), draw(), save()));
for (const button of document.querySelectorAll(".copy")) button.addEventListener("click", copy);
$("play").addEventListener("click", play);
for (const button of document.querySelectorAll("#player [data-by]")) button.addEventListener("click", move);
pair.pair.addEventListener("change", () => (pairs(), save()));
for (const side of ["a", "b"]) pair[side].addEventListener("change", () => (compare(), save()));
$("run-pair").addEventListener("click", () => {
  const name = $("run-title").textContent;
  pair.pair.value = data.runs[name].task;
  (pairs(), (pair.a.value = name), compare(), $("run").close());
  $("pairs").scrollIntoView();
  pair.b.focus();
});
restore();
addEventListener("hashchange", () => openRun());
$("run").addEventListener("close", save);
openRun();
tables(await import(await library("tables-script")));
const script = make("script", { src: await library("charts-script") });
document.head.append(script);
await new Promise((done) => script.addEventListener("load", done));
charts();
$("theme").addEventListener("click", () => theme(!dark));
system.addEventListener("change", ({ matches }) => theme(matches));
Object.assign(window, { statistics: { difference, mcnemar } }); // for the tests, as the next line
root.dataset.ready = "true";
