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

/** Replaces what a node contains. What has the focus, is unfolded, was typed or scrolled goes over to the new element
 *  with the same `data-keep`, so that what moves by itself takes nothing out of the reader's hands. When what has the
 *  focus leaves, the focus goes to what is in its place. */
export function redraw(node, ...children) {
  const kept = () => [...node.querySelectorAll("[data-keep]")];
  const before = kept();
  const place = before.indexOf(document.activeElement);
  const states = new Map(
    before.map((each) => [each.dataset.keep, { open: each.open, value: each.value, scrolled: each.scrollLeft }]),
  );
  node.replaceChildren(...children);
  const after = kept();
  for (const each of after) {
    const old = states.get(each.dataset.keep);
    if (old && each.matches("details")) each.open = old.open;
    if (old && each.matches("input")) each.value = old.value;
    if (old?.scrolled) each.scrollLeft = old.scrolled;
  }
  if (place < 0) return;
  const focused =
    after.find((each) => each.dataset.keep === before[place].dataset.keep) ??
    after.at(Math.min(place, after.length - 1));
  focused?.focus({ preventScroll: true });
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
  if (signal?.aborted) return Promise.resolve();
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

/** Makes signals of which each ends with the next one, and all with `signal`: who asks anew does not wait for what was
 *  asked before. */
export function successive(signal) {
  let last = new AbortController();
  signal.addEventListener("abort", () => last.abort());
  return () => {
    last.abort();
    last = new AbortController();
    if (signal.aborted) last.abort();
    return last.signal;
  };
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
