// What the page of one batcher is made of: cards, and rows of its tables.

import { ago, bar, element, held, muted, number, plural, seconds, whyItEnded } from "./text.js";

function card(title, value, ...more) {
  return element("div", { className: "metric-card" },
    element("p", { className: "metric-label" }, title),
    element("p", { className: "metric-value" }, value),
    ...more.filter(Boolean).map((one) => element("div", { className: "muted card-more" }, one)));
}

function waiting(status, why) {
  const all = status.admitted + status.waiting + status.delayed;
  const cost = status.admitted_cost + status.waiting_cost + status.delayed_cost;
  const parts = [`cost ${number(cost)}`];
  if (status.admitted) parts.push(`${number(status.admitted)} in lanes`);
  if (status.delayed) parts.push(`${number(status.delayed)} delayed`);
  const done = why.eta ? `all released in about ${seconds(why.eta)}` : "";
  return card("Waiting", number(all), parts.join(", "), all ? done : "");
}

function capacity(status) {
  return status.limits.map((limit) => {
    const part = limit.capacity ? Math.round((100 * limit.held) / limit.capacity) : 0;
    return card("Capacity held", `${part} %`, bar(limit), held(limit));
  });
}

function flush(status, now) {
  const last = status.last_flush;
  if (!last) return card("Last flush", "—", "nobody has flushed it yet");
  const what = last.batches
    ? `${plural(last.batches, "batch")}, ${plural(last.operations, "operation")}`
    : "nothing released";
  return card("Last flush", ago(last.at_ms / 1000, now), what, `stopped: ${whyItEnded(last.reason)}`);
}

function dead(status) {
  const made = card("Dead", number(status.dead), status.dead ? `cost ${number(status.dead_cost)}` : "",
    status.set_aside ? `${plural(status.set_aside, "message")} could not be read` : "");
  made.classList.toggle("metric-card-danger", status.dead + status.set_aside > 0);
  return made;
}

export function cards(status, why, now) {
  const released = status.watchers.reduce((sum, one) => sum + one.open_batches, 0);
  const running = status.watchers.reduce((sum, one) => sum + one.running_batches, 0);
  return [
    waiting(status, why),
    card("Oldest", seconds(status.oldest_age), "next operation of a watcher"),
    card("In flight", number(released + running), `${number(released)} released, ${number(running)} running`,
      plural(status.released + status.running, "operation")),
    ...capacity(status),
    flush(status, now),
    dead(status),
  ];
}

export function emptyRow(columns, text) {
  return element("tr", {}, element("td", { className: "empty-table-message", colSpan: columns }, text));
}

function figure(text) {
  return element("td", { className: "num" }, text);
}

function reason(why) {
  if (!why) return muted("—");
  const [first, ...others] = why.reasons;
  if (!first) return "next in turn";
  return element("span", { title: others.join("\n") }, first);
}

export function watcherRow(one, meters, why, tasks) {
  const settled = meters?.settled ?? {};
  return element("tr", {},
    element("td", {}, element("a", { href: `${tasks}?name=${encodeURIComponent(one.name)}`, title: one.name }, one.name),
      one.on_probe ? element("span", { className: "badge text-bg-warning ms-2", title: "No worker claimed its batches: one operation at a time is tried" }, "on probe") : null),
    figure(number(one.waiting)),
    figure(number(one.waiting_cost)),
    figure(number(one.delayed)),
    figure(seconds(one.next_age)),
    figure(`${number(one.open_batches)} / ${number(one.running_batches)}`),
    figure(number(settled.done)),
    figure(number(settled.retried)),
    figure(number(one.dead)),
    element("td", { className: "reason" }, reason(why)));
}

const kinds = {
  released: "text-bg-secondary",
  running: "task-state-started",  // Flower's own
  settled: "text-bg-success",
  expired: "text-bg-danger",
  abandoned: "text-bg-danger",
  recalled: "text-bg-warning",
};

function between(from, to) {
  return from && to ? seconds((Date.parse(to) - Date.parse(from)) / 1000) : "—";
}

function outcome(one) {
  const parts = ["done", "retried", "halved", "given_back", "dead"].filter((name) => one[name]);
  return parts.map((name) => `${number(one[name])} ${name.replace("_", " ")}`).join(", ") || "—";
}

export function batchRow(one, now) {
  return element("tr", {},
    element("td", {}, element("a", { href: one.page, title: one.id, className: "task-id" }, one.id.slice(0, 8))),
    element("td", {}, one.watcher),
    element("td", {}, element("span", { className: `badge ${kinds[one.state] ?? "text-bg-secondary"}` }, one.state)),
    figure(number(one.operations)),
    figure(number(one.cost)),
    element("td", {}, one.trigger),
    figure(seconds(one.oldest_age)),
    figure(ago(Date.parse(one.released_at) / 1000, now)),
    figure(between(one.released_at, one.started_at)),
    figure(between(one.started_at, one.ended_at)),
    element("td", {}, outcome(one)));
}
