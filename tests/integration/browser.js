// The example's page in a real browser; prints what it saw as JSON.
//   node browser.js URL CHROMIUM PROFILE
"use strict";
const { chromium } = require("playwright-core");

const [url, executablePath, profile] = process.argv.slice(2);
const args = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
  "--disable-background-networking", "--disable-component-update", "--disable-sync"];

async function main() {
  const context = await chromium.launchPersistentContext(profile, { executablePath, args });
  const page = context.pages()[0] ?? await context.newPage();
  const complaints = [];
  let loads = 0;

  // Two of the six promises answer 403, which the console mentions as such.
  page.on("console", (message) => {
    if (message.type() === "error" && !message.text().includes("status of 403")) {
      complaints.push(message.text());
    }
  });
  page.on("pageerror", (error) => complaints.push(String(error)));
  page.on("requestfailed", (request) => complaints.push(`failed: ${request.url()}`));
  page.on("request", (request) => {
    loads += request.isNavigationRequest() ? 1 : 0;
  });

  await page.goto(url);
  await page.waitForFunction(() => document.querySelectorAll("td[data-ok]").length === 6);
  const rows = await page.$$eval("td[data-ok]", (cells) =>
    cells.map((cell) => ({ ok: cell.dataset.ok, text: cell.textContent })));

  await page.click("text=Echo");
  await page.waitForFunction(() => document.querySelector("pre")?.textContent.startsWith("{"));
  const echo = JSON.parse(await page.textContent("pre"));

  await page.click("text=A deep link");
  await page.waitForSelector("h1:text('A deep link')");
  const deep = await page.textContent("main");
  const before = loads;

  const answer = await page.reload();
  await page.waitForSelector("h1:text('A deep link')");
  const reloaded = await page.textContent("main");
  await page.goBack();
  await page.waitForSelector("pre");
  const back = new URL(page.url()).pathname;

  await context.close();
  console.log(JSON.stringify({ rows, echo, deep, reloaded, back, complaints, loads: before,
    reload_status: answer.status() }));
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
