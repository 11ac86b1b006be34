#!/usr/bin/env bash
# Run the GPU machine's part in the foreground, as gpu.env says: take tasks from the queue, or serve.
#
# A server listens on loopback alone: the tunnel ends there, and the key never travels in the clear.
set -euo pipefail

workspace=${WORKSPACE:-/workspace}
s3edge=$workspace/s3edge-venv/bin/s3edge
env_file=$workspace/gpu.env

cd "$workspace"
if grep --quiet '^S3EDGE_DISPATCH=procrastinate' "$env_file"; then
  exec "$s3edge" inference work --env-file "$env_file"
fi
exec "$s3edge" inference serve --host 127.0.0.1 --port "${PORT:-8000}" --env-file "$env_file"
