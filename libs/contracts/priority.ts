/** The classes of the contract by the names the mesh uses inside. */
import { Priority } from './generated/diffusionmesh/v1/generation.js';

export const PRIORITY_MESSAGES = { high: Priority.HIGH, normal: Priority.NORMAL, low: Priority.LOW } as const;

/** Undefined for unspecified and for what a newer contract may add. */
export function priorityName(message: Priority): keyof typeof PRIORITY_MESSAGES | undefined {
  switch (message) {
    case Priority.HIGH:
      return 'high';
    case Priority.NORMAL:
      return 'normal';
    case Priority.LOW:
      return 'low';
    default:
      return undefined;
  }
}
