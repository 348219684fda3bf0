#!/usr/bin/env bash
# A tracking server for several people, on this machine, without Docker. To look at your own results: ddray ui.
#
#   BIND            address to listen on             127.0.0.1
#   PORT                                             5000
#   ALLOWED_HOSTS   names under which people reach it, each also with its port; others get 403
#   BACKEND         database                         sqlite, in SERVER_HOME
#   WORKERS         processes                        1: more only on a machine with CPUs to spare, because workers
#                                                    that are slow to start are killed and started again
#   SERVER_HOME     where database and artifacts lie: <DDRAY_HOME>/mlflow-server, never this folder
set -euo pipefail
root="$(cd "$(dirname "$0")/.." && pwd)"
bind="${BIND:-127.0.0.1}"
port="${PORT:-5000}"
allowed="${ALLOWED_HOSTS:-localhost,localhost:$port,127.0.0.1,127.0.0.1:$port}"
home="${SERVER_HOME:-${DDRAY_HOME:-$root/outputs}/mlflow-server}"
mkdir -p "$home/artifacts"
home="$(cd "$home" && pwd)"
mlflow="$root/.venv/bin/mlflow"
[ -x "$mlflow" ] || mlflow="mlflow"

# Not started from the checkout: Python would look into its folder mlflow/ first.
cd "$home"
exec env MLFLOW_DISABLE_TELEMETRY=true "$mlflow" server \
    --host "$bind" --port "$port" --workers "${WORKERS:-1}" \
    --backend-store-uri "${BACKEND:-sqlite:///$home/mlflow.db}" \
    --artifacts-destination "$home/artifacts" \
    --allowed-hosts "$allowed"
