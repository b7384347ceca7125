"use strict";
// The page's own code: charts and the table of all trials share one selection, a set of trial numbers.
// It is given `charts` (figures by place), `texts` (hover texts that charts share) and `trials` (rows by column).
const PAGE = 50, selection = new Set(), drawn = new Map();
const at = id => document.getElementById(id), rowOf = new Map(trials.rows.map(row => [row[0], row]));
let dark = matchMedia("(prefers-color-scheme: dark)").matches, sortedBy = 0, descends = false, pageNumber = 0;

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
  const chart = charts[name], place = at(name);
  if (!chart) return;
  seen.unobserve(place);
  delete charts[name];
  for (const trace of chart.data) if (texts[trace.meta]) trace.hovertext = texts[trace.meta];
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
  return trace.customdata.filter((_, i) =>
    ranges.every(([values, bounds]) => bounds.some(([low, high]) => low <= values[i] && values[i] <= high)));
}

function choose(numbers, toggles) {
  numbers = [numbers].flat(2).filter(number => rowOf.has(number));
  if (toggles) for (const number of numbers) selection.delete(number) || selection.add(number);
  else { selection.clear(); for (const number of numbers) selection.add(number); }
  for (const place of drawn.keys()) mark(place);
  pageNumber = 0;
  showRows();
}

function mark(place) {  // a ring around each selected trial, and its line in the parallel coordinates
  const index = drawn.get(place), points = {x: [], y: [], z: []};
  if (place.data[0].type === "parcoords")
    return Plotly.restyle(place, {"line.color": [place.data[0].customdata.map(number => +selection.has(number))]}, [0]);
  if (index < 0) return undefined;
  for (const trace of place.data) (trace.customdata || []).forEach((number, i) => {
    if (selection.has(number)) for (const axis of "xyz") if (trace[axis]) points[axis].push(trace[axis][i]);
  });
  return Plotly.restyle(place, {x: [points.x], y: [points.y], ...(place.data[index].type === "scatter3d" && {z: [points.z]})}, [index]);
}

function shownRows() {
  const words = at("filter").value.toLowerCase().split(/\s+/).filter(Boolean), state = at("state").value;
  const rows = trials.rows.filter(row => (!state || row[1] === state) && (!at("only").checked || selection.has(row[0])) &&
    words.every(word => row.join(" ").toLowerCase().includes(word)));
  const order = (a, b) => typeof a === "number" && typeof b === "number" ? a - b : String(a ?? "").localeCompare(String(b ?? ""));
  return rows.sort((a, b) => (descends ? -1 : 1) * order(a[sortedBy], b[sortedBy]) || a[0] - b[0]);
}

function showRows() {
  const rows = shownRows(), last = Math.max(0, Math.ceil(rows.length / PAGE) - 1), body = at("trials").tBodies[0];
  pageNumber = Math.min(Math.max(pageNumber, 0), last);
  body.replaceChildren(...rows.slice(PAGE * pageNumber, PAGE * (pageNumber + 1)).map(row => {
    const line = document.createElement("tr"), box = document.createElement("input");
    Object.assign(box, {type: "checkbox", checked: selection.has(row[0]), ariaLabel: `select trial ${row[0]}`});
    box.onchange = () => { choose([row[0]], true); at("trials").querySelector(`[aria-label="select trial ${row[0]}"]`)?.focus(); };
    line.className = box.checked ? "selected" : "";
    line.insertCell().append(box);
    row.forEach((cell, i) => {
      const place = line.insertCell();
      place.textContent = cell === null ? "–" : trials.percent[i] ? `${(100 * cell).toFixed(2)} %` : typeof cell === "number" ? cell.toLocaleString("en") : cell;
      if (trials.numeric[i]) place.className = "n";
    });
    if (row[1] === "complete") {
      const button = Object.assign(document.createElement("button"), {type: "button", textContent: "Copy"});
      button.ariaLabel = `copy the command that exports trial ${row[0]}`;
      button.onclick = () => copy(`${trials.command} ${row[0]}`);
      line.insertCell().append(button);
    } else line.insertCell();
    return line;
  }));
  at("found").textContent = `${rows.length.toLocaleString("en")} trials, ${selection.size.toLocaleString("en")} selected, page ${pageNumber + 1} of ${last + 1}`;
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
for (const name in charts) {
  at(name).style.minHeight = charts[name].layout.height + "px";
  seen.observe(at(name));
}
addEventListener("beforeprint", () => {
  for (const name of Object.keys(charts)) draw(name);
  for (const place of drawn.keys()) Plotly.Plots.resize(place);
});
at("command").textContent = `${trials.command} NUMBER`;
theme(dark);
showRows();
