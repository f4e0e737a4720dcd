// Tests the page in a real browser: `FLM=target/release/flm node test/page.test.mjs FLOW MAP [SHOTS]`.
// FLOW and MAP are folders of models; screenshots are written to SHOTS.
import { spawn } from "node:child_process";
import assert from "node:assert/strict";
import { mkdirSync, readFileSync } from "node:fs";
import { chromium } from "playwright-core";

const [flow, map, shots] = process.argv.slice(2);
const axe = readFileSync(new URL("../node_modules/axe-core/axe.min.js", import.meta.url), "utf8");
if (shots) mkdirSync(shots, { recursive: true });

const server = spawn(process.env.FLM ?? "flm", ["serve", `flow=${flow}`, `map=${map}`, "--port", "0"]);
const address = await new Promise((resolve, reject) => {
  let log = "";
  server.stderr.on("data", (data) => {
    log += data;
    const found = /serving .* at (http:\S+)/.exec(log);
    if (found) resolve(found[1]);
  });
  server.on("exit", () => reject(new Error(log)));
});

const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync"],
});

/** Opens the page; fails on console errors. */
async function open(hash = "", options = {}) {
  const context = await browser.newContext({ permissions: ["clipboard-read", "clipboard-write"], ...options });
  const page = await context.newPage();
  const errors = [];
  page.on("console", (message) => message.type() === "error" && errors.push(message.text()));
  page.on("pageerror", (error) => errors.push(String(error)));
  await page.goto(address + hash);
  await page.waitForFunction(() => document.querySelector("#model").options.length === 2);
  return { page, errors };
}

const done = (page) => page.waitForFunction(() => document.querySelector("#status").textContent.startsWith("Done"));
const texts = (page) => page.locator(".text").allTextContents();

async function accessible(page, name) {
  await page.evaluate(axe);
  const { violations } = await page.evaluate(() => axe.run());
  assert.deepEqual(violations.map((one) => `${name}: ${one.id}: ${one.nodes[0].html}`), []);
}

const tests = {
  async "samples, streams and plays"() {
    const { page, errors } = await open();
    await page.selectOption("#beside", "1");
    await page.click("#run");
    await done(page);
    assert.equal(await page.locator("section").count(), 2);
    const [eight] = await texts(page);
    assert.ok(eight.length > 5, eight);
    // Eight frames and the finished sample.
    const slider = page.locator("section .frame").first();
    assert.equal(await slider.getAttribute("max"), "8");
    await slider.fill("0");
    assert.match(await page.locator(".time").first().textContent(), /step 1 of 8, τ = 0.00/);
    await page.getByRole("button", { name: "Play" }).first().click();
    await page.waitForFunction(() => document.querySelector(".time").textContent === "after 8 steps", null, { timeout: 15000 });
    await page.locator(".token").nth(1).hover();
    assert.match(await page.locator(".top").nth(1).textContent(), /%/);
    await accessible(page, "samples");
    assert.deepEqual(errors, []);
  },
  async "fills holes of a text and of tokens"() {
    const { page, errors } = await open();
    await page.fill("#text", "the ___ sold two ___ .");
    await page.click("#run");
    await done(page);
    const [filled] = await texts(page);
    assert.match(filled, /^the \S+ sold two \S+ \.$/);
    await page.locator(".token").nth(1).click();
    assert.equal(await page.locator(".token.hole").count(), 1);
    await page.fill("#seed", "5");
    await page.click("#run");
    await done(page);
    const [again] = await texts(page);
    assert.deepEqual(again.split(" ").toSpliced(1, 1), filled.split(" ").toSpliced(1, 1));
    assert.deepEqual(errors, []);
  },
  async "works by keyboard"() {
    const { page } = await open();
    await page.focus("#text");
    await page.keyboard.press("Tab");
    await page.keyboard.press("Tab");
    await page.keyboard.press("ArrowRight");
    assert.match(await page.locator("#steps-value").textContent(), /16/);
    await page.focus("#run");
    await page.keyboard.press("Enter");
    await done(page);
    await page.locator(".token").first().focus();
    assert.match(await page.locator("#detail").textContent(), /Position 1: .*%/);
    await page.keyboard.press("Space");
    assert.equal(await page.locator(".token.hole").count(), 1);
  },
  async "shows an error and recovers"() {
    const { page } = await open();
    await page.fill("#text", "qwertz");
    await page.click("#run");
    await page.waitForFunction(() => document.querySelector("#error").textContent !== "");
    assert.match(await page.locator("#error").textContent(), /qwertz.* is not in the vocabulary/);
    await page.fill("#text", "");
    await page.click("#run");
    await done(page);
    assert.equal(await page.locator("#error").textContent(), "");
  },
  async "a link opens the same sample"() {
    const { page } = await open();
    await page.fill("#seed", "77");
    await page.fill("#text", "the girls");
    await page.click("#run");
    await done(page);
    const before = await texts(page);
    await page.click("#share");
    const link = await page.evaluate(() => navigator.clipboard.readText());
    const { page: other } = await open(new URL(link).hash);
    await done(other);
    assert.deepEqual(await texts(other), before);
  },
  async "fits a phone, light and dark"() {
    for (const [name, width, colorScheme] of [["desktop", 1280, "light"], ["desktop", 1280, "dark"], ["phone", 390, "light"], ["phone", 390, "dark"]]) {
      const viewport = { width, height: 844 };
      const { page, errors } = await open("#seed=3&steps=8&beside=1", { viewport, colorScheme });
      await done(page);
      await page.locator("section .frame").first().fill("5");
      const sizes = await page.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
      assert.ok(sizes[0] <= sizes[1], `${name} ${sizes}`);
      await accessible(page, `${name} ${colorScheme}`);
      if (shots) await page.screenshot({ path: `${shots}/${name}-${colorScheme}.png` });
      assert.deepEqual(errors, []);
    }
  },
};

let failed = 0;
for (const [name, test] of Object.entries(tests)) {
  try {
    await test();
    console.log(`ok    ${name}`);
  } catch (error) {
    failed += 1;
    console.log(`FAIL  ${name}: ${error.stack}`);
  }
}
await browser.close();
server.kill("SIGTERM");
await new Promise((resolve) => server.on("exit", resolve));
console.log(failed === 0 ? "all passed" : `${failed} failed`);
process.exitCode = failed;
