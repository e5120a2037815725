"""Serves the dashboard's own files with an agent that is not there behind them, under the rules that an agent gives."""

import json
import pathlib
import queue
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAGE = ROOT / "node/src/admin/page"
KINDS = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


def rules():
    """What the agent lets its page do, from the agent's source."""
    source = (ROOT / "node/src/admin/answer.rs").read_text()
    literal = re.search(r'CONTENT_SECURITY_POLICY,\s*"([^"]+)"', source)[1]
    return re.sub(r"\\\n\s*", "", literal)


class Agent(ThreadingHTTPServer):
    """Tells what a fixture tells; `change` tells all who listen what changed."""

    daemon_threads = True

    def __init__(self, mesh):
        super().__init__(("127.0.0.1", 0), Handler)
        self.mesh = mesh
        self.rules = rules()
        self.listeners = []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/"

    def change(self):
        message = self.mesh.change()
        for listener in self.listeners:
            listener.put(message)


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_GET(self):
        at = urlsplit(self.path)
        mesh = self.server.mesh
        if at.path == "/v1/events":
            return self.events()
        if at.path == "/v1/policy":
            return self.json(mesh.policy(parse_qs(at.query)["service"][0]))
        if at.path.startswith("/v1/documents/"):
            return self.json(mesh.history(unquote(at.path).rsplit("/", 1)[1]))
        if at.path == "/v1/tap":
            return self.tap()
        if at.path == "/v1/edges":
            return self.json(mesh.past())
        if at.path == "/v1/explain":
            return self.json(mesh.explain({name: values[0] for name, values in parse_qs(at.query).items()}))
        file = PAGE / (at.path.removeprefix("/page/") if at.path != "/" else "index.html")
        if file.parent != PAGE or not file.is_file():
            return self.send_error(404)
        self.begin(KINDS[file.suffix])
        self.wfile.write(file.read_bytes())

    def begin(self, kind):
        self.send_response(200)
        self.send_header("content-type", f"{kind}; charset=utf-8")
        self.send_header("content-security-policy", self.server.rules)
        self.end_headers()

    def json(self, value):
        self.begin("application/json")
        self.wfile.write(json.dumps(value).encode())

    def tap(self):
        """All that there will be, at once."""
        if self.headers.get("starling-pass") != self.server.mesh.pass_:
            self.send_response(403)
            self.end_headers()
            return self.wfile.write(json.dumps({"status": 403, "error": "the pass has ended"}).encode())
        self.begin("text/event-stream")
        for news in self.server.mesh.tap():
            self.wfile.write(f"data: {json.dumps(news)}\n\n".encode())

    def events(self):
        news = queue.Queue()
        news.put(self.server.mesh.whole())
        self.server.listeners.append(news)
        self.begin("text/event-stream")
        try:
            while True:
                try:
                    event = f"data: {json.dumps(news.get(timeout=5))}\n\n"
                except queue.Empty:
                    event = "event: pulse\ndata: {}\n\n"
                self.wfile.write(event.encode())
        except OSError:
            self.server.listeners.remove(news)
