// Vectors as Float64Array, matrices as lists of rows, and numbers that are drawn from a seed.

/** Uniform numbers in [0, 1) from a seed (mulberry32): the page shows the same weights to everybody. */
export function random(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

export const vector = (n, value = () => 0) => Float64Array.from({ length: n }, (_, i) => value(i));
export const matrix = (rows, columns, value) => Array.from({ length: rows }, () => vector(columns, value));

/** A x */
export const times = (a, x) =>
  vector(a.length, (i) => {
    let sum = 0;
    const row = a[i];
    for (let j = 0; j < x.length; j++) sum += row[j] * x[j];
    return sum;
  });

/** A B */
export function product(a, b) {
  return a.map((row) =>
    vector(b[0].length, (j) => {
      let sum = 0;
      for (let k = 0; k < b.length; k++) sum += row[k] * b[k][j];
      return sum;
    }),
  );
}

export const sigmoid = (x) => 1 / (1 + Math.exp(-x));

/** The Frobenius norm of a matrix. */
export const norm = (a) => Math.sqrt(a.reduce((sum, row) => sum + row.reduce((part, x) => part + x * x, 0), 0));

/** The largest absolute eigenvalue of A: the mean growth of a vector that A is applied to again and again
 *  (Gelfand's formula). The first steps, in which smaller eigenvalues still matter, do not count. */
export function spectralRadius(a, steps = 400) {
  let x = vector(a.length, (i) => Math.cos(i + 1));
  let growth = 0;
  for (let step = 0; step < steps; step++) {
    x = times(a, x);
    const length = Math.hypot(...x);
    if (length === 0) return 0;
    x = x.map((value) => value / length);
    if (step >= steps / 2) growth += Math.log(length);
  }
  return Math.exp(growth / (steps - steps / 2));
}
