"""What the workers of one server share, without their processes."""

from pathlib import Path

import pytest

from backend.live.model_worker import OFF
from backend.schemas.common import LiveStatus
from backend.settings import Settings
from backend.workers.figures import Labelled
from backend.workers.forward import InFirstWorker
from backend.workers.place import ModelState, SharedModelState, SharedWrites, Worker
from backend.workers.remote import RemoteLive, RemoteUploads


@pytest.fixture
def worker(tmp_path: Path) -> Worker:
    return Worker(2, 2, tmp_path, "secret")


def test_the_state_of_the_model_is_what_the_first_worker_wrote_last(worker: Worker) -> None:
    shared = SharedModelState(worker)
    assert shared.read() == ModelState(), "nothing before the first worker is up"
    for waiting in (0, 3):
        state = ModelState(states={"store": LiveStatus(state="ready")}, waiting=waiting)
        SharedModelState(worker).write(state)
        assert shared.read() == state
    worker.model_file.unlink()
    assert shared.read() == ModelState(), "nor after it has ended"


def test_each_change_of_annotations_is_counted(worker: Worker) -> None:
    assert SharedWrites(worker).count() == 0
    for number in (1, 2):
        SharedWrites(worker).add()
        assert SharedWrites(worker).count() == number


class Named:
    """What the model needs of a store."""

    name, path, manifest = "store", Path("store"), {}  # type: ignore[var-annotated]


def test_another_worker_leads_to_the_first(worker: Worker) -> None:
    live = RemoteLive(Settings(stores=[], live=False), [Named()], worker)
    assert live.status("store").reason == OFF
    SharedModelState(worker).write(ModelState(states={"store": LiveStatus(state="ready")}, waiting=2))
    assert live.status("store") == LiveStatus(state="ready", waiting=2)
    with pytest.raises(InFirstWorker):
        live.reserve("store")
    uploads = RemoteUploads()
    for ask in (uploads.get, uploads.holds, uploads.remove):
        with pytest.raises(InFirstWorker):
            ask("hash")


def test_figures_have_the_number_of_their_worker() -> None:
    text = b'# HELP n Number.\n# TYPE n gauge\nn{route="/"} 2.0\n'
    (family,) = Labelled({1: text, 2: text}).collect()
    assert [(one.labels, one.value) for one in family.samples] == [
        ({"worker": number, "route": "/"}, 2.0) for number in ("1", "2")
    ]
