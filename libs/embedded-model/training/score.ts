/**
 * Prints how many held-out captions the judge finds obeyed, for each language.
 * `tsx score.ts DIR` reads DIR/heldout.rgb: 128 x 128 RGB pictures in the order of heldout.json, as draw.py writes them.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { judge, type Scenes, type Verdict } from '../judge.js';

interface HeldOut {
  readonly caption: string;
  readonly language: string;
  readonly colour: string;
  readonly background: string;
  readonly shape: string;
  readonly position: string;
  readonly size: string;
}

const SIDE_PX = 128;
const QUESTIONS = ['colour', 'background', 'shape', 'position', 'size'] as const satisfies readonly (keyof Verdict)[];

const directory = process.argv[2];
if (directory === undefined) throw new Error('name the directory that holds heldout.rgb');
const read = (name: string): unknown => JSON.parse(readFileSync(new URL(`../${name}`, import.meta.url), 'utf8'));
const scenes = read('scenes.json') as Scenes;
const rows = read('heldout.json') as HeldOut[];
const rgb = readFileSync(join(directory, 'heldout.rgb'));
const bytes = SIDE_PX * SIDE_PX * 3;
if (rgb.length !== rows.length * bytes) throw new Error(`${rgb.length} bytes are not ${rows.length} pictures`);

const verdicts = rows.map((_, k) => judge(rgb.subarray(k * bytes, (k + 1) * bytes), SIDE_PX, SIDE_PX, scenes));
for (const language of new Set(rows.map((row) => row.language))) {
  const picked = [...rows.keys()].filter((k) => rows[k]?.language === language);
  const shares = QUESTIONS.map((question) => {
    const right = picked.filter((k) => verdicts[k]?.[question] === rows[k]?.[question]).length;
    return `${question} ${((100 * right) / picked.length).toFixed(1)} %`;
  });
  console.log(`${language} (${picked.length}): ${shares.join(', ')}`);
}
rows.forEach((row, k) => {
  const wrong = QUESTIONS.filter((question) => verdicts[k]?.[question] !== row[question]);
  if (wrong.length > 0) console.log(`  ${wrong.map((q) => `${q} ${String(verdicts[k]?.[q])}`).join(', ')}: ${row.caption}`);
});
