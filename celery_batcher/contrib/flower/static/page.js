// The page of one batcher.

import { prepareActions } from "./actions.js";
import { DeadLetters } from "./letters.js";
import { ask, follow, say, silence, trouble } from "./live.js";
import { Plots } from "./plots.js";
import { batchRow, cards, emptyRow, watcherRow } from "./parts.js";
import { become, keyed, phase } from "./text.js";

const page = document.getElementById("batcher");
const HISTORY = 600;
const WHY_EVERY = 3000;
const place = (id) => document.getElementById(id);

let samples = [];
let plots = null;
let why = { watchers: [], eta: 0 };
let asked = 0;
const dead = new DeadLetters(place("dead"), page.dataset).listen();
prepareActions(page);

function address() {
  const last = samples.length ? samples[samples.length - 1].at : 0;
  return `${page.dataset.source}?after=${last}`;
}

function remember(fresh) {
  const named = fresh.map(([at, waiting, limits, spent, size]) => ({ at, waiting, limits, spent, size }));
  const last = samples.length ? samples[samples.length - 1].at : 0;
  samples = [...samples, ...named.filter((one) => one.at > last)].slice(-HISTORY);
}

async function askWhy() {
  if (Date.now() - asked < WHY_EVERY) return;
  asked = Date.now();
  try {
    why = await ask(page.dataset.why);
  } catch {
    why = { watchers: [], eta: null };  // the figures say that the store is silent
  }
}

function buttons(status) {
  if (page.dataset.refused) return;
  const stopped = status.phase === "paused" || status.phase === "draining";
  page.querySelector("[data-action=resume]").hidden = !stopped;
  page.querySelector("[data-action=pause]").disabled = status.phase === "paused" && status.paused_for === null;
}

follow(address, (data) => {
  const silent = silence(data, page.dataset.name);
  trouble(silent ? [silent] : []);
  say(silent ? "error" : "live", silent ? "No answer" : "Live");
  remember(data.samples);
  const status = data.status;
  if (!status) return;
  page.classList.toggle("stale", Boolean(silent));
  if (!silent) askWhy();
  become(place("phase"), phase(status));
  become(place("cards"), ...cards(status, why, data.at));
  if (!plots?.fits(status.limits)) plots = new Plots(place("plots"), status.limits);
  plots.show(samples, data.at);
  const reasons = Object.fromEntries(why.watchers.map((one) => [one.watcher, one]));
  const meters = Object.fromEntries(data.meters.watchers.map((one) => [one.name, one]));
  const watchers = status.watchers.map(
    (one) => keyed(one.name, watcherRow(one, meters[one.name], reasons[one.name], page.dataset.tasks)),
  );
  become(place("watchers"), ...(watchers.length ? watchers : [emptyRow(10, "Nothing was enqueued yet.")]));
  const batches = data.batches.map((one) => keyed(one.id, batchRow(one, data.at)));
  become(place("batches"), ...(batches.length ? batches : [emptyRow(11, "No batch was released of late.")]));
  buttons(status);
  if (!silent) dead.follow(status.dead);
});
