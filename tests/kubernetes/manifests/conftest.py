"""What kustomize makes of k8s/."""

import functools
import os
import shutil

import pytest
import yaml
from kustomize import COMBINATIONS, EXAMPLE, K8S, OVERLAYS, blocks, patches_in_the_head


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
    def run(*components, on="base", **more):
        folder = tmp_path_factory.mktemp("kustomization")
        own = {
            "resources": [os.path.relpath(K8S / on, folder)],
            "components": [os.path.relpath(K8S / "components" / one, folder) for one in components],
            **{name: yaml.safe_load(text) for name, text in more.items()},
        }
        (folder / "kustomization.yaml").write_text(yaml.safe_dump(own))
        return list(yaml.safe_load_all(kubectl("kustomize", folder)))

    return run


@pytest.fixture(scope="session")
def in_words(with_components):
    """What comments and documents say that one may write, built."""
    most, workers, pipeline = blocks(K8S / "README.md")
    keda = {"patches": patches_in_the_head(K8S / "components" / "autoscale-keda")}
    made = {
        "more replicas": ("base", ["autoscale-keda"], most),
        "more workers": ("base", [], workers),
        "a second pipeline": ("overlays/production", [], pipeline),
        "Kafka with TLS": ("base", ["autoscale-keda", "tls-kafka"], keda),
    }
    return {
        name: with_components(
            *components, on=on, **{key: yaml.safe_dump(value) for key, value in own.items()}
        )
        for name, (on, components, own) in made.items()
    }


@pytest.fixture
def example(kubectl, tmp_path):
    """Return a function that builds the example with a changed kustomization, and the folder of that."""
    folder = tmp_path / "example"
    shutil.copytree(EXAMPLE, folder)

    def run(change):
        text = change((EXAMPLE / "kustomization.yaml").read_text())
        text = text.replace("../../k8s", os.path.relpath(K8S, folder))
        (folder / "kustomization.yaml").write_text(text)
        return list(yaml.safe_load_all(kubectl("kustomize", folder)))

    run.folder = folder
    return run


@pytest.fixture(scope="session")
def everything(build, with_components, in_words):
    """Every build there is, by its name."""
    made = {"+".join(("base", *one)): with_components(*one) for one in COMBINATIONS}
    return made | in_words | {folder.name: build(folder) for folder in OVERLAYS}
