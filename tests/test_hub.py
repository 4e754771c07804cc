"""The hub and its mirror, played by a server on this machine."""

import hashlib
import http.server
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from files import small_folder

COMMIT = "0123456789abcdef0123456789abcdef01234567"
CODE = (
    "import sys, qwen2_book as q\n"
    "try:\n"
    "    model, tokenizer = q.load(sys.argv[1], device='cpu')\n"
    "    print('loaded', model.name_or_path, len(tokenizer))\n"
    "except q.CheckpointError as error: print('refused', error)"
)


class Hub(http.server.BaseHTTPRequestHandler):
    """The few addresses that fetching a snapshot asks for."""

    protocol_version = "HTTP/1.1"

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def answer(self, body: bool):
        folder: Path = self.server.folder
        path = self.path.split("?")[0]
        self.server.asked.append(path)
        if path.startswith("/api/models/me/small"):
            files = [{"rfilename": f.name} for f in sorted(folder.iterdir())]
            data = json.dumps({"id": "me/small", "sha": COMMIT, "siblings": files}).encode()
            if "/tree/" in path:
                data = json.dumps(
                    [
                        {"type": "file", "path": f.name, "size": f.stat().st_size, "oid": "0" * 40}
                        for f in sorted(folder.iterdir())
                    ]
                ).encode()
            self.reply(200, data, body)
        elif path.startswith(f"/me/small/resolve/{COMMIT}/"):
            file = folder / path.rsplit("/", 1)[1]
            if file.is_file():
                self.reply(200, file.read_bytes(), body)
            else:
                self.reply(404, b"", body, {"X-Error-Code": "EntryNotFound"})
        else:
            self.reply(404, b"{}", body, {"X-Error-Code": "RepoNotFound"})

    def reply(self, status, data, body, more=()):
        self.send_response(status)
        headers = {"Content-Length": str(len(data)), "X-Repo-Commit": COMMIT}
        headers["ETag"] = f'"{hashlib.sha256(data).hexdigest()}"'
        for name, value in (headers | dict(more)).items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(data)

    def log_message(self, *args):
        pass


@pytest.fixture
def hub(tmp_path):
    small_folder(tmp_path / "served")
    (tmp_path / "served" / "pytorch_model.bin").write_bytes(b"a pickle")
    (tmp_path / "served" / "README.md").write_text("not needed")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.folder, server.asked = tmp_path / "served", []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def run(name: str, cache: Path, endpoint: str, **more: str) -> str:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING"))}
    environment |= {
        "HF_HOME": str(cache),
        "HF_ENDPOINT": endpoint,
        "HF_HUB_DISABLE_XET": "1",
        **more,
    }
    command = [sys.executable, "-c", CODE, name]
    result = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=True, timeout=120
    )
    return result.stdout.strip()


def test_the_mirror_is_asked_and_no_pickle_is_fetched(hub, tmp_path):
    endpoint = f"http://127.0.0.1:{hub.server_port}"
    assert run("me/small", tmp_path / "cache", endpoint) == "loaded small 270"
    fetched = {path.rsplit("/", 1)[1] for path in hub.asked if "/resolve/" in path}
    assert {"model.safetensors", "config.json", "tokenizer.json"} <= fetched
    assert not fetched & {"pytorch_model.bin", "README.md"}
    asked = len(hub.asked)
    offline = run("me/small", tmp_path / "cache", endpoint, HF_HUB_OFFLINE="1")
    assert offline == "loaded small 270"  # from the cache, through its links
    assert len(hub.asked) == asked


@pytest.mark.parametrize("name", ["me/other", "nobody/nothing"])
def test_an_unknown_name_is_refused(hub, tmp_path, name):
    answer = run(name, tmp_path / "cache", f"http://127.0.0.1:{hub.server_port}")
    assert answer.startswith(f"refused {name}: ") and "Check the name" in answer


def test_without_a_network_the_ways_around_are_named(tmp_path):
    began = time.perf_counter()
    answer = run("me/small", tmp_path / "cache", "http://127.0.0.1:9")
    assert answer.startswith("refused me/small")
    for way in ("HF_ENDPOINT", "mirror", "folder", ".gguf"):
        assert way in answer
    assert time.perf_counter() - began < 60
