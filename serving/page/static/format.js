// Numbers, times and names as people read them. The locale is English, as the page's words are.

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const compact = new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 2 });
const plain = new Intl.NumberFormat("en", { maximumFractionDigits: 3 });
const NONE = "–";
const OF = "\u00a0"; // between a number and its unit, so that they stay in one line

/** 12,345 */
export const count = (n) => (n === null || n === undefined ? NONE : whole.format(n));

/** Three digits that matter: 0.0123, 1.23, 12.3, 123. */
export function number(x) {
  if (x === null || x === undefined || !Number.isFinite(x)) return NONE;
  const size = Math.abs(x);
  if (size >= 100 || x === 0) return whole.format(x);
  return x.toFixed(size >= 10 ? 1 : size >= 1 ? 2 : 3);
}

/** 8, 4.5, 1,234.567: a value as it was given. */
export const given = (x) => plain.format(x);

/** .314, as papers write shares below 1. */
export const metric = (x) => (x === null || x === undefined ? NONE : x.toFixed(3).replace(/^(-?)0\./, "$1."));

/** +.011, −.003 */
export const signed = (x, write = metric) =>
  x === null || x === undefined ? NONE : `${x < 0 ? "−" : "+"}${write(Math.abs(x))}`;

/** 12 %, 1.6 % */
export const percent = (share) =>
  share === null || share === undefined
    ? NONE
    : `${(share * 100).toFixed(share < 0.0995 ? 1 : 0).replace(/\.0$/, "")}${OF}%`;

/** 0.4 ms, 250 ms, 2.4 s, 5 min, 3 h, 4 days */
export function duration(ms) {
  if (ms === null || ms === undefined) return NONE;
  for (const [limit, size, unit] of [
    [1000, 1, "ms"],
    [60, 1000, "s"],
    [60, 60_000, "min"],
    [48, 3_600_000, "h"],
  ]) {
    if (ms < limit * size)
      return `${ms / size < 10 ? Number((ms / size).toFixed(1)) : Math.round(ms / size)}${OF}${unit}`;
  }
  return `${count(ms / 86_400_000)}${OF}days`;
}

/** 1.5k, 20M: a count where room is scarce. */
export const shortCount = (n) => compact.format(n).replace("K", "k");

/** 14:03:25, or date and minute where it is not today's; by the reader's clock. */
export function moment(ms) {
  if (ms === null || ms === undefined) return NONE;
  const date = new Date(ms);
  const time = date.toLocaleTimeString("en-GB");
  return date.toDateString() === new Date().toDateString()
    ? time
    : `${date.toLocaleDateString("en-CA")} ${time.slice(0, 5)}`;
}

/** Of a text of any length as much as people take in at a glance. */
export const shortened = (text, most = 100) =>
  text.length > most
    ? `${text
        .slice(0, most - 1)
        .replace(/[\ud800-\udbff]$/, "")
        .trimEnd()}…`
    : text;

/** A name within a sentence: whichever way it is written in, the words around it stay in order. */
export const isolated = (text) => `\u2068${text}\u2069`;

/** An item's title, or its id where it has none; rows know items by hashes, of which some have no name yet. */
export const named = (item) => shortened(item.title || item.item_id || "an unnamed item");

/** The short form of a version's id: v000002. */
export const shortVersion = (id) => (id ?? NONE).split("-")[0];

/** "1 event", "2 events" */
export const plural = (n, word) => `${count(n)} ${word}${n === 1 ? "" : "s"}`;

const CELLS = { rnn: "RNN", lstm: "LSTM", gru: "GRU", mingru: "minGRU", esn: "echo state" };

/** A cell as papers write it. */
export const cellName = (cell) => CELLS[cell] ?? cell;
