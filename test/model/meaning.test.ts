/** The model's promise, on as many captions as a test run can afford; `npm run model:score` takes them all. */
import { beforeAll, describe, expect, test } from 'vitest';
import { EMBEDDED_MODEL_DIR, heldOutCaptions, type Marks, markCaptions, QUESTIONS, sharesOf, TARGETS } from './scoring.js';

const CAPTIONS_PER_LANGUAGE = 60;
const LANGUAGES = ['en', 'zh'];

let marks: Marks[];
beforeAll(async () => {
  const captions = LANGUAGES.flatMap((language) =>
    heldOutCaptions()
      .filter((caption) => caption.language === language)
      .slice(0, CAPTIONS_PER_LANGUAGE),
  );
  marks = await markCaptions({ modelDir: EMBEDDED_MODEL_DIR, captions, engineCount: 1 });
}, 300_000);

describe.each(LANGUAGES)('captions in %s that training never saw', (language) => {
  test.each(QUESTIONS)('the %s of the object is what the caption says', (question) => {
    const own = marks.filter((mark) => mark.language === language);
    expect(own).toHaveLength(CAPTIONS_PER_LANGUAGE);
    expect(sharesOf(own)[question]).toBeGreaterThanOrEqual(TARGETS[question]);
  });
});
