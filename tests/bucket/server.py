"""An object store on the loopback address: of Google's JSON API what the library here asks for."""

import base64
import contextlib
import dataclasses
import email.parser
import hashlib
import itertools
import json
import os
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from unittest import mock
from urllib.parse import parse_qs, unquote, urlsplit

BUCKET = "digits"


@dataclasses.dataclass
class Content:
    """An object."""

    data: bytes
    generation: int

    def resource(self, name):
        from google_crc32c import Checksum

        digests = hashlib.md5(self.data).digest(), Checksum(self.data).digest()
        md5, crc32c = (base64.b64encode(digest).decode() for digest in digests)
        size, generation = str(len(self.data)), str(self.generation)
        sums = {"md5Hash": md5, "crc32c": crc32c}
        return {"name": name, "size": size, "generation": generation} | sums


class Store:
    """The buckets, and what may go wrong with them.

    Attributes:
      objects: contents by name, of the only bucket there is.
      writes: names of the objects that were written or (with a minus) deleted, in order.
      down: no request is answered; `forbidden` refuses those that write.
      fails_after: writes after which the store goes down; None for never.
    """

    def __init__(self):
        self.objects, self.writes, self.lock = {}, [], threading.RLock()
        self.down = self.forbidden = False
        self.fails_after = None
        self.sessions, self.generations = {}, itertools.count(1)

    def files(self, path):
        """Contents below a path, by the rest of the name, without the lock."""
        cut = len(path) + 1
        found = {n[cut:]: c.data for n, c in self.objects.items() if n.startswith(f"{path}/")}
        return {name: data for name, data in found.items() if not name.startswith(".")}

    def write(self, name, data, query):
        with self.lock:
            expected = query.get("ifGenerationMatch")
            if expected and int(expected) != self.generation(name):
                return 412, {"error": {"message": "conditionNotMet", "code": 412}}
            self.objects[name] = Content(data, next(self.generations))
            self.noted(name)
            return 200, self.objects[name].resource(name)

    def delete(self, name):
        with self.lock:
            if self.objects.pop(name, None) is None:
                return 404, {"error": {"message": "No such object", "code": 404}}
            self.noted(f"-{name}")
            return 204, None

    def noted(self, name):
        self.writes.append(name)
        if self.fails_after is not None and len(self.writes) >= self.fails_after:
            self.down = True

    def generation(self, name):
        return self.objects[name].generation if name in self.objects else 0


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # An answer is sent at once and whole.
    wbufsize, disable_nagle_algorithm = -1, True

    def log_message(self, *args):
        pass

    def handle_all(self):
        store, url = self.server.store, urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        found = re.fullmatch(r"(/upload|/download)?/storage/v1/b/([^/]+)/o(?:/(.+))?", url.path)
        if store.down:
            self.close_connection = True
            return None
        if self.command != "GET" and store.forbidden:
            return self.answer(403, {"error": {"message": "storage.objects.create", "code": 403}})
        if found is None or found[2] != BUCKET:
            return self.answer(
                404, {"error": {"message": "The bucket does not exist", "code": 404}}
            )
        name = unquote(found[3] or "")
        if self.command == "GET" and not name:
            return self.answer(200, self.listed(query))
        if self.command == "GET":
            return self.read(name, query)
        if self.command == "DELETE":
            return self.answer(*store.delete(name))
        return self.upload(body, query)

    do_GET = do_POST = do_PUT = do_DELETE = handle_all

    def listed(self, query):
        store, size = self.server.store, int(query.get("maxResults", 3))
        with store.lock:
            names = sorted(n for n in store.objects if n.startswith(query.get("prefix", "")))
            first = int(query.get("pageToken", 0))
            page = names[first : first + min(size, 3)]
            answer = {"items": [store.objects[name].resource(name) for name in page]}
        more = first + len(page) < len(names)
        return answer | ({"nextPageToken": str(first + len(page))} if more else {})

    def read(self, name, query):
        if (found := self.server.store.objects.get(name)) is None:
            return self.answer(404, {"error": {"message": "No such object", "code": 404}})
        if query.get("alt") != "media":
            return self.answer(200, found.resource(name))
        hashed = f"md5={found.resource(name)['md5Hash']}"
        headers = {"X-Goog-Generation": str(found.generation), "X-Goog-Hash": hashed}
        return self.answer(200, found.data, **headers)

    def upload(self, body, query):
        sessions, session = self.server.store.sessions, query.get("upload_id")
        if query.get("uploadType") == "multipart":
            kind = f"Content-Type: {self.headers['Content-Type']}\r\n\r\n".encode()
            about, data = email.parser.BytesParser().parsebytes(kind + body).get_payload()
            # The payload as it came: a parser of mail would change its line ends.
            boundary = re.search(r'boundary="?([^";]+)', self.headers["Content-Type"])[1].encode()
            data = body.split(b"--" + boundary)[2].partition(b"\r\n\r\n")[2][:-2]
            name = json.loads(about.get_payload())["name"]
            return self.answer(*self.server.store.write(name, data, query))
        if session is None:
            session = str(len(sessions))
            sessions[session] = (json.loads(body)["name"], query, bytearray())
            where = f"http://127.0.0.1:{self.server.server_port}{self.path}&upload_id={session}"
            return self.answer(200, None, Location=where)
        name, first_query, data = sessions[session]
        data += body
        total = self.headers["Content-Range"].rpartition("/")[2]
        if total == "*" or len(data) < int(total):
            return self.answer(308, None, Range=f"bytes=0-{len(data) - 1}")
        return self.answer(*self.server.store.write(name, bytes(data), first_query))

    def answer(self, status, content, **headers):
        data = content if isinstance(content, bytes) else b""
        data = json.dumps(content).encode() if isinstance(content, dict) else data
        self.send_response(status)
        for header, value in headers.items():
            self.send_header(header, value)
        self.send_header("Content-Length", str(len(data)))
        if isinstance(content, dict):
            self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(data)


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        """Whoever asked was killed."""


@contextlib.contextmanager
def serving(cache):
    """A store that this process and those that it starts find; `cache` holds their mirrors."""
    server = Server(("127.0.0.1", 0), Handler)
    server.store = Store()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    environment = {
        "STORAGE_EMULATOR_HOST": f"http://127.0.0.1:{server.server_port}",
        "XDG_CACHE_HOME": str(cache),
    }
    try:
        with mock.patch.dict(os.environ, environment):
            yield server.store
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
