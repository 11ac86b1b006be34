#!/usr/bin/env bash
# vast.ai runs this whenever the instance starts: have supervisord keep run.sh running.
#
# On-start field of the template:  bash /workspace/s3edge/examples/vastai/onstart.sh
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

if ! command -v supervisorctl > /dev/null; then
  apt-get update
  apt-get install --yes --no-install-recommends supervisor
fi
sed "s|@HERE@|$here|" "$here/supervisor.conf" > /etc/supervisor/conf.d/s3edge.conf
# vast.ai's own images run it already; in others it is started here.
supervisorctl pid > /dev/null 2>&1 || supervisord --configuration /etc/supervisor/supervisord.conf
supervisorctl reread
supervisorctl update
