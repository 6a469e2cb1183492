#!/usr/bin/env bash
# The chart in a cluster of its own, in Docker: images, installation, a smoke test, and an engine that is killed.
# `make kind`: needs docker, kind, kubectl, 20 GB of memory and, the first time, half an hour. KEEP=yes leaves the cluster.
set -euo pipefail
cd "$(dirname "$0")/../.."
for program in docker kind kubectl; do
  command -v $program >/dev/null || { echo "kind: $program is not installed" >&2; exit 1; }
done
if kind get clusters | grep --quiet --line-regexp routine; then
  echo "kind: there is a cluster of this name: kind delete cluster --name routine" >&2
  exit 1
fi
say() { echo "kind: $*"; }
ours() { kubectl --context kind-routine -n routine "$@"; }
folder=$(mktemp -d)
finish() {
  code=$?
  test -z "${forward:-}" || kill "$forward" || true
  test $code = 0 || ours get pods,events 2>/dev/null || true
  test -n "${KEEP:-}" -o -z "${made:-}" || kind delete cluster --name routine
  rm -r "$folder"
}
trap finish EXIT

say "building images"
for target in gateway engine-cpu; do
  docker build --quiet -f deploy/docker/Dockerfile --target $target --tag routine-$target:0.1.0 .
done
say "making a cluster"
made=yes
kind create cluster --name routine --config deploy/kind/cluster.yaml --wait 3m
kind load docker-image --name routine routine-gateway:0.1.0 routine-engine-cpu:0.1.0
kubectl --context kind-routine create namespace routine
kubectl --context kind-routine label namespace routine pod-security.kubernetes.io/enforce=restricted
key=$(.venv/bin/python -m serving.keys --file "$folder/keys.json" create kind)
ours create secret generic gateway-keys --from-file=keys.json="$folder/keys.json"
ours create secret generic engine --from-literal=key="$(openssl rand -hex 32)"
ours apply -f deploy/kind/models.yaml

say "installing the chart"
.venv/helm/bin/helm upgrade --install routine deploy/helm --kube-context kind-routine -n routine -f deploy/kind/values.yaml
ours rollout status deployment/engine --timeout=10m
ours rollout status deployment/gateway --timeout=10m
ours port-forward service/gateway 18000:80 >/dev/null &
forward=$!
sleep 3
deploy/kind/smoke.sh http://127.0.0.1:18000 "$key"

say "killing an engine: the other one answers"
engine=$(ours get pods -l app.kubernetes.io/name=engine -o name | head -1)
ours delete "$engine" --grace-period=0 --force
sleep 5
deploy/kind/smoke.sh http://127.0.0.1:18000 "$key"
say "killing both: gateways answer 503, and rightly when one is back"
ours delete pods -l app.kubernetes.io/name=engine --grace-period=0 --force
sleep 3
test "$(curl --silent --output /dev/null --write-out '%{http_code}' --max-time 60 -H "authorization: Bearer $key" \
  -H 'content-type: application/json' -d @- http://127.0.0.1:18000/gen/routine/rate <deploy/kind/request.json)" = 503
ours rollout status deployment/engine --timeout=10m
sleep 10
deploy/kind/smoke.sh http://127.0.0.1:18000 "$key"
say "done"
