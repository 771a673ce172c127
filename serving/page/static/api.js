// The API, as any other caller uses it: questions in JSON, and streams of server-sent events. EventSource cannot
// send a key in a header, so streams are read from fetch.

import { pause } from "./dom.js";

const KEY = "eddy-api-key";
const SILENCE_MS = 40_000; // the server gives a sign of life every 15 s
const FIRST_WAIT_MS = 500;
const LONGEST_WAIT_MS = 10_000;
const HIDDEN_MS = 60_000;
const SHORT_MS = 30_000; // a stream that ends sooner was not ended by the server's habit

export const apiKey = () => sessionStorage.getItem(KEY);
export const keepKey = (key) => (key ? sessionStorage.setItem(KEY, key) : sessionStorage.removeItem(KEY));

/** What the server answered instead of what was asked; status 0: it could not be reached. */
export class Refused extends Error {
  constructor(status, detail, retryAfterS = 0) {
    super(detail);
    Object.assign(this, { status, retryAfterS });
  }
}

/** Whether what was asked may be answered later: the server is away, starts, or is busy. */
export const passes = (error) =>
  error instanceof Refused && (error.status < 400 || error.status >= 500 || error.status === 429);

/** The answer to a question. parameters: of the query, null = left out. Errors: Refused. */
export async function get(path, parameters = {}, signal = undefined) {
  const response = await send("GET", path, { parameters, signal });
  return contentOf(response);
}

const contentOf = (response) =>
  response.json().catch((error) => {
    throw error instanceof TypeError ? new Refused(0, "The connection broke.") : error;
  });

/** Does `work`, again and again while its questions cannot be answered yet, and returns what it returns. `onFailure`
 *  is told of each error. undefined: there will be no answer, or the signal came. */
export async function untilAnswered(work, onFailure, signal) {
  for (let wait = FIRST_WAIT_MS; !signal.aborted; wait = nextWait(wait)) {
    try {
      return await work();
    } catch (error) {
      if (signal.aborted) return;
      onFailure(error);
      if (!passes(error)) return;
      await pauseAfter(error, wait, signal);
    }
  }
}

const NOT_YET_MS = 5000;

/** Does `work` again every few seconds until it returns something or the signal comes, and returns what it returned last:
 *  what is not there yet may come at any moment. */
export async function untilThere(work, signal) {
  for (;;) {
    const there = await work();
    if (there || signal.aborted) return there;
    await pause(NOT_YET_MS, signal);
  }
}

const nextWait = (wait) => Math.min(wait * 1.7, LONGEST_WAIT_MS);

/** Waits before the next attempt, as long as the server wants, and not in step with other pages. */
const pauseAfter = (error, wait, signal) =>
  pause(Math.max((error.retryAfterS ?? 0) * 1000, wait * (0.8 + 0.4 * Math.random())), signal);

/** Posts a body; returns the answer's JSON and the server's clock (ms) when it answered. Errors: Refused. */
export async function post(path, body, signal = undefined) {
  const response = await send("POST", path, { body, signal });
  return { answer: await contentOf(response), serverTime: Number(response.headers.get("x-eddy-time")) || null };
}

const DOTS = /\/\.{1,2}(?=\/|$)/; // browsers take them for folders, encoded or not, and would ask something else

