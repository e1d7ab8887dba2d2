#!/usr/bin/env bash
# Run the tests' Jaeger in the foreground, on loopback only.
#
#   usage: run.sh [memory | badger DIRECTORY]
#   environment: JAEGER_OTLP_HTTP=4318 JAEGER_OTLP_GRPC=4317 JAEGER_QUERY=16686 JAEGER_QUERY_GRPC=16685 JAEGER_HEALTH=13133
#                JAEGER_UI (a built jaeger-ui; without it the pages are a placeholder and the query API works)
#                JAEGER_UI_CONFIG (its JSON)   WHYGATE_JAEGER (the binary, if it is not in the cache)
set -euo pipefail

binary=${WHYGATE_JAEGER:-${XDG_CACHE_HOME:-$HOME/.cache}/whygate/jaeger-v1.76.0}
[[ -x $binary ]] || { echo "no Jaeger at $binary; build it with: make jaeger" >&2; exit 1; }

case ${1:-memory} in
  memory)
    backend='{"memory": {"max_traces": 100000}}'
    ;;
  badger)
    place=$(realpath -m "${2:?badger needs a directory}")
    mkdir -p "$place/keys" "$place/values"
    backend='{"badger": {"directories": {"keys": "'$place/keys'", "values": "'$place/values'"}, "ephemeral": false}}'
    ;;
  *)
    echo "the store is memory or badger, not $1" >&2
    exit 2
    ;;
esac

# 2.13 traces its own queries to port 4317 unless told twice not to (here and in enable_tracing), and hangs at the end.
export OTEL_TRACES_SAMPLER=always_off

exec "$binary" --config "yaml:$(cat <<CONFIG
extensions:
  jaeger_storage:
    backends:
      spans: $backend
  jaeger_query:
    storage: {traces: spans}
    enable_tracing: false
    http: {endpoint: "127.0.0.1:${JAEGER_QUERY:-16686}"}
    grpc: {endpoint: "127.0.0.1:${JAEGER_QUERY_GRPC:-16685}"}
    ui: {assets_path: "${JAEGER_UI:-}", config_file: "${JAEGER_UI_CONFIG:-}"}
  healthcheckv2:
    use_v2: true
    http: {endpoint: "127.0.0.1:${JAEGER_HEALTH:-13133}"}
receivers:
  otlp:
    protocols:
      http: {endpoint: "127.0.0.1:${JAEGER_OTLP_HTTP:-4318}"}
      grpc: {endpoint: "127.0.0.1:${JAEGER_OTLP_GRPC:-4317}"}
exporters:
  jaeger_storage_exporter: {trace_storage: spans}
service:
  extensions: [healthcheckv2, jaeger_storage, jaeger_query]
  pipelines:
    traces:
      receivers: [otlp]
      exporters: [jaeger_storage_exporter]
  telemetry:
    logs: {level: warn}
    metrics: {level: none}
CONFIG
)"
