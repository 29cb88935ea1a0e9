import pytest

from resilient.worker.session import session
from resilient.worker.session.session import Session


@pytest.fixture
def plain(tmp_path, monkeypatch):
    """A process without a supervisor, in a folder of its own; a session of its own for each call."""
    monkeypatch.chdir(tmp_path)

    def begin(**more):
        session.current().close()
        return session.begin(Session(**more))

    begin()
    yield begin
    begin()
