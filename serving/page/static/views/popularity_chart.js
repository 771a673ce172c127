// An item's popularity over the last hour, as the server has looked at it since somebody asked for the item.

import { movingChart } from "../charts/moving_chart.js";
import { el } from "../dom.js";
import { duration, number } from "../format.js";

const HOUR_MS = 3_600_000;

/** `draw(item, half-life in hours)`: an answer of `v1/items/ID`; null: nothing is counted, undefined: not known. */
export function popularityChart() {
  const chart = movingChart({
    title: "Popularity",
    unit: "decayed count of events, by the server’s clock",
    series: [{ name: "popularity", colour: "--blue", alone: true }],
    height: 220,
    mostMs: HOUR_MS,
    everyMs: 15_000,
    write: number,
    read: (point) => [point.count],
  });
  const meaning = el("p", { class: "small soft" });
  return {
    node: el("div", { class: "panel" }, chart.node, meaning),
    draw({ popularity, popularity_over_time: past }, halfLifeHours) {
      chart.draw(past.length ? past : [{ time: Date.now(), count: popularity }]);
      let decay = "";
      if (halfLifeHours === null) decay = "Nothing is counted before there is a version. ";
      else if (halfLifeHours !== undefined)
        decay = `Each event adds 1, and counts half after ${duration(halfLifeHours * HOUR_MS)} of the stream’s time. `;
      meaning.textContent = `${decay}The server looks every 15 seconds at what is popular and at what somebody has asked for; the curve begins there.`;
    },
  };
}
