import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))
from certs import Certs  # noqa: E402
from gate import BACKENDS  # noqa: E402
import tlsfiles  # noqa: E402


@pytest.fixture(scope="module", params=BACKENDS)
def backend(request):
    return request.param


@pytest.fixture(scope="session")
def certs(tmp_path_factory):
    return Certs(tmp_path_factory.mktemp("certs"))


@pytest.fixture(scope="session")
def certificates(tmp_path_factory):
    """What examples and mistakes name below tls/."""
    folder = tmp_path_factory.mktemp("tls")
    tlsfiles.authority(folder, "internal-ca")
    tlsfiles.signed(folder, "example.com", ["example.com", "www.example.com"])
    tlsfiles.signed(folder, "internal", ["localhost"], one_file=True)
    tlsfiles.signed(folder, "client", [], usage="clientAuth")
    tlsfiles.signed(folder, "sites/net", ["api.example.net"], one_file=True)
    shutil.copy(folder / "internal-ca.pem", folder / "clients.pem")
    tlsfiles.wrong(folder)
    return folder
