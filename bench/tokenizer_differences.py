#!/usr/bin/env python3
"""Where graft's ids are not those of another library's tokenizer, and why: graft follows what the models were trained with.

usage: tokenizer_differences.py [--all]    --all: every case, not three of each reason

Reads the cases of tests/parity/tokenizers, asks `graft tokenize` for its ids (they must be the fixture's), and lists the cases
in which transformers 5.17 (current), or transformers 4.57's fast or slow tokenizers, have others. Ends with exit code 1 when
graft differs from a fixture, or when a case has none of the known reasons.
"""
import collections
import json
import subprocess
import sys

from side_by_side import GRAFT, ROOT, stop

FIXTURES = ROOT / "tests/parity/tokenizers"
UNKNOWN = 3  # of spm-unigram


def blank_before_mask(case, other, folder):
    return any(f"{blank}{mask}" in side for side in (case["text"], case.get("pair") or "") for blank in " \t\n\xa0" for mask in ("<mask>", "[MASK]"))


def blank_first(case, other, folder):
    sides = (case["text"], case.get("pair") or "")
    return any(side[:1].isspace() or "<s>" in side or "</s>" in side or "<unk>" in side for side in sides)


# kind, reference, what shows that a case is of this sort, why graft has the ids that it has
REASONS = [
    ("bytebpe-", "transformers-5", blank_before_mask, "the mask token takes the blank before it, as in the published tokenizers; "
                                                      "the class rebuilt from vocab.json has lost that"),
    ("bytebpe-deberta", "transformers-5", lambda case, other, _: case.get("pair") is not None,
     "a pair is [CLS] A [SEP] B [SEP] with token types 0 and 1; the rebuilt class writes [SEP] twice and types 0"),
    ("spm-bpe-llama", "transformers-5", blank_first, "SentencePiece puts its blank before every piece of text, also one that begins with a "
                                                     "blank or follows a special token"),
    ("spm-unigram", "transformers", lambda case, other, _: UNKNOWN in other["ids"] and UNKNOWN not in case["ids"],
     "characters outside the vocabulary are bytes, as in the model's file; the other tokenizer has no byte fallback and gives [UNK] (5 also "
     "leaves out the file's table of normalisation, so more characters are unknown)"),
    ("", "transformers-4.57.6-slow", lambda case, other, _: "max_length" in case, "a pair that is cut loses its odd token in the first text, as in "
                                                                                  "the fast tokenizers; the slow ones take turns"),
    ("wordpiece", "transformers-4.57.6-slow", lambda case, other, _: True, "characters that Unicode has not assigned are kept, as in the fast "
                                                                           "tokenizers with which the models are used"),
]


def ids_of(folder, cases):
    rows = [{key: case[key] for key in ("text", "pair", "max_length") if case.get(key) is not None} for case in cases]
    result = subprocess.run([GRAFT, "tokenize", "--model", folder], input="".join(json.dumps(row) + "\n" for row in rows), text=True,
                            stdout=subprocess.PIPE, check=True)
    return [json.loads(line)["ids"] for line in result.stdout.splitlines()]


def main():
    if not GRAFT.exists():
        stop(f"{GRAFT} is not built yet; run make build")
    shown, wrong, unexplained = (10**9 if "--all" in sys.argv[1:] else 3), 0, 0
    for folder in sorted(FIXTURES.iterdir()):
        cases = [json.loads(line) for line in open(folder / "cases.jsonl", encoding="utf-8")]
        cases = [case for case in cases if case.get("truncation", "longest_first") == "longest_first"]  # what the command offers
        equal = [found == case["ids"] for found, case in zip(ids_of(folder, cases), cases, strict=True)]
        wrong += equal.count(False)
        found = collections.defaultdict(list)
        for case in cases:
            for reference, other in case.get("others", {}).items():
                reason = next((why for kind, of, fits, why in REASONS
                               if folder.name.startswith(kind) and reference.startswith(of) and fits(case, other, folder)), None)
                unexplained += reason is None
                found[reference, reason or "NO KNOWN REASON"].append((case, other))
        print(f"{folder.name}: {equal.count(True)} of {len(cases)} cases as the fixture has them")
        for (reference, reason), rows in sorted(found.items()):
            print(f"  {len(rows)} cases in which {reference} has others: {reason}")
            for case, other in rows[:shown]:
                texts = " + ".join(json.dumps(case[key], ensure_ascii=False)[:60] for key in ("text", "pair") if case.get(key) is not None)
                first = next((i for i, (a, b) in enumerate(zip(case["ids"], other["ids"])) if a != b), min(len(case["ids"]), len(other["ids"])))
                print(f"    {texts}\n      graft {case['ids'][first:first + 6]}, {reference} {other['ids'][first:first + 6]}, from token {first}")
    if wrong or unexplained:
        stop(f"{wrong} cases are not as the fixture has them, {unexplained} differences have no known reason")


if __name__ == "__main__":
    main()
