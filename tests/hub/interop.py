#!/usr/bin/env python3
"""graft and huggingface_hub share one cache, in both directions; needs huggingface_hub, and no network.

usage: interop.py GRAFT      (make interop)

1. what graft pulled, huggingface_hub reads offline: snapshot_download, hf_hub_download, scan_cache_dir;
2. what huggingface_hub downloaded, graft takes offline, and pulls nothing of it again;
3. a repository half of which each of them fetched; 4. graft goes on with an unfinished file that huggingface_hub left.
"""
import hashlib
import json
import os
import pathlib
import random
import subprocess
import sys
import tempfile
import time

graft = pathlib.Path(sys.argv[1]).resolve()
here = pathlib.Path(__file__).resolve().parent
scratch = pathlib.Path(tempfile.mkdtemp(prefix="graft-interop-"))
commit = "c" * 40
content = {"config.json": b'{"model_type": "bert"}', "vocab.txt": b"[PAD]\n[UNK]\n", "model.safetensors": random.Random(1).randbytes(3_000_000),
           "onnx/model.onnx": random.Random(2).randbytes(5000)}
(scratch / "server").mkdir()
for i, (path, data) in enumerate(content.items()):
    (scratch / "server" / str(i)).write_bytes(data)
(scratch / "server/hub.json").write_text(json.dumps({"repositories": {"org/model": {
    "revisions": {"main": commit}, "files": {path: str(i) for i, path in enumerate(content)}, "large": ["model.safetensors"]}}}))
server = subprocess.Popen([sys.executable, here / "hub_server.py", scratch / "server"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
port = json.loads(server.stdout.readline())[0]


def environment(home, offline):
    return os.environ | {"HF_HOME": str(scratch / home), "HF_ENDPOINT": f"http://127.0.0.1:{port}", "HF_HUB_OFFLINE": str(int(offline)),
                         "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "no_proxy": "127.0.0.1"}


def pull(home, offline=False):
    done = subprocess.run([graft, "pull", "--json", "--quiet", "org/model"], env=environment(home, offline), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def python(home, offline, code):
    """Runs `code` with huggingface_hub under the environment, which it reads when it is imported."""
    done = subprocess.run([sys.executable, "-c", "import json, huggingface_hub as h\n" + code], env=environment(home, offline),
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def same(folder, names):
    for name in names:
        assert (pathlib.Path(folder) / name).read_bytes() == content[name], name


def weight_requests():
    return sum("/resolve/" in line and "model.safetensors" in line and '"GET"' in line
               for line in (scratch / "server/log.jsonl").read_text().splitlines())


try:
    small = ["config.json", "vocab.txt", "model.safetensors"]
    pulled = pull("one")
    folder = python("one", True, "print(json.dumps(h.snapshot_download('org/model', allow_patterns=%r)))" % small)
    assert folder == pulled["folder"], (folder, pulled["folder"])
    same(folder, small)
    path = python("one", True, "print(json.dumps(h.hf_hub_download('org/model', 'model.safetensors')))")
    assert path == pulled["folder"] + "/model.safetensors"
    scan = python("one", True, "c = h.scan_cache_dir()\nprint(json.dumps([[r.repo_id, r.nb_files, sorted(r.refs), len(c.warnings)] for r in c.repos]))")
    assert scan == [["org/model", 3, ["main"], 0]], scan
    print("huggingface_hub reads offline what graft pulled")

    before = weight_requests()
    python("one", False, "print(json.dumps(h.snapshot_download('org/model')))")
    assert weight_requests() == before, "huggingface_hub fetched the weights again"
    same(pull("one")["folder"], content)
    print("huggingface_hub fetches only what graft had not, and both agree")

    folder = python("two", False, "print(json.dumps(h.snapshot_download('org/model')))")
    before = weight_requests()
    pulled = pull("two", offline=True)
    assert pulled["folder"] == folder and pulled["downloaded_bytes"] == 0
    assert pull("two")["downloaded_bytes"] == 0 and weight_requests() == before
    print("graft takes offline what huggingface_hub downloaded")

    python("three", False, "print(json.dumps(h.hf_hub_download('org/model', 'config.json')))")
    assert pull("three")["downloaded_bytes"] > 3_000_000
    same(pull("three", offline=True)["folder"], small)
    print("graft completes a snapshot that huggingface_hub began")

    blobs = scratch / "four/hub/models--org--model/blobs"
    blobs.mkdir(parents=True)
    name = hashlib.sha256(content["model.safetensors"]).hexdigest()
    left = blobs / f"{name}.0a1b2c3d.incomplete"
    left.write_bytes(content["model.safetensors"][:2_000_000])
    os.utime(left, (time.time() - 3600,) * 2)
    assert pull("four")["downloaded_bytes"] < 1_100_000
    same(python("four", True, "print(json.dumps(h.snapshot_download('org/model', allow_patterns=%r)))" % small), small)
    print("graft goes on with an unfinished file of huggingface_hub")
finally:
    server.kill()
    subprocess.run(["rm", "-rf", scratch])
