// When a click happens.

const DAY_MS = 86_400_000;

/** Clicks happen now, but on a stream that replays the past at the stream's own now. A click of today
 *  would move the stream's clock by years, and let all popularity decay. */
export function newEventClock() {
  let last = 0;
  return {
    streamTime: -1, // ms, of the last answer

    /** The fields of the next click's event that say when it happens; none: the server's now. */
    next() {
      if (this.streamTime < 0 || Date.now() - this.streamTime < DAY_MS) return {};
      last = Math.max(this.streamTime, last + 1);
      return { timestamp: last };
    },
  };
}
