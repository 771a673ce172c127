// A person: their events, their list as it re-orders itself, and their hidden state through time.

import { follow, get, path } from "../api.js";
import { el } from "../dom.js";
import { duration, moment, named, number, plural, shortVersion } from "../format.js";
import { failure, heading, legend, loading, section, state } from "../parts.js";
import { hiddenState } from "./hidden_state.js";
import { learnTitles, PARTS, recommendationList } from "./list.js";

export const title = "A person";

const MOST_EVENTS = 50, ACTIVE_MS = 5000;

export function open(root, { id, query, signal, onState }) {
  root.append(heading("A person", "One hidden state per person moves with each of their events. Watch the state move, and the list follow."));
  root.append(chooser(id, signal));
  if (id) onePerson(root, { id, other: query.get("with"), signal, onState });
  else root.append(el("div", { class: "block" }, state("empty", "Whom do you want to watch?", "Type a user’s id, or pick somebody who is active now.")));
}

/** A field for an id, and those who are active now. */
function chooser(id, signal) {
  const field = el("input", { id: "person", type: "search", value: id, autocomplete: "off", spellcheck: "false", placeholder: "user id" });
  const active = el("p", { class: "people", "aria-label": "Active now" });
  const go = (user) => { location.hash = `#/person/${encodeURIComponent(user)}`; };
  const somebody = el("button", { type: "button", text: "Somebody active now", disabled: true, on: { click: () => { const others = people.filter((each) => each.user_id !== id); if (others.length) go(others[Math.floor(Math.random() * Math.min(others.length, 5))].user_id); } } });
  let people = [];
  async function ask() {
    try {
      people = (await get("v1/users/active", { limit: 12 }, signal)).users;
      somebody.disabled = !people.some((each) => each.user_id !== id);
      if (active.contains(document.activeElement)) return;
      active.replaceChildren(...people.map((each) => el("a", { href: `#/person/${encodeURIComponent(each.user_id)}`, title: `${plural(each.events, "event")}, the last ${moment(each.last_event)}`, "aria-current": each.user_id === id ? "true" : null, text: each.user_id })));
    } catch (error) {
      if (!signal.aborted && !people.length) active.replaceChildren(error.status ? failure(error) : "");
    }
  }
  ask();
  const timer = setInterval(ask, ACTIVE_MS);
  signal.addEventListener("abort", () => clearInterval(timer));
  const form = el("form", { class: "row", role: "search", on: { submit: (event) => { event.preventDefault(); if (field.value.trim()) go(field.value.trim()); } } },
    el("label", { for: "person", text: "Person" }), field, el("button", { class: "primary", text: "Watch" }), somebody);
  return el("div", {}, form, active);
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
  let traceAsked = 0, erased = false, drawn = new AbortController();
  signal.addEventListener("abort", () => drawn.abort());

  const body = el("div", {}, loading(`what is known of ${id}`));
  root.append(el("div", { class: "block" }, body));
  const full = el("div", {},
    el("div", { class: "columns person" },
      el("section", {}, el("h2", { text: "Events" }), events),
      el("section", {}, el("div", { class: "row apart" }, el("h2", { text: "What next" }), place), legend(PARTS.map(([colour, text]) => [colour, text]), "Parts of an item’s likelihood"), list.node, said),
      otherList),
    section("Hidden state", el("div", { class: "row apart" }, legend([["--negative", "negative"], ["--positive", "positive"], ["--blue", "kept at an event"], ["--green", "overwritten"]]), versions), states));

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
    parameters: { k: 10 }, signal,
    onState(name, error) {
      onState(name);
      full.classList.toggle("stale", name === "lost");
      if (name === "refused" || (name === "lost" && !full.isConnected)) body.replaceChildren(failure(error));
    },
    onMessage(event, message) {
      if (event === "erased") {
        erased = true;
        list.clear();
        body.replaceChildren(state("empty", `${id} was erased`, "Nothing of this person is kept any more. If they come back, they are somebody new, and are shown here."));
        return;
      }
      if (event !== "list") return;
      if (erased) { known.length = 0; erased = false; }
      const { answer, events: fresh, row } = message;
      if (!answer.known) return body.replaceChildren(state("empty", `Nothing is known of ${id} yet`, "With their first event a hidden state begins, and it is shown here at once."), popular(answer));
      if (!full.isConnected) body.replaceChildren(full);
      learnTitles(fresh);
      learnTitles(answer.items);
      addEvents(known, fresh);
      showEvents(events, known);
      const moves = list.show(answer.items);
      place.textContent = row ? `${shortVersion(row.version)}, epoch ${row.epoch}, includes ${row.partition}:${row.offset}` : "";
      const up = moves.find((move) => move.from !== null && move.from > move.to);
      if (moves.length) said.textContent = `The list has changed: ${plural(moves.length, "item")} moved.${up ? ` ${named(up.item)} is now number ${up.to + 1}.` : ""}`;
      showTrace();
    },
  });
}

const popular = (answer) => el("ol", { class: "plain" }, answer.items.map((item) => el("li", { text: named(item) })));

/** The same person's list by another version. */
function otherVersionsList(trace) {
  const list = recommendationList({ label: `List by ${trace.version}` });
  list.show(trace.list ?? []);
  return el("section", {}, el("div", { class: "row apart" }, el("h2", { text: `By ${shortVersion(trace.version)}` }), el("p", { class: "small soft", text: "what this version would say now" })), list.node);
}

/** A choice of another loaded version, beside which the person is shown. */
function versionChooser(id, other, signal) {
  const select = el("select", { id: "beside", on: { change: () => { location.hash = `#/person/${encodeURIComponent(id)}${select.value ? `?with=${encodeURIComponent(select.value)}` : ""}`; } } }, el("option", { value: "", text: "nothing" }));
  const node = el("div", { class: "row" }, el("label", { for: "beside", text: "Side by side with" }), select);
  get("v1/versions", {}, signal).then(({ versions }) => {
    for (const each of versions.filter((one) => one.loaded)) select.append(el("option", { value: each.id, text: `${shortVersion(each.id)} (${each.cell ?? "unknown cell"})` }));
    select.value = other ?? "";
  }).catch(() => node.replaceChildren());
  return node;
}

const key = (event) => `${event.timestamp} ${event.offset ?? ""} ${event.item_id}`;

/** Adds events that are not there yet; the list stays bounded and in order of time. */
function addEvents(known, fresh) {
  const there = new Set(known.map(key));
  known.push(...fresh.filter((event) => !there.has(key(event))));
  known.sort((a, b) => a.timestamp - b.timestamp || (a.offset ?? 0) - (b.offset ?? 0));
  known.splice(0, known.length - MOST_EVENTS);
}

function showEvents(node, known) {
  const seen = new Set([...node.children].map((row) => row.dataset.key));
  node.replaceChildren(...known.toReversed().map((event, i, all) => {
    const before = all[i + 1];
    return el("li", { "data-key": key(event), class: seen.size && !seen.has(key(event)) ? "arrived" : null },
      el("span", { class: "number small soft", text: moment(event.timestamp) }),
      el("span", {}, el("a", { href: `#/items/${encodeURIComponent(event.item_id)}`, text: named(event) }),
        el("span", { class: "small soft", text: `${event.event_type ?? ""}${event.value === null || event.value === undefined ? "" : ` ${number(event.value)}`}${before ? `, ${duration(event.timestamp - before.timestamp)} after the one before` : ""}` })));
  }));
}
