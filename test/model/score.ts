/** `npm run model:score`: every held-out caption, drawn by engine-onnx and judged; a table, and with `--json FILE` the shares. */
import { availableParallelism } from 'node:os';
import { thisProcess } from '#runtime';
import { finish, printTable } from '../bench/support/report.js';
import { EMBEDDED_MODEL_DIR, heldOutCaptions, markCaptions, QUESTIONS, type Shares, sharesOf, TARGETS } from './scoring.js';

const MAX_ENGINES = 4;

const captions = heldOutCaptions();
const modelDir = thisProcess.env.DMESH_NODE_MODEL_DIR ?? EMBEDDED_MODEL_DIR;
const startedAt = performance.now();
const marks = await markCaptions({
  modelDir,
  captions,
  engineCount: Math.min(availableParallelism(), MAX_ENGINES),
  onMarked: showProgress,
});
const of = (language: string) => marks.filter((mark) => mark.language === language);
const percent = (share: number) => `${(100 * share).toFixed(1)} %`;
const row = (name: string, shares: Shares) => [name, ...QUESTIONS.map((question) => percent(shares[question]))];
const languages = [...new Set(captions.map(({ language }) => language))].sort();
const figures = Object.fromEntries(languages.map((language) => [language, sharesOf(of(language))]));
printTable(
  `${captions.length} captions kept out of training, drawn in ${Math.round((performance.now() - startedAt) / 1000)} s`,
  ['', ...QUESTIONS],
  [
    ...languages.map((language) => row(`${language} (${of(language).length})`, sharesOf(of(language)))),
    ['target', ...QUESTIONS.map((question) => `≥ ${percent(TARGETS[question])}`)],
  ],
);
finish({ ...figures, captions: captions.length });

function showProgress(count: number): void {
  if (process.stderr.isTTY) process.stderr.write(`\r  ${count} of ${captions.length}${count === captions.length ? '\n' : ''}`);
  else if (count % 60 === 0) process.stderr.write(`  ${count} of ${captions.length}\n`);
}
