#!/usr/bin/env python3
"""Converts the Cranfield collection to the BEIR format.

SRC contains cran.all.1400, cran.qry and cranqrel. The script writes to OUT:

  corpus.jsonl    {"_id", "title", "text", "metadata": {}}
  queries.jsonl   {"_id", "text"}
  qrels/test.tsv  query-id, corpus-id, score

Documents. The title is the field .T, the text is the field .W. In the
collection the text begins with the title; the script removes the title from
the text and normalises whitespace. In two documents the text begins with a
misprint of the title, which is removed too if it is similar enough. A few
documents have a second .A, .B or .W: a second .W belongs to a damaged record,
and the script appends it to the text because the judges saw it. The script
omits documents without title and text (471 and 995) and their judgements.

Queries. The numbers at .I in cran.qry have gaps, and cranqrel does not use
them: it numbers the queries by position. The _id is that number, 1 to 225.

Gains. cranqrel codes go from 1 (a complete answer) to 4 (minimum interest);
they become the gains 4, 3, 2 and 1. Code 5 (no interest) is omitted; this
distribution does not contain it. Each query has exactly one document with the
undocumented code -1, which appears to be the paper that the query was written
from. Published figures omit it because every method finds it. This script
omits it too, unless --source-gain sets its gain.
"""

import argparse
import difflib
import json
import re
import sys
from pathlib import Path

GAINS = {"1": 4, "2": 3, "3": 2, "4": 1}
NO_INTEREST = "5"
SOURCE = "-1"
# Minimum similarity (0 to 1) between a title and the beginning of a text.
MISPRINT = 0.9
FIELD = re.compile(r"\.([TABW])\s*")
RECORD = re.compile(r"\.I\s+(\d+)\s*")


class BadInput(Exception):
    """The files of the collection do not have the expected content."""


def lines_of(path):
    try:
        return path.read_text(encoding="ascii").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: {error}") from error


def records(path):
    """Returns (number, fields) of each record. A repeated field is appended to the first one."""
    found, fields, field = [], None, None
    for at, line in enumerate(lines_of(path), 1):
        if start := RECORD.fullmatch(line):
            fields, field = {}, None
            found.append((int(start[1]), fields))
        elif mark := FIELD.fullmatch(line):
            if fields is None:
                raise BadInput(f"{path}:{at}: a field precedes the first .I")
            field = fields.setdefault(mark[1], [])
        elif field is not None:
            field.append(line)
        elif line.strip():
            raise BadInput(f"{path}:{at}: text is outside a field")
    if not found:
        raise BadInput(f"{path}: no records")
    return [(number, {name: " ".join(" ".join(text).split()) for name, text in fields.items()}) for number, fields in found]


def body(title, text):
    """Returns the text without the title at its beginning."""
    if not title:
        return text
    if text.startswith(title):
        return text[len(title) :].lstrip()
    words, count = text.split(), len(title.split())
    if difflib.SequenceMatcher(None, title, " ".join(words[:count])).ratio() >= MISPRINT:
        return " ".join(words[count:])
    return text


def corpus(path):
    documents, empty = [], []
    for number, fields in records(path):
        title = fields.get("T", "")
        text = body(title, fields.get("W", ""))
        if title or text:
            documents.append({"_id": str(number), "title": title, "text": text, "metadata": {}})
        else:
            empty.append(str(number))
    ids = [document["_id"] for document in documents] + empty
    if len(set(ids)) != len(ids):
        raise BadInput(f"{path}: duplicate document number")
    return documents, empty


def queries(path):
    found = [{"_id": str(at), "text": fields.get("W", "")} for at, (_, fields) in enumerate(records(path), 1)]
    for query in found:
        if not query["text"]:
            raise BadInput(f"{path}: query {query['_id']} is empty")
    return found


def judgements(path, asked, kept, empty, source_gain):
    """Returns the (query, document, gain) rows, and the number of judgements of empty documents."""
    found, dropped, seen = [], 0, set()
    gains = {**GAINS, SOURCE: source_gain, NO_INTEREST: 0}
    for at, line in enumerate(lines_of(path), 1):
        parts = line.split()
        if not parts:
            continue
        if len(parts) != 3 or not (parts[0].isdigit() and parts[1].isdigit()):
            raise BadInput(f"{path}:{at}: expected a query, a document and a code: {line.strip()!r}")
        query, document, code = str(int(parts[0])), str(int(parts[1])), parts[2]
        if code not in gains:
            raise BadInput(f"{path}:{at}: unknown code {code!r}")
        if query not in asked:
            raise BadInput(f"{path}:{at}: query {query} does not exist")
        if (query, document) in seen:
            raise BadInput(f"{path}:{at}: query {query} has two judgements of document {document}")
        seen.add((query, document))
        if document in empty:
            dropped += 1
        elif document not in kept:
            raise BadInput(f"{path}:{at}: document {document} does not exist")
        elif gains[code] > 0:
            found.append((query, document, gains[code]))
    if not found:
        raise BadInput(f"{path}: no judgements")
    return found, dropped


def write_jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("src", metavar="SRC", type=Path, help="folder with cran.all.1400, cran.qry and cranqrel")
    parser.add_argument("out", metavar="OUT", type=Path, help="folder for the output; created if it does not exist")
    parser.add_argument(
        "--source-gain", type=int, choices=range(5), default=0, help="gain of code -1; 0 omits it (default: 0)"
    )
    options = parser.parse_args()
    try:
        paths = [options.src / name for name in ("cran.all.1400", "cran.qry", "cranqrel")]
        missing = [str(path) for path in paths if not path.is_file()]
        if missing:
            raise BadInput(f"missing: {', '.join(missing)}")
        documents, empty = corpus(paths[0])
        asked = queries(paths[1])
        judged, dropped = judgements(
            paths[2],
            {query["_id"] for query in asked},
            {document["_id"] for document in documents},
            set(empty),
            options.source_gain,
        )
        (options.out / "qrels").mkdir(parents=True, exist_ok=True)
        write_jsonl(options.out / "corpus.jsonl", documents)
        write_jsonl(options.out / "queries.jsonl", asked)
        table = ["query-id\tcorpus-id\tscore", *("\t".join(map(str, row)) for row in judged)]
        (options.out / "qrels" / "test.tsv").write_text("\n".join(table) + "\n", encoding="utf-8")
    except (BadInput, OSError) as error:
        print(f"cranfield_to_beir: {error}", file=sys.stderr)
        return 2
    if empty:
        print(f"omitted empty documents {', '.join(empty)} and their {dropped} judgements", file=sys.stderr)
    print(f"{len(documents)} documents, {len(asked)} queries, {len(judged)} judgements", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
