// The live model's own numbers, as far as the server can measure them now.

import { get, path } from "../api.js";
import { named } from "../format.js";
import { horizonOrder } from "./hidden_state.js";

const SHOWN_UNITS = 8;

/** {version, cell, gradient_flow, horizon, spectral_radius, hidden, …} of the version that most users have. Errors: Refused. */
export async function liveDynamics(signal) {
  const { shares } = await get("v1/versions", {}, signal);
  const [version] = Object.entries(shares).toSorted((a, b) => b[1] - a[1])[0] ?? [];
  if (!version) return null;
  return { version, ...(await get(path`v1/versions/${version}/dynamics`, {}, signal)) };
}

/** The last events of somebody active, with eight units of their hidden state. null: nobody is there.
 *  Errors: Refused. */
export async function somebodysSteps(version, length, signal) {
  const { users } = await get("v1/users/active", { limit: 20 }, signal);
  const somebody = users.find((user) => user.events >= length) ?? users[0];
  if (!somebody) return null;
  return stepsOf(somebody.user_id, await get(path`v1/users/${somebody.user_id}/trace`, { version }, signal), length);
}

/** A trace as columns of `unrolled`: units from those that forget soon to those that remember long. */
export function stepsOf(user, trace, length, shownUnits = SHOWN_UNITS) {
  const order = horizonOrder(trace);
  const units = Array.from(
    { length: Math.min(shownUnits, order.length) },
    (_, i) => order[Math.floor((i * (order.length - 1)) / Math.max(shownUnits - 1, 1))],
  );
  const scale = trace.states.flat().reduce((top, value) => Math.max(top, Math.abs(value)), 1);
  const shown = trace.states.map((state) => units.map((unit) => state[unit] / scale));
  const first = Math.max(0, trace.steps.length - length);
  return {
    user,
    cell: trace.cell,
    start: shown[first],
    columns: trace.steps.slice(first).map((step, i) => ({
      state: shown[first + i + 1],
      kept: trace.kept[first + i],
      written: trace.overwritten[first + i],
      label: named(step),
    })),
  };
}
