"""Kills a short run with SIGKILL at random moments, resumes it, and compares the bytes with the unbroken run's.

usage: resume_kill.py --source MODEL_FOLDER --data FOLDER [--kills 30] [--program build/graft]

Every second kill is at a random time; the others are inside the n-th write of the process (open, write, fsync, rename),
which is where checkpoints, stores, journal and model are written. Compared: SHA-256 of model/model.safetensors and the
journal without its time fields. Prints one JSON object; exit 1 when any run differs.
"""
import argparse
import hashlib
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import tempfile
import time

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--source", required=True)
parser.add_argument("--data", required=True, help="folder of train.jsonl and validation.jsonl with text and label")
parser.add_argument("--kills", type=int, default=30)
parser.add_argument("--program", default="build/graft")
parser.add_argument("--seed", type=int, default=0)
options = parser.parse_args()

work = pathlib.Path(tempfile.mkdtemp(prefix="graft-kill-"))
data, corpus = work / "data", work / "corpus.txt"
data.mkdir()
rows = [line for line in open(pathlib.Path(options.data) / "train.jsonl")][:200]
(data / "train.jsonl").write_text("".join(rows[:128]))
(data / "validation.jsonl").write_text("".join(rows[128:192]))
(data / "test.jsonl").write_text("".join(rows[192:200]))
corpus.write_text("".join(json.loads(row)["text"] + "\n" for row in rows[:128]))

SETTINGS = ["adapt.epochs=2", "adapt.max_length=48", "finetune.head.epochs=3", "finetune.head.min_epochs=1", "finetune.head.learning_rates=[1e-3, 3e-3]",
            "finetune.head.weight_decays=[0.01]", "finetune.unfreeze.max_units=2", "finetune.unfreeze.epochs=2",
            "finetune.unfreeze.patience_units=0", "finetune.full.when=always", "finetune.full.epochs=2", "train.checkpoint_seconds=0"]


def start(out, resume, environment=None):
    command = [options.program, "run", "--quiet"]
    if resume:
        command += ["--resume", str(out)]
    else:
        command += ["--source", options.source, "--data", str(data), "--corpus", str(corpus), "--out", str(out)]
        for setting in SETTINGS:
            command += ["--set", setting]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env={**os.environ, **(environment or {})})


def without_times(value):
    if isinstance(value, dict):
        return {k: without_times(v) for k, v in value.items() if k not in ("time", "seconds")}
    return [without_times(v) for v in value] if isinstance(value, list) else value


def fingerprint(out):
    journal = [without_times(json.loads(line)) for line in open(out / "journal.jsonl")]
    return (hashlib.sha256((out / "model/model.safetensors").read_bytes()).hexdigest(), json.dumps(journal))


def stage(out):
    try:
        return json.loads(open(out / "journal.jsonl").readlines()[-1])
    except (OSError, IndexError, ValueError):
        return {"event": "nothing yet"}


whole = work / "whole"
began = time.time()
process = start(whole, False)
assert process.wait() == 0, process.stderr.read()
seconds = time.time() - began
expected = fingerprint(whole)
repeated = work / "repeated"
assert start(repeated, False).wait() == 0
deterministic = fingerprint(repeated) == expected

chance = random.Random(options.seed)
results = []
for number in range(options.kills):
    out = work / "run"
    shutil.rmtree(out, ignore_errors=True)
    if number % 2 == 0:
        moment = chance.uniform(0.1, seconds)
        process = start(out, False)
        time.sleep(moment)
        process.send_signal(signal.SIGKILL)
        how = f"after {moment:.2f} s"
    else:
        operation = chance.randint(1, 900)
        process = start(out, False, {"GRAFT_TEST_FAULT": f"kill:{operation}"})
        how = f"in write operation {operation}"
    code = process.wait()
    at = stage(out)
    resumes = 0
    if code != 0:
        if not (out / "recipe.toml").exists():  # killed before the run existed
            shutil.rmtree(out, ignore_errors=True)
            resumed = start(out, False)
        else:
            resumed = start(out, True)
        error = resumed.communicate()[1]
        if resumed.returncode != 0:
            results.append({"kill": how, "at": at.get("event"), "equal": False, "error": error[-500:]})
            print(json.dumps(results[-1]), flush=True)
            continue
        resumes = 1
    same = fingerprint(out) == expected
    results.append({"kill": how, "survived": code == 0, "at": f"{at.get('event')} {at.get('phase', '')}".strip(), "equal": same, "resumes": resumes})
    print(json.dumps(results[-1]), flush=True)
killed = sum(1 for r in results if not r.get("survived"))
equal = sum(1 for r in results if r["equal"])
print(json.dumps({"unbroken_seconds": round(seconds, 2), "two_unbroken_runs_equal": deterministic, "runs": len(results), "killed": killed, "equal": equal}))
shutil.rmtree(work, ignore_errors=True)
raise SystemExit(0 if equal == len(results) and deterministic else 1)
