# An inference node with engine-diffusers; one container for each GPU.
#
#   docker build -f deploy/docker/node-diffusers.Dockerfile -t diffusion-mesh-node-diffusers .
#   docker run --gpus device=0 --network host -v /models:/models:ro \
#     -e NATS_URL=nats://… -e DMESH_NODE_GPU=0 -e DMESH_NODE_MODEL_DIR=/models/z-image-turbo diffusion-mesh-node-diffusers
#
# CUDA comes with torch's wheels, so a plain image will do; the host needs NVIDIA's driver and container toolkit. Weights
# are never part of the image. Another index: --build-arg PIP_INDEX_URL=…
FROM node:22-bookworm-slim

RUN apt-get update \
  && apt-get install --yes --no-install-recommends python3 python3-venv \
  && rm -rf /var/lib/apt/lists/*
WORKDIR /app

# 5.5 GB that change only with the lock file.
ARG PIP_INDEX_URL
COPY services/engine-diffusers/requirements.lock services/engine-diffusers/
COPY deploy/setup/diffusers.mjs deploy/setup/
RUN PIP_NO_CACHE_DIR=1 node deploy/setup/diffusers.mjs

COPY . .
RUN node deploy/setup/prepare.mjs && npm cache clean --force

ENV DMESH_NODE_ENGINE=diffusers \
  DMESH_NODE_LISTEN=0.0.0.0:50052 \
  DMESH_NODE_HTTP_LISTEN=0.0.0.0:9465 \
  DMESH_LOG_FORMAT=json \
  NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER node
# exec form: the node is process 1 and hears SIGTERM itself.
CMD ["node", "dist/services/inference-node/main.js"]
