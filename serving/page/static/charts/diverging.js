// Values from -1 to 1 as colours: from one hue over the page's own ground to another.

import { colour, el, svg } from "../dom.js";

const channels = (hex) => [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));

/** A function from values to CSS colours, in the present colour scheme. */
export function diverging() {
  const [negative, zero, positive] = ["--negative", "--raised", "--positive"].map((name) => channels(colour(name)));
  return (value) => {
    const end = value < 0 ? negative : positive;
    const share = Math.min(Math.abs(value), 1) ** 0.7; // small values are still to be told apart
    return `rgb(${zero.map((from, i) => Math.round(from + (end[i] - from) * share)).join(" ")})`;
  };
}

const STEPS = 41,
  STEP = 3,
  HEIGHT = 10;

/** What the colours stand for: a strip from −`largest` to +`largest`, in the present colour scheme. */
export function colourScale(largest, of) {
  const paint = diverging();
  const value = (i) => (2 * i) / (STEPS - 1) - 1;
  return el(
    "span",
    { class: "scale soft number" },
    el("span", { text: `${of} −${largest}` }),
    svg(
      "svg",
      {
        width: STEPS * STEP,
        height: HEIGHT,
        role: "img",
        "aria-label": "violet, through the ground’s colour at 0, to ochre",
      },
      Array.from({ length: STEPS }, (_, i) =>
        svg("rect", { x: i * STEP, width: STEP, height: HEIGHT, fill: paint(value(i)) }),
      ),
    ),
    el("span", { text: `+${largest}` }),
  );
}
