"""What kustomize makes of k8s/."""

import functools
import os

import pytest
import yaml
from kustomize import COMBINATIONS, K8S, OVERLAYS


@pytest.fixture(scope="session")
def build(kubectl):
    """Return a function that gives what kustomize makes of a folder."""

    @functools.cache
    def run(folder):
        return list(yaml.safe_load_all(kubectl("kustomize", folder)))

    return run


@pytest.fixture(scope="session")
def with_components(kubectl, tmp_path_factory):
    """Return a function that builds the base with components, as somebody's own kustomization has them."""

    @functools.cache
    def run(*components, **more):
        folder = tmp_path_factory.mktemp("kustomization")
        own = {
            "resources": [os.path.relpath(K8S / "base", folder)],
            "components": [os.path.relpath(K8S / "components" / one, folder) for one in components],
            **{name: yaml.safe_load(text) for name, text in more.items()},
        }
        (folder / "kustomization.yaml").write_text(yaml.safe_dump(own))
        return list(yaml.safe_load_all(kubectl("kustomize", folder)))

    return run


@pytest.fixture(scope="session")
def everything(build, with_components):
    """Every build there is, by its name."""
    made = {"+".join(("base", *one)): with_components(*one) for one in COMBINATIONS}
    return made | {folder.name: build(folder) for folder in OVERLAYS}
