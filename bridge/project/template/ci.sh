#!/bin/sh
# What any CI does for this folder, from a clean clone: the manifests build, the filters load, their cases pass. CI needs docker or
# podman, kubectl, and the very image that runs in the pod; no Python.
set -eu
cd "$(dirname "$0")"
manifests=$(kubectl kustomize .)
# The first image below initContainers, whatever it is called.
image=$(printf "%s\n" "$manifests" | awk '/ initContainers:/ { found = 1 } found && / image: / { print $NF; exit }')
sidecar=${SIDECAR_IMAGE:-$image}
[ -n "$sidecar" ] || { echo "$0: the manifests have no sidecar: name its image in SIDECAR_IMAGE" >&2; exit 1; }

in_sidecar() { ${DOCKER:-docker} run --rm --read-only --volume "$PWD:/work:ro" "$sidecar" "$@"; }

in_sidecar check --config fluent-bridge.yaml
in_sidecar test
printf "%s\n" "$manifests" > "${MANIFESTS:-/dev/null}"
