"""What the measurements share: the peer's environment, a quiet machine, results that survive a stop, graft's journal."""
import argparse
import hashlib
import json
import os
import pathlib
import platform
import shutil
import subprocess
import sys
import threading
import time
import typing

BENCH = pathlib.Path(__file__).resolve().parent
ROOT = BENCH.parent
GRAFT = pathlib.Path(os.environ.get("GRAFT") or ROOT / os.environ.get("BUILD", "build") / "graft")
MODEL = pathlib.Path(os.environ.get("GRAFT_DEPS") or ROOT / ".deps") / "all-minilm-l6-v2"


def stop(sentence):
    sys.exit(f"{pathlib.Path(sys.argv[0]).name}: {sentence}")


def say(sentence):
    print(f"==> {sentence}", file=sys.stderr, flush=True)


def peer_python(kind="", what="transformers and PyTorch"):
    """The interpreter of bench/.venv{kind}, made from requirements{kind}.txt when it is not there or is older."""
    requirements, place = BENCH / f"requirements{kind}.txt", BENCH / f".venv{kind}"
    wanted = hashlib.sha256(requirements.read_bytes()).hexdigest()
    ready = place / "ready"
    if not ready.exists() or ready.read_text() != wanted:
        say(f"making bench/{place.name} with {what} (about 5 GB on disk)")
        subprocess.run([sys.executable, "-m", "venv", "--clear", place], check=True)
        subprocess.run([place / "bin/python", "-m", "pip", "install", "-r", requirements], check=True, stdout=sys.stderr)
        ready.write_text(wanted)
    return place / "bin/python"


def busy_cores(seconds=2.0):
    """How many cores were busy, on average, over the last moments (from /proc/stat)."""
    def ticks():
        values = [int(value) for value in pathlib.Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
        return sum(values), values[3] + values[4]  # idle and waiting for the disk
    total, idle = ticks()
    time.sleep(seconds)
    total_after, idle_after = ticks()
    return os.cpu_count() * (1 - (idle_after - idle) / max(1, total_after - total))


def wait_for_quiet(allow_busy, patience=30):
    """Times taken beside another program are not times."""
    end = time.monotonic() + patience
    while not allow_busy and (busy := busy_cores()) > 0.3:
        if time.monotonic() > end:
            stop(f"{busy:.1f} cores are busy with something else; end it, or give --allow-busy and do not quote the times")


def threads():
    return len(os.sched_getaffinity(0))


class Ran(typing.NamedTuple):
    output: str         # what the side wrote to standard output
    seconds: float
    peak_bytes: int     # anonymous and shared resident memory; mapped files apart
    resident_bytes: int  # all resident memory, pages of mapped files too


def resident(process):
    """Anonymous and shared resident bytes of a process, and the most that was resident at all; 0 when it has ended."""
    try:
        lines = pathlib.Path(f"/proc/{process}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0, 0
    def of(*names):
        return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(names))
    return of("RssAnon:", "RssShmem:"), of("VmHWM:")


def run(command, **keywords):
    """Runs one side. Its messages go to ours."""
    say(" ".join(map(str, command)))
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads()), "TOKENIZERS_PARALLELISM": "false", **keywords.pop("env", {})}
    start = time.monotonic()
    process = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, text=True, env=environment, **keywords)
    peak, most, ended = 0, 0, threading.Event()

    def watch():
        nonlocal peak, most
        while not ended.wait(0.01):
            own, everything = resident(process.pid)
            peak, most = max(peak, own), max(most, everything)
    watcher = threading.Thread(target=watch)
    watcher.start()
    output, _ = process.communicate()
    seconds = time.monotonic() - start
    ended.set()
    watcher.join()
    if process.returncode:
        stop(f"the command above ended with exit code {process.returncode}")
    return Ran(output, seconds, peak, most)


