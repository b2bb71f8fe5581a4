// Uses the page as a person would, in headless Chromium, and prints what it showed as json:
// node browser.mjs '{"url", "plainUrl", "chromium", "picture", "large", "model", "models": [path…],
// "video", "screenshot"}'; plainUrl is of a server that does not isolate the page; large is a picture
// to be cut into slices; model is a good one, and models are to be refused.
import { createRequire } from "node:module";

const web = new URL("../../projects/nanodet_plus/web/package.json", import.meta.url);
const { chromium } = createRequire(web)("playwright-core");
const options = JSON.parse(process.argv[2]);
const TIMEOUT = 60_000;

const browser = await chromium.launch({
  executablePath: options.chromium,
  args: [
    "--use-fake-device-for-media-stream",
    `--use-file-for-fake-video-capture=${options.video}`,
  ],
});

async function openPage(url, permissions) {
  const context = await browser.newContext({
    permissions,
    viewport: { width: 1200, height: 760 },
    colorScheme: "light",
  });
  const page = await context.newPage();
  page.setDefaultTimeout(TIMEOUT);
  await page.addInitScript(countBitmaps);
  const seen = { requests: [], problems: [] };
  page.on("request", (request) => seen.requests.push(request.url()));
  page.on("pageerror", (error) => seen.problems.push(String(error)));
  await page.goto(url);
  await page.getByText("classes, input").waitFor();
  return { page, seen };
}

/** Counts, in the page, the bitmaps that are open. */
function countBitmaps() {
  globalThis.openBitmaps = 0;
  const { createImageBitmap } = globalThis;
  globalThis.createImageBitmap = async (...args) => {
    const bitmap = await createImageBitmap(...args);
    globalThis.openBitmaps += 1;
    return bitmap;
  };
  const { close } = ImageBitmap.prototype;
  ImageBitmap.prototype.close = function () {
    globalThis.openBitmaps -= 1;
    close.call(this);
  };
}

/** Notes, in the page, when the session of the model that is loaded gives its memory back. */
async function watchSession() {
  const { state } = await import("./app.js");
  const { session } = state.detector;
  const { release } = session;
  globalThis.released = 0;
  session.release = () => {
    globalThis.released += 1;
    return release.call(session);
  };
}

/** Chooses a model, and waits for the detector that it makes. */
async function useModel(page, path) {
  const before = await page.evaluateHandle(() => import("./app.js").then((x) => x.state.detector));
  await page.locator("#model-input").setInputFiles(path);
  await page.waitForFunction(
    (old) => import("./app.js").then(({ state }) => state.detector !== old),
    before,
  );
  await page.locator("#status", { hasText: "classes, input" }).waitFor();
}

const textOf = (page, id) => page.locator(`#${id}`).textContent();

/** The first result that the page shows, from the state of its own module. */
async function resultOf(page) {
  for (let end = Date.now() + TIMEOUT; Date.now() < end; await page.waitForTimeout(50)) {
    const result = await page.evaluate(() => import("./app.js").then(({ state }) => state.result));
    if (result) return result;
  }
  throw new Error(`no result within ${TIMEOUT} ms`);
}

async function errorAfter(page, action) {
  await action();
  await page.locator("#error:not([hidden])").waitFor();
  return textOf(page, "error");
}

const report = {};
try {
  const { page, seen } = await openPage(options.url, []);
  report.status = await textOf(page, "status");
  report.isolated = await page.evaluate(() => crossOriginIsolated);
  await page.locator("#image-input").setInputFiles(options.picture);
  report.result = await resultOf(page);
  await page.locator("#rows tr").first().waitFor();
  report.rows = await page.locator("#rows tr").allTextContents();
  report.summary = await page.locator("#canvas").getAttribute("aria-label");
  await page.locator("#classes summary").click();
  await page.locator(".classes-search").fill("PERS");
  report.classesFound = await page.locator(".classes-list label:visible").allTextContents();
  await page.locator(".classes-none").click();
  report.rowsWithoutPersons = await page.locator("#rows tr").allTextContents();
  report.classCount = await page.locator(".classes-count").textContent();
  await page.locator(".classes-all").click();
  report.rowsAgain = await page.locator("#rows tr").count();
  await page.locator("#classes summary").click();
  if (options.screenshot) await page.screenshot({ path: options.screenshot });

  report.refused = [];
  for (const model of options.models) {
    const choose = () => page.locator("#model-input").setInputFiles(model);
    report.refused.push(await errorAfter(page, choose));
  }
  report.statusAfter = await textOf(page, "status");
  await page.evaluate(watchSession);
  await useModel(page, options.model);
  report.resultOfOther = await resultOf(page);
  report.released = await page.evaluate(() => globalThis.released);
  report.openBitmaps = await page.evaluate(() => globalThis.openBitmaps);
  report.wrongPicture = await errorAfter(page, () =>
    page.locator("#image-input").setInputFiles(options.models[0]),
  );
  report.cameraRefused = await errorAfter(page, () => page.locator("#camera-button").click());
  Object.assign(report, seen);

  const plain = await openPage(options.plainUrl, []);
  report.plainStatus = await textOf(plain.page, "status");
  await plain.page.locator("#image-input").setInputFiles(options.picture);
  report.plainResult = await resultOf(plain.page);

  const tiled = await openPage(options.url, []);
  await tiled.page.locator("#tiles").check();
  await tiled.page.locator("#image-input").setInputFiles(options.large);
  report.tilesResult = await resultOf(tiled.page);
  report.problems.push(...tiled.seen.problems);

  const allowed = await openPage(options.url, ["camera"]);
  await allowed.page.locator("#camera-button").click();
  report.cameraResult = await resultOf(allowed.page);
  await allowed.page.getByText("/s", { exact: false }).first().waitFor();
  report.fps = await textOf(allowed.page, "fps");
  await allowed.page.locator("#camera-button").click();
  report.cameraButton = await textOf(allowed.page, "camera-button");
  report.problems.push(...plain.seen.problems, ...allowed.seen.problems);
} finally {
  await browser.close();
}
console.log(JSON.stringify(report));
