// Models: the versions, what is known of how good they are, who has them, and what was decided and why.

import { get, post } from "../api.js";
import { el } from "../dom.js";
import { percent, shortVersion } from "../format.js";
import { failure, heading, legend, loading, section, state } from "../parts.js";
import { confirmed } from "./confirmation.js";
import { versionRow } from "./version_row.js";

export const title = "Models";

const AGAIN_MS = 3000;
const CANARY_PERCENT = 10;
const COLOURS = ["--blue", "--orange", "--purple", "--green", "--yellow"];

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
        body.replaceChildren(...parts(answer, act));
      }
      body.classList.remove("stale");
    } catch (error) {
      if (signal.aborted) return;
      // What is there stays, grey, while the server cannot be reached.
      if (error.status === 0 && shown !== null) body.classList.add("stale");
      else {
        shown = null;
        body.classList.remove("stale");
        body.replaceChildren(failure(error));
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
          error.status === 401 || error.status === 403 ? failure(error) : `That was refused: ${error.message}`,
        );
    }
  }
  show();
}

function parts({ epoch, shares, versions }, act) {
  if (!versions.length)
    return [state("empty", "There is no version yet", "Train one with: eddy train --events FILE --announce")];
  const live = Object.entries(shares).sort(); // by id, as colours are given on the view Now, too
  const colours = new Map(live.map(([id], i) => [id, COLOURS[i % COLOURS.length]]));
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
                  text: "Take back the last announcement …",
                  on: { click: () => act(takeBack()) },
                }),
            ),
          )
        : state("empty", "No version is live", "Promote one below."),
    ),
    section(
      "Versions",
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

/** Buttons for what can be done with a version that not all users have. */
function actions(id, shares, act) {
  if (shares[id] === 1) return [];
  const button = (text, order) => el("button", { type: "button", text, on: { click: () => act(order) } });
  return [
    button("Promote …", promotion(id)),
    Object.keys(shares).length ? button(`Give it ${CANARY_PERCENT} % …`, share(id, CANARY_PERCENT, shares)) : null,
  ];
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

/** `percentage` of the users for a version; the others keep theirs in proportion, in whole percent. */
function share(id, percentage, shares) {
  const others = Object.entries(shares).filter(([other]) => other !== id);
  const rest = others.reduce((sum, [, value]) => sum + value, 0) || 1;
  const content = { [id]: percentage };
  let left = 100 - percentage;
  others.forEach(([other, value], i) => {
    content[other] = i === others.length - 1 ? left : Math.max(1, Math.round((value / rest) * (100 - percentage)));
    left -= content[other];
  });
  return {
    question: `Give ${shortVersion(id)} to ${percentage} % of the users?`,
    detail: Object.entries(content)
      .map(([each, value]) => `${each}: ${value} %`)
      .join("\n"),
    action: "Give it",
    address: "v1/versions/announce",
    content: { shares: content },
  };
}
