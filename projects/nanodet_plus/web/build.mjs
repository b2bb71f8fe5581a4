// Puts the page and its one dependency into a folder that any static web server can serve:
// node build.mjs [--output DIR] [--model FILE.onnx]
import {
  cpSync, copyFileSync, existsSync, mkdirSync, readFileSync, rmSync, writeFileSync,
} from "node:fs";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

const RUNTIME_FILES = [
  "ort.wasm.min.mjs",
  "ort-wasm-simd-threaded.mjs",
  "ort-wasm-simd-threaded.wasm",
];

function fail(message) {
  console.error(`build: ${message}`);
  process.exit(1);
}

const here = dirname(fileURLToPath(import.meta.url));
const { values } = parseArgs({
  options: {
    output: { type: "string", default: join(here, "dist") },
    model: { type: "string" },
  },
});
const output = resolve(values.output);
const runtime = join(here, "node_modules", "onnxruntime-web");
if (!existsSync(runtime)) fail("onnxruntime-web is not installed; run `npm ci` in " + here);
const { version } = JSON.parse(readFileSync(join(runtime, "package.json"), "utf8"));
const licenses = join(here, "licenses", `onnxruntime-web-${version}`); // its package lacks them
if (!existsSync(licenses)) {
  fail(`${licenses} is not there: put LICENSE and ThirdPartyNotices.txt of ONNX Runtime ${version} into it`);
}
if (values.model && !existsSync(values.model)) fail(`model ${values.model} not found`);
if (existsSync(output) && !existsSync(join(output, "app.js"))) {
  fail(`${output} is there already and is no earlier build of this page`);
}

rmSync(output, { recursive: true, force: true });
mkdirSync(join(output, "ort"), { recursive: true });
cpSync(join(here, "src"), output, { recursive: true });
copyFileSync(join(here, "..", "..", "..", "LICENSE"), join(output, "LICENSE"));
cpSync(licenses, join(output, "ort"), { recursive: true });
for (const name of RUNTIME_FILES) copyFileSync(join(runtime, "dist", name), join(output, "ort", name));
if (values.model) {
  copyFileSync(values.model, join(output, "model.onnx"));
  const page = join(output, "index.html");
  const text = readFileSync(page, "utf8");
  writeFileSync(page, text.replace('data-model=""', 'data-model="model.onnx"'));
  if (existsSync(`${values.model}.json`)) {
    copyFileSync(`${values.model}.json`, join(output, "model.onnx.json"));
  }
}
console.log(`build: ${output}${values.model ? "" : " (no model beside the page: the user picks one)"}`);
