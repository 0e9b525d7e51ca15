// Buttons: each posts to Flower with the token of the page, and says what came of it.

import { ask } from "./live.js";
import { element } from "./text.js";

function cookie(name) {
  const found = document.cookie.split("; ").find((one) => one.startsWith(`${name}=`));
  return found ? decodeURIComponent(found.slice(name.length + 1)) : "";
}

function toast(text, kind) {
  const made = element("div", { className: `toast show text-bg-${kind} border-0`, role: "status" },
    element("div", { className: "toast-body" }, text));
  document.getElementById("toast-container").append(made);
  setTimeout(() => made.remove(), kind === "danger" ? 10000 : 4000);
}

export async function act(page, action, values = {}) {
  const body = new URLSearchParams();
  for (const [name, value] of Object.entries(values)) {
    for (const one of [value].flat()) body.append(name, one);
  }
  try {
    const { message } = await ask(`${page.actions}${action}/${page.name}`, {
      method: "POST", body, headers: { "X-XSRFToken": cookie("_xsrf") },
    });
    toast(message, "success");
  } catch (error) {
    toast(error.message, "danger");
  }
}

export function prepareActions(page) {
  for (const button of page.querySelectorAll("[data-action]")) {
    button.addEventListener("click", () => act(page.dataset, button.dataset.action));
  }
}
