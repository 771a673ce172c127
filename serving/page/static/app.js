// The page's frame: which view is shown, whether the server can be reached, and the key that is sent to it.

import { Refused, apiKey, keepKey, untilAnswered } from "./api.js";
import { el } from "./dom.js";
import { heading, outdated, showFailure } from "./parts.js";

const VIEWS = {
  now: () => import("./views/now.js"),
  person: () => import("./views/person.js"),
  user: () => import("./views/be_a_user.js"),
  network: () => import("./views/network.js"),
  models: () => import("./views/models.js"),
  items: () => import("./views/items.js"),
};
const CONNECTION = { connecting: "connecting …", open: "live", lost: "disconnected, trying again", refused: "" };

const main = document.getElementById("main");
const connection = document.getElementById("connection");
let current = new AbortController();

/** Tells at the top of every view how its stream is. */
function showConnection(name) {
  connection.dataset.state = name;
  connection.textContent = CONNECTION[name] ?? "";
}

/** Shows what the address names: #/view/id?name=value. */
async function show({ focus }) {
  current.abort();
  const own = new AbortController();
  current = own;
  const [place, query = ""] = location.hash.slice(2).split("?");
  const [name, ...rest] = place.split("/");
  const view = Object.hasOwn(VIEWS, name) ? name : "now";
  for (const link of document.querySelectorAll(".top nav a")) {
    if (link.hash === `#/${view}`) {
      link.setAttribute("aria-current", "page");
      link.scrollIntoView({ block: "nearest", inline: "center" });
    } else link.removeAttribute("aria-current");
  }
  showConnection("");
  const notice = el("div");
  const showNothing = (error) => {
    if (!notice.isConnected) main.replaceChildren(heading("Eddy"), notice);
    if (error instanceof SyntaxError) notice.replaceChildren(outdated());
    else showFailure(notice, error);
  };
  const module = await untilAnswered(() => load(view), showNothing, own.signal);
  if (!module || own.signal.aborted) return;
  const { open, title } = module;
  try {
    document.title = `${title} · Eddy`;
    main.replaceChildren();
    main.dataset.view = view;
    open(main, {
      id: decoded(rest.join("/")),
      query: new URLSearchParams(query),
      signal: own.signal,
      onState: showConnection,
    });
  } catch (error) {
    showNothing(error);
  }
  scrollTo(0, 0);
  if (focus) main.querySelector("h1")?.focus({ preventScroll: true });
}

/** A view's module. Errors: Refused when the server is away; SyntaxError when its files are not those of this page. */
async function load(view) {
  try {
    return await VIEWS[view]();
  } catch (error) {
    throw error instanceof SyntaxError ? error : new Refused(0, "The server does not answer.");
  }
}

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text; // a % that begins no escape
  }
}

function askForKey() {
  const dialog = document.getElementById("key-dialog");
  const field = document.getElementById("key-field");
  field.value = "";
  dialog.addEventListener(
    "close",
    () => {
      if (dialog.returnValue === "use" && field.value.trim()) keepKey(field.value.trim());
      else if (dialog.returnValue === "forget") keepKey(null);
      else return;
      field.value = "";
      showKey();
      show({ focus: true });
    },
    { once: true },
  );
  dialog.returnValue = "";
  dialog.showModal();
  field.focus();
}

const showKey = () => (document.getElementById("key").textContent = apiKey() ? "API key ✓" : "API key");

document.getElementById("key").addEventListener("click", askForKey);
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  main.focus();
});
document.getElementById("key-field").addEventListener("keydown", (event) => {
  if (event.key === "Enter") {
    event.preventDefault();
    document.getElementById("key-dialog").close("use");
  }
});
addEventListener("hashchange", () => show({ focus: true }));
showKey();
show({ focus: false });
