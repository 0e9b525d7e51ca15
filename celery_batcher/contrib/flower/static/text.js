// How values read, and elements made of them: whatever a text holds, it stays a text.

export function element(tag, properties, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties ?? {})) {
    if (name in made) made[name] = value;
    else made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined && child !== ""));
  return made;
}

export function muted(text) {
  return element("span", { className: "muted" }, text);
}

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const short = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });

// 12,345, and 12.3M from ten millions on.
export function number(value) {
  if (value === null || value === undefined) return "—";
  return Math.abs(value) < 1e7 ? whole.format(value) : short.format(value);
}

export function brief(value) {
  return Math.abs(value) < 1000 && !Number.isInteger(value) ? value.toPrecision(2) : short.format(value);
}

// 40 ms, 1.2 s, 45 s, 3 min 5 s, 2 h 10 min, 3 d 4 h.
export function seconds(value) {
  if (value === null || value === undefined) return "—";
  if (value < 0.0005) return "0 s";
  if (value < 0.9995) return `${Math.round(value * 1000)} ms`;
  if (value < 9.95) return `${value.toFixed(1)} s`;
  const all = Math.round(value);
  if (all < 60) return `${all} s`;
  if (all < 3600) return `${Math.floor(all / 60)} min ${all % 60} s`;
  const minutes = Math.floor(all / 60);
  if (minutes < 1440) return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
  const hours = Math.floor(minutes / 60);
  return `${Math.floor(hours / 24)} d ${hours % 24} h`;
}

// A time on the server's clock, as far back as `now` on the same.
export function ago(time, now) {
  const past = Math.floor(now - time);
  if (past < 1) return "now";
  return past < 10 ? `${past} s ago` : `${seconds(past)} ago`;
}

export function plural(count, one) {
  const ending = /(ch|s)$/.test(one) ? "es" : "s";
  return `${number(count)} ${one}${count === 1 ? "" : ending}`;
}

export function clock(time) {
  return new Date(time * 1000).toLocaleTimeString("en-GB");
}

export function phase(status) {
  const text = status.phase === "paused"
    ? status.paused_for === null ? "paused until resumed" : `paused for ${seconds(status.paused_for)}`
    : status.phase;
  const kind = { paused: "warning", draining: "warning", flushing: "success", idle: "secondary" }[status.phase];
  const title = {
    paused: "No batch is released or started",
    draining: "No operation is taken; what there is, is finished",
    flushing: "A process has the turn and flushes",
    idle: "Nobody has the turn: nobody flushes now",
  }[status.phase];
  return element("span", { className: `badge text-bg-${kind}`, title }, text);
}

const ends = {
  empty: "nothing waits",
  capacity: "capacity is used up",
  credit: "its share is used up, others wait, too",
  open: "too many batches are not claimed",
  concurrency: "enough batches run",
  paused: "paused",
  closed: "the resource is closed after a 429",
  guard: "the store was restarted",
  lost: "another process had the turn",
};

export function whyItEnded(reason) {
  return ends[reason] ?? reason;
}

// A bar of what is held of a limit, with the part of the limit that may not be used now.
export function bar(limit) {
  const part = limit.capacity ? Math.min(1, limit.held / limit.capacity) : limit.held ? 1 : 0;
  const kept = limit.capacity ? Math.max(0, 1 - limit.usable / limit.capacity) : 0;
  const made = element("div", { className: "capacity-bar", role: "img" },
    element("div", { className: "capacity-held" }), element("div", { className: "capacity-kept" }));
  made.setAttribute("aria-label", `${Math.round(part * 100)} % held`);
  made.children[0].style.width = `${part * 100}%`;
  made.children[1].style.width = `${kept * 100}%`;
  made.classList.toggle("capacity-full", part >= 0.9);
  return made;
}

// What a limit counts, and over how long: "tokens per minute".
export function unit(limit) {
  const per = { 1: "per second", 60: "per minute", 3600: "per hour", 86400: "per day" }[limit.window];
  return `${limit.dimension ? `${limit.dimension} ` : ""}${per ?? `per ${seconds(limit.window)}`}`;
}

export function held(limit) {
  const less = limit.usable < limit.capacity ? `, ${number(limit.usable)} usable now` : "";
  const debt = limit.debt ? `, debt ${number(limit.debt)}` : "";
  return `${number(limit.held)} of ${number(limit.capacity)} ${unit(limit)}${less}${debt}`;
}

// Make the children of `place` like `fresh`, and touch only what differs: what is selected, focused,
// open or being clicked stays. Those with a `data-key` stay themselves wherever they come to be.
export function become(place, ...fresh) {
  const old = [...place.childNodes];
  const keyed = new Map(old.filter(keyOf).map((one) => [keyOf(one), one]));
  const kept = fresh.map((one, at) => {
    const made = typeof one === "string" ? document.createTextNode(one) : one;
    const before = keyOf(made) ? keyed.get(keyOf(made)) : old[at];
    return before && keyOf(before) === keyOf(made) ? altered(before, made) : made;
  });
  old.filter((one) => !kept.includes(one)).forEach((one) => one.remove());
  kept.forEach((one, at) => {
    if (place.childNodes[at] !== one) place.insertBefore(one, place.childNodes[at] ?? null);
  });
}

function keyOf(node) {
  return node.dataset?.key;
}

function altered(old, fresh) {
  if (old.nodeName !== fresh.nodeName) return fresh;
  if (old.isEqualNode(fresh)) return old;
  if (old.nodeType === Node.TEXT_NODE) {
    old.data = fresh.data;
    return old;
  }
  for (const { name } of [...old.attributes]) {
    if (!fresh.hasAttribute(name) && name !== "open") old.removeAttribute(name);
  }
  for (const { name, value } of fresh.attributes) {
    if (name === "style") old.style.cssText = fresh.style.cssText;
    else if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
  become(old, ...fresh.childNodes);
  return old;
}

// The element, known again by its key.
export function keyed(key, made) {
  made.dataset.key = key;
  return made;
}
