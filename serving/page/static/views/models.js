// Models: the versions, what is known of how good they are, who has them, and what was decided and why.

import { get, post } from "../api.js";
import { el, redraw } from "../dom.js";
import { percent, shortVersion } from "../format.js";
import { failure, heading, legend, loading, section, showFailure, state } from "../parts.js";
import { confirmed } from "./confirmation.js";
import { mostPercent, withShare } from "./shares.js";
import { versionColours } from "./version_colours.js";
import { versionRow } from "./version_row.js";

export const title = "Models";

const AGAIN_MS = 3000;
const CANARY_SHARE = 0.1;

export function open(root, { signal }) {
  const body = el("div", {}, loading("versions"));
  const said = el("p", { role: "status", class: "said" });
  root.append(
    heading(
      "Models",
      "Weights are exchanged while the system runs. Each version is immutable; an announcement says which share of the users has which, and a gate decides with its reasons.",
    ),
    said,
    body,
  );
  let shown = null,
    timer = null;

  async function show() {
    clearTimeout(timer);
    try {
      const answer = await get("v1/versions", {}, signal);
      const text = JSON.stringify(answer);
      if (text !== shown) {
        shown = text;
        redraw(body, ...parts(answer, act));
      }
      body.classList.remove("stale");
    } catch (error) {
      if (signal.aborted) return;
      // What is there stays, grey, while the server cannot be reached.
      if (error.status === 0 && shown !== null) body.classList.add("stale");
      else {
        shown = null;
        body.classList.remove("stale");
        showFailure(body, error);
      }
    }
    timer = setTimeout(show, AGAIN_MS);
  }
  signal.addEventListener("abort", () => clearTimeout(timer));

  async function act({ question, detail, action, address, content }) {
    if (!(await confirmed(question, detail, action, signal))) return;
    try {
      const { answer } = await post(address, content, signal);
      said.textContent = `Done: that is epoch ${answer.epoch}. Workers move the rows in the background.`;
      show();
    } catch (error) {
      if (!signal.aborted)
        said.replaceChildren(
          error.status === 401 || error.status === 403 ? failure(error) : `There was a problem: ${error.message}`,
        );
    }
  }
  show();
}

function parts({ epoch, shares, versions, problems = [] }, act) {
  const unreadable = problems.map((text) => el("p", { class: "problem", text }));
  if (!versions.length)
    return [
      ...unreadable,
      state("empty", "There is no version yet", "Train one with: eddy train --events FILE --announce"),
    ];
  const live = Object.entries(shares).toSorted();
  const colours = versionColours(Object.keys(shares));
  const reach =
    Math.max(
      0.005,
      ...versions
        .flatMap((each) => [each.decision?.interval, each.difference_to_first?.interval])
        .filter(Boolean)
        .flat()
        .map(Math.abs),
    ) * 1.1;
  return [
    section(
      `Who has which version (epoch ${epoch ?? "–"})`,
      live.length
        ? el(
            "div",
            {},
            el(
              "div",
              {
                class: "share-bar",
                role: "img",
                "aria-label": live.map(([id, share]) => `${id}: ${percent(share)}`).join(", "),
              },
              live.map(([id, share]) =>
                el("i", { style: { width: `${share * 100}%`, background: `var(${colours.get(id)})` } }),
              ),
            ),
            legend(
              live.map(([id, share]) => [colours.get(id), `${shortVersion(id)} ${percent(share)}`]),
              "Shares of users",
            ),
            el(
              "div",
              { class: "row block-small" },
              versions.length > 1 &&
                el("button", {
                  type: "button",
                  "data-keep": "take back",
                  text: "Take back the last announcement …",
                  on: { click: () => act(takeBack()) },
                }),
            ),
          )
        : state("empty", "No version is live", "Promote one below."),
    ),
    section(
      "Versions",
      versions.length === 1 &&
        el("p", {
          class: "lead",
          text: "Another one comes with eddy refresh or eddy train, and can be tried on a share of the users here.",
        }),
      unreadable,
      el(
        "ul",
        { class: "versions" },
        versions.map((version) =>
          versionRow(version, { reach, colour: colours.get(version.id), actions: actions(version.id, shares, act) }),
        ),
      ),
    ),
  ];
}

/** What can be done with a version that not all users have. */
function actions(id, shares, act) {
  if (shares[id] === 1) return [];
  return [
    el("button", {
      type: "button",
      "data-keep": `promote ${id}`,
      text: "Promote …",
      on: { click: () => act(promotion(id)) },
    }),
    Object.keys(shares).length ? shareForm(id, shares, act) : null,
  ];
}

/** A field for the share of the users that is to have a version; the browser refuses what is no whole percent. */
function shareForm(id, shares, act) {
  const field = el("input", {
    type: "number",
    id: `share-${id}`,
    "data-keep": `share ${id}`,
    min: "1",
    max: String(mostPercent(id, shares)),
    step: "1",
    required: true,
    value: String(Math.round((shares[id] ?? CANARY_SHARE) * 100)),
  });
  return el(
    "form",
    {
      class: "row share",
      on: {
        submit(event) {
          event.preventDefault();
          act(giving(id, withShare(id, field.valueAsNumber, shares)));
        },
      },
    },
    el(
      "label",
      { class: "soft", for: field.id },
      "Share of the users",
      el("span", { class: "hidden", text: ` for ${shortVersion(id)}, in percent` }),
    ),
    field,
    el("span", { class: "soft", "aria-hidden": "true", text: "%" }),
    el("button", { "data-keep": `give ${id}`, text: "Give it …" }),
  );
}

const promotion = (id) => ({
  question: `Promote ${shortVersion(id)}?`,
  detail: `All users get ${id}. Workers move their rows in the background; answers do not stop.`,
  action: "Promote it",
  address: "v1/versions/announce",
  content: { shares: { [id]: 100 } },
});

const takeBack = () => ({
  question: "Take back the last announcement?",
  detail: "All users get the version that all had before. This is one more announcement, and can itself be taken back.",
  action: "Take it back",
  address: "v1/versions/rollback",
  content: {},
});

const giving = (id, percents) => ({
  question: `Give ${shortVersion(id)} to ${percent(percents[id] / 100)} of the users?`,
  detail: Object.entries(percents)
    .map(([each, value]) => `${each}: ${percent(value / 100)}`)
    .join("\n"),
  action: "Give it",
  address: "v1/versions/announce",
  content: { shares: percents },
});
