"""A stand-in for a W&B server, on 127.0.0.1: remembers what the client sends, and says how far a run has come.

It answers what wandb 0.31 asks while it creates, resumes and finishes runs; artifacts (tables) are taken as known.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from types import TracebackType
from typing import Any, Self

KEY = "0123456789abcdef" * 3
"""An API key of the right form."""


@dataclass
class ServerRun:
    """A run as the server has it."""

    attributes: dict[str, Any] = field(default_factory=dict)
    """Newest values of what was upserted: project, groupName, jobType, displayName, tags, notes."""
    config: dict[str, Any] = field(default_factory=dict)
    lines: dict[str, list[str]] = field(default_factory=dict)
    """Of every file that is streamed, by name."""
    exit_code: int | None = None
    """None while it runs."""
    tables: int = 0
    """How often a table was sent."""
    opened: int = 0
    """How often a client has asked for it to begin or go on."""

    @property
    def history(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines.get("wandb-history.jsonl", ())]

    @property
    def summary(self) -> dict[str, Any]:
        lines = self.lines.get("wandb-summary.json", [])
        return json.loads(lines[-1]) if lines else {}


class WandbServer:
    """Serves while the block runs, on a port that is free unless one is given."""

    def __init__(self, port: int = 0) -> None:
        self.runs: dict[str, ServerRun] = {}
        self.lock = Lock()
        self.requests = 0
        self.unknown: list[str] = []
        """Questions that it had no answer to."""
        self._http = _QuietServer(("127.0.0.1", port), _handler(self))
        self._thread = Thread(target=self._http.serve_forever, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_port}"

    @property
    def environment(self) -> dict[str, str]:
        """What a client needs to find it."""
        return {"WANDB_BASE_URL": self.url, "WANDB_API_KEY": KEY}

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._http.shutdown()
        self._http.server_close()

    # What is asked.

    def answer(self, path: str, content: bytes) -> Any:
        with self.lock:
            self.requests += 1
            if path == "/graphql":
                return self._graphql(json.loads(content))
            match = re.fullmatch(r"/files/[^/]+/[^/]+/([^/]+)/file_stream", path)
            if match:
                self._stream(self.runs[match[1]], json.loads(content))
            elif path.endswith("/wandb-summary.json"):  # uploaded at the end, under the name of its run
                self.runs[path.split("/")[2]].lines["wandb-summary.json"] = [content.decode()]
            return {}

    def _stream(self, run: ServerRun, sent: dict[str, Any]) -> None:
        for name, chunk in sent.get("files", {}).items():
            kept = run.lines.setdefault(name, [])
            kept[chunk["offset"] :] = chunk["content"]
        if sent.get("complete"):
            run.exit_code = sent["exitcode"]

    def _graphql(self, asked: dict[str, Any]) -> Any:
        match = re.search(r"(?:query|mutation)\s+(\w+)", asked["query"])
        name = match[1] if match else ""
        answer = getattr(self, f"_on_{name.lower()}", None)
        if answer is None:
            self.unknown.append(name)
            return {"data": {}}
        return {"data": answer(asked.get("variables") or {})}

    def _on_viewer(self, variables: dict[str, Any]) -> Any:
        viewer = {"id": "u", "username": "me", "entity": "me", "flags": "{}", "teams": {"edges": []}}
        return {"viewer": viewer}

    def _on_runresumestatus(self, variables: dict[str, Any]) -> Any:
        run = self.runs.get(variables["name"])
        bucket = run and {
            "id": variables["name"],
            "name": variables["name"],
            "summaryMetrics": json.dumps(run.summary),
            "displayName": run.attributes.get("displayName"),
            "logLineCount": 0,
            "historyLineCount": len(run.history),
            "eventsLineCount": 0,
            "historyTail": json.dumps(run.lines.get("wandb-history.jsonl", [])[-1:]),
            "eventsTail": "[]",
            "config": json.dumps(run.config),
            "tags": run.attributes.get("tags"),
            "notes": run.attributes.get("notes"),
            "wandbConfig": json.dumps({"t": 1}),
        }
        return {
            "model": {"id": "p", "name": variables["project"], "entity": {"id": "e", "name": "me"}, "bucket": bucket}
        }

    def _on_upsertbucket(self, variables: dict[str, Any]) -> Any:
        name = variables["name"]
        run = self.runs.setdefault(name, ServerRun())
        run.opened += variables.get("groupName") is not None
        run.attributes.update({key: value for key, value in variables.items() if value is not None})
        run.config.update(json.loads(variables.get("config") or "{}"))
        project = {"id": "p", "name": run.attributes["project"], "entity": {"id": "e", "name": "me"}}
        shown = {"displayName": run.attributes.get("displayName"), "description": None, "sweepName": None}
        counts = {"historyLineCount": len(run.history), "config": json.dumps(run.config)}
        return {"upsertBucket": {"bucket": {"id": name, "name": name, "project": project, **shown, **counts}}}

    def _on_createrunfiles(self, variables: dict[str, Any]) -> Any:
        run = variables["run"]
        files = [{"name": name, "uploadUrl": f"{self.url}/upload/{run}/{name}"} for name in variables["files"]]
        return {"createRunFiles": {"runID": run, "uploadHeaders": [], "files": files}}

    def _on_artifacttype(self, variables: dict[str, Any]) -> Any:
        return {"project": {"artifact": None}}

    def _on_createartifact(self, variables: dict[str, Any]) -> Any:
        self.runs[variables["input"]["runName"]].tables += 1
        sequence = {"latestArtifact": None}
        return {"createArtifact": {"artifact": {"id": "a", "state": "COMMITTED", "artifactSequence": sequence}}}


class _QuietServer(ThreadingHTTPServer):
    def handle_error(self, *unused: Any) -> None:
        """A client that ends cuts its connections off."""


def _handler(server: WandbServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            reply = json.dumps(server.answer(self.path, content)).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(reply)))
            self.end_headers()
            self.wfile.write(reply)

        do_GET = do_PUT = do_POST

        def log_message(self, format: str, *arguments: Any) -> None:
            """Keeps quiet."""

    return Handler
