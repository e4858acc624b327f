/** ModelInfo as the contract's Model message, and back. */
import type { generation } from '#contracts';
import type { ModelInfo } from './model-info.js';

export interface Loading {
  /** Of the nodes that serve it, those that have it in memory. */
  readonly loadedCount: number;
  /** Predicted time to load it elsewhere, milliseconds. */
  readonly loadMs: number;
}

/** `nodeCount`: nodes that serve it now. */
export function modelMessage(info: ModelInfo, nodeCount: number, loading?: Loading): generation.Model {
  return {
    name: info.name,
    revision: info.revision,
    family: info.family,
    languages: [...info.languages],
    defaults: { ...info.defaults },
    limits: { ...info.limits },
    negativePrompt: info.negativePrompt,
    loras: info.loras.map((lora) => ({ ...lora })),
    nodes: nodeCount,
    leadsTo: [],
    loadedNodes: loading?.loadedCount ?? nodeCount,
    loadMs: loading?.loadMs ?? 0,
  };
}

/** Undefined for a message without defaults or limits, which no engine of this contract sends. */
export function modelInfoOf(message: generation.Model): ModelInfo | undefined {
  const { defaults, limits } = message;
  if (!defaults || !limits) return undefined;
  return {
    name: message.name,
    revision: message.revision,
    family: message.family,
    languages: message.languages,
    defaults: { ...defaults },
    limits: { ...limits },
    negativePrompt: message.negativePrompt,
    loras: message.loras.map(({ name, description }) => ({ name, description })),
  };
}
