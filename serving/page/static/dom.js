// Elements without markup: every string from outside becomes a text node, so that it can never be more than text.

const SVG = "http://www.w3.org/2000/svg";

/** An HTML element. properties: attributes; `text`, `on` ({event: listener}) and `style` (a map for the CSSOM,
 *  as the content security policy allows no style attributes) are special; null and false leave one out. */
export function el(tag, properties = {}, ...children) {
  return fill(document.createElement(tag), properties, children);
}

/** The same for SVG. */
export function svg(tag, properties = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), properties, children);
}

function fill(node, properties, children) {
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "text") node.textContent = value;
    else if (name === "on")
      for (const [event, listener] of Object.entries(value)) node.addEventListener(event, listener);
    else if (name === "style") for (const [key, part] of Object.entries(value)) node.style.setProperty(key, part);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

/** Sets several attributes of an element. */
export function set(node, attributes) {
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
}

/** Replaces what a node contains. What has the focus, what is unfolded and what was typed goes over to the new element
 *  with the same `data-keep`, so that what moves by itself takes nothing out of the reader's hands. */
export function redraw(node, ...children) {
  const focused = node.contains(document.activeElement) ? document.activeElement.dataset.keep : undefined;
  const before = new Map([...node.querySelectorAll("[data-keep]")].map((each) => [each.dataset.keep, each]));
  node.replaceChildren(...children);
  for (const each of node.querySelectorAll("[data-keep]")) {
    const old = before.get(each.dataset.keep);
    if (old?.matches("details")) each.open = old.open;
    if (old?.matches("input")) each.value = old.value;
    if (each.dataset.keep === focused) each.focus({ preventScroll: true });
  }
}

/** The value of a colour of the page, such as "--blue". */
export const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

const dark = matchMedia("(prefers-color-scheme: dark)");

/** Calls `draw` whenever the colour scheme changes, until the signal. */
export const onScheme = (draw, signal) => dark.addEventListener("change", draw, { signal });

const stillness = matchMedia("(prefers-reduced-motion: reduce)");

/** Whether the reader wants things to stand still. */
export const still = () => stillness.matches;

/** Waits until `ms` have passed, or the signal comes. */
export function pause(ms, signal) {
  return new Promise((resolve) => {
    const end = () => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", end);
      resolve();
    };
    const timer = setTimeout(end, ms);
    signal?.addEventListener("abort", end);
  });
}

/** Calls `work` with what a field holds once nobody has typed for a moment, until the signal. */
export function onTyping(field, work, signal) {
  let timer;
  field.addEventListener(
    "input",
    () => {
      clearTimeout(timer);
      timer = setTimeout(() => work(field.value.trim()), 200);
    },
    { signal },
  );
  signal.addEventListener("abort", () => clearTimeout(timer));
}
