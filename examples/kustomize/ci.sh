#!/bin/sh
# What any CI does for this folder, from a clean clone: the filters load, their cases pass, the manifests build. CI needs docker or
# podman, kubectl, and the very image that runs in the pod; no Python.
set -eu
cd "$(dirname "$0")"
sidecar=${SIDECAR_IMAGE:-fluent-bridge-sidecar:0.1.0}

in_sidecar() { ${DOCKER:-docker} run --rm --read-only --volume "$PWD:/work:ro" "$sidecar" "$@"; }

in_sidecar check --config fluent-bridge.yaml
in_sidecar test
kubectl kustomize . > "${MANIFESTS:-/dev/null}"
