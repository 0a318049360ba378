"""The images, built once and read."""

import images_rig
import pytest


@pytest.fixture(scope="session")
def built():
    """The images' archives, read: {name: Archive}. Who has no node has no use for building them in a test."""
    if why := images_rig.missing():
        pytest.skip(why)
    return {name: images_rig.read(images_rig.archive(name)) for name in images_rig.IMAGES}
