// One colour for each version, the same in every view.

const COLOURS = ["--blue", "--orange", "--purple", "--green", "--yellow"];

/** Colours by version: by its number, or the next one that none of these versions has. */
export function versionColours(ids) {
  const colours = new Map();
  for (const id of ids.toSorted()) {
    const first = Math.max(Number(/^v(\d+)/.exec(id)?.[1] ?? 1) - 1, 0);
    const inTurn = COLOURS.map((_, i) => COLOURS[(first + i) % COLOURS.length]);
    const taken = new Set(colours.values());
    colours.set(id, inTurn.find((each) => !taken.has(each)) ?? inTurn[0]);
  }
  return colours;
}
