#!/usr/bin/env bash
# Measures search quality with the real model: on the samples, and on Cranfield if CARBON_TEST_DATA names a folder with
# it. Starts a platform on free ports with a temporary data folder. Fails if a minimum is not reached.
#
#   scripts/quality.sh            builds the release program and measures it
#   scripts/quality.sh PROGRAM    measures this program; results do not depend on its optimisation level
set -euo pipefail
cd "$(dirname "$0")/.."

if [ $# -gt 0 ]; then
    bin="$1"
else
    cargo build --release --locked --bin carbon-ml
    bin="${CARGO_TARGET_DIR:-target}/release/carbon-ml"
fi

work="$(mktemp -d)"
pid=""
cleanup() {
    if [ -n "$pid" ]; then
        kill -INT "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
    fi
    rm -rf "$work"
}
trap cleanup EXIT

# The cache of model weights is shared between runs. Each load checks the SHA-256 of the weights.
models="${CARBON_MODELS_CACHE:-$HOME/.cache/carbon-ml/models}"
mkdir -p "$models" "$work/data"
ln -s "$models" "$work/data/models"

ML_DATA_DIR="$work/data" ML_QUERY_PORT=0 ML_TRACKING_PORT=0 ML_LOG_LEVEL=warn "$bin" up >"$work/out" 2>"$work/err" &
pid=$!
address() { sed -n "s/^ *$1 *\(http:[^ ]*\).*/\1/p" "$work/out" | head -n 1; }
ready=""
for _ in $(seq 1 600); do
    ML_URL="$(address query-api)"
    ML_TRACKING_URL="$(address tracking-api)"
    if [ -n "$ML_URL" ] && [ -n "$ML_TRACKING_URL" ] && python3 - "$ML_URL" <<'PY'; then
import sys, urllib.request
try:
    urllib.request.urlopen(sys.argv[1] + "/ready", timeout=2)
except Exception:
    sys.exit(1)
PY
        ready=yes
        break
    fi
    kill -0 "$pid" || { cat "$work/err" >&2; exit 1; }
    sleep 0.5
done
[ -n "$ready" ] || { echo "quality.sh: the platform was not ready within 300 s" >&2; cat "$work/err" >&2; exit 1; }
export ML_URL ML_TRACKING_URL

echo "-- samples"
"$bin" eval --corpus samples/entities.jsonl --queries samples/queries.jsonl --qrels samples/qrels/test.tsv \
    --at-least hybrid.weighted.success@3=0.9

if [ -n "${CARBON_TEST_DATA:-}" ] && [ -d "$CARBON_TEST_DATA/cranfield" ]; then
    echo "-- cranfield"
    python3 scripts/cranfield_to_beir.py "$CARBON_TEST_DATA/cranfield" "$work/cranfield"
    "$bin" eval --corpus "$work/cranfield/corpus.jsonl" --queries "$work/cranfield/queries.jsonl" \
        --qrels "$work/cranfield/qrels/test.tsv" --at-least hybrid.weighted.ndcg@10=0.40
else
    echo "-- cranfield: skipped; CARBON_TEST_DATA does not name a folder with cranfield/"
fi
