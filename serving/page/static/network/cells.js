// The five cells with the equations of the README, small enough to be watched. Their weights are drawn from a
// seed by the rule that torch uses (uniform within 1/√H; those of the inputs are 2½ times as large, so that eight
// units show something) and are not trained. keep: added to the bias of the gates that keep the state, the LSTM's
// forget gate and the GRU's update gate.
//
// A cell is {name, paper, equations, hidden, inputs, state, step}. A state is a vector of `state` numbers, of
// which the first H are h; the LSTM's next H are c. step(x, s) returns {next, gates, kept, written}: the next
// state, the openings of the gates by name (each of H numbers), and for each unit how much of the old state is
// kept and how much new content is let in, both from 0 to 1.

import { matrix, random, sigmoid, spectralRadius, times, vector } from "./matrices.js";

/** A weight for each input and hidden unit, with biases: W x + U h + b. */
function layer(draw, hidden, inputs) {
  const reach = 1 / Math.sqrt(hidden);
  const any = () => (2 * draw() - 1) * reach;
  const w = matrix(hidden, inputs, () => any() * 2.5),
    u = matrix(hidden, hidden, any),
    b = vector(hidden, any);
  return { u, b, read: (x) => times(w, x), recall: (h) => times(u, h) };
}

const sum = (...parts) => vector(parts[0].length, (i) => parts.reduce((total, part) => total + part[i], 0));
const zeros = (n) => vector(n);
const ones = (n) => vector(n, () => 1);

export function rnn(hidden = 8, inputs = 4, seed = 7) {
  const a = layer(random(seed), hidden, inputs);
  return {
    name: "RNN",
    paper: "Elman 1990",
    equations: ["h′ = tanh(W x + U h + b)"],
    hidden,
    inputs,
    state: hidden,
    recurrent: a.u,
    step(x, h) {
      const next = sum(a.read(x), a.recall(h), a.b).map(Math.tanh);
      return { next, gates: {}, kept: zeros(hidden), written: ones(hidden) }; // all of it goes through U and tanh
    },
  };
}

function lstm(hidden = 8, inputs = 4, seed = 7, keep = 0) {
  const draw = random(seed);
  const [i, f, g, o] = ["i", "f", "g", "o"].map(() => layer(draw, hidden, inputs));
  return {
    name: "LSTM",
    paper: "Hochreiter & Schmidhuber 1997",
    equations: ["i, f, o = σ(W x + U h + b)", "g = tanh(W x + U h + b)", "c′ = f ⊙ c + i ⊙ g", "h′ = o ⊙ tanh c′"],
    hidden,
    inputs,
    state: 2 * hidden,
    step(x, s) {
      const h = s.slice(0, hidden),
        c = s.slice(hidden);
      const gate = (a) => sum(a.read(x), a.recall(h), a.b);
      const input = gate(i).map(sigmoid),
        forget = gate(f).map((value) => sigmoid(value + keep)),
        output = gate(o).map(sigmoid),
        content = gate(g).map(Math.tanh);
      const cell = vector(hidden, (k) => forget[k] * c[k] + input[k] * content[k]);
      const next = vector(2 * hidden, (k) => (k < hidden ? output[k] * Math.tanh(cell[k]) : cell[k - hidden]));
      return { next, gates: { input, forget, output }, kept: forget, written: input };
    },
  };
}

function gru(hidden = 8, inputs = 4, seed = 7, keep = 0) {
  const draw = random(seed);
  const [r, z, n] = ["r", "z", "n"].map(() => layer(draw, hidden, inputs));
  return {
    name: "GRU",
    paper: "Cho 2014",
    equations: ["r, z = σ(W x + U h + b)", "n = tanh(W x + b + r ⊙ (U h))", "h′ = (1 − z) ⊙ n + z ⊙ h"],
    hidden,
    inputs,
    state: hidden,
    step(x, h) {
      const reset = sum(r.read(x), r.recall(h), r.b).map(sigmoid),
        update = sum(z.read(x), z.recall(h), z.b).map((value) => sigmoid(value + keep));
      const old = n.recall(h),
        fresh = sum(n.read(x), n.b);
      const next = vector(hidden, (k) => (1 - update[k]) * Math.tanh(fresh[k] + reset[k] * old[k]) + update[k] * h[k]);
      return { next, gates: { reset, update }, kept: update, written: update.map((value) => 1 - value) };
    },
  };
}

/** The recurrence alone: layer normalisation and the residual block around it do not reach from step to step. */
function minGru(hidden = 8, inputs = 4, seed = 7) {
  const draw = random(seed);
  const z = layer(draw, hidden, inputs),
    c = layer(draw, hidden, inputs);
  const bias = vector(hidden, (k) => -4 + (5 * k) / (hidden - 1)); // as Eddy's units begin: memories of 1 to 50 events
  return {
    name: "minGRU",
    paper: "Feng 2024",
    equations: ["z, c = W x + b", "h′ = (1 − σ(z)) ⊙ h + σ(z) ⊙ c"],
    hidden,
    inputs,
    state: hidden,
    step(x, h) {
      const write = sum(z.read(x), bias).map(sigmoid),
        content = sum(c.read(x), c.b);
      const next = vector(hidden, (k) => (1 - write[k]) * h[k] + write[k] * content[k]);
      return { next, gates: { update: write }, kept: write.map((value) => 1 - value), written: write };
    },
  };
}

/** leak: a; radius: the reservoir's spectral radius ρ; sources: connections into a unit. */
export function echoState(hidden = 8, inputs = 4, seed = 7, { radius = 0.9, leak = 0.5, sources = 4 } = {}) {
  const draw = random(seed);
  const u = matrix(hidden, hidden, () => 0);
  for (const row of u)
    for (let k = 0; k < Math.min(sources, hidden); k++) row[Math.floor(draw() * hidden)] = 2 * draw() - 1;
  const scale = radius / (spectralRadius(u) || 1);
  for (const row of u) row.forEach((value, k) => (row[k] = value * scale));
  const w = matrix(hidden, inputs, () => (2 * draw() - 1) * Math.sqrt(3 / inputs)),
    b = vector(hidden, () => 0.2 * draw() - 0.1);
  return {
    name: "echo state",
    paper: "Jaeger 2001",
    equations: ["h′ = (1 − a) h + a tanh(W x + U h + b)", `W, U, b are never learned; a = ${leak}, ρ(U) = ${radius}`],
    hidden,
    inputs,
    state: hidden,
    recurrent: u,
    step(x, h) {
      const drive = sum(times(w, x), times(u, h), b);
      const next = vector(hidden, (k) => (1 - leak) * h[k] + leak * Math.tanh(drive[k]));
      return { next, gates: {}, kept: ones(hidden).map(() => 1 - leak), written: ones(hidden).map(() => leak) };
    },
  };
}

/** The five cells of one size. */
export const fiveCells = (hidden, inputs, seed, keep) => [
  rnn(hidden, inputs, seed),
  lstm(hidden, inputs, seed, keep),
  gru(hidden, inputs, seed, keep),
  minGru(hidden, inputs, seed),
  echoState(hidden, inputs, seed),
];

/** All that happens along inputs: [{x, before, next, gates, kept, written}, …]. */
export function run(cell, xs, start = vector(cell.state)) {
  let state = start;
  return xs.map((x) => {
    const before = state;
    const step = cell.step(x, before);
    state = step.next;
    return { x, before, ...step };
  });
}
