"""A run of every kind of page, a server of it, a browser."""

from collections.abc import Iterator

import pytest

from tests.launch.pages import made
from tests.launch.pages.browser import Served, chromium, serving


@pytest.fixture(scope="module")
def run(run_name) -> str:
    made.whole(run_name)
    return run_name


@pytest.fixture(scope="module")
def served(run) -> Iterator[Served]:
    with serving("port=0") as served:
        yield served


@pytest.fixture(scope="module")
def browser() -> Iterator:
    with chromium() as browser:
        yield browser
