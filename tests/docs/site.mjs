// Opens pages of the built site in headless Chromium, and prints what is wrong with them as json:
// node site.mjs '{"chromium", "pages": [url…], "server": url, "screenshots": folder}'; nothing may
// be asked for but files, and what lies on the server.
import { createRequire } from "node:module";

const web = new URL("../../projects/nanodet_plus/web/package.json", import.meta.url);
const { chromium } = createRequire(web)("playwright-core");
const options = JSON.parse(process.argv[2]);
const OWN = ["file:", "data:", "blob:", options.server];
const SIZES = { phone: { width: 390, height: 844 }, desktop: { width: 1280, height: 900 } };

/** In the page: what is wider than the window, but for what scrolls in a box of its own. */
function overflow() {
  const width = document.documentElement.clientWidth;
  return document.documentElement.scrollWidth > width ? [`${document.documentElement.scrollWidth} px wide`] : [];
}

const browser = await chromium.launch({ executablePath: options.chromium });
const problems = [];
for (const [size, viewport] of Object.entries(SIZES)) {
  for (const colorScheme of ["light", "dark"]) {
    const context = await browser.newContext({ viewport, colorScheme });
    for (const url of options.pages) {
      const page = await context.newPage();
      const note = (text) => problems.push(`${url}, ${size}, ${colorScheme}: ${text}`);
      page.on("console", (message) => message.type() === "error" && note(message.text()));
      page.on("pageerror", (error) => note(String(error)));
      page.on("requestfailed", (request) => note(`failed: ${request.url()}`));
      page.on("request", (request) => OWN.some((own) => request.url().startsWith(own)) || note(`asks for ${request.url()}`));
      await page.goto(url, { waitUntil: "networkidle" });
      (await page.evaluate(overflow)).forEach(note);
      const name = `${url.split("/").slice(-2).join("_")}_${size}_${colorScheme}.png`;
      await page.screenshot({ path: `${options.screenshots}/${name}` });
      await page.close();
    }
    await context.close();
  }
}
await browser.close();
console.log(JSON.stringify(problems));
