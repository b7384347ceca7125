"use strict";
// The page's own code: charts and the table of all trials share one selection, a set of trial numbers.
// The page holds JSON in scripts: NAME-data is the figure of the chart NAME, trials-data the columns of all trials.
const PAGE = 50, selection = new Set(), drawn = new Map(), said = [], written = [];
const at = id => document.getElementById(id);
let dark = matchMedia("(prefers-color-scheme: dark)").matches, sortedBy = 0, descends = false, pageNumber = 0;

const KINDS = {i1: Int8Array, u1: Uint8Array, i2: Int16Array, u2: Uint16Array, i4: Int32Array, u4: Uint32Array, f4: Float32Array, f8: Float64Array};
function unpack(packed) {  // an array, from plotly's bytes in base64 or from texts that stand once; others stay as they are
  if (packed?.texts) return Array.from(unpack(packed.codes), code => packed.texts[code]);
  if (packed?.bdata === undefined) return packed;
  const letters = atob(packed.bdata), bytes = new Uint8Array(letters.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = letters.charCodeAt(i);
  return new KINDS[packed.dtype](bytes.buffer);
}

const trials = JSON.parse(at("trials-data").textContent), col = {};  // columns by name, one value for each trial
for (const name in trials.columns) col[name] = unpack(trials.columns[name]);
const stages = trials.stages.map(stage => ({mixer: unpack(stage.mixer), depth: unpack(stage.depth), width: unpack(stage.width)}));
col.mixers = Array.from(col.trial, (_, i) => stages.flatMap(stage => stage.mixer[i] ? [stage.mixer[i][0]] : []).join(" · "));
const placeOf = new Map(Array.from(col.trial, (number, i) => [number, i]));

const percent = value => Number.isNaN(value) ? "–" : `${(100 * value).toFixed(2)} %`;
const probability = p => p > 0.995 ? "p > 0.99" : p < 0.005 ? "p < 0.01" : `p = ${p.toFixed(2)}`;
const whole = new Intl.NumberFormat("en", {maximumFractionDigits: 0}).format;
const escaped = text => text.replace(/[&<>]/g, letter => ({"&": "&amp;", "<": "&lt;", ">": "&gt;"})[letter]);
function interval(low, high) {
  const middle = 50 * (low + high), half = 50 * (high - low), digits = half >= 0.095 ? 1 : 2;
  return `${middle.toFixed(digits)} ± ${half.toFixed(digits)} %`;
}
function count(value) {  // in three figures
  const [size, unit] = [[1e9, " G"], [1e6, " M"], [1e3, " k"]].find(([size]) => value >= 0.9995 * size) ?? [1, ""];
  const shown = value / size;
  return shown.toFixed(shown >= 99.95 || !unit ? 0 : shown >= 9.995 ? 1 : 2) + unit;
}

function hover(number) {  // all that is known of a trial, as `hover_text` of nas/results/charts/figures.py says it
  const i = placeOf.get(number);
  if (i === undefined) return "";
  return said[i] ??= [
    `<b>trial ${number}${col.reference[i] && `: ${escaped(col.reference[i])}`}</b>`,
    `val ${percent(col.val[i])}${Number.isNaN(col.test[i]) ? "" : `, test ${percent(col.test[i])}`}`,
    Number.isNaN(col.low[i]) ? "" : `true ${interval(col.low[i], col.high[i])}, on the front ${probability(col.p_on_front[i])}`,
    escaped(col.standing[i]),
    escaped(col.reason[i]),
    `${count(col.params[i])} parameters, ${count(col.macs[i])} MACs${escaped(col.measured[i])}`,
    escaped(col.blocks[i]),
    ...stages.flatMap(({mixer, depth, width}) => mixer[i]
      ? [`<span style="color:${mixer[i][1]}">${"■".repeat(depth[i])}</span> ${escaped(mixer[i][0])}, ${depth[i]} × ${width[i]}`] : []),
    `${whole(col.device_seconds[i])} device-seconds`,
  ].filter(Boolean).join("<br>");
}
const hovers = numbers => Array.from(numbers, number => typeof number === "number" ? hover(number) : hovers(number));

const look = () => ({"font.color": dark ? "#e3e8ee" : "#20262e"});
const axesLook = layout => Object.fromEntries(Object.keys(layout).flatMap(name => {
  const place = /^[xy]axis\d*$/.test(name) ? [name] : name === "scene" ? ["scene.xaxis", "scene.yaxis", "scene.zaxis"] : [];
  return place.map(axis => [`${axis}.gridcolor`, dark ? "#39424d" : "#dfe4ea"]);
}));
function theme(isDark) {
  dark = isDark;
  document.documentElement.dataset.theme = dark ? "dark" : "light";
  at("theme").textContent = dark ? "Light" : "Dark";
  for (const place of drawn.keys()) Plotly.relayout(place, {...look(), ...axesLook(place.layout)});
}

function draw(name) {  // once, when it comes near the window or is to be printed
  const data = at(`${name}-data`), place = at(name);
  if (!data) return;
  seen.unobserve(place);
  data.remove();
  const chart = JSON.parse(data.textContent);
  for (const trace of chart.data) {
    for (const axis of ["x", "y", "z", "customdata"]) if (axis in trace) trace[axis] = unpack(trace[axis]);
    for (const dimension of trace.dimensions ?? []) dimension.values = unpack(dimension.values);
    if (trace.customdata && trace.hoverinfo?.includes("text")) trace.hovertext = hovers(trace.customdata);
  }
  const options = {responsive: true, displaylogo: false, toImageButtonOptions: {format: "svg"}};
  Plotly.newPlot(place, chart.data, chart.layout, options).then(() => {
    drawn.set(place, chart.data.findIndex(trace => trace.meta === "selected"));
    Plotly.relayout(place, {...look(), ...axesLook(place.layout)});
    place.on("plotly_click", event => choose(event.points.map(point => point.customdata), true));
    place.on("plotly_selected", event => event && choose(event.points.map(point => point.customdata), false));
    place.on("plotly_restyle", ([update]) => {  // of a range that a person drew, not of the colours below
      if (Object.keys(update).some(key => key.includes("constraintrange"))) choose(brushed(place.data[0]), false);
    });
    mark(place);
  });
}

function brushed(trace) {  // the trials within all ranges of the parallel coordinates; none where there is no range
  const ranges = trace.dimensions.filter(dimension => dimension.constraintrange).map(({values, constraintrange}) =>
    [values, Array.isArray(constraintrange[0]) ? constraintrange : [constraintrange]]);
  if (!ranges.length) return [];
  return Array.from(trace.customdata).filter((_, i) =>
    ranges.every(([values, bounds]) => bounds.some(([low, high]) => low <= values[i] && values[i] <= high)));
}

function choose(numbers, toggles) {
  numbers = [numbers].flat(2).filter(number => placeOf.has(number));
  if (toggles) for (const number of numbers) selection.delete(number) || selection.add(number);
  else { selection.clear(); for (const number of numbers) selection.add(number); }
  for (const place of drawn.keys()) mark(place);
  pageNumber = 0;
  showRows();
}

function mark(place) {  // a ring around each selected trial, and its line in the parallel coordinates
  const index = drawn.get(place), points = {x: [], y: [], z: []};
  if (place.data[0].type === "parcoords")
    return Plotly.restyle(place, {"line.color": [Array.from(place.data[0].customdata, number => +selection.has(number))]}, [0]);
  if (index < 0) return undefined;
  for (const trace of place.data) (trace.customdata || []).forEach((number, i) => {
    if (selection.has(number)) for (const axis of "xyz") if (trace[axis]) points[axis].push(trace[axis][i]);
  });
  return Plotly.restyle(place, {x: [points.x], y: [points.y], ...(place.data[index].type === "scatter3d" && {z: [points.z]})}, [index]);
}

function shownRows() {  // places of trials among the columns
  const words = at("filter").value.toLowerCase().split(/\s+/).filter(Boolean), state = at("state").value, only = at("only").checked;
  const text = i => written[i] ??= trials.table.map(([name, kind]) => `${WRITTEN[kind](col[name][i])} ${col[name][i]}`).join(" ").toLowerCase();
  const holds = text => words.every(word => text.includes(word));
  const rows = [...placeOf.values()].filter(i => (!state || col.state[i] === state) &&
    (!only || selection.has(col.trial[i])) && (!words.length || holds(text(i))));
  const column = col[trials.table[sortedBy][0]], sign = descends ? -1 : 1;
  const order = typeof column[0] === "number"
    ? (a, b) => (Number.isNaN(column[a]) ? -Infinity : column[a]) - (Number.isNaN(column[b]) ? -Infinity : column[b])
    : (a, b) => column[a].localeCompare(column[b]);
  return rows.sort((a, b) => sign * order(a, b) || a - b);
}

const WRITTEN = {
  text: value => value, percent, count: value => value.toLocaleString("en"),
  probability: value => Number.isNaN(value) ? "–" : value.toFixed(2),
  seconds: value => value.toLocaleString("en", {maximumFractionDigits: 1}),
};

function showRows() {
  const rows = shownRows(), last = Math.max(0, Math.ceil(rows.length / PAGE) - 1), body = at("trials").tBodies[0];
  pageNumber = Math.min(Math.max(pageNumber, 0), last);
  body.replaceChildren(...rows.slice(PAGE * pageNumber, PAGE * (pageNumber + 1)).map(row));
  at("found").textContent = `${rows.length.toLocaleString("en")} trials, ${selection.size.toLocaleString("en")} selected, page ${pageNumber + 1} of ${last + 1}`;
}

function row(i) {
  const number = col.trial[i], line = document.createElement("tr"), box = document.createElement("input");
  Object.assign(box, {type: "checkbox", checked: selection.has(number), ariaLabel: `select trial ${number}`});
  box.onchange = () => { choose([number], true); at("trials").querySelector(`[aria-label="select trial ${number}"]`)?.focus(); };
  line.className = box.checked ? "selected" : "";
  line.insertCell().append(box);
  for (const [name, kind] of trials.table) {
    const place = line.insertCell();
    place.textContent = WRITTEN[kind](col[name][i]);
    if (kind !== "text") place.className = "n";
  }
  if (col.state[i] === "complete") {
    const button = Object.assign(document.createElement("button"), {type: "button", textContent: "Copy"});
    button.ariaLabel = `copy the command that exports trial ${number}`;
    button.onclick = () => copy(`${trials.command} ${number}`);
    line.insertCell().append(button);
  } else line.insertCell();
  return line;
}

async function copy(text) {  // the command stands below the table too, for browsers that let no file copy
  at("command").textContent = text;
  try { await navigator.clipboard.writeText(text); } catch { getSelection().selectAllChildren(at("command")); }
}

for (const [i, heading] of [...at("trials").tHead.rows[0].cells].entries()) {
  const button = heading.querySelector("button");
  if (button) button.onclick = () => {
    descends = sortedBy === i - 1 && !descends;
    sortedBy = i - 1;
    for (const other of heading.parentNode.cells) other.ariaSort = null;
    heading.ariaSort = descends ? "descending" : "ascending";
    showRows();
  };
}
for (const id of ["filter", "state", "only"]) at(id).oninput = () => { pageNumber = 0; showRows(); };
at("clear").onclick = () => choose([], false);
at("before").onclick = () => { pageNumber -= 1; showRows(); };
at("after").onclick = () => { pageNumber += 1; showRows(); };
at("theme").onclick = () => theme(!dark);
const seen = new IntersectionObserver(entries => {
  for (const entry of entries) if (entry.isIntersecting) setTimeout(draw, 0, entry.target.id);
}, {rootMargin: "300px"});
for (const place of document.querySelectorAll(".chart")) seen.observe(place);
addEventListener("beforeprint", () => {
  for (const place of document.querySelectorAll(".chart")) draw(place.id);
  for (const place of drawn.keys()) Plotly.Plots.resize(place);
});
at("command").textContent = `${trials.command} NUMBER`;
theme(dark);
showRows();
