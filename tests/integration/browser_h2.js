// Pages over TLS and HTTP/2 in a real browser; prints what it saw as JSON.
//   node browser_h2.js URL CHROMIUM PROFILE
"use strict";
const { chromium } = require("playwright-core");

const [url, executablePath, profile] = process.argv.slice(2);
const args = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
  "--disable-background-networking", "--disable-component-update", "--disable-sync",
  "--host-resolver-rules=MAP * 127.0.0.1"];

async function main() {
  const context = await chromium.launchPersistentContext(profile,
    { executablePath, args, ignoreHTTPSErrors: true });
  const page = context.pages()[0] ?? await context.newPage();

  const answer = await page.goto(`${url}/page/`);
  const seen = await page.evaluate(async () => {
    const gets = await Promise.all([...Array(100).keys()].map(async (i) =>
      (await (await fetch(`/echo/${i}`)).json()).path));
    const post = await (await fetch("/echo/post", { method: "POST", body: "y".repeat(300000) })).json();
    const missing = (await fetch("/none")).status;
    const headers = Object.fromEntries((await fetch("/fixed")).headers);
    const aborted = await Promise.all([...Array(20).keys()].map(async (i) => {
      const control = new AbortController();
      const asked = fetch(`/hold/${i}`, { signal: control.signal }).catch((e) => e.name);
      setTimeout(() => control.abort(), 50);
      return asked;
    }));
    const after = await (await fetch("/fixed")).text();
    const protocols = [...new Set(performance.getEntriesByType("resource")
      .filter((e) => e.responseStatus === 200).map((e) => e.nextHopProtocol))];
    return { gets, length: post.body_length, missing, headers, aborted, after, protocols,
      page: performance.getEntriesByType("navigation")[0].nextHopProtocol };
  });
  const security = await answer.securityDetails();
  const text = await page.textContent("h1");

  await context.close();
  console.log(JSON.stringify({ ...seen, text, protocol: security?.protocol }));
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
