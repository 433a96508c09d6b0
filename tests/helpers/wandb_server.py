"""A server on the loopback that W&B's real client takes for W&B: it says yes to everything and remembers the runs."""

import gzip
import json
import sys
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = "0" * 40
"""A key of the right form, which opens nothing."""


@dataclass
class SeenRun:
    """The data that a client sent about a run: `about` at its start (name, group, tags, config, …), then its files."""

    about: dict[str, Any]
    history: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    complete: bool = False
    exit_code: int | None = None

    def as_resumed(self, name: str) -> dict[str, Any]:
        """A client goes on from the last step of the history."""
        counts = {"historyLineCount": len(self.history), "eventsLineCount": 0, "logLineCount": 0}
        last = {"historyTail": json.dumps([json.dumps(row) for row in self.history[-1:]]), "eventsTail": "[]"}
        about = {"id": name, "name": name, "config": self.about.get("config"), "tags": self.about.get("tags")}
        return about | counts | last | {"summaryMetrics": json.dumps(self.summary), "wandbConfig": '{"t": 1}'}


class WandbServer(ThreadingHTTPServer):
    """`with WandbServer() as server:` serves at `server.url`; `runs` by id, `views` and `artifacts` in order.

    While `broken`, it answers 500 to everything.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.runs: dict[str, SeenRun] = {}
        self.views: list[dict[str, Any]] = []
        self.artifacts: list[dict[str, Any]] = []
        self.broken = False

    def __enter__(self) -> "WandbServer":
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):  # a client that ends drops its connections
            super().handle_error(request, client_address)

    def answer(self, query: str, variables: dict[str, Any]) -> dict[str, Any]:
        """The `data` of a GraphQL answer; what the client does not need is left out."""
        project = {"id": "p", "name": "fer_voting", "entity": {"id": "e", "name": "me"}}
        if "upsertBucket" in query:
            name = variables["name"]
            seen = self.runs.setdefault(name, SeenRun({}))
            seen.about |= {key: value for key, value in variables.items() if value is not None}
            bucket = {"id": name, "name": name, "displayName": variables.get("displayName"), "project": project}
            bucket |= {"historyLineCount": 0, "config": variables.get("config")}
            return {"upsertBucket": {"bucket": bucket, "inserted": True}}
        if "createRunFiles" in query:
            files = [{"name": name, "uploadUrl": f"{self.url}/upload/{name}"} for name in variables["files"]]
            return {"createRunFiles": {"runID": variables["run"], "uploadHeaders": [], "files": files}}
        if "upsertView" in query:
            self.views.append(variables)
            return {"upsertView": {"view": {"id": "v", "name": variables["name"]}, "inserted": True}}
        if "createArtifact" in query:  # "committed": it has the files already
            artifact = {"id": "a", "state": "COMMITTED", "artifactSequence": {"latestArtifact": {"id": "a"}}}
            self.artifacts.append(variables["input"])
            return {"createArtifact": {"artifact": artifact}}
        if "artifactType {" in query:
            return {"project": {"artifact": None}}
        if "allViews" in query:
            found = [view for view in self.views if view["name"] == variables["viewName"]]
            nodes = [{"node": {"id": "v", "displayName": v["displayName"], "spec": v["spec"]}} for v in found[-1:]]
            return {"project": {"allViews": {"edges": nodes}}}
        if "viewer" in query:
            return {"viewer": {"id": "u", "username": "me", "entity": "me", "flags": "{}", "teams": {"edges": []}}}
        if "serverInfo" in query:
            return {"serverInfo": {"cliVersionInfo": {"max_cli_version": "99.0.0"}, "features": []}}
        if "bucket" in query:  # may this run be resumed?
            seen = self.runs.get(variables.get("name", ""))
            return {"model": project | {"bucket": seen and seen.as_resumed(variables["name"])}}
        return {}

    def stream(self, run_id: str, body: dict[str, Any]) -> None:
        """A piece of a run's files: history, summary, and at last its exit code."""
        run = self.runs[run_id]
        for name, piece in (body.get("files") or {}).items():
            rows = [json.loads(line) for line in piece["content"] if name.startswith("wandb-")]
            if name == "wandb-history.jsonl":
                run.history += rows
            elif name == "wandb-summary.json":
                run.summary |= rows[-1]
        if body.get("complete"):
            run.complete, run.exit_code = True, body["exitcode"]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: WandbServer

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self._send({})

    def do_PUT(self) -> None:
        self._body()
        self._send({})

    def do_POST(self) -> None:
        body = self._body()
        if self.server.broken:
            self._send({})
        elif self.path.endswith("/graphql"):
            asked = json.loads(body)
            self._send({"data": self.server.answer(asked["query"], asked.get("variables") or {})})
        else:
            if self.path.endswith("/file_stream"):
                self.server.stream(self.path.split("/")[-2], json.loads(body))
            self._send({})

    def _body(self) -> bytes:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        return gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body

    def _send(self, content: dict[str, Any]) -> None:
        answer = json.dumps(content).encode()
        self.send_response(500 if self.server.broken else 200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)
