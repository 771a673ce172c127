// What several views are made of: headings, legends, and the states in which there is nothing else to show.

import { el } from "./dom.js";

/** The heading of a view, which gets the focus when the view is opened. */
export const heading = (title, lead) =>
  el(
    "header",
    { class: "head" },
    el("h1", { text: title, tabindex: "-1" }),
    lead && el("p", { class: "lead", text: lead }),
  );

/** A titled part of a view. */
export const section = (title, ...children) => el("section", {}, title && el("h2", { text: title }), ...children);

/** A state in place of content. kind: loading, empty or error. */
export const state = (kind, title, text, ...more) =>
  el(
    "div",
    { class: "state", "data-kind": kind, role: kind === "error" ? "alert" : null },
    el("strong", { text: title }),
    text && el("p", { text }),
    ...more,
  );

export const loading = (what) => state("loading", `Loading ${what} …`);

/** What an error means for the reader, and what to do. */
export function failure(error) {
  if (error.status === 401)
    return state("error", "This server asks for an API key", error.message, keyButton("Enter a key"));
  if (error.status === 403)
    return state("error", "This key may not see that", error.message, keyButton("Use another key"));
  if (error.status === 404) return state("empty", "There is no such thing", error.message);
  if (error.status === 503) return state("error", "The server is busy", error.message);
  if (error.status === 0) return state("error", "Disconnected", `${error.message} The page tries again by itself.`);
  if (error.status === undefined) {
    console.error(error);
    return state("error", "This cannot be shown", `The page does not understand the answer (${error.message}).`);
  }
  return state("error", "The server could not answer", error.message);
}

const keyButton = (text) =>
  el("button", { type: "button", text, on: { click: () => document.getElementById("key").click() } });

/** Keys of colours. entries: [[colour name, text], …] */
export const legend = (entries, label = "Colours") =>
  el(
    "ul",
    { class: "legend", "aria-label": label },
    entries.map(([name, text, dashed]) =>
      el("li", {}, el("span", { class: dashed ? "swatch dashed" : "swatch", style: { "--c": `var(${name})` } }), text),
    ),
  );

/** A table. head: texts, of which those that begin with ">" are aligned right; rows: lists of texts or nodes. */
export function table(caption, head, rows) {
  const right = head.map((text) => text.startsWith(">"));
  const cell = (value, i) => el("td", { class: right[i] ? "right" : null }, value ?? "–");
  return el(
    "div",
    { class: "scroll", tabindex: "0", role: "region", "aria-label": caption },
    el(
      "table",
      {},
      el("caption", { class: "hidden", text: caption }),
      el(
        "thead",
        {},
        el(
          "tr",
          {},
          head.map((text, i) =>
            el("th", { scope: "col", class: right[i] ? "right" : null, text: text.replace(/^>/, "") }),
          ),
        ),
      ),
      el(
        "tbody",
        {},
        rows.map((row) => el("tr", {}, row.map(cell))),
      ),
    ),
  );
}
