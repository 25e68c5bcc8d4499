import logging

import pytest


@pytest.fixture
def restored_logging():
    """Puts the root logger back after a test that sets up logging."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
