"""The tiny model as a fixture: made once for each module that asks for it."""

from pathlib import Path

import pytest

from tests.launch import tiny_model


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    return tiny_model.make(tmp_path_factory.mktemp("model"))
