// The page of all batchers.

import { follow, say, silence, trouble } from "./live.js";
import { ago, bar, become, element, held, keyed, muted, number, phase, plural, seconds, whyItEnded } from "./text.js";

const page = document.getElementById("batchers");
const COLUMNS = 9;

function cell(title, ...content) {
  return element("td", { "data-title": title }, ...content);
}

function figure(title, ...content) {
  return element("td", { className: "num", "data-title": title }, ...content);
}

function inFlight(status) {
  return status.watchers.reduce((sum, one) => sum + one.open_batches + one.running_batches, 0);
}

function capacity(status) {
  if (!status.limits.length) return [muted("no limit")];
  return status.limits.map((limit) => element("div", { className: "capacity" }, bar(limit), held(limit)));
}

function flush(status, now) {
  const last = status.last_flush;
  if (!last) return [muted("none yet")];
  return [
    `${ago(last.at_ms / 1000, now)}, ${plural(last.batches, "batch")}`,
    element("div", { className: "muted" }, `stopped: ${whyItEnded(last.reason)}`),
  ];
}

function row(one, now) {
  const name = element("td", {}, element("a", { href: one.page }, one.name));
  const status = one.status;
  if (!status) {
    const text = one.error ? "no figures yet" : "first figures in a second";
    return element("tr", {}, name, element("td", { colSpan: COLUMNS - 1 }, muted(text)));
  }
  const dead = status.dead ? element("a", { className: "dead", href: `${one.page}#dead-letters` }, number(status.dead)) : "0";
  return element("tr", { className: one.error ? "stale" : "" },
    name,
    cell("State", phase(status)),
    figure("Waiting", number(status.admitted + status.waiting + status.delayed)),
    figure("Cost waiting", number(status.admitted_cost + status.waiting_cost + status.delayed_cost)),
    figure("Oldest", seconds(status.oldest_age)),
    figure("In flight", number(inFlight(status))),
    cell("Capacity held", ...capacity(status)),
    figure("Dead", dead),
    cell("Last flush", ...flush(status, now)));
}

follow(() => page.dataset.source, (data) => {
  const silent = data.batchers.map((one) => silence(one, one.name)).filter(Boolean);
  trouble(silent);
  say(silent.length ? "error" : "live", silent.length ? "No answer" : "Live");
  const rows = data.batchers.map((one) => keyed(one.name, row(one, data.at)));
  const none = element("tr", {}, element("td", { className: "empty-table-message", colSpan: COLUMNS },
    "This app has no batchers in Flower's process. Is the module that makes them among the app's imports?"));
  become(document.getElementById("rows"), ...(rows.length ? rows : [none]));
});
