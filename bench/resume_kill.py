#!/usr/bin/env python3
"""Kills a short run with SIGKILL at random moments, resumes it, and compares the bytes with the unbroken run's.

usage: resume_kill.py --data DIR [--model MODEL] [--kills 30] [--threads 1]

A run of all stages on 128 texts (adapt, a sweep of the head, two unfreezings, full, export). Every second kill is at a
random time; the others are inside the n-th write of the process (open, write, fsync, rename), which is where checkpoints,
stores, journal and model are written. Compared: SHA-256 of model/model.safetensors and the journal without its time
fields. Exit 1 when any run differs. Nothing is timed, so other programs may run beside it; only graft is measured.
"""
import collections
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import time

from side_by_side import GRAFT, Results, arguments, checked, fresh, settings, stop

RECIPE = {"adapt.epochs": 2, "adapt.max_length": 48, "finetune.head.epochs": 3, "finetune.head.min_epochs": 1,
          "finetune.head.learning_rates": [1e-3, 3e-3], "finetune.head.weight_decays": [0.01], "finetune.unfreeze.max_units": 2,
          "finetune.unfreeze.epochs": 2, "finetune.unfreeze.patience_units": 0, "finetune.full.when": "always",
          "finetune.full.epochs": 2, "train.checkpoint_seconds": 0}
OPERATIONS = 4500  # about as many as such a run has


def data_of(source, place):
    rows = [line for line, _ in zip(open(source / "train.jsonl", encoding="utf-8"), range(200))]
    place.mkdir(parents=True, exist_ok=True)
    for split, some in (("train", rows[:128]), ("validation", rows[128:192]), ("test", rows[192:])):
        (place / f"{split}.jsonl").write_text("".join(some), encoding="utf-8")
    (place / "corpus.txt").write_text("".join(json.loads(row)["text"] + "\n" for row in rows[:128]), encoding="utf-8")
    return place


def without_times(value):
    if isinstance(value, dict):
        return {key: without_times(item) for key, item in value.items() if key not in ("time", "seconds")}
    return [without_times(item) for item in value] if isinstance(value, list) else value


def fingerprint(run):
    journal = json.dumps([without_times(json.loads(line)) for line in open(run / "journal.jsonl", encoding="utf-8")])
    return [hashlib.sha256(content).hexdigest() for content in ((run / "model/model.safetensors").read_bytes(), journal.encode())]


def place_in(run):
    """The last thing that the journal tells of a killed run."""
    try:
        last = json.loads(open(run / "journal.jsonl", encoding="utf-8").readlines()[-1])
        return f"after {last['event']} {last.get('phase', '')}".strip()
    except (OSError, IndexError, ValueError):
        return "before the first event"


class Killing:
    def __init__(self, options):
        self.out, self.threads, self.model = options.out / "runs", options.threads, options.model
        self.data = data_of(options.data, options.out / "data")

    def start(self, run, fault=None):
        if (run / "recipe.toml").exists():
            command = [GRAFT, "run", "--quiet", "--resume", run]
        else:  # not begun, or killed before it was a run
            command = [GRAFT, "run", "--quiet", "--source", self.model, "--data", self.data, "--corpus", self.data / "corpus.txt",
                       "--out", fresh(run), *settings({**RECIPE, "train.threads": self.threads})]
        environment = {**os.environ, **({"GRAFT_TEST_FAULT": fault} if fault else {})}
        return subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment)

    def unbroken(self, name):
        run, began = fresh(self.out / name), time.monotonic()
        process = self.start(run)
        error = process.communicate()[1]
        if process.returncode:
            stop(f"the unbroken run failed: {error}")
        return {"seconds": time.monotonic() - began, "fingerprint": fingerprint(run)}

    def killed(self, number, whole):
        chance, run = random.Random(number), fresh(self.out / "killed")
        if number % 2 == 0:
            moment = chance.uniform(0.1, whole["seconds"])
            process, how = self.start(run), f"after {moment:.2f} s"
            time.sleep(moment)
            process.send_signal(signal.SIGKILL)
        else:
            operation = chance.randint(1, OPERATIONS)
            process, how = self.start(run, f"kill:{operation}"), f"in write operation {operation}"
        survived = process.wait() == 0
        part = {"kill": how, "survived": survived, "at": place_in(run), "equal": False}
        if not survived:
            resumed = self.start(run)
            error = resumed.communicate()[1]
            if resumed.returncode:
                return {**part, "error": error[-500:]}
        return {**part, "equal": fingerprint(run) == whole["fingerprint"]}


def main():
    parser = arguments(__doc__, out="resume-kill")
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--threads", type=int, default=1, help="of each run; resuming is exact on the same number (default 1)")
    options = checked(parser)
    results = Results(options.out / "results.json", {"data": options.data, "model": options.model, "threads": options.threads, "recipe": RECIPE})
    killing = Killing(options)
    whole = results.part("unbroken", lambda: killing.unbroken("whole"))
    again = results.part("unbroken again", lambda: killing.unbroken("again"))
    kills = [results.part(f"kill {number}", lambda: killing.killed(number, whole)) for number in range(options.kills)]
    for kill in kills:
        print(f"{'equal' if kill['equal'] else 'DIFFERS':8}killed {kill['kill']}, {kill['at']}" + ("" if not kill["survived"] else " (it had ended)"))
    repeated = again["fingerprint"] == whole["fingerprint"]
    killed, equal = sum(not kill["survived"] for kill in kills), sum(kill["equal"] for kill in kills)
    print(f"two unbroken runs are {'equal' if repeated else 'NOT equal'}; {killed} of {len(kills)} runs were killed; {equal} of {len(kills)} ended "
          "with the unbroken run's bytes")
    where = collections.Counter(kill["at"] for kill in kills if not kill["survived"])
    print("killed " + ", ".join(f"{times} {place}" for place, times in where.most_common()))
    shutil.rmtree(killing.out / "killed", ignore_errors=True)
    raise SystemExit(0 if repeated and equal == len(kills) else 1)


if __name__ == "__main__":
    main()
