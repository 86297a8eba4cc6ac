// The page's own script. Data, tables and charts are in the page; nothing is fetched.
const $ = (id) => document.getElementById(id);
const data = JSON.parse($("data").textContent);
const root = document.documentElement;

// A library, kept as gzip in base64, as the URL of a script in memory.
async function library(id) {
  const bytes = Uint8Array.from(atob($(id).textContent), (letter) => letter.charCodeAt(0));
  const text = new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
  return URL.createObjectURL(new Blob([await text], { type: "text/javascript" }));
}

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
      language: { search: "Search all columns:", info: "_TOTAL_ runs", infoFiltered: "of _MAX_" },
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

function points(measure, runs, front) {
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

function chart() {
  const [task, measure] = [axes.task.value, axes.measure.value];
  const [methods, models] = [ticked("methods"), ticked("models")];
  const known = Object.entries(data.runs).filter(([, run]) => run.task === task);
  const runs = known.filter(([, run]) => run.numbers[measure] && run.numbers.accuracy && methods.has(run.decoder) && models.has(run.model));
  const { fronts, why } = data.tasks[task];
  const front = new Set(fronts[measure]);
  const edge = runs.filter(([name]) => front.has(name)).map(([, run]) => [run.numbers[measure][0], run.numbers.accuracy[0]]);
  edge.sort(([a], [b]) => a - b);
  const line = { x: edge.map(([x]) => x), y: edge.map(([, y]) => y), mode: "lines", line: { color: "#999", width: 1 }, hoverinfo: "skip" };
  const byMethod = [...methods].map((method) => {
    const found = points(measure, runs.filter(([, run]) => run.decoder === method), front);
    found.marker.color = data.colours[method][Number(dark)];
    return found;
  });
  const { label, higher, time } = data.measures[measure];
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
  const buttons = ["zoom2d", "pan2d", "zoomIn2d", "zoomOut2d", "resetScale2d", "toImage"]; // none that shares
  Plotly.react("chart", [line, ...byMethod], layout, { responsive: true, displaylogo: false, modeBarButtons: [buttons] });
  const words = [`${runs.length} of ${known.length} runs. A click on a point opens its settings.`];
  if (front.size) words.push("Filled, with intervals and joined: no other run is better in both.");
  if (time && why) words.push(`Times are left out: ${why}.`);
  $("chart-note").textContent = words.join(" ");
}

function charts() {
  $("axes").addEventListener("change", () => (chart(), save()));
  chart();
  $("chart").on("plotly_click", ({ points: [point] }) => openRun(point.customdata));
}

// The address holds what is shown: #task=...&measure=...&hide=apd&document=3&setting=RUN&step=7&run=RUN
const controls = () => ({ task: axes.task, measure: axes.measure, scale: axes.scale, of: choice.task, document: choice.document, step: $("step") });
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
  const groups = Object.entries(run.settings);
  $("run-title").textContent = name;
  $("run-tables").replaceChildren(
    ...groups.flatMap(([title, group]) => {
      const lines = Object.entries(group).map(([key, value]) => make("tr", {}, make("th", { scope: "row" }, key), make("td", {}, value)));
      return [make("h3", {}, title), make("table", {}, make("tbody", {}, ...lines))];
    }),
  );
  const safe = (text) => (/^[=+\-@\t\r\n]/.test(text) && isNaN(text) ? `'${text}` : text); // no formula for a spreadsheet
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
  const { documents } = data.tasks[choice.task.value];
  options(choice.document, documents.map(({ id, target }) => [String(id), `${id} (wanted: ${target ?? "unknown"})`]));
  settings();
}

function settings() {
  const document = data.tasks[choice.task.value].documents.find(({ id }) => String(id) === choice.document.value);
  $("question").textContent = document.question ?? "";
  const runs = Object.entries(data.runs).filter(([name, run]) => run.task === choice.task.value && data.answers[name][choice.document.value]);
  const pairs = runs.map(([name, run]) => [name, `${run.label} on ${run.model}`]);
  const first = {}; // run of each method
  for (const [name, run] of runs) first[run.decoder] ??= name;
  [...choice.setting].forEach((select, i) => {
    const all = i ? [["", "none"], ...pairs] : pairs;
    const kept = select.length && all.some(([name]) => name === select.value);
    options(select, all, kept ? select.value : Object.values(first)[i]);
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
  $("panels").replaceChildren(...shown().map((name) => panel(name, data.answers[name][choice.document.value], step)));
}

function panel(name, answer, wanted) {
  const run = data.runs[name];
  const [main] = Object.keys(answer.forwards);
  const total = answer.taken.length;
  const step = Math.min(wanted, total);
  const done = answer.steps.filter((at, i) => at < step || stood(answer, i, step)).length;
  const verdict = answer.correct === null ? ["", "not scored"] : answer.correct ? ["right", "✓ right"] : ["wrong", "✗ wrong"];
  const element = make("article", { className: "panel" }, make("h3", {}, make("a", { href: `#run=${name}` }, `${run.label} on ${run.model}`)));
  const result = make("p", {}, make("span", { className: verdict[0] }, verdict[1]), `, answer: ${answer.answer ?? "none could be read"}`);
  element.append(step === total ? result : make("p", {}, "not finished"), tokens(answer, step));
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
  clearInterval(timer);
  timer = null;
  $("play").textContent = "Play";
}

function play() {
  if (timer) return pause();
  if ($("step").value === $("step").max) $("step").value = 0;
  $("play").textContent = "Pause";
  draw();
  timer = setInterval(() => {
    $("step").value = Number($("step").value) + 1;
    draw();
    if ($("step").value === $("step").max) (pause(), save());
  }, 400);
}

theme(dark);
$("theme").hidden = false;
choice.task.addEventListener("change", () => (documents(), save()));
choice.document.addEventListener("change", () => (settings(), save()));
for (const select of choice.setting) select.addEventListener("change", () => (panels(), save()));
$("step").addEventListener("input", () => (pause(), draw(), save()));
for (const button of document.querySelectorAll(".copy")) button.addEventListener("click", copy);
$("play").addEventListener("click", play);
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
root.dataset.ready = "true"; // for the test
