// When a click happens.

const DAY_MS = 86_400_000;

/** Clicks happen now, but on a stream that replays the past at the stream's own now. A click of today
 *  would move the stream's clock by years, and let all popularity decay. */
export function newEventClock() {
  let streamTime = -1,
    behind = 0,
    last = 0; // ms
  return {
    /** What the server says of the stream's now, and of its own: the reader's clock may be wrong by years. */
    set(streamNow, serverNow) {
      streamTime = streamNow;
      behind = serverNow - streamNow;
    },

    /** The fields of the next click's event that say when it happens; none: the server's now. */
    next() {
      if (streamTime < 0 || behind < DAY_MS) return {};
      last = Math.max(streamTime, last + 1);
      return { timestamp: last };
    },
  };
}
