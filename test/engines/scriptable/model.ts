/** The model the scriptable engine serves when its model folder has no mesh.json. */
import type { ModelInfo } from '#model-package';

export const SCRIPTED_MODEL: ModelInfo = {
  name: 'scripted',
  revision: '1',
  family: 'scripted',
  languages: ['en', 'zh'],
  defaults: { width: 128, height: 128, steps: 8, guidanceScale: 0 },
  limits: {
    sizeMultiple: 16,
    minWidth: 64,
    maxWidth: 2048,
    minHeight: 64,
    maxHeight: 2048,
    minSteps: 1,
    maxSteps: 200,
    minGuidanceScale: 0,
    maxGuidanceScale: 10,
    maxImageCount: 4,
    maxPromptTokens: 512,
    maxLoras: 4,
    minLoraStrength: 0,
    maxLoraStrength: 2,
  },
  negativePrompt: true,
  loras: [{ name: 'neon', description: 'changes nothing; there to be asked for' }],
};
