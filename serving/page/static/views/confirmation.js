// A question before something is done that concerns everybody.

import { el } from "../dom.js";

/** Asks in a dialog; resolves to whether the reader agrees. */
export function confirmed(question, detail, action, signal) {
  return new Promise((resolve) => {
    const dialog = el(
      "dialog",
      { "aria-labelledby": "question" },
      el(
        "form",
        { method: "dialog" },
        el("h2", { id: "question", text: question }),
        el("p", { class: "detail", text: detail }),
        el("p", { class: "small soft", text: "Where the server asks for keys, one with the scope operate is needed." }),
        el(
          "div",
          { class: "buttons" },
          el("button", { value: "no", class: "quiet", text: "Cancel", autofocus: true }),
          el("button", { value: "yes", class: "primary", text: action }),
        ),
      ),
    );
    dialog.addEventListener(
      "close",
      () => {
        resolve(dialog.returnValue === "yes");
        dialog.remove();
      },
      { once: true },
    );
    signal.addEventListener("abort", () => dialog.close("no"), { once: true });
    document.body.append(dialog);
    dialog.showModal();
  });
}
