// How much a state depends on those before it: products of the Jacobians of the steps between.

import { matrix, norm, product, vector } from "./matrices.js";

const STEP = 1e-5; // central differences in float64: errors of about 1e-10

/** ∂s′/∂s of one step: [state, state], by central differences of the cell's own equations. */
export function jacobian(cell, x, state) {
  const columns = Array.from({ length: cell.state }, (_, j) => {
    const moved = (by) =>
      cell.step(
        x,
        vector(cell.state, (i) => state[i] + (i === j ? by : 0)),
      ).next;
    const up = moved(STEP),
      down = moved(-STEP);
    return up.map((value, i) => (value - down[i]) / (2 * STEP));
  });
  return Array.from({ length: cell.state }, (_, i) => vector(cell.state, (j) => columns[j][i]));
}

/** ‖∂h_t/∂s_{t-lag}‖ (Frobenius) for lag = 0, 1, …, the number of steps, relative to lag 0; s is the whole
 *  state, for the LSTM h and c. steps: of `run`, of which the last one ends in h_t. */
export function gradientFlow(cell, steps) {
  let reach = matrix(cell.hidden, cell.state, () => 0);
  reach.forEach((row, i) => (row[i] = 1));
  const whole = norm(reach);
  const flow = [1];
  for (const { x, before } of steps.toReversed()) {
    reach = product(reach, jacobian(cell, x, before));
    flow.push(norm(reach) / whole);
  }
  return flow;
}
