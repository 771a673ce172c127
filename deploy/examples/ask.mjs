// What next for a user? Usage: EDDY_URL=http://127.0.0.1:8000 EDDY_API_KEY=eddy_… node ask.mjs USER
// Runs in Node 18 and later, and with another origin than `process.env` in a page (EDDY_HTTP_CORS_ORIGINS).
const { EDDY_URL, EDDY_API_KEY } = process.env;

async function recommendations(user, wanted, attempts = 4) {
  const response = await fetch(`${EDDY_URL}/v1/users/${encodeURIComponent(user)}/recommendations`, {
    method: "POST",
    headers: { "Content-Type": "application/json", ...(EDDY_API_KEY && { "X-API-Key": EDDY_API_KEY }) },
    body: JSON.stringify(wanted),
    signal: AbortSignal.timeout(5000),
  });
  if ([429, 503].includes(response.status) && attempts > 1) {
    const seconds = Number(response.headers.get("Retry-After") ?? 1) * (1 + Math.random() / 2);
    await new Promise((resolve) => {
      setTimeout(resolve, 1000 * seconds);
    });
    return recommendations(user, wanted, attempts - 1);
  }
  const answer = await response.json();
  if (!response.ok) throw new Error(`${answer.status}: ${answer.detail}`);
  return answer;
}

const answer = await recommendations(process.argv[2], { k: 5, exclude_seen: true });
for (const item of answer.items) console.log(item.item_id, item.score, item.title ?? "");