def events(run_folder, kind, file="journal.jsonl"):
    """The journal's events of one kind, in order. A last line that is still being written does not count."""
    lines = (run_folder / file).read_text(encoding="utf-8").splitlines(keepends=True)
    return [event for event in map(json.loads, (line for line in lines if line.endswith("\n"))) if event.get("event") == kind]


def head_of(file, limit, target):
    """The first `limit` lines of a JSONL file (0: all), as the same file for both sides."""
    with open(file, encoding="utf-8") as source, open(target, "w", encoding="utf-8") as copy:
        for number, line in enumerate(source):
            if limit and number >= limit:
                break
            copy.write(line)


def cut_data(data, place, **limits):
    """A folder with the splits cut to their limits; one per data set and set of limits."""
    target = place / "-".join([data.resolve().name, *(str(limits.get(split, 0)) for split in ("train", "validation", "test"))])
    target.mkdir(parents=True, exist_ok=True)
    for split in ("train", "validation", "test"):
        if not (data / f"{split}.jsonl").exists():
            stop(f"{data / split}.jsonl is not there; --data is a folder with train, validation and test.jsonl (text, label)")
        head_of(data / f"{split}.jsonl", limits.get(split, 0), target / f"{split}.jsonl")
    return target


def settings(values):
    """Keys of graft's recipe as arguments of its command line."""
    return [part for key, value in values.items() for part in ("--set", f"{key}={json.dumps(value)}")]


def result_of(output):
    """The object that --json prints."""
    return json.loads(output.splitlines()[-1])


class Results:
    """Parts of a measurement in one JSON file, written after each; a part that is there is not measured again.

    `settings` hold all that the parts depend on: data and model too, for one file may not mix those of two."""

    def __init__(self, path, settings):
        self.path = path
        settings = json.loads(json.dumps(settings, default=lambda value: str(value.resolve())))  # paths as text
        commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout.strip()
        about = {"command": " ".join(sys.argv), "commit": commit, "cpu": cpu_name(), "threads": threads(), "settings": settings}
        if path.exists():
            self.json = json.loads(path.read_text())
            known = {key: self.json.get(key) for key in ("settings", "cpu", "threads")}
            if known != {key: about[key] for key in known}:
                stop(f"{path} was measured with other settings or on another machine; move it away or give another --out")
        else:
            self.json = {**about, "parts": {}}

    def part(self, name, measure):
        if name in self.json["parts"]:
            say(f"{name}: measured already")
        else:
            self.json["parts"][name] = measure()
            self.path.parent.mkdir(parents=True, exist_ok=True)
            beside = self.path.with_suffix(".tmp")
            beside.write_text(json.dumps(self.json, indent=1) + "\n")
            beside.replace(self.path)
        return self.json["parts"][name]


def cpu_name():
    lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def fresh(folder):
    """An empty place for a run: what a stopped measurement left there is removed."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    return folder


def arguments(description, **defaults):
    """The options that all measurements have; `defaults` may give out= and more_sides=."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=pathlib.Path, required=True, help="folder with train, validation and test.jsonl")
    parser.add_argument("--model", type=pathlib.Path, default=MODEL, help="folder of the source model (default: MiniLM of scripts/demo_data.py)")
    parser.add_argument("--out", type=pathlib.Path, default=BENCH / "results" / defaults["out"], help="folder of results and runs")
    parser.add_argument("--allow-busy", action="store_true", help="measure beside other programs; times are then worthless")
    parser.add_argument("--sides", nargs="+", choices=["graft", "peer", *defaults.get("more_sides", [])], default=["graft", "peer"],
                        help="measure only these")
    return parser


def checked(parser):
    options = parser.parse_args()
    if "graft" in options.sides and not GRAFT.exists():
        stop(f"{GRAFT} is not built yet; run make build")
    if not (options.model / "model.safetensors").exists():
        stop(f"{options.model} holds no model.safetensors; scripts/demo_data.py fetches MiniLM, --model gives another")
    return options
