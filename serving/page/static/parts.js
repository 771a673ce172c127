// What several views are made of: headings, legends, and the states in which there is nothing else to show.

import { passes } from "./api.js";
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

/** What an error means for the reader, and what to do. Who asked is to ask again after an error that `passes`. */
export function failure(error) {
  const again = passes(error) && el("p", { text: "The page tries again by itself." });
  if (error.status === 401)
    return state("error", "This server asks for an API key", error.message, keyButton("Enter a key"));
  if (error.status === 403)
    return state("error", "This key may not see that", error.message, keyButton("Use another key"));
  if (error.status === 404) return state("empty", "There is no such thing", error.message);
  if (error.status === 503) return state("error", "The server is busy", error.message, again);
  if (error.status === 0) return state("error", "Disconnected", error.message, again);
  if (error.status === undefined) {
    console.error(error);
    return state("error", "This cannot be shown", `The page does not understand the answer (${error.message}).`);
  }
  return state("error", "The server could not answer", error.message, again);
}

/** Shows in a node what an error means. What is shown already stays, so that nobody is told twice. */
export function showFailure(node, error) {
  const shown = failure(error);
  if (node.textContent !== shown.textContent) node.replaceChildren(shown);
}

/** In place of a view of a newer page than this one, whose files do not fit together. */
export const outdated = () =>
  state(
    "error",
    "This page is older than its server",
    "The server was exchanged while this page was open.",
    el("button", { type: "button", class: "primary", text: "Load it anew", on: { click: () => location.reload() } }),
  );

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

/** A table. columns: names, or {name, right: aligned right, spare: left out where there is little room}; rows: lists of
 *  texts or nodes. */
export function table(caption, columns, rows) {
  const heads = columns.map((each) => (typeof each === "string" ? { name: each } : each));
  const classes = heads.map(
    ({ right, spare }) => [right && "right", spare && "spare"].filter(Boolean).join(" ") || null,
  );
  const fits = heads.some((each) => each.spare);
  return el(
    "div",
    { class: "scroll", tabindex: "0", role: "region", "aria-label": caption, "data-keep": caption },
    el(
      "table",
      { class: fits ? "fits" : null },
      el("caption", { class: "hidden", text: caption }),
      el(
        "thead",
        {},
        el(
          "tr",
          {},
          heads.map(({ name }, i) => el("th", { scope: "col", class: classes[i], text: name })),
        ),
      ),
      el(
        "tbody",
        {},
        rows.map((row) =>
          el(
            "tr",
            {},
            row.map((value, i) => el("td", { class: classes[i] }, value ?? "–")),
          ),
        ),
      ),
    ),
  );
}
