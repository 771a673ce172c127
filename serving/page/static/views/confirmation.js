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
        el("p", { class: "small soft", text: "A key with the scope write is needed where the server asks for keys." }),
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
