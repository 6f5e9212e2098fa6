#!/usr/bin/env python3
"""A hub on the loopback for the tests, which breaks on request.

usage: hub_server.py FOLDER     prints its two ports as JSON; ends when its standard input does

FOLDER/hub.json is read anew for each request:
  repositories: {ID: {commit, revisions: {name: commit}, files: {path: file in FOLDER}, large: [path], gated, private}}
  faults: [{path: part of the request's path, kind, times (default: always), ...}], the first that matches acts:
      drop     at: byte after which the connection ends
      stall    at: byte after which nothing more comes
      short    at: the Content-Length that it claims, and sends
      wrong    other bytes of the same length
      slow     seconds between pieces of 1000 bytes
      status   code, headers: {}
      whole    ignores Range
      elsewhere   a redirect to the other port
      size     by: what the listing adds to a file's size;  listing: an entry that is put into the listing
FOLDER/log.jsonl gets a line for each request.
"""
import hashlib
import json
import os
import pathlib
import re
import sys
import threading
import time
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

folder = pathlib.Path(sys.argv[1])
lock = threading.Lock()
used = {}
ports = []


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.do_GET(head=True)

    def do_GET(self, head=False):
        self.head = head
        self.path = urllib.parse.unquote(self.path)
        hub = json.loads((folder / "hub.json").read_text())
        with lock, open(folder / "log.jsonl", "a") as log:
            log.write(json.dumps({"method": self.command, "path": self.path, "range": self.headers.get("Range", ""),
                                  "authorization": self.headers.get("Authorization", ""),
                                  "port": self.server.server_port}) + "\n")
        self.fault = self.find_fault(hub)
        if self.fault.get("kind") == "status":
            return self.answer(self.fault["code"], b"no", self.fault.get("headers", {}))
        for pattern, action in ((r"/api/models/(.+)/revision/(.+)", self.revision), (r"/api/models/(.+)/tree/(\w+)", self.tree),
                                (r"/api/models/([^?]+)", self.info), (r"/files/(.+)", self.plain),
                                (r"/(.+?)/resolve/(.+)", self.resolve)):
            match = re.match(pattern, self.path)
            if match:
                return action(hub, *match.groups())
        self.answer(404, b"nothing here")

    def find_fault(self, hub):
        for i, fault in enumerate(hub.get("faults", [])):
            if fault["path"] not in self.path or (fault["kind"] == "elsewhere" and self.server.server_port != ports[0]):
                continue
            with lock:
                key = (i, json.dumps(fault))
                used[key] = used.get(key, 0) + 1
                if used[key] <= fault.get("times", 1 << 30):
                    return fault
        return {}

    def answer(self, code, body=b"", headers={}):
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name, value)
        if "Content-Length" not in headers:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if not self.head:
            self.wfile.write(body)

    def repository(self, hub, name):
        """The repository, or None after an answer that says why not, as the real hub words it."""
        found = hub["repositories"].get(name)
        known = self.headers.get("Authorization") == "Bearer hf_right"
        if found is None or (found.get("private") and not known):
            code = 404 if self.headers.get("Authorization") else 401
            self.answer(code, b"no", {"X-Error-Code": "RepoNotFound"} if code == 404 else {})
            return None
        return found

    def commit(self, found, revision):
        if revision in found["revisions"].values():
            return revision
        commit = found["revisions"].get(revision)
        if commit is None:
            self.answer(404, b"no", {"X-Error-Code": "RevisionNotFound"})
        return commit

    def hashes(self, found, path):
        content = (folder / found["files"][path]).read_bytes()
        git = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        return content, git, hashlib.sha256(content).hexdigest()

    def info(self, hub, name):
        self.revision(hub, name, "main")

    def revision(self, hub, name, revision):
        found = self.repository(hub, name)
        commit = found and self.commit(found, revision.split("?")[0])
        if commit:
            siblings = [{"rfilename": path} for path in found["files"]]
            self.answer(200, json.dumps({"id": name, "modelId": name, "sha": commit, "private": False, "gated": False,
                                         "tags": [], "downloads": 0, "likes": 0, "siblings": siblings}).encode(),
                        {"Content-Type": "application/json"})

    def tree(self, hub, name, revision):
        found = self.repository(hub, name)
        commit = found and self.commit(found, revision)
        if not commit:
            return
        entries = [{"type": "directory", "path": "onnx", "oid": "0" * 40, "size": 0}]
        for path in found["files"]:
            content, git, sha256 = self.hashes(found, path)
            size = len(content) + (self.fault.get("by", 0) if self.fault.get("kind") == "size" else 0)
            entry = {"type": "file", "path": path, "size": size, "oid": git}
            if path in found.get("large", []):
                entry["lfs"] = {"oid": sha256, "size": size, "pointerSize": 134}
            entries.append(entry)
        if self.fault.get("kind") == "listing":
            entries.append(self.fault["entry"])
        # Two pages, as the hub has them for long listings.
        half = len(entries) // 2
        if "cursor=" in self.path:
            return self.answer(200, json.dumps(entries[half:]).encode())
        following = f"http://127.0.0.1:{self.server.server_port}{self.path}&cursor=x"
        self.answer(200, json.dumps(entries[:half]).encode(), {"Link": f'<{following}>; rel="next"'})

    def plain(self, hub, path):
        path = path.split("?")[0]
        file = folder / path
        if not file.is_file():
            return self.answer(404, b"no such file")
        self.content(file.read_bytes(), {"ETag": '"plain"'})

    def resolve(self, hub, name, rest):
        found = self.repository(hub, name)
        if found is None:
            return
        if found.get("gated") and self.headers.get("Authorization") != "Bearer hf_right":
            if self.server.server_port == ports[0]:
                return self.answer(401 if not self.headers.get("Authorization") else 403, b"no", {"X-Error-Code": "GatedRepo"})
        revision = max((r for r in [*found["revisions"], *found["revisions"].values()] if rest.startswith(r + "/")), key=len,
                       default="")
        commit = self.commit(found, revision)
        if not commit:
            return
        path = rest[len(revision) + 1:].split("?")[0]
        if path not in found["files"]:
            return self.answer(404, b"no", {"X-Error-Code": "EntryNotFound"})
        content, git, sha256 = self.hashes(found, path)
        about = {"X-Repo-Commit": commit, "ETag": f'"{git}"'}
        if path in found.get("large", []):
            about |= {"X-Linked-ETag": f'"{sha256}"', "X-Linked-Size": str(len(content)), "ETag": f'"{sha256}"'}
        if self.fault.get("kind") == "elsewhere":
            place = f"http://127.0.0.1:{ports[1]}{self.path}?signature=secret"
            return self.answer(302, b"", about | {"Location": place})
        self.content(content, about)

    def content(self, content, headers):
        kind, at = self.fault.get("kind"), self.fault.get("at", 0)
        first, code, total = 0, 200, len(content)
        wanted = re.match(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if wanted and kind != "whole":
            first = int(wanted[1])
            if first >= total:
                return self.answer(416, b"", {"Content-Range": f"bytes */{total}"})
            last = min(int(wanted[2] or total), total - 1)
            code, headers = 206, headers | {"Content-Range": f"bytes {first}-{last}/{total}"}
            content = content[: last + 1]
        body = content[first:]
        if kind == "wrong":
            body = bytes(255 - byte for byte in body)
        length = at if kind == "short" else len(body)
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(length))
        self.end_headers()
        if self.head:
            return
        if kind in ("drop", "stall", "short"):
            body = body[: max(0, at - first) if kind != "short" else at]
        step = 1000 if kind == "slow" else 1 << 16
        try:
            for i in range(0, len(body), step):
                self.wfile.write(body[i:i + step])
                self.wfile.flush()
                if kind == "slow":
                    time.sleep(self.fault["seconds"])
            if kind == "stall":
                self.connection.settimeout(60)
                self.connection.recv(1)
        except OSError:
            pass
        if kind in ("drop", "stall", "short"):
            self.close_connection = True


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_):
        """A client that is killed is what these tests are about."""


servers = [Server(("127.0.0.1", 0), Handler) for _ in range(2)]
ports = [server.server_port for server in servers]
for server in servers:
    threading.Thread(target=server.serve_forever, daemon=True).start()
print(json.dumps(ports), flush=True)
sys.stdin.read()
os._exit(0)
