import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))
from gate import BACKENDS  # noqa: E402


@pytest.fixture(scope="module", params=BACKENDS)
def backend(request):
    return request.param
