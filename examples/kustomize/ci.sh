#!/bin/sh
# What any CI does for this folder, from a clean clone: the manifests build, the filters load, their cases pass. CI needs docker or
# podman, kubectl, and the very image that runs in the pod; no Python.
set -eu
cd "$(dirname "$0")"
manifests=$(kubectl kustomize .)
sidecar=${SIDECAR_IMAGE:-$(printf "%s\n" "$manifests" | sed -n 's/.* image: \(.*fluent-bridge-sidecar[:@].*\)/\1/p')}

in_sidecar() { ${DOCKER:-docker} run --rm --read-only --volume "$PWD:/work:ro" "$sidecar" "$@"; }

in_sidecar check --config fluent-bridge.yaml
in_sidecar test
printf "%s\n" "$manifests" > "${MANIFESTS:-/dev/null}"
