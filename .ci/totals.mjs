// Adds up the test runs in a folder of vitest's JSON reports and prints what CI ends with: the tests
// that failed and why, those that passed only when tried again, and a line of totals. All that at
// the end, because of a long log the end is what is read, and often all that is kept.
// `totals.mjs FOLDER --failed-files` prints the test files of the whole run that failed instead.
// A step that failed without a failed test to show for it (it crashed, hung, or was no test run)
// counts as one failure.
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';

const [folder, mode] = process.argv.slice(2);
/** The first lines say what was expected and what came, and where. */
const messageLineCount = 25;

/** The whole run, and the files of it that ran once more by themselves. */
const wholeReport = 'tests.json';
const againReport = 'again.json';

if (mode === '--failed-files') {
  for (const [file, { status }] of read(wholeReport)) if (status === 'failed') console.log(file);
} else {
  process.exitCode = sum();
}

function sum() {
  const total = { passed: 0, failed: 0, skipped: 0 };
  const explained = new Set();
  const again = read(againReport);
  for (const name of readdirSync(folder).filter((file) => file.endsWith('.json') && file !== againReport)) {
    const report = read(name);
    if (name === wholeReport) {
      for (const [file, second] of again) {
        for (const { title, messages } of failures(report.get(file))) {
          if (!failures(second).some((failure) => failure.title === title)) tell('passed when run again by itself', file, title, messages);
        }
        report.set(file, second);
        explained.add(wholeReport);
        if (failures(second).length > 0) explained.add(againReport);
      }
    }
    for (const [file, result] of report) {
      for (const test of result.assertionResults) {
        if (test.status === 'passed') total.passed++;
        else if (test.status !== 'failed') total.skipped++;
        if (test.status === 'passed' && test.failureMessages.length > 0)
          tell('passed in its second try', file, test.fullName, test.failureMessages);
      }
      for (const { title, messages } of failures(result)) {
        tell('FAILED', file, title, messages);
        total.failed++;
        explained.add(name);
      }
    }
  }
  const stepsFile = path.join(folder, 'failed-steps');
  const failedSteps = existsSync(stepsFile) ? readFileSync(stepsFile, 'utf8').split('\n').filter(Boolean) : [];
  for (const step of failedSteps.filter((each) => !explained.has(each))) {
    console.log(`FAILED: ${step.replace(/\.json$/, '')}`);
    total.failed++;
  }
  const skipped = total.skipped > 0 ? `, ${total.skipped} skipped` : '';
  console.log(`${total.passed} passed, ${total.failed} failed${skipped}`);
  return total.failed === 0 && total.passed > 0 ? 0 : 1;
}

/** A report's results by test file; empty where that run did not take place or left none. */
function read(name) {
  const file = path.join(folder, name);
  if (!existsSync(file)) return new Map();
  const { testResults } = JSON.parse(readFileSync(file, 'utf8'));
  return new Map(testResults.map((result) => [path.relative('.', result.name), result]));
}

/** A file that fails without a failed test could not be loaded, or its set-up failed: that is one failure, too. */
function failures({ status, message, assertionResults }) {
  const failed = assertionResults.filter((test) => test.status === 'failed');
  if (status === 'failed' && failed.length === 0) return [{ title: 'the file itself', messages: [message] }];
  return failed.map((test) => ({ title: test.fullName, messages: test.failureMessages }));
}

function tell(outcome, file, title, messages) {
  console.log(`${outcome}: ${file} > ${title}`);
  for (const message of messages) {
    const lines = message.split('\n').filter((line) => !line.includes('/node_modules/'));
    for (const line of lines.slice(0, messageLineCount)) console.log(`    ${line}`);
    if (lines.length > messageLineCount) console.log(`    (${lines.length - messageLineCount} lines more)`);
  }
}
