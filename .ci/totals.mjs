// Adds up the test runs in a folder of vitest's JSON reports and prints the line CI ends with.
// A step that failed without a failed test to show for it (it crashed, hung, or was no test run)
// counts as one failure.
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';

const folder = process.argv[2];
const stepsFile = path.join(folder, 'failed-steps');
const failedSteps = existsSync(stepsFile) ? readFileSync(stepsFile, 'utf8').split('\n').filter(Boolean) : [];
const total = { passed: 0, failed: 0, skipped: 0 };
const explained = new Set();

for (const name of readdirSync(folder).filter((file) => file.endsWith('.json'))) {
  const report = JSON.parse(readFileSync(path.join(folder, name), 'utf8'));
  total.passed += report.numPassedTests;
  total.failed += report.numFailedTests;
  total.skipped += report.numPendingTests + report.numTodoTests;
  // A file that fails without a failed test: it could not be loaded, or its set-up failed.
  const brokenFiles = report.testResults.filter(({ status, assertionResults }) => {
    return status === 'failed' && !assertionResults.some((test) => test.status === 'failed');
  });
  for (const { name: file } of brokenFiles) console.log(`failed: ${path.relative('.', file)}`);
  total.failed += brokenFiles.length;
  if (report.numFailedTests + brokenFiles.length > 0) explained.add(name);
}
for (const step of failedSteps) {
  if (explained.has(step)) continue;
  console.log(`failed: ${step.replace(/\.json$/, '')}`);
  total.failed++;
}
const skipped = total.skipped > 0 ? `, ${total.skipped} skipped` : '';
console.log(`${total.passed} passed, ${total.failed} failed${skipped}`);
process.exitCode = total.failed === 0 && total.passed > 0 ? 0 : 1;
