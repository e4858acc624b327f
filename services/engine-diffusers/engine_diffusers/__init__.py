"""The GPU engine of Diffusion Mesh."""

# Part of the determinism class: raise it with every change that can change a picture's bytes.
ENGINE_VERSION = "0.1.0"
