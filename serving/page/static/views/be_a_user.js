// Be a user: each click is an event on the real path, and the list follows.

import { follow, get, path, post, untilAnswered, untilThere } from "../api.js";
import { el, onTyping, pause, successive } from "../dom.js";
import { cellName, named, plural } from "../format.js";
import { unrolled } from "../network/unrolled.js";
import { failure, heading, loading, section, showFailure, state } from "../parts.js";
import { newEventClock } from "./event_clock.js";
import { newLegs } from "./legs.js";
import { learnTitles, listKey, recommendationList } from "./list.js";
import { stepsOf } from "./network_live.js";

export const title = "Be a user";

const ME = "eddy-be-a-user",
  TILES = 12,
  SHOWN_STEPS = 11,
  SHOWN_UNITS = 12,
  LONG_MS = 2000; // nobody waits so long without wondering

export function open(root, { signal, onState }) {
  const user = me();
  const legs = newLegs();
  const clock = newEventClock();
  const list = recommendationList({ label: "Your list", onPick: click });
  const tiles = el("ul", { class: "tiles", "aria-label": "Items" });
  const tilesState = el("div", {}, loading("items"));
  const field = el("input", { id: "find", type: "search", placeholder: "title or id", autocomplete: "off" });
  const said = el("p", { class: "said small", role: "status" });
  const listState = el("div", {}, loading("your list"));
  const network = el("div", {
    class: "scroll",
    tabindex: "0",
    role: "region",
    "aria-label": "The network, unrolled over your clicks",
  });
  const networkText = el("p", { class: "small soft" });
  const newSearch = successive(signal),
    newTrace = successive(signal);
  let began = false;

  root.append(
    heading(
      "Be a user",
      "Click items. Each click is an event that takes the real way: over HTTP to Kafka, through a worker that moves your hidden state, back on the changelog, and onto this page.",
    ),
    el(
      "div",
      { class: "row" },
      el("span", { class: "soft" }, "You are ", el("a", { href: `#/person/${encodeURIComponent(user)}`, text: user })),
      el("button", {
        type: "button",
        class: "quiet",
        text: "Become somebody new",
        on: {
          click() {
            sessionStorage.removeItem(ME);
            dispatchEvent(new HashChangeEvent("hashchange"));
          },
        },
      }),
    ),
    section("Your hidden state", el("div", { class: "panel" }, network, networkText)),
    el(
      "div",
      { class: "clicked block" },
      el(
        "section",
        {},
        el(
          "div",
          { class: "row apart" },
          el("h2", { text: "Items" }),
          el("span", { class: "row" }, el("label", { for: "find", text: "Find" }), field),
        ),
        tilesState,
        tiles,
      ),
      el("section", {}, el("h2", { text: "What next, for you" }), listKey(), listState, list.node, said),
      el("section", {}, el("h2", { text: "How long that took" }), legs.node),
    ),
  );

  async function click(item) {
    const pressed = performance.now();
    said.textContent = "";
    try {
      const { answer, serverTime } = await post(
        "v1/events",
        { user_id: user, item_id: item.item_id, event_type: "view", event_id: newId(), ...clock.next() },
        signal,
      );
      legs.acknowledged({ pressed, answered: performance.now(), serverTime, ...answer.accepted[0] });
      await pause(LONG_MS, signal);
      if (legs.waits(answer.accepted[0]))
        said.textContent = "Kafka has the click. The list follows once a worker reads it.";
    } catch (error) {
      if (signal.aborted) return;
      said.replaceChildren(
        error.status === 401 || error.status === 403 ? failure(error) : `The click was not taken: ${error.message}`,
      );
    }
  }

  function showItems(text) {
    const wanted = newSearch();
    const search = async () => {
      const { items } = await get("v1/items", { q: text, limit: TILES }, wanted);
      learnTitles(items);
      tilesState.replaceChildren(...(items.length ? [] : [noItems(text)]));
      tiles.replaceChildren(...items.map(tile));
      return items.length || text;
    };
    untilAnswered(
      () => untilThere(search, wanted),
      (error) => showFailure(tilesState, error),
      wanted,
    );
  }

  const tile = (item) =>
    el(
      "li",
      {},
      el(
        "button",
        { type: "button", on: { click: () => click(item) } },
        el("span", { text: named(item) }),
        el("span", { class: "small soft", text: item.category.join(", ") }),
      ),
    );

  function showNetwork(fresh) {
    const wanted = newTrace();
    const look = async () => {
      const steps = stepsOf(user, await get(path`v1/users/${user}/trace`, {}, wanted), SHOWN_STEPS, SHOWN_UNITS);
      network.replaceChildren(
        unrolled({ ...steps, flow: null, length: SHOWN_STEPS, fresh, name: `The live ${cellName(steps.cell)}` }),
      );
      const drawn = (network.scrollWidth * (steps.columns.length + 1.5)) / (SHOWN_STEPS + 1); // up to the newest step
      network.scrollLeft = drawn - network.clientWidth;
      networkText.textContent =
        "The live network, unrolled: each click is its next input, each strip what it makes of you then. Twelve of its units, from those that forget soon (top) to those that remember long; violet is negative, ochre positive. Blue arrows: how much of the state is kept; green: how much is written anew.";
    };
    const onFailure = (error) =>
      error.status === 404 ? network.replaceChildren(untouched()) : showFailure(network, error);
    untilAnswered(look, onFailure, wanted);
  }

  /** Before the first click there is no row, and so no trace to ask for. */
  const untouched = () =>
    state("empty", "Your state is still zero", "Click an item below, and the first step appears here.");

  function forget() {
    newTrace(); // an answer would be about the row that was
    list.clear();
    network.replaceChildren(untouched());
    networkText.textContent = "";
    listState.replaceChildren(
      state("empty", "You were erased", "Nothing of you is kept any more. Whoever clicks now is somebody new."),
    );
  }

  const noItems = (text) =>
    state(
      "empty",
      text ? "No item is called so" : "There are no items yet",
      text ? "Try the beginning of a word of the title." : "They appear with the first events.",
    );

  follow(path`v1/users/${user}/live`, {
    parameters: { k: 10 },
    signal,
    onState(name, error) {
      onState(name);
      if (name === "open") listState.replaceChildren();
      if (name === "refused" || name === "lost") showFailure(listState, error);
    },
    onMessage(event, { answer, events, row, time, received_ms: received }) {
      if (event === "erased") return forget();
      if (event !== "list") return;
      listState.replaceChildren();
      learnTitles(events);
      learnTitles(answer.items);
      clock.set(answer.stream_time, time);
      const moves = list.show(answer.items);
      if (row) requestAnimationFrame(() => legs.listed({ ...row, received, shown: performance.now() }));
      if (moves.length) said.textContent = `${plural(moves.length, "item")} moved.`;
      if (row) showNetwork(began);
      else network.replaceChildren(untouched());
      began = true;
    },
  });
  field.addEventListener("keydown", (event) => {
    if (event.key === "Enter") showItems(field.value.trim());
  });
  onTyping(field, showItems, signal);
  showItems("");
}

/** The id that this tab clicks as. */
function me() {
  const known = sessionStorage.getItem(ME);
  if (known) return known;
  const fresh = `you-${newId().slice(0, 8)}`;
  sessionStorage.setItem(ME, fresh);
  return fresh;
}

/** 16 random bytes in hex; crypto.randomUUID is for secure origins only. */
const newId = () =>
  Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
