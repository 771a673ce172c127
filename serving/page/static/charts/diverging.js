// Values from -1 to 1 as colours: from one hue over the page's own ground to another.

import { colour } from "../dom.js";

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
