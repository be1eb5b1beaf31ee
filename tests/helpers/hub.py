"""A model hub of one's own: a folder served over HTTP as huggingface_hub asks for it. No name leaves this machine."""

import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Self
from urllib.parse import unquote

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub:
    """Serves ROOT/OWNER/REPO/… until the block ends; `asked` lists the files that were fetched."""

    def __init__(self, root: Path) -> None:
        self.requests: list[str] = []
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                pass

            def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
                self.send_response(status)
                for name, value in {"Content-Length": str(len(body)), "X-Repo-Commit": COMMIT, **headers}.items():
                    self.send_header(name.replace("_", "-"), value)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            def do_HEAD(self) -> None:
                self.do_GET()

            def do_GET(self) -> None:
                path = unquote(self.path.partition("?")[0])
                if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/[^/]+/(.+)", path):
                    names = sorted(file.name for file in (root / match[1] / match[2]).glob("*"))
                    body = json.dumps([{"type": "file", "path": f"{match[2]}/{name}", "oid": ""} for name in names])
                    return self.answer(200, body.encode(), Content_Type="application/json")
                result = re.fullmatch(r"/([^/]+/[^/]+)/resolve/[^/]+/(.+)", path)
                if result is None or not (root / result[1] / result[2]).is_file():
                    is_known = result is not None and (root / result[1]).is_dir()
                    return self.answer(404, X_Error_Code="EntryNotFound" if is_known else "RepoNotFound")
                body = (root / result[1] / result[2]).read_bytes()
                tag = f'"{hashlib.sha256(body).hexdigest()}"'
                if part := re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", "")):
                    return self.answer(206, body[int(part[1]) : int(part[2]) + 1], ETag=tag)
                if self.command == "GET":
                    hub.requests.append(f"{result[1]}/{result[2]}")
                return self.answer(200, body, ETag=tag)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()
