"""Fixtures that several tests share."""

import os
from pathlib import Path

# Before torch is imported. Models in tests are tiny: a second thread brings nothing, and on a busy machine every
# product waits until it gets a core.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import tiny_bundle

from beingh0_edge import Bundle


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random checkpoint folder; read only, copy it to alter it."""
    return tiny_bundle.make_checkpoint(tmp_path_factory.mktemp("tiny") / "checkpoint")


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A random bundle; read only, copy it to alter it."""
    return tiny_bundle.make_bundle(tmp_path_factory.mktemp("tiny") / "bundle")