async function send(method, path, { parameters = {}, body = undefined, signal = undefined }) {
  if (DOTS.test(path)) throw new Refused(400, "A browser cannot ask for the ids . and .. in a URL.");
  const url = new URL(path, document.baseURI.replace(/[?#].*$/, ""));
  for (const [name, value] of Object.entries(parameters))
    if (value !== null && value !== undefined) url.searchParams.set(name, value);
  const headers = { accept: "application/json, text/event-stream" };
  if (apiKey()) headers["x-api-key"] = apiKey();
  if (body !== undefined) headers["content-type"] = "application/json";
  let response;
  try {
    response = await fetch(url, {
      method,
      headers,
      signal,
      body: body === undefined ? undefined : JSON.stringify(body),
    });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Refused(0, "The server does not answer.");
  }
  if (response.ok) return response;
  const problem = await response.json().catch(() => ({}));
  throw new Refused(
    response.status,
    problem.detail ?? response.statusText,
    Number(response.headers.get("retry-after")) || 0,
  );
}

/** A path with ids in it: path`v1/users/${id}/live`. */
export const path = (texts, ...ids) => String.raw({ raw: texts }, ...ids.map(encodeURIComponent));

/** Follows a stream until the signal, and comes back by itself when it breaks.
 *  onMessage(event, data) for each message; onState("connecting" | "open" | "lost" | "refused", why): why is what the
 *  server answered, or what onMessage has thrown. */
export async function follow(address, { parameters = {}, onMessage, onState = () => {}, signal }) {
  let wait = FIRST_WAIT_MS;
  onState("connecting");
  while (!signal.aborted) {
    if (document.hidden) await seen(signal);
    if (signal.aborted) return;
    const attempt = new AbortController();
    const stop = () => attempt.abort();
    let opened = Infinity,
      resting = false;
    const wasWell = () => performance.now() - opened >= SHORT_MS;
    whenHidden(attempt.signal, () => {
      resting = true;
      stop();
    });
    signal.addEventListener("abort", stop, { once: true });
    try {
      const response = await send("GET", address, { parameters, signal: attempt.signal });
      onState("open");
      opened = performance.now();
      await read(response.body, onMessage, stop);
      // The server ends streams from time to time, so that a withdrawn key is soon of no use: that is no break.
      if (!wasWell()) throw new Refused(0, "The stream has ended.");
      wait = FIRST_WAIT_MS;
    } catch (error) {
      if (signal.aborted) return;
      if (resting) continue;
      const why = attempt.signal.aborted ? new Refused(0, "The connection broke.") : error;
      if (why instanceof Refused && !passes(why)) return void onState("refused", why);
      if (!(why instanceof Refused)) console.error(why);
      onState("lost", why);
      if (wasWell()) wait = FIRST_WAIT_MS;
      await pauseAfter(why, wait, signal);
      wait = nextWait(wait);
    } finally {
      signal.removeEventListener("abort", stop);
      stop();
    }
  }
}

/** Calls `rest` once the tab has been hidden for a while, until the signal: a browser keeps six connections to a
 *  server at most, and tabs that nobody looks at must not hold them. */
function whenHidden(signal, rest) {
  let timer;
  const watch = () => {
    clearTimeout(timer);
    if (document.hidden) timer = setTimeout(rest, HIDDEN_MS);
  };
  document.addEventListener("visibilitychange", watch, { signal });
  signal.addEventListener("abort", () => clearTimeout(timer), { once: true });
}

/** Waits until the tab is looked at, or the signal comes. */
function seen(signal) {
  return new Promise((resolve) => {
    const end = () => {
      document.removeEventListener("visibilitychange", end);
      signal.removeEventListener("abort", end);
      resolve();
    };
    document.addEventListener("visibilitychange", end);
    signal.addEventListener("abort", end);
  });
}

/** Reads server-sent events; calls `stop` when nothing has come for too long. */
async function read(body, onMessage, stop) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let timer = setTimeout(stop, SILENCE_MS);
  try {
    for (;;) {
      const { value, done } = await reader.read().catch(() => {
        throw new Refused(0, "The connection broke.");
      });
      if (done) return;
      clearTimeout(timer);
      timer = setTimeout(stop, SILENCE_MS);
      const messages = (rest + value).split(/\r?\n\r?\n/);
      rest = messages.pop();
      for (const message of messages) dispatch(message, onMessage);
    }
  } finally {
    clearTimeout(timer);
    reader.cancel().catch(() => {});
  }
}

function dispatch(message, onMessage) {
  let event = "message";
  const data = [];
  for (const line of message.split(/\r?\n/)) {
    if (line.startsWith("event:")) event = line.slice(6).trim();
    else if (line.startsWith("data:")) data.push(line.slice(5).replace(/^ /, ""));
  }
  if (data.length) onMessage(event, JSON.parse(data.join("\n")));
}
