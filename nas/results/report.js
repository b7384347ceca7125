"use strict";
// The page's own code: charts and the table of all trials share one selection, a set of trial numbers.
// The page holds JSON in scripts: NAME-data is the figure of the chart NAME, template-data what all figures share,
// trials-data the columns of all trials.
const PAGE = 50, selection = new Set(), drawn = new Map(), figures = new Map(), said = [], written = [];
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

function figure(name) {  // of a chart that is not drawn yet
  const data = at(`${name}-data`);
  if (!data) return figures.get(name);
  const chart = JSON.parse(data.textContent);
  chart.layout.template = JSON.parse(at("template-data").textContent);
  for (const trace of chart.data) {
    for (const axis of ["x", "y", "z", "customdata"]) if (axis in trace) trace[axis] = unpack(trace[axis]);
    for (const dimension of trace.dimensions ?? []) dimension.values = unpack(dimension.values);
  }
  data.remove();
  figures.set(name, chart);
  return chart;
}

function sketch(place) {  // a chart of two objectives at once; plotly, which takes seconds to begin, draws it again with all that it can do
  const {data, layout} = place.querySelector(".sketch") ? {} : figure(place.id) ?? {};
  if (!layout?.xaxis?.range || !layout.yaxis?.range || data.some(trace => !trace.type.startsWith("scatter"))) return;
  const width = place.clientWidth, height = layout.height, {l, r, t, b} = layout.margin, canvas = document.createElement("canvas");
  Object.assign(canvas, {className: "sketch", width: width * devicePixelRatio, height: height * devicePixelRatio});
  Object.assign(canvas.style, {width: `${width}px`, height: `${height}px`});
  const pen = canvas.getContext("2d"), ink = look()["font.color"];
  const along = ([low, high], start, end) => position => start + (end - start) * (position - low) / (high - low);
  const across = along(layout.xaxis.range, l, width - r), up = along(layout.yaxis.range, height - b, t);
  const x = layout.xaxis.type === "log" ? value => across(Math.log10(value)) : across;
  const y = layout.yaxis.type === "log" ? value => up(Math.log10(value)) : up;
  const write = (text, ...where) => { pen.fillStyle = ink; pen.fillText(text, ...where); };
  pen.scale(devicePixelRatio, devicePixelRatio);
  Object.assign(pen, {font: "12.5px system-ui, sans-serif", textAlign: "center", strokeStyle: axesLook({xaxis: 0})["xaxis.gridcolor"]});
  for (const [text, value] of ticks(layout.xaxis)) {
    pen.strokeRect(x(value), t, 0, height - b - t);
    write(text, x(value), height - b + 16);
  }
  for (const [text, value] of ticks(layout.yaxis)) {
    pen.strokeRect(l, y(value), width - r - l, 0);
    write(text, l - 22, y(value) + 4);
  }
  write(layout.xaxis.title.text, (l + width - r) / 2, height - 12);
  pen.save();
  pen.rotate(-Math.PI / 2);
  write(layout.yaxis.title.text, -(t + height - b) / 2, 14);
  pen.restore();
  pen.save();
  pen.beginPath();
  pen.rect(l, t, width - r - l, height - b - t);
  pen.clip();
  for (const {x: xs, y: ys, mode, marker, line, error_y: bars} of data) {
    Object.assign(pen, {strokeStyle: line?.color ?? bars?.color, lineWidth: line?.width ?? bars?.thickness});
    Object.assign(pen, {fillStyle: marker?.color, globalAlpha: marker?.opacity ?? 1});
    pen.beginPath();
    if (mode === "lines") xs.forEach((value, i) => { if (i) pen.lineTo(x(value), y(ys[i - 1])); pen.lineTo(x(value), y(ys[i])); });
    bars?.array.forEach((above, i) => { pen.moveTo(x(xs[i]), y(ys[i] - bars.arrayminus[i])); pen.lineTo(x(xs[i]), y(ys[i] + above)); });
    pen.stroke();
    if (mode !== "lines") xs.forEach((value, i) => { pen.beginPath(); pen.arc(x(value), y(ys[i]), marker.size / 2, 0, 7); pen.fill(); });
  }
  pen.restore();
  for (const {text, x: to, y: from, ax, ay, font, bgcolor, arrowcolor, arrowwidth} of layout.annotations ?? []) {
    Object.assign(pen, {font: `${font.size}px system-ui, sans-serif`, fillStyle: bgcolor, strokeStyle: arrowcolor, lineWidth: arrowwidth});
    const left = across(to), bottom = up(from), length = pen.measureText(text).width;
    pen.beginPath();
    pen.moveTo(left, bottom);
    pen.lineTo(left + ax, bottom + ay);
    pen.stroke();
    pen.fillRect(left + ax - length / 2, bottom + ay - 7, length, 14);
    pen.fillStyle = font.color;
    pen.fillText(text, left + ax, bottom + ay + 4);
  }
  place.append(canvas);
  performance.mark(`sketched ${place.id}`);
}

function ticks({tickvals, ticktext, range: [low, high]}) {  // texts and values of an axis; round numbers where it names none
  if (tickvals) return tickvals.map((value, i) => [ticktext[i], value]).filter(([, value]) => low <= Math.log10(value) && Math.log10(value) <= high);
  const power = 10 ** Math.floor(Math.log10((high - low) / 4)), step = [5, 2, 1].map(factor => factor * power).find(step => 4 * step <= high - low);
  return Array.from({length: Math.floor(high / step) - Math.ceil(low / step) + 1}, (_, i) => step * (Math.ceil(low / step) + i)).map(value => [+value.toPrecision(6), value]);
}

function load() {  // plotly, when the first chart needs it: it takes longer than all else, and stands last on the page
  const text = at("plotly"), script = document.createElement("script");
  if (!text) return;
  script.textContent = text.textContent;
  text.replaceWith(script);
}

function draw(name) {  // once, when it comes near the window or is to be printed
  const chart = figure(name), place = at(name);
  if (!chart) return;
  load();
  seen.unobserve(place);
  figures.delete(name);
  for (const trace of chart.data)
    if (trace.customdata && trace.hoverinfo?.includes("text")) trace.hovertext = hovers(trace.customdata);
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
    performance.mark(`drawn ${name}`);
  });
  place.querySelector(".sketch")?.remove();
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
const parsed = new Promise(resolve => addEventListener("DOMContentLoaded", resolve));
const MARGIN = 300, places = [...document.querySelectorAll(".chart")];  // charts this many pixels beyond the window are drawn
const seen = new IntersectionObserver(entries => {
  const near = entries.filter(entry => entry.isIntersecting).map(entry => entry.target);
  near.forEach(sketch);
  requestAnimationFrame(() => parsed.then(() => { for (const place of near) setTimeout(draw, 0, place.id); }));  // when the sketches are seen
}, {rootMargin: `${MARGIN}px`});
for (const place of places) seen.observe(place);
addEventListener("beforeprint", () => {
  for (const place of places) draw(place.id);
  for (const place of drawn.keys()) Plotly.Plots.resize(place);
});
at("command").textContent = `${trials.command} NUMBER`;
theme(dark);
for (const place of places) if (place.getBoundingClientRect().top < innerHeight + MARGIN) sketch(place);  // while plotly is still read
showRows();
