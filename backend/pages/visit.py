"""What a page is drawn for: a request, the server's state and the store that the request names."""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple

from fastapi import Depends, HTTPException, Request, UploadFile
from fastapi.responses import HTMLResponse

from backend.deps import StateDep, StoreDep
from backend.live.uploads import UploadedImage, add_upload
from backend.schemas.common import LiveStatus
from backend.stores import OpenStore, State
from backend.templating import Addresses, render_for
from precompute.store.reader import Store


class Visit(NamedTuple):
    """A request for a page. `*visit` is what functions of the API take first."""

    request: Request
    state: State
    store: OpenStore

    def at(self, other: OpenStore) -> Visit:
        """The same request, about another store."""
        return self._replace(store=other)

    @property
    def reader(self) -> Store:
        """The finished store itself."""
        return self.store.store

    @property
    def links(self) -> Addresses:
        """Addresses of pages and of the API, with the store in them."""
        return Addresses.of_store(*self)

    @property
    def model(self) -> LiveStatus:
        """State of the store's live model."""
        return self.state.live.status(self.store.name)

    async def hold(self, image: UploadFile) -> UploadedImage:
        """Hold an image that was sent for the model.

        Raises:
            HTTPException: 413 or 422 for an image that cannot be read, 503 if the model is off.
        """
        if self.model.state in ("off", "failed"):
            raise HTTPException(503, self.model.reason)
        return await add_upload(image, self.state.uploads, self.state.settings)

    def render(self, template: str, *, section: str, fault: HTTPException | None = None, **values: Any) -> HTMLResponse:
        """A page about the store; with a fault, which the page says, under its status and headers."""
        if fault is not None:
            values["status"] = fault.status_code
        page = render_for(self.request, template, self.state, self.store, section=section, **values)
        page.headers.update((fault.headers if fault else None) or {})
        return page


async def get_visit(request: Request, state: StateDep, store: StoreDep) -> Visit:
    """A coroutine, though it awaits nothing, as those of `deps.py`."""
    return Visit(request, state, store)


VisitDep = Annotated[Visit, Depends(get_visit)]
