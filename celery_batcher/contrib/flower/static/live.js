// Asking for figures every second, and saying when they are old.

import { clock, element, seconds } from "./text.js";

const EVERY = 1000;
const SILENT = 4;

export function say(state, text) {
  const live = document.getElementById("live");
  live.children[0].className = `status-dot status-dot-${state}`;
  if (live.children[1].textContent !== text) live.children[1].textContent = text;
}

export async function ask(address, options) {
  const answer = await fetch(address, { credentials: "same-origin", redirect: "manual", ...options });
  if (answer.type === "opaqueredirect" || answer.status === 401) {
    throw new Error("you are logged out: reload the page");
  }
  if (!answer.ok) {
    const plain = (answer.headers.get("Content-Type") ?? "").startsWith("text/plain");
    throw new Error((plain && (await answer.text())) || `status ${answer.status}`);
  }
  return answer.json();
}

// Calls `show` with new figures every second, for as long as the page is looked at.
export function follow(address, show) {
  let timer = 0;
  let asking = false;
  async function step() {
    clearTimeout(timer);
    if (document.hidden || asking) return;
    asking = true;
    try {
      show(await ask(address()));
    } catch (error) {
      say("error", "No answer");
      trouble([`Flower does not answer: ${error.message}. This page goes on by itself when it does.`]);
    }
    asking = false;
    timer = setTimeout(step, EVERY);
  }
  document.addEventListener("visibilitychange", step);
  step();
}

export function trouble(texts) {
  const place = document.getElementById("trouble");
  if (place.dataset.shown === texts.join("\n")) return;
  place.dataset.shown = texts.join("\n");
  place.replaceChildren(
    ...texts.map((text) => element("p", { className: "alert alert-danger" }, text)),
  );
}

// What is wrong with the figures of a batcher; "" when nothing is.
export function silence(known, name) {
  const silent = known.silent_for > SILENT;
  if (!known.error && !silent) return "";
  const since = silent ? ` for ${seconds(known.silent_for)}` : "";
  const why = known.error ? `: ${known.error}` : ".";
  const old = known.answered_at ? ` Figures are those of ${clock(known.answered_at)}.` : "";
  return `The store of ${name} has not answered${since}${why}${old} They go on by themselves when it does.`;
}
