#!/usr/bin/env python3
"""Checks the format of the sample entities, queries and relevance judgements.

Prints one summary line to stdout, and one line per fault to stderr.

exit: 0 no faults, 1 faults, 2 a file is missing or unreadable
"""

import argparse
import json
import re
import sys
from collections import Counter, defaultdict
from pathlib import Path

ID = re.compile(r"[a-zA-Z0-9_.-]{1,255}")
TAG = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
TYPES = ("instrument", "curve", "scenario", "backtest")
FIELDS = {"entity_type", "entity_id", "text", "tags", "metadata"}
HEADER = "query-id\tcorpus-id\tscore"
MIN_ENTITIES = 200
QUERIES = 30
# Allowed counts, both bounds included: judgements per query; words, tags and metadata keys per entity.
JUDGED = (2, 6)
WORDS = (30, 90)
TAGS = (2, 4)
METADATA = (3, 7)
# Two texts are near duplicates if they share more than this part of their n-grams of GRAM words.
GRAM = 5
MAX_SHARED = 0.8


def objects(path, faults):
    """Returns the JSON objects of a file, each with `file name:line number`."""
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        where = f"{path.name}:{number}"
        try:
            value = json.loads(line)
        except ValueError as error:
            faults.append(f"{where}: not JSON: {error}")
            continue
        if isinstance(value, dict):
            found.append((where, value))
        else:
            faults.append(f"{where}: not an object")
    return found


def between(count, bounds):
    return bounds[0] <= count <= bounds[1]


def check_entity(where, entity, faults):
    """Returns the (type, id) of an entity, or None if the entity has no valid type and id."""
    if set(entity) != FIELDS:
        faults.append(f"{where}: fields are {sorted(entity)}, expected {sorted(FIELDS)}")
        return None
    kind, name = entity["entity_type"], entity["entity_id"]
    if kind not in TYPES:
        faults.append(f"{where}: entity_type {kind!r} is not one of {', '.join(TYPES)}")
        return None
    if not isinstance(name, str) or not ID.fullmatch(name):
        faults.append(f"{where}: entity_id {name!r} does not match {ID.pattern}")
        return None
    text, tags, metadata = entity["text"], entity["tags"], entity["metadata"]
    if not isinstance(text, str):
        faults.append(f"{where}: {name}: text is not a string")
        entity["text"] = ""
    elif not between(len(text.split()), WORDS):
        faults.append(f"{where}: {name}: {len(text.split())} words in text, expected {WORDS[0]} to {WORDS[1]}")
    if not isinstance(tags, list) or not all(isinstance(tag, str) and TAG.fullmatch(tag) for tag in tags):
        faults.append(f"{where}: {name}: tags are not lower-case words joined by -")
    elif not between(len(tags), TAGS) or len(set(tags)) != len(tags):
        faults.append(f"{where}: {name}: {len(tags)} tags, expected {TAGS[0]} to {TAGS[1]} different ones")
    if not isinstance(metadata, dict) or not all(isinstance(v, (str, int, float, bool)) for v in metadata.values()):
        faults.append(f"{where}: {name}: metadata is not an object of strings, numbers and booleans")
    elif not between(len(metadata), METADATA):
        faults.append(f"{where}: {name}: {len(metadata)} metadata keys, expected {METADATA[0]} to {METADATA[1]}")
    return kind, name


def grams(text):
    """Returns the set of n-grams of GRAM words of a text; a shorter text is one n-gram."""
    words = re.findall(r"[a-z0-9]+", text.lower())
    return {tuple(words[at : at + GRAM]) for at in range(max(1, len(words) - GRAM + 1))}


def check_overlap(texts, faults):
    """Reports each pair of texts that share more than MAX_SHARED of the n-grams of the shorter text."""
    sets = {key: grams(text) for key, text in texts.items()}
    holders = defaultdict(list)
    for key, own in sets.items():
        for gram in own:
            holders[gram].append(key)
    shared = Counter()
    for keys in holders.values():
        for at, left in enumerate(keys):
            for right in keys[at + 1 :]:
                shared[left, right] += 1
    for (left, right), count in shared.items():
        share = count / min(len(sets[left]), len(sets[right]))
        if share > MAX_SHARED:
            faults.append(f"{'/'.join(left)} and {'/'.join(right)} share {share:.0%} of their {GRAM}-grams")


def check_qrels(path, queries, entities, faults):
    """Checks the relevance judgements against the queries and entities. Returns the number of judgements."""
    lines = path.read_text(encoding="utf-8").splitlines()
    if not lines or lines[0] != HEADER:
        faults.append(f"{path.name}:1: the first line is not the header {HEADER!r}")
    judged, seen = Counter(), set()
    for number, line in enumerate(lines[1:], 2):
        where, parts = f"{path.name}:{number}", line.split("\t")
        if len(parts) != 3:
            faults.append(f"{where}: {len(parts)} columns, expected 3")
            continue
        query, corpus, score = parts
        if query not in queries:
            faults.append(f"{where}: query {query!r} is not in queries.jsonl")
        if tuple(corpus.split("/", 1)) not in entities:
            faults.append(f"{where}: entity {corpus!r} is not in entities.jsonl")
        if score not in ("1", "2"):
            faults.append(f"{where}: score {score!r} is not 1 or 2")
        if (query, corpus) in seen:
            faults.append(f"{where}: {query} has two judgements of {corpus}")
        seen.add((query, corpus))
        judged[query] += 1
    for query in queries:
        if not between(judged[query], JUDGED):
            faults.append(f"{path.name}: {query} has {judged[query]} judgements, expected {JUDGED[0]} to {JUDGED[1]}")
    return len(seen)


def main():
    parser = argparse.ArgumentParser(description="Check the sample entities, queries and judgements.")
    default = Path(__file__).resolve().parent.parent / "samples"
    parser.add_argument("samples", nargs="?", type=Path, default=default,
                        help="the folder of the samples (default: samples/ of the repository)")
    folder = parser.parse_args().samples
    faults, texts, queries = [], {}, set()
    try:
        for where, entity in objects(folder / "entities.jsonl", faults):
            key = check_entity(where, entity, faults)
            if key in texts:
                faults.append(f"{where}: duplicate entity {'/'.join(key)}")
            elif key:
                texts[key] = entity["text"]
        for where, query in objects(folder / "queries.jsonl", faults):
            name, text = query.get("_id"), query.get("text")
            if set(query) != {"_id", "text"} or not isinstance(name, str) or not isinstance(text, str) or not text.strip():
                faults.append(f"{where}: not an object with _id and a non-empty text")
            elif name in queries:
                faults.append(f"{where}: duplicate query {name}")
            else:
                queries.add(name)
        judgements = check_qrels(folder / "qrels" / "test.tsv", queries, texts, faults)
    except (OSError, UnicodeDecodeError) as error:
        print(f"check_samples: {error}", file=sys.stderr)
        return 2
    if len(texts) < MIN_ENTITIES:
        faults.append(f"{len(texts)} entities, expected at least {MIN_ENTITIES}")
    if len(queries) != QUERIES:
        faults.append(f"{len(queries)} queries, expected {QUERIES}")
    check_overlap(texts, faults)
    for fault in faults:
        print(f"fault: {fault}", file=sys.stderr)
    kinds = Counter(kind for kind, _ in texts)
    split = ", ".join(f"{kinds[kind]} {kind}" for kind in TYPES)
    print(f"{len(texts)} entities ({split}), {len(queries)} queries, {judgements} judgements, {len(faults)} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
