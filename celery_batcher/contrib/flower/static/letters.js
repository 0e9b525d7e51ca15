// Dead letters: read when their number changes, each with its reason and payload, as texts.

import { act } from "./actions.js";
import { ask } from "./live.js";
import { ago, become, element, keyed, muted, number, plural } from "./text.js";

const AGAIN = 5000;

export class DeadLetters {
  constructor(place, page) {
    this.place = place;
    this.page = page;
    this.shown = -1;
    this.asked = 0;
    this.loading = false;
    become(place, element("p", { className: "empty-table-message mb-0" }, "None."));
  }

  // Read them again when there are more or fewer of them.
  follow(count) {
    const again = count > 0 && Date.now() - this.asked > AGAIN;
    if (!this.loading && (count !== this.shown || again)) this.load(count);
  }

  async load(count = this.shown) {
    this.asked = Date.now();
    this.loading = true;
    try {
      const { watchers } = await ask(this.page.dead);
      this.show(watchers, count);
      this.shown = count;
    } catch {
      this.shown = -1;  // the figures say that the store is silent
    } finally {
      this.loading = false;
    }
  }

  show(watchers, count) {
    const read = watchers.reduce((sum, one) => sum + one.letters.length, 0);
    const more = count > read ? [muted(`Shown are the oldest ${number(read)} of ${number(count)}.`)] : [];
    const none = element("p", { className: "empty-table-message mb-0" },
      count ? "None of watchers that Flower's process knows." : "None.");
    const parts = watchers.map((one) => this.watcher(one));
    become(this.place, ...(parts.length ? [...parts, ...more] : [none]));
  }

  watcher({ watcher, letters }) {
    return keyed(watcher, element("div", { className: "letters" },
      element("div", { className: "letters-head" }, element("h3", {}, watcher),
        this.button("Redrive all", "redrive", { watcher, all: 1 }, "Enqueue all of them again, as new operations"),
        this.button("Purge all", "purge", { watcher, all: 1 }, "Remove all of them for good",
          `Remove all dead letters of ${watcher} for good?`)),
      ...letters.map((one) => keyed(`${one.id} ${one.died_at}`, this.letter(watcher, one)))));
  }

  letter(watcher, one) {
    const last = one.reason.trim().split("\n").pop();
    const facts = [`cost ${number(one.cost)}`, plural(one.attempts, "attempt"), one.priority];
    if (one.key !== null) facts.push(`key ${one.key}`);
    return element("details", { className: "letter" },
      element("summary", {},
        element("code", {}, one.id), element("span", { className: "letter-reason" }, last || "no reason"),
        muted(`died ${ago(Date.parse(one.died_at) / 1000, Date.now() / 1000)}`)),
      element("p", { className: "muted mb-1" }, facts.join(", ")),
      element("h4", {}, "Reason"), element("pre", {}, one.reason),
      element("h4", {}, "Payload"), element("pre", {}, one.payload),
      this.button("Redrive", "redrive", { watcher, id: one.id }, "Enqueue it again, as a new operation"),
      this.button("Purge", "purge", { watcher, id: one.id }, "Remove it for good", `Remove ${one.id} for good?`));
  }

  button(text, action, values, title, question = "") {
    const made = element("button", {
      type: "button", className: `btn btn-sm btn-outline-${action === "purge" ? "danger" : "primary"}`,
      title: this.page.refused || title, disabled: Boolean(this.page.refused),
    }, text);
    Object.assign(made.dataset, { act: action, question, values: JSON.stringify(values) });
    return made;
  }

  listen() {
    this.place.addEventListener("click", async (event) => {
      const { act: action, question, values } = event.target.dataset;
      if (!action || (question && !window.confirm(question))) return;
      await act(this.page, action, JSON.parse(values));
      await this.load();
    });
    return this;
  }
}
