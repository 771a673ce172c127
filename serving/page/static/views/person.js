// A person: their events, their list as it re-orders itself, and their hidden state through time.

import { follow, get, path } from "../api.js";
import { el } from "../dom.js";
import { named, plural, shortVersion } from "../format.js";
import { failure, heading, legend, loading, section, state } from "../parts.js";
import { personChooser, versionChooser } from "./choose_person.js";
import { hiddenState } from "./hidden_state.js";
import { learnTitles, listKey, recommendationList } from "./list.js";
import { addEvents, showEvents } from "./timeline.js";

export const title = "A person";

export function open(root, { id, query, signal, onState }) {
  root.append(
    heading(
      "A person",
      "One hidden state per person moves with each of their events. Watch the state move, and the list follow.",
    ),
  );
  root.append(personChooser(id, signal));
  if (id) onePerson(root, { id, other: query.get("with"), signal, onState });
  else
    root.append(
      el(
        "div",
        { class: "block" },
        state("empty", "Whom do you want to watch?", "Type a user’s id, or pick somebody who is active now."),
      ),
    );
}

function onePerson(root, { id, other, signal, onState }) {
  const events = el("ol", { class: "timeline", "aria-label": `Events of ${id}, the last first` });
  const list = recommendationList({ label: `List of ${id}` });
  const otherList = el("div");
  const place = el("p", { class: "small soft number" });
  const said = el("p", { class: "hidden", "aria-live": "polite" });
  const states = el("div", { class: "stack" });
  const versions = versionChooser(id, other, signal);
  const known = [];
  let traceAsked = 0,
    erased = false,
    drawn = new AbortController();
  signal.addEventListener("abort", () => drawn.abort());

  const body = el("div", {}, loading(`what is known of ${id}`));
  root.append(el("div", { class: "block" }, body));
  const full = el(
    "div",
    {},
    el(
      "div",
      { class: "columns person" },
      el("section", {}, el("h2", { text: "Events" }), events),
      el(
        "section",
        {},
        el("div", { class: "row apart" }, el("h2", { text: "What next" }), place),
        listKey(),
        list.node,
        said,
      ),
      otherList,
    ),
    section(
      "Hidden state",
      el(
        "div",
        { class: "row apart" },
        legend([
          ["--negative", "negative"],
          ["--positive", "positive"],
          ["--blue", "kept at an event"],
          ["--green", "overwritten"],
        ]),
        versions,
      ),
      states,
    ),
  );

  async function showTrace() {
    const mine = ++traceAsked;
    try {
      const wanted = other ? [null, other] : [null];
      const traces = await Promise.all(wanted.map((version) => get(path`v1/users/${id}/trace`, { version }, signal)));
      if (mine !== traceAsked) return;
      drawn.abort(); // what the figures before listened to
      drawn = new AbortController();
      states.replaceChildren(...traces.map((trace) => hiddenState(trace, drawn.signal)));
      otherList.replaceChildren(...(other ? [otherVersionsList(traces[1])] : []));
    } catch (error) {
      if (!signal.aborted && mine === traceAsked) states.replaceChildren(failure(error));
    }
  }

  follow(path`v1/users/${id}/live`, {
    parameters: { k: 10 },
    signal,
    onState(name, error) {
      onState(name);
      full.classList.toggle("stale", name === "lost");
      if (name === "refused" || (name === "lost" && !full.isConnected)) body.replaceChildren(failure(error));
    },
    onMessage(event, message) {
      if (event === "erased") {
        erased = true;
        list.clear();
        body.replaceChildren(
          state(
            "empty",
            `${id} was erased`,
            "Nothing of this person is kept any more. If they come back, they are somebody new, and are shown here.",
          ),
        );
        return;
      }
      if (event !== "list") return;
      if (erased) {
        known.length = 0;
        erased = false;
      }
      const { answer, events: fresh, row } = message;
      if (!answer.known)
        return body.replaceChildren(
          state(
            "empty",
            `Nothing is known of ${id} yet`,
            "With their first event a hidden state begins, and it is shown here at once.",
          ),
          popular(answer),
        );
      if (!full.isConnected) body.replaceChildren(full);
      learnTitles(fresh);
      learnTitles(answer.items);
      addEvents(known, fresh);
      showEvents(events, known);
      const moves = list.show(answer.items);
      place.textContent = row
        ? `${shortVersion(row.version)}, epoch ${row.epoch}, includes ${row.partition}:${row.offset}`
        : "";
      const up = moves.find((move) => move.from !== null && move.from > move.to);
      if (moves.length)
        said.textContent = `The list has changed: ${plural(moves.length, "item")} moved.${up ? ` ${named(up.item)} is now number ${up.to + 1}.` : ""}`;
      showTrace();
    },
  });
}

const popular = (answer) =>
  el(
    "ol",
    { class: "plain" },
    answer.items.map((item) => el("li", { text: named(item) })),
  );

/** The same person's list by another version. */
function otherVersionsList(trace) {
  const list = recommendationList({ label: `List by ${trace.version}` });
  list.show(trace.list ?? []);
  return el(
    "section",
    {},
    el(
      "div",
      { class: "row apart" },
      el("h2", { text: `By ${shortVersion(trace.version)}` }),
      el("p", { class: "small soft", text: "what this version would say now" }),
    ),
    list.node,
  );
}
