"""What a page is drawn for."""

from typing import Annotated, Any

from fastapi import Depends, HTTPException
from fastapi.responses import HTMLResponse

from backend.deps import Visit, VisitDep
from backend.templating import PageLinks, render_for


class PageVisit(Visit):
    """A request for a page."""

    @property
    def links(self) -> PageLinks:
        """Addresses of pages and of the API, with the store in them."""
        return PageLinks.of_store(*self)

    def render(self, template: str, *, section: str, fault: HTTPException | None = None, **values: Any) -> HTMLResponse:
        """A page about the store; with a fault, which the page says, under its status and headers."""
        if fault is not None:
            values["status"] = fault.status_code
        page = render_for(self.request, template, self.state, self.store, section=section, **values)
        page.headers.update((fault.headers if fault else None) or {})
        return page


async def get_page_visit(visit: VisitDep) -> PageVisit:
    return PageVisit(*visit)


PageDep = Annotated[PageVisit, Depends(get_page_visit)]
