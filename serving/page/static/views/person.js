// A person: their events, their list as it re-orders itself, and their hidden state through time.

import { follow, get, path, untilAnswered } from "../api.js";
import { el, successive } from "../dom.js";
import { isolated, named, plural, shortVersion, shortened } from "../format.js";
import { heading, legend, loading, section, showFailure, state } from "../parts.js";
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
  const name = isolated(shortened(id));
  const events = el("ol", { class: "timeline", "aria-label": `Events of ${name}, the last first` });
  const list = recommendationList({ label: `List of ${name}` });
  const byOther = recommendationList({ label: `List of ${name} by the other version` });
  const otherHeading = el("h2");
  const otherList = el(
    "section",
    {},
    el(
      "div",
      { class: "row apart" },
      otherHeading,
      el("p", { class: "small soft", text: "what this version would say now" }),
    ),
    listKey(),
    byOther.node,
  );
  const place = el("p", { class: "small soft number" });
  const said = el("p", { class: "hidden", "aria-live": "polite" });
  const own = hiddenState(signal),
    beside = hiddenState(signal);
  const problem = el("div");
  const states = el("div", { class: "stack" }, problem);
  const known = [];
  const newTrace = successive(signal);
  const versions = versionChooser(
    other,
    (version) => {
      other = version;
      byOther.clear();
      // The address says what is shown, and the view stays where it is.
      history.replaceState(
        null,
        "",
        `#/person/${encodeURIComponent(id)}${version ? `?with=${encodeURIComponent(version)}` : ""}`,
      );
      showTraces();
    },
    signal,
  );

  const body = el("div", {}, loading(`what is known of ${name}`));
  root.append(el("div", { class: "block" }, body));
  const columns = el(
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
  );
  const full = el(
    "div",
    {},
    columns,
    section(
      "Hidden state",
      el(
        "div",
        { class: "row apart" },
        legend([
          ["--blue", "kept at an event"],
          ["--green", "overwritten"],
        ]),
        versions,
      ),
      states,
    ),
  );

  /** The state by the version of the row, and by another one; what cannot be shown of one leaves the other alone. */
  function showTraces() {
    const wanted = newTrace();
    const ask = (version) => get(path`v1/users/${id}/trace`, { version }, wanted);
    const show = async () => {
      const [first, second] = await Promise.allSettled((other ? [null, other] : [null]).map(ask));
      if (wanted.aborted) return;
      if (first.value) showOwn(first.value);
      if (second?.value) showOther(second.value);
      if (!other || second.reason?.status === 404) for (const node of [otherList, beside.node]) node.remove();
      const failed = [first, second].find((each) => each?.reason);
      if (failed) throw failed.reason;
      problem.replaceChildren();
    };
    untilAnswered(show, (error) => showFailure(problem, error), wanted);
  }

  function showOwn(trace) {
    if (!own.node.isConnected) states.prepend(own.node);
    own.draw(trace);
  }

  function showOther(trace) {
    byOther.show(trace.list ?? []);
    otherHeading.textContent = `By ${shortVersion(trace.version)}`;
    if (!otherList.isConnected) columns.append(otherList);
    if (!beside.node.isConnected) states.insertBefore(beside.node, problem);
    beside.draw(trace);
  }

  /** Nothing of the person is left here either. */
  function forget() {
    newTrace(); // an answer would be about the row that was
    known.length = 0;
    events.replaceChildren();
    list.clear();
    byOther.clear();
    for (const node of [own.node, beside.node, otherList]) node.remove();
  }

  follow(path`v1/users/${id}/live`, {
    parameters: { k: 10 },
    signal,
    onState(now, error) {
      onState(now);
      full.classList.toggle("stale", now === "lost");
      if (now === "refused" || (now === "lost" && !full.isConnected)) showFailure(body, error);
    },
    onMessage(event, message) {
      if (event === "erased") {
        forget();
        body.replaceChildren(
          state(
            "empty",
            `${name} was erased`,
            "Nothing of this person is kept any more. If they come back, they are somebody new, and are shown here.",
          ),
        );
        return;
      }
      if (event !== "list") return;
      const { answer, events: fresh, row } = message;
      if (!answer.known)
        return body.replaceChildren(
          state(
            "empty",
            `Nothing is known of ${name} yet`,
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
        said.textContent = `The list has changed: ${plural(moves.length, "item")} moved.${up ? ` ${isolated(named(up.item))} is now number ${up.to + 1}.` : ""}`;
      showTraces();
    },
  });
}

const popular = (answer) =>
  el(
    "ol",
    { class: "plain" },
    answer.items.map((item) => el("li", { text: named(item) })),
  );
