"""A server on this machine that answers as the Hugging Face hub does, for what downloads ask of it."""

import hashlib
import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
LFS_SUFFIXES = (".safetensors", ".pth")


@dataclass
class HubServer:
    """Serves one repository, `owner/name`, and every file under /plain/ too."""

    files: dict[str, bytes]
    """Contents by name."""
    breaks: dict[str, int] = field(default_factory=dict)
    """File -> how many bytes of it are sent before the connection breaks; once for each file."""
    corrupt: set[str] = field(default_factory=set)
    """Files of which another byte is sent than the hub's SHA-256 is of."""
    status: int = 200
    """What the hub answers to everything about the repository."""
    code: str = ""
    """X-Error-Code of such an answer."""
    requests: list[tuple[str, str, str]] = field(default_factory=list)
    """Method, path, Range of every request."""
    etags: bool = True
    """Whether plain files come with an ETag."""
    length: str | None = None
    """Content-Length of plain files; None: the true one."""
    redirect: str = ""
    """Where everything under /moved/ is sent on to."""

    def __enter__(self) -> "HubServer":
        handler = type("Handler", (_Handler,), {"hub": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.server.shutdown()
        self.server.server_close()

    def ranges(self, name: str) -> list[str]:
        """Range headers of the GET requests for a file, in order."""
        return [span for method, path, span in self.requests if method == "GET" and path.endswith("/" + name)]


class _Handler(BaseHTTPRequestHandler):
    hub: HubServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *_arguments: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        hub, path = self.hub, unquote(urlsplit(self.path).path)
        hub.requests.append((self.command, path, self.headers.get("Range", "")))
        if hub.status != 200:
            self._send(hub.status, b"{}", {"X-Error-Code": hub.code, "X-Error-Message": "no"})
        elif path.startswith("/api/models/owner/name"):
            self._api(path)
        elif path.startswith("/owner/name/resolve/"):
            name = path.split("/", 5)[5]
            self._file(name, {"X-Repo-Commit": COMMIT, "X-Linked-Size": str(len(hub.files.get(name, b"")))})
        elif path.startswith("/plain/"):
            self._file(path.removeprefix("/plain/"), {"Content-Length": hub.length} if hub.length else {})
        elif path.startswith("/moved/"):
            self._send(302, b"", {"Location": hub.redirect})
        else:
            self._send(404, b"{}", {"X-Error-Code": "RepoNotFound"})

    def _api(self, path: str) -> None:
        revision = path.partition("/revision/")[2]
        if revision not in ("", "main", COMMIT):
            self._send(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
            return
        siblings = [
            {"rfilename": name, "size": len(data), "blobId": hashlib.sha1(data).hexdigest()}
            | ({"lfs": {"sha256": _sha(data), "size": len(data), "pointerSize": 134}} if _large(name) else {})
            for name, data in self.hub.files.items()
        ]
        content = {"_id": "1", "id": "owner/name", "modelId": "owner/name", "sha": COMMIT, "siblings": siblings}
        self._send(200, json.dumps(content).encode(), {"Content-Type": "application/json"})

    def _file(self, name: str, headers: dict[str, str]) -> None:
        hub = self.hub
        if name not in hub.files:
            self._send(404, b"", {"X-Error-Code": "EntryNotFound"} | headers)
            return
        data = hub.files[name]
        tag = _sha(data) if _large(name) else hashlib.sha1(data).hexdigest()
        headers = headers | {"Accept-Ranges": "bytes"} | ({"ETag": f'"{tag}"'} if hub.etags else {})
        if name in hub.corrupt:
            data = bytes([data[0] ^ 1]) + data[1:]
        span = self.headers.get("Range", "").removeprefix("bytes=").partition("-")[0]
        fresh = self.headers.get("If-Range") in (None, f'"{tag}"')
        if span and fresh and self.command == "GET":
            start = int(span)
            if start >= len(data):
                self._send(416, b"", {})
                return
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
            self._send(206, data[start:], headers)
            return
        stop = hub.breaks.pop(name, None) if self.command == "GET" else None
        self._send(200, data, headers, stop)

    def _send(self, status: int, body: bytes, headers: dict[str, str], stop: int | None = None) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        if "Content-Length" not in headers:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        self.wfile.write(body[:stop])
        if stop is not None or "Content-Length" in headers:
            self.wfile.flush()
            self.close_connection = True
            self.connection.shutdown(2)


def _large(name: str) -> bool:
    return name.endswith(LFS_SUFFIXES)


def _sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
