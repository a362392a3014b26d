// The Khronos validator's report on a GLB, as JSON: node viewer/validate.mjs head.glb
// Exits with 1 on errors or warnings, with 2 when it was called wrongly.

import { readFile } from 'node:fs/promises';

import { validateBytes } from 'gltf-validator';

const [file, ...others] = process.argv.slice(2);
if (!file || others.length) {
  console.error('usage: node viewer/validate.mjs head.glb');
  process.exit(2);
}
const report = await validateBytes(await readFile(file), { uri: file });
console.log(JSON.stringify(report, null, 2));
process.exitCode = report.issues.numErrors + report.issues.numWarnings ? 1 : 0;
