#!/usr/bin/env bash
# Ask a gateway that serves the demo model: deploy/kind/smoke.sh URL KEY
set -euo pipefail
url=$1 key=$2
request=@$(dirname "$0")/request.json

fail() { echo "smoke: $1" >&2; exit 1; }
ask() { curl --silent --show-error --max-time 30 "$@"; }
status() { ask --output /dev/null --write-out '%{http_code}' "$@"; }

test "$(status "$url/readyz")" = 200 || fail "it is not ready"
answer=$(ask --fail-with-body "$url/gen/routine/rate" -H "authorization: Bearer $key" \
  -H 'content-type: application/json' -d "$request") || fail "$answer"
grep --quiet '"init_weight_rate": *55' <<<"$answer" || fail "$answer"
test "$(status "$url/gen/routine/rate" -H 'content-type: application/json' -d "$request")" = 401 ||
  fail "it answers without a key"
test "$(status "$url/metrics")" = 404 || fail "it shows its metrics to everybody"
echo "smoke: ready, right, closed to others"
