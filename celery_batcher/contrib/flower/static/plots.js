// Live plots of the last minutes, drawn by uPlot.

import { brief, element, number, unit } from "./text.js";

const SPAN = 600;
const LEAST = 120;
const HEIGHT = 200;

function colour(name) {
  return getComputedStyle(document.getElementById("batcher")).getPropertyValue(name).trim();
}

function line(label, name, options) {
  return {
    label,
    stroke: () => colour(`--plot-${name}`),
    width: 2,
    points: { show: false },
    value: (_plot, value) => (value === null || value === undefined ? "—" : number(value)),
    ...options,
  };
}

function area(label, name) {
  return line(label, name, { fill: () => colour(`--plot-${name}-fill`) });
}

function axis(options) {
  return {
    stroke: () => colour("--plot-text"),
    grid: { stroke: () => colour("--plot-grid"), width: 1 },
    ticks: { stroke: () => colour("--plot-grid"), width: 1, size: 4 },
    font: "12px system-ui, sans-serif",
    ...options,
  };
}

// Everything here is counted: no ticks between whole numbers.
const STEPS = Array.from({ length: 15 }, (_, power) => [1, 2, 5].map((one) => one * 10 ** power)).flat();

// From 0 to a little above the highest value, and at least to 1.
function fromZero(_plot, _least, most) {
  return [0, Math.max(1, (most ?? 0) * 1.1)];
}

class Plot {
  constructor(place, title, lines, read) {
    this.read = read;
    this.holder = element("div", { className: "plot" });
    this.figure = element("num", { className: "plot-card" }, element("figcaption", {}, title), this.holder);
    place.append(this.figure);
    const options = {
      width: this.width(),
      height: HEIGHT,
      series: [{ value: (_plot, at) => (at ? new Date(at * 1000).toLocaleTimeString("en-GB") : "—") }, ...lines],
      axes: [
        axis({ space: 70, values: (_plot, times) => times.map(clockOf) }),
        axis({ size: 52, incrs: STEPS, values: (_plot, values) => values.map(brief) }),
      ],
      scales: { x: { time: true, auto: false }, y: { range: fromZero } },
      legend: { live: true },
      cursor: { drag: { x: false, y: false }, y: false, points: { size: 6 }, sync: { key: "batcher" } },
    };
    options.series[0].label = "Time";
    this.plot = new uPlot(options, [[], ...lines.map(() => [])], this.holder);
    new ResizeObserver(() => this.plot.setSize({ width: this.width(), height: HEIGHT })).observe(this.holder);
  }

  width() {
    return Math.max(200, this.holder.clientWidth || 400);
  }

  show(samples, now) {
    const times = samples.map((one) => one.at);
    const columns = samples.map(this.read);
    const lines = this.plot.series.slice(1).map((_, at) => columns.map((values) => values?.[at] ?? null));
    const span = Math.min(SPAN, Math.max(LEAST, now - (times[0] ?? now)));
    this.plot.batch(() => {
      this.plot.setData([times, ...lines], false);
      this.plot.setScale("x", { min: now - span, max: now });
    });
    if (this.plot.cursor.idx === null || this.plot.cursor.left < 0) this.plot.setLegend({ idx: times.length - 1 });
  }

  redraw() {
    this.plot.redraw(false);
  }
}

function clockOf(at) {
  return new Date(at * 1000).toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
}

// The plots of a batcher with these limits. Its samples, with names, come to `show`.
export class Plots {
  constructor(place, limits) {
    place.replaceChildren();
    this.shape = JSON.stringify(limits.map(unit));
    this.plots = limits.map((limit, at) => this.capacity(place, limit, at));
    this.plots.push(
      new Plot(place, "Waiting operations", [area("waiting", "waiting")], (one) => [one.waiting]),
      new Plot(place, "Operations per batch, mean of each second", [
        line("operations", "batch", { width: 0, points: { show: true, size: 5, fill: () => colour("--plot-batch") } }),
      ], (one) => [one.size]),
    );
    place.dataset.count = this.plots.length;
    new MutationObserver(() => this.plots.forEach((plot) => plot.redraw()))
      .observe(document.documentElement, { attributes: true, attributeFilter: ["data-bs-theme"] });
  }

  capacity(place, limit, at) {
    const lines = [
      area("held", "held"),
      line("usable", "usable", { width: 1, dash: [3, 3] }),
      line("limit", "limit", { dash: [8, 4] }),
    ];
    const first = at === 0;  // what was spent is counted in the first dimension
    if (first) lines.push(line("released", "spent"));
    const title = `Capacity, ${unit(limit)}`;
    return new Plot(place, title, lines, (one) => {
      const [capacity, usable, heldNow] = one.limits[at] ?? [null, null, null];
      const spent = one.spent === null ? null : one.spent * limit.window;
      return [heldNow, usable, capacity, spent];
    });
  }

  fits(limits) {
    return this.shape === JSON.stringify(limits.map(unit));
  }

  show(samples, now) {
    this.plots.forEach((plot) => plot.show(samples, now));
  }
}
