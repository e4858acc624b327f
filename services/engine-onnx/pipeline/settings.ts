/** The few numbers of a model's config files that the loop around its graphs needs. */
import { type ModelPackage, modelUnusable } from '#model-package';
import { readModelJson } from './files.js';
import type { RotaryConfig } from './rotary.js';

export interface ModelSettings {
  /** Of the noise schedule. */
  readonly shift: number;
  readonly rotary: RotaryConfig;
  readonly latentChannels: number;
  /** Width of a caption feature. */
  readonly captionWidth: number;
  /** What the decoder wants is latents / scaling + offset. */
  readonly vaeScaling: number;
  readonly vaeOffset: number;
}

export async function readSettings(model: ModelPackage): Promise<ModelSettings> {
  const [scheduler, transformer, vae] = await Promise.all([
    readModelJson(model, 'scheduler/scheduler_config.json'),
    readModelJson(model, 'transformer/config.json'),
    readModelJson(model, 'vae/config.json'),
  ]);
  if (scheduler.use_dynamic_shifting === true) {
    throw modelUnusable('scheduler/scheduler_config.json: expected a static shift, got use_dynamic_shifting');
  }
  const number = (file: string, json: Record<string, unknown>, key: string): number => {
    const value = json[key];
    if (typeof value === 'number' && Number.isFinite(value)) return value;
    throw modelUnusable(`${file}: expected a number for ${key}, got ${JSON.stringify(value)}`);
  };
  const axesDims = transformer.axes_dims;
  if (
    !Array.isArray(axesDims) ||
    axesDims.length !== 3 ||
    !axesDims.every((dims) => Number.isInteger(dims) && dims > 0 && dims % 2 === 0)
  ) {
    throw modelUnusable(`transformer/config.json: expected three even axes_dims, got ${JSON.stringify(axesDims)}`);
  }
  return {
    shift: number('scheduler/scheduler_config.json', scheduler, 'shift'),
    rotary: { theta: number('transformer/config.json', transformer, 'rope_theta'), axesDims },
    latentChannels: number('transformer/config.json', transformer, 'in_channels'),
    captionWidth: number('transformer/config.json', transformer, 'cap_feat_dim'),
    vaeScaling: number('vae/config.json', vae, 'scaling_factor'),
    vaeOffset: number('vae/config.json', vae, 'shift_factor'),
  };
}
