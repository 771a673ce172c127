// Shares of the users by version, in whole percent.

/** The most that a version can be given: each of the others keeps 1 % at least. shares: 0 … 1 by version. */
export const mostPercent = (id, shares) => 100 - Math.max(1, others(id, shares).length);

/** Percent by version, together 100, with `percentage` (1 … mostPercent) for a version; the others share the rest as
 *  they do now, rounded by largest remainders. */
export function withShare(id, percentage, shares) {
  const rest = others(id, shares);
  const spare = 100 - percentage - rest.length; // beyond the 1 % of each
  const sum = rest.reduce((total, [, share]) => total + share, 0) || 1;
  const parts = rest.map(([other, share]) => ({ other, exact: (share / sum) * spare }));
  let left = spare - parts.reduce((total, { exact }) => total + Math.floor(exact), 0);
  const percents = { [id]: percentage };
  for (const { other, exact } of parts.toSorted((a, b) => (b.exact % 1) - (a.exact % 1)))
    percents[other] = 1 + Math.floor(exact) + (left-- > 0 ? 1 : 0);
  return percents;
}

const others = (id, shares) => Object.entries(shares).filter(([other]) => other !== id);
