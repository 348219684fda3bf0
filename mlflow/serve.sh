#!/usr/bin/env bash
# An MLflow server for several people on what sweeps have mirrored, without Docker. For yourself alone: ddray ui.
#
#   DDRAY_HOME      its mlflow/mlflow.db is served     outputs of this checkout
#   BIND            address to listen on               127.0.0.1
#   PORT                                               5000
#   ALLOWED_HOSTS   names under which people reach it, each also with its port; others get 403
#   BACKEND         another database to serve instead  sqlite:///<DDRAY_HOME>/mlflow/mlflow.db
#   ARTIFACTS       where files logged through the server go   <DDRAY_HOME>/mlflow/artifacts
#   WORKERS         processes; more than one only where CPUs are free, because workers that are slow
#                   to start are killed and started again      1
set -euo pipefail
root="$(cd "$(dirname "$0")/.." && pwd)"
home="${DDRAY_HOME:-$root/outputs}"
if [ -z "${BACKEND:-}" ] && [ ! -f "$home/mlflow/mlflow.db" ]; then
    echo "$home/mlflow/mlflow.db: nothing to show yet. Run a sweep, or: ddray collect SWEEP --mlflow" >&2
    exit 2
fi
mkdir -p "$home"
home="$(cd "$home" && pwd)"
bind="${BIND:-127.0.0.1}"
port="${PORT:-5000}"
allowed="${ALLOWED_HOSTS:-localhost,localhost:$port,127.0.0.1,127.0.0.1:$port}"
mlflow="$root/.venv/bin/mlflow"
[ -x "$mlflow" ] || mlflow="mlflow"

# The path may hold a question mark: the database is named from where the server starts, artifacts in a quoted address.
python="$root/.venv/bin/python"
[ -x "$python" ] || python="python3"
quoted="$("$python" -c 'import sys, urllib.parse; print(urllib.parse.quote(sys.argv[1]))' "$home")"

# Not from the checkout: the server starts Python there, which would look into the folder mlflow/ first.
cd "$home"
exec env MLFLOW_DISABLE_TELEMETRY=true "$mlflow" server \
    --host "$bind" --port "$port" --workers "${WORKERS:-1}" \
    --backend-store-uri "${BACKEND:-sqlite:///mlflow/mlflow.db}" \
    --artifacts-destination "${ARTIFACTS:-file://$quoted/mlflow/artifacts}" \
    --allowed-hosts "$allowed"
