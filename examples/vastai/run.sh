#!/usr/bin/env bash
# Run the GPU machine's part in the foreground, as gpu.env says: take tasks from the queue, or serve.
#
# A server listens on loopback alone: the tunnel ends there, and the key never travels in the clear.
set -euo pipefail

workspace=${WORKSPACE:-/workspace}
s3edge=$workspace/s3edge-venv/bin/s3edge
env_file=$workspace/gpu.env

cd "$workspace"
[[ -r $env_file ]] || { echo "run: there is no $env_file; copy server/gpu.env or pull/gpu.env there" >&2; exit 1; }
if grep --quiet --extended-regexp "^(export )?S3EDGE_DISPATCH=[\"']?procrastinate" "$env_file"; then
  echo 'run: S3EDGE_DISPATCH is procrastinate, so tasks are taken from the queue' >&2
  exec "$s3edge" inference work --env-file "$env_file"
fi
echo 'run: S3EDGE_DISPATCH is not procrastinate, so the gateway is listened to' >&2
exec "$s3edge" inference serve --host 127.0.0.1 --port "${PORT:-8000}" --env-file "$env_file"
