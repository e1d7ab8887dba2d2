#!/usr/bin/env bash
# Build Jaeger v2 for the tests, from its Go module, into the user's cache.
#
#   usage: build.sh            output: $WHYGATE_JAEGER, or ${XDG_CACHE_HOME:-~/.cache}/whygate/jaeger-v1.76.0
#
# Jaeger publishes one commit under two tags, v1.76.0 and v2.13.0; as a Go module only the first can be asked for.
# `go install` refuses it, for its go.mod has a replace line, so the module's source is copied and built in its place,
# under its own go.mod and go.sum. What is downloaded is checked twice: the module against the two hashes below,
# and each of its dependencies against the go.sum that came with it. Neither check may ever be switched off.
# Takes 3 to 10 minutes and 0.7 GB of modules the first time; the binary (85 MB, static) is then kept.
set -euo pipefail

module=github.com/jaegertracing/jaeger
version=v1.76.0
hash_of_module='h1:sWCOOF1dr+NL0PLil7mFo3BqqQL8k4WiM7aguFbc14g='
hash_of_go_mod='h1:hqcuJlLDTv7G2x5eFd/BhwcPdLxj3N+90aKhIzdOcKo='
binary=${WHYGATE_JAEGER:-${XDG_CACHE_HOME:-$HOME/.cache}/whygate/jaeger-$version}

is_built() { [[ -x $binary ]] && "$binary" version 2>/dev/null | grep -qF "$version"; }

if is_built; then
  echo "jaeger $version: already at $binary"
  exit 0
fi
if ! command -v go >/dev/null; then
  echo "jaeger $version: building it needs Go 1.25.4 or newer, and there is no go on the path" >&2
  exit 1
fi

work=$(mktemp -d)
trap 'chmod -R u+w "$work"; rm -rf "$work"' EXIT

export GOTOOLCHAIN=local   # build with the Go that is installed; never fetch another
export CGO_ENABLED=0 GOWORK=off
unset GOFLAGS GONOSUMDB GONOSUMCHECK GOINSECURE GOPRIVATE

# An empty module whose go.sum already holds the two hashes: a download that differs from them is an error.
mkdir "$work/pin"
printf 'module pin\n' >"$work/pin/go.mod"
printf '%s %s %s\n' "$module" "$version" "$hash_of_module" "$module" "$version/go.mod" "$hash_of_go_mod" >"$work/pin/go.sum"
source=$(cd "$work/pin" && go mod download -json "$module@$version" | sed -n 's/^[[:space:]]*"Dir": "\(.*\)",*$/\1/p')
[[ -d $source ]] || { echo "jaeger $version: the module could not be downloaded" >&2; exit 1; }

cp -R "$source" "$work/jaeger"
chmod -R u+w "$work/jaeger"
mkdir -p "$(dirname "$binary")"
echo "jaeger $version: building, which takes some minutes"
(
  cd "$work/jaeger"
  nice go build -mod=readonly -trimpath -buildvcs=false \
    -ldflags "-s -w -X $module/internal/version.latestVersion=$version" -o "$work/binary" ./cmd/jaeger
)
# Moved into place in one step: a build that was interrupted leaves nothing that could be taken for a Jaeger.
mv "$work/binary" "$binary.new.$$"
mv "$binary.new.$$" "$binary"
is_built || { echo "jaeger $version: built, but does not say so of itself" >&2; exit 1; }
echo "jaeger $version: built at $binary"
