#!/usr/bin/env bash
# Install s3edge and a predictor on a fresh GPU machine: Ubuntu, an NVIDIA driver, a root shell.
#
#   ./setup.sh [sam3|inference]     the predictor's extra; inference is the one that needs no GPU
#
# Run it as often as you like: what is there already is kept.
set -euo pipefail

predictor=${1:-sam3}
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
clone=$(cd "$here/../.." && pwd)
workspace=${WORKSPACE:-/workspace}
venv=$workspace/s3edge-venv
env_file=$workspace/gpu.env

say() { printf 'setup: %s\n' "$*" >&2; }
fail() { say "$*"; exit 1; }

# 1. The settings. They hold secrets: nobody but root reads them.
if [[ -f $env_file ]]; then
  chmod 600 "$env_file"
else
  fail "copy server/gpu.env or pull/gpu.env to $env_file, fill it in, and run this again"
fi
if grep --quiet '^[A-Z0-9_]*=.*<' "$env_file"; then
  fail "$env_file still has something in angle brackets; replace it"
fi

# 2. The GPU. A driver that is too old for PyTorch's build shows itself in step 5.
if [[ $predictor != inference ]]; then
  command -v nvidia-smi > /dev/null || fail "there is no NVIDIA driver; rent a machine with one"
  nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv,noheader
fi

# 3. Python 3.11 or newer, which Ubuntu 24.04 has and 22.04 has not.
python=${PYTHON:-python3}
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
  || fail "$python is older than 3.11; take an image of Ubuntu 24.04, or set PYTHON"
if ! "$python" -c 'import ensurepip' 2> /dev/null; then
  apt-get update
  apt-get install --yes --no-install-recommends python3-venv
fi

# 4. s3edge, with the versions that its tests ran with. The wheels of PyTorch bring CUDA's libraries.
[[ -x $venv/bin/python ]] || "$python" -m venv "$venv"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check \
  --constraint "$clone/constraints.txt" "${clone}[inference-server,queue,$predictor]"
"$venv/bin/s3edge" --version

# 5. Whether PyTorch sees the GPU.
if [[ $predictor == sam3 ]]; then
  "$venv/bin/python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' \
    || fail "PyTorch does not see the GPU: the driver is too old for its CUDA; rent a newer machine," \
      "or install the PyTorch that fits (pytorch.org/get-started) into $venv"
fi

say "done; try it with $here/run.sh, then have it started as README.md says"
