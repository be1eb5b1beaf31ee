"""The server of the Model Context Protocol: over standard input and output, or at /mcp of the server of pages."""

import inspect
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
from fastapi import FastAPI
from mcp.server import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.transport_security import TransportSecuritySettings
from mcp_types import ToolAnnotations
from pydantic import ValidationError

from backend.deps import VERSION
from backend.mcp.tools import Tools
from precompute.errors import SaevxError

PATH = "/mcp"
INSTRUCTIONS = (
    "Reads a store of SAE-V Explorer: the features of a sparse autoencoder on a multimodal language model, the "
    "image-caption pairs on which they fire, and quality flags of these pairs. Begin with about_store, list_features "
    "or search_words; look at feature_image before you believe a name; steer says what a feature does to the answers."
)


class Server(MCPServer):
    """Answers every failure in one sentence."""

    async def call_tool(self, name: str, arguments: dict[str, Any], context: Any = None) -> Any:
        try:
            return await super().call_tool(name, arguments, context)
        except ToolError as error:
            cause = error.__cause__
            if isinstance(cause, ValidationError):
                reasons = [f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in cause.errors()]
                raise ToolError(f"{name} was called wrongly: {'; '.join(reasons)}.") from None
            if isinstance(cause, SaevxError):
                raise ToolError(str(cause)) from None
            raise


def make_server(app: FastAPI) -> Server:
    """The tools over `app`, with their descriptions in one line each."""
    server = Server("saevx", version=VERSION, instructions=INSTRUCTIONS, log_level="ERROR")
    for tool in Tools(app).all():
        server.add_tool(
            tool,
            description=" ".join(str(inspect.getdoc(tool)).split()),
            annotations=ToolAnnotations(read_only_hint=True, open_world_hint=False),
        )
    return server


def attach(app: FastAPI) -> None:
    """Answer at PATH as well, behind the same checks of names, tokens and sizes as the pages."""
    server = make_server(app)
    mcp_app = server.streamable_http_app(
        streamable_http_path=PATH,
        json_response=True,
        stateless_http=True,
        transport_security=TransportSecuritySettings(enable_dns_rebinding_protection=False),  # HostCheck does it
    )
    app.router.routes.extend(mcp_app.routes)
    lifespan = app.router.lifespan_context

    @asynccontextmanager
    async def both_lifespans(app: FastAPI) -> AsyncIterator[None]:
        async with lifespan(app), server.session_manager.run():
            yield

    app.router.lifespan_context = both_lifespans


def serve_stdio(app: FastAPI) -> None:
    """Answer on standard input and output until the input ends."""

    async def run() -> None:
        async with app.router.lifespan_context(app):
            await make_server(app).run_stdio_async()

    anyio.run(run)
