/**
 * What a model offers and allows: the content of mesh.json in a model folder. Nodes publish it in
 * their beats, routers validate requests against it, ListModels shows it.
 */
export interface ModelInfo {
  readonly name: string;
  readonly revision: string;
  /** Architecture family, such as "z-image". */
  readonly family: string;
  /** BCP 47 tags. */
  readonly languages: readonly string[];
  readonly defaults: {
    readonly width: number;
    readonly height: number;
    readonly steps: number;
    readonly guidanceScale: number;
  };
  readonly limits: {
    readonly sizeMultiple: number;
    readonly minWidth: number;
    readonly maxWidth: number;
    readonly minHeight: number;
    readonly maxHeight: number;
    readonly minSteps: number;
    readonly maxSteps: number;
    readonly minGuidanceScale: number;
    readonly maxGuidanceScale: number;
    readonly maxImageCount: number;
    /** With the chat template. */
    readonly maxPromptTokens: number;
    readonly maxLoras: number;
    readonly minLoraStrength: number;
    readonly maxLoraStrength: number;
  };
  /** Whether a negative prompt has any effect. */
  readonly negativePrompt: boolean;
  readonly loras: readonly { readonly name: string; readonly description: string }[];
}

/** "z-image-tiny@3": one model of one revision. */
export function fullName({ name, revision }: Pick<ModelInfo, 'name' | 'revision'>): string {
  return `${name}@${revision}`;
}
