#!/usr/bin/env python3
"""What `graft select` costs beyond the passes through the sources, on ten candidates and 10,000 examples.

usage: select_speed.py --data DIR --model BERT [--candidates 10] [--sample 10000]

The candidates are made of one real source (peers/candidates.py). Target: no more than the sum of the capture passes plus
10 %, or 5 s for each candidate where that is more. Ends with exit code 1 where it is missed.
"""
import sys

from side_by_side import BENCH, GRAFT, Results, arguments, checked, peer_python, result_of, run, say, settings, stop, threads, wait_for_quiet


def main():
    parser = arguments(__doc__, out="select-speed")
    parser.add_argument("--candidates", type=int, default=10)
    parser.add_argument("--sample", type=int, default=10000)
    options = checked(parser)
    train = options.data / "train.jsonl"
    if not train.exists():
        stop(f"{train} is not there; --data is a folder with train, validation and test.jsonl (text, label)")
    with open(train, encoding="utf-8") as lines:
        rows = sum(1 for line in lines if line.strip())
    if rows < options.sample:
        stop(f"{train} has {rows} rows, the target is of {options.sample}: give more data, or measure another size by --sample")
    place = options.out / "candidates"
    if not place.exists():
        run([peer_python(), BENCH / "peers" / "candidates.py", options.model, place])
    candidates = [options.model, *sorted(path for path in place.iterdir() if path.is_dir())][:options.candidates]
    if len(candidates) < options.candidates:
        stop(f"{len(candidates)} candidates can be made of {options.model}, the target is of {options.candidates}: give --candidates")
    results = Results(options.out / "results.json", {"sample": options.sample, "candidates": len(candidates)})

    def measured():
        wait_for_quiet(options.allow_busy)
        given = [part for candidate in candidates for part in ("--candidate", candidate)]
        ran = run([GRAFT, "select", "--json", "--quiet", "--data", options.data, *given,
                   *settings({"select.sample": options.sample, "train.threads": threads()})])
        answer = result_of(ran.output)
        return {"seconds": ran.seconds, "peak_bytes": ran.peak_bytes, "examples": answer["examples"], "ranking": answer["ranking"], "dropped": answer["dropped"]}
    part = results.part("select", measured)
    captures = [item["seconds_capture"] for item in part["ranking"]]
    scores = [item["seconds_scores"] for item in part["ranking"]]
    allowed = max(1.1 * sum(captures), sum(captures) + 5 * len(captures))
    print(f"{len(captures)} candidates, {part['examples']} examples: {part['seconds']:.1f} s, of which capture passes {sum(captures):.1f} s "
          f"(slowest {max(captures):.1f} s), scores {sum(scores):.1f} s; allowed {allowed:.1f} s; peak {part['peak_bytes'] / 1e6:.0f} MB")
    good = part["seconds"] <= allowed and len(captures) == len(candidates)
    dropped = "".join(f"; {item['source']} dropped out: {item['reason']}" for item in part["dropped"])
    print(f"target {'met' if good else 'MISSED'}: {part['seconds']:.1f} s of at most {allowed:.1f} s{dropped}")
    say(f"written to {results.path}")
    sys.exit(not good)


if __name__ == "__main__":
    main()
