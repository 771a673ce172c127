// Who is watched: a field for an id, those who are active now, and a version to compare with.

import { get, untilAnswered } from "../api.js";
import { el } from "../dom.js";
import { cellName, moment, plural, shortVersion, shortened } from "../format.js";
import { showFailure } from "../parts.js";

const ACTIVE_MS = 5000,
  MOST_OF_AN_ID = 40;

/** A field for an id, and those who are active now. */
export function personChooser(id, signal) {
  const field = el("input", {
    id: "person",
    type: "search",
    value: id,
    autocomplete: "off",
    spellcheck: "false",
    placeholder: "user id",
  });
  const active = el("p", { class: "people", role: "group", "aria-label": "Active now" });
  const go = (user) => {
    location.hash = `#/person/${encodeURIComponent(user)}`;
  };
  const somebody = el("button", {
    type: "button",
    text: "Somebody active now",
    disabled: true,
    on: {
      click: () => {
        const others = people.filter((each) => each.user_id !== id);
        if (others.length) go(others[Math.floor(Math.random() * Math.min(others.length, 5))].user_id);
      },
    },
  });
  let people = [];
  async function ask() {
    try {
      people = (await get("v1/users/active", { limit: 12 }, signal)).users;
      somebody.disabled = !people.some((each) => each.user_id !== id);
      if (active.contains(document.activeElement) || active.matches(":hover")) return; // somebody is about to choose
      active.replaceChildren(
        ...people.map((each) =>
          el("a", {
            href: `#/person/${encodeURIComponent(each.user_id)}`,
            title: `${plural(each.events, "event")}, the last ${moment(each.last_event)}`,
            "aria-current": each.user_id === id ? "true" : null,
            text: shortened(each.user_id, MOST_OF_AN_ID),
          }),
        ),
      );
    } catch (error) {
      if (!signal.aborted && !people.length && error.status) showFailure(active, error);
    }
  }
  ask();
  const timer = setInterval(ask, ACTIVE_MS);
  signal.addEventListener("abort", () => clearInterval(timer));
  const form = el(
    "form",
    {
      class: "row",
      role: "search",
      on: {
        submit: (event) => {
          event.preventDefault();
          if (field.value.trim()) go(field.value.trim());
        },
      },
    },
    el("label", { for: "person", text: "Person" }),
    field,
    el("button", { class: "primary", text: "Watch" }),
    somebody,
  );
  return el("div", {}, form, active);
}

/** A choice of another loaded version, beside which the person is shown. onChoose(version, or null for none). */
export function versionChooser(other, onChoose, signal) {
  const select = el(
    "select",
    { id: "beside", on: { change: () => onChoose(select.value || null) } },
    el("option", { value: "", text: "nothing" }),
  );
  const node = el("div", { class: "row" }, el("label", { for: "beside", text: "Side by side with" }), select);
  async function offer() {
    const { versions } = await get("v1/versions", {}, signal);
    for (const each of versions.filter((one) => one.loaded || one.id === other))
      select.append(
        el("option", { value: each.id, text: `${shortVersion(each.id)} (${cellName(each.cell ?? "unknown cell")})` }),
      );
    select.value = other ?? "";
  }
  untilAnswered(offer, () => {}, signal);
  return node;
}
