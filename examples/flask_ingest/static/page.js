"use strict";

const SECONDS = 60;
const SVG = "http://www.w3.org/2000/svg";
const cost = Number(document.body.dataset.cost);
const number = new Intl.NumberFormat("en");
const samples = [];

const element = (id) => document.getElementById(id);
const say = (id, text) => { element(id).textContent = text; };

// Figures

function drawn(name, attributes, text) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

function roundUp(value) {
  const step = 10 ** Math.floor(Math.log10(Math.max(value, 10)));
  return [1, 1.5, 2, 3, 4, 5, 6, 8, 10].map((n) => n * step).find((top) => top >= value);
}

function plot(figure, lines) {
  const { width, height } = figure.getBoundingClientRect();
  const left = 52, right = 8, top = 10, bottom = 20;
  const now = samples.at(-1).at;
  const highest = roundUp(1.05 * Math.max(10, ...lines.flatMap(({ of }) => samples.map(of))));
  const x = (at) => left + (width - left - right) * (1 - (now - at) / SECONDS);
  const y = (value) => top + (height - top - bottom) * (1 - value / highest);
  const svg = drawn("svg", { role: "img", viewBox: `0 0 ${width} ${height}` });
  for (const part of [0, 0.5, 1]) {
    const at = y(part * highest);
    svg.append(drawn("line", { class: "grid", x1: left, x2: width - right, y1: at, y2: at }));
    const label = { x: left - 6, y: at + 4, "text-anchor": "end" };
    svg.append(drawn("text", label, number.format(part * highest)));
  }
  for (const [ago, anchor] of [[SECONDS, "start"], [SECONDS / 2, "middle"], [0, "end"]]) {
    const label = { x: x(now - ago), y: height - 4, "text-anchor": anchor };
    svg.append(drawn("text", label, ago ? `${ago} s ago` : "now"));
  }
  for (const { name, of, area, steps } of lines) {
    const to = (one) => `${steps ? `H${x(one.at).toFixed(1)}V` : `L${x(one.at).toFixed(1)},`}${y(of(one)).toFixed(1)}`;
    const path = `M${x(samples[0].at).toFixed(1)},${y(of(samples[0])).toFixed(1)}${samples.map(to).join("")}`;
    if (area) {
      const closed = `${path}L${x(now)},${y(0)}L${x(samples[0].at)},${y(0)}Z`;
      svg.append(drawn("path", { class: `${name} area`, d: closed }));
    }
    svg.append(drawn("path", { class: name, d: path }));
  }
  figure.replaceChildren(svg);
}

// What the server says

function used() {
  // Operations of the last second; their cost is the same for all.
  const last = samples.at(-1);
  const first = samples.findLast((one) => one.at <= last.at - 1) ?? samples[0];
  const seconds = last.at - first.at;
  return seconds < 0.5 ? 0 : (cost * (last.done - first.done)) / seconds;
}

function eta(sample) {
  if (sample.waiting === 0) return "nothing waits";
  if (sample.eta === null) return "no end in sight";
  return `${sample.eta < 10 ? sample.eta.toFixed(1) : Math.round(sample.eta)} s to go`;
}

function seconds(from, to) {
  return from && to ? `${Math.round(new Date(to) - new Date(from))} ms` : "";
}

function row(batch) {
  const made = document.createElement("tr");
  const waited = batch.oldest_age < 10 ? batch.oldest_age.toFixed(2) : batch.oldest_age.toFixed(1);
  const released = new Date(batch.released_at).toLocaleTimeString("en-GB");
  for (const [text, style] of [
    [released, ""], [batch.state, batch.state], [number.format(batch.operations), "n"],
    [number.format(batch.cost), "n"], [batch.trigger, ""], [`${waited} s`, "n"],
    [seconds(batch.started_at, batch.ended_at), "n"],
  ]) {
    const cell = document.createElement("td");
    cell.className = style;
    cell.textContent = text;
    made.append(cell);
  }
  return made;
}

function show(sample) {
  samples.push(sample);
  while (samples[0].at < sample.at - SECONDS) samples.shift();
  sample.used = used();
  const rate = Math.round(sample.used / cost);
  say("waiting", number.format(sample.waiting));
  say("eta", eta(sample));
  say("inflight", number.format(sample.inflight));
  say("done", number.format(sample.done));
  say("rate", `${number.format(rate)} a second`);
  for (const id of ["capacity", "limit-now"]) say(id, number.format(sample.capacity));
  say("held-now", number.format(sample.held));
  say("used-now", number.format(Math.round(sample.used)));
  say("phase", sample.phase);
  plot(element("capacity-plot"), [
    { name: "held", of: (one) => one.held, area: true },
    { name: "used", of: (one) => one.used },
    { name: "limit", of: (one) => one.capacity, steps: true },
  ]);
  plot(element("waiting-plot"), [{ name: "waiting", of: (one) => one.waiting, area: true }]);
  if (sample.batches.length) element("batches").replaceChildren(...sample.batches.map(row));
}

function problem(text) {
  element("problem").hidden = !text;
  say("problem", text);
}

const live = new EventSource("/live");
live.onmessage = ({ data }) => {
  const sample = JSON.parse(data);
  problem(sample.problem ?? "");
  if (!sample.problem) show(sample);
};
live.onerror = () => problem("The server does not answer. Is it running? It is asked again and again.");

// Buttons: without this script they work, too, and leave the page

for (const form of document.querySelectorAll("form")) {
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const button = form.querySelector("button");
    button.disabled = true;
    try {
      const answer = await fetch(form.action, {
        method: "POST", headers: { Accept: "application/json" },
      });
      if (!answer.ok) throw new Error(`${answer.status} ${answer.statusText}`);
    } catch (error) {
      problem(`It did not work: ${error.message}`);
    } finally {
      button.disabled = false;
    }
  });
}
