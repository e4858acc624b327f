/** Part of the determinism class: raise it with every change that can change a picture's bytes. */
export const ENGINE_VERSION = '0.1.0';
