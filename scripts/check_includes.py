#!/usr/bin/env python3
"""Checks the arrows of docs/architecture.md: a folder of graft/ includes only what stands below it.

usage: check_includes.py    (in the checkout; exit 1 with one sentence per include that points up or sideways)
"""
import pathlib
import re
import sys

CHAIN = ["run", ("select", "adapt", "finetune", "retain"), "train", "features", "models", "nn"]
BESIDE = ["data", "hub", "io", "report"]  # below train, and above core only
FLOOR = {"core"}

may_include = {"core": {"core"}, **{room: FLOOR | set(BESIDE) for room in BESIDE}}
below = FLOOR | set(BESIDE)
for rooms in reversed(CHAIN):
    rooms = (rooms,) if isinstance(rooms, str) else rooms
    for room in rooms:
        may_include[room] = below | {room}  # not its neighbours: stages do not include each other
    below = below | set(rooms)

root = pathlib.Path(__file__).resolve().parent.parent
complaints = []
for file in sorted(path for path in (root / "graft").rglob("*") if path.suffix in (".h", ".cpp")):
    name = file.relative_to(root)
    room = name.parts[1]
    if room not in may_include:
        complaints.append(f"{name}: graft/{room} is not a room of the design; add it to scripts/check_includes.py")
        continue
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        include = re.match(r'\s*#\s*include\s*[<"](cli|graft/(\w+))/', line)
        if include and include[2] not in may_include[room]:
            wanted = f"graft/{include[2]}" if include[2] else "cli"
            complaints.append(f"{name}:{number}: graft/{room} includes {wanted}, which does not stand below it")
print("\n".join(complaints) or "includes: every arrow points down")
sys.exit(bool(complaints))
