// From numbers to places.

/** A linear scale from [a, b] to [c, d]. */
export const linear = (a, b, c, d) => (x) => c + ((x - a) / (b - a || 1)) * (d - c);

/** The same for the logarithm of numbers above 0. */
export const logarithmic = (a, b, c, d) => {
  const scale = linear(Math.log10(a), Math.log10(b), c, d);
  return (x) => scale(Math.log10(Math.max(x, a)));
};

/** Round values between a and b, about n of them. */
export function ticks(a, b, n = 3) {
  const raw = (b - a) / n || 1;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].find((m) => m * power >= raw * 0.75) * power;
  const values = [];
  for (let i = Math.ceil(a / step - 1e-9); i * step <= b + step * 1e-9; i++)
    values.push(Number((i * step).toPrecision(12)));
  return values;
}

/** Powers of ten from a to b. */
export function decades(a, b) {
  const values = [];
  for (let e = Math.ceil(Math.log10(a) - 1e-9); e <= Math.log10(b) + 1e-9; e++) values.push(10 ** e);
  return values;
}

/** 10⁻³ */
export const powerText = (x) =>
  `10${String(Math.round(Math.log10(x))).replaceAll(/./g, (c) => "⁰¹²³⁴⁵⁶⁷⁸⁹"[c] ?? "⁻")}`.replace(/^10⁰$/, "1");

/** A path through points [x, y]; null breaks it. A point between two breaks is drawn by the round ends of its line. */
export function pathThrough(points) {
  let path = "";
  let pen = "M";
  for (const point of points) {
    if (point === null) {
      pen = "M";
      continue;
    }
    path += `${pen}${point[0].toFixed(1)} ${point[1].toFixed(1)}`;
    if (pen === "M") path += "h0";
    pen = "L";
  }
  return path;
}
