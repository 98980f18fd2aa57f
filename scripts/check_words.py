#!/usr/bin/env python3
"""Finds words in tracked files that do not belong to the project's vocabulary, and names the word to use instead.

Checks comments, messages, names and pages in *.rs, *.md, *.py, *.sh, *.yaml, *.yml and *.toml. A rule is an exact pattern for
one word in one meaning, so a word that is right in another meaning is not reported. ALLOWED has the exceptions.

usage: scripts/check_words.py [PATH...]     without PATH: all tracked files

examples:
  scripts/check_words.py
  scripts/check_words.py crates/log docs    only files in these folders
  scripts/check_words.py --summary          the number of findings per folder
  scripts/check_words.py --list             the words and their replacements
  scripts/check_words.py --self-test        checks the rules themselves

exit: 0 no findings, 1 findings, 2 wrong usage
"""

import argparse
import re
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import NamedTuple

ENDINGS = ("*.rs", "*.md", "*.py", "*.sh", "*.yaml", "*.yml", "*.toml")
# This file contains every word that it looks for.
SELF = "scripts/check_words.py"


class Rule(NamedTuple):
    name: str
    pattern: str
    instead: str
    # Lines that the rule must find, and lines that it must not find.
    bad: tuple
    good: tuple = ()


def word(text):
    """Returns a pattern for a word in prose or as a part of a snake_case or CamelCase name."""
    camel = text[0].upper() + text[1:]
    return rf"(?<![A-Za-z]){text}(?![A-Za-z])|(?<![A-Z]){camel}(?![a-z])|(?<![A-Za-z]){text.upper()}(?![A-Za-z])"


RULES = [
    Rule("told", word("told"), "notified, committed, known, reported",
         ("// who waits is told of the commit", "let told = 1;", "fn is_told_once() {", "struct ToldOf;"),
         ("// retold", "let untold = 1;")),
    Rule("tell", r"\b[Tt]ell(s|ing)? (who|whom|those|others|everybody|nobody|the log)\b", "notify, commit",
         ("// Tells those who wait.", "/// Tells the log how far it is"), ("// tells good records from poison",)),
    Rule("landed", "|".join(map(word, ("landed", "landing", "lands"))), "committed, commit",
         ("// once the batch has landed", "fn landed() {", "mod landing;", "struct Landed;", "// a batch lands"),
         ("// the landscape", "let islands = 1;")),
    Rule("remark", "|".join(map(word, ("remark", "remarks", "remarked"))), "conflict, note, effect",
         ("// what was remarked of it", "fn remark(&self) {"), ("// remarkable",)),
    Rule("era", word("era"), "epoch, deletion count",
         ("let era = 1;", "/// Another era has begun.", "fn era_of() {"), ("// general", "let iteration = 1;")),
    Rule("nought", word("nought"), "zero", ("// nought is a free port", "let nought = 0;")),
    Rule("move pages", r"\b[Mm]ov(e|es|ed|ing) (the )?pages\b|\b[Pp]ages (are moved|move)\b", "WAL checkpoint",
         ("// Moves pages to the file.", "// the pages move beside the writer"), ("// moves on", "// web pages")),
    Rule("who came before", r"\b[Ww]ho came before\b", "the previous owner", ("// who came before was gone",)),
    Rule("as often as it takes", r"\bas often as it takes\b", "retry until it succeeds",
         ("// again, for as often as it takes",)),
    Rule("so many", r"\b[Ss]o (many|much)\b(?! (that|as)\b)", "a number with its unit, or `at most`, `maximum`",
         ("/// So many records a batch takes.", "// only so much of a value"), ("// so many that the disk is full",)),
    Rule("so often", r"\bso often\b(?! that\b)", "at an interval, at most once per", ("// a move at the most so often",)),
    Rule("how far", r"\b[Hh]ow far\b", "position, progress, lag, end offset",
         ("/// How far every processor is.", "// says how far it came"), ("// however, far away",)),
    Rule("gone", r"\b(store|broker|registry|server|database|log|peer|client|member|process|disk)s? (is|are|was|were) "
                 r"(gone|away)\b", "unavailable, failed, ended",
         ("// the broker is away", "// while the servers are gone"), ("// when the cause is gone",)),
    Rule("tries again", r"\b([Tt]ries|[Tt]ried|[Tt]rying) (it |them )?again\b", "retries, retried",
         ("// It tries again after 1 s.",), ("detail: try again later",)),
    Rule("refused as a name", r"\b(fn|def|struct|enum|trait|type|mod|const|static) \w*[Rr]efus(e|al)[sd]?(_\w*|\b)"
                              r"|\bRefused\b(?! [a-z])", "rejected",
         ("fn a_bad_record_is_refused() {", "def refused(code):", "ConflictCode::Refused => 1,", "fn refuse_all() {"),
         ("// the broker refused the connection", 'const CODE: &str = "refused";', "let connection_refused = 1;",
          "Refused until a later version supports it")),
]


class Allowed(NamedTuple):
    path: str
    rule: str
    line: str
    reason: str


# Exceptions: a path, the name of a rule, a regular expression for the line, and the reason.
ALLOWED = [
    Allowed("docs/events.md", "told", r".", "generated from the docs of released schemas, which never change"),
]


def tracked(root):
    """Returns the tracked files with a known ending, relative to `root`."""
    command = ["git", "-C", str(root), "ls-files", "-z", "--", *ENDINGS]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
    return [name for name in output.decode().split("\0") if name and name != SELF]


def is_allowed(path, rule, line, used):
    """Returns whether ALLOWED has an entry for this finding, and adds the entry to `used`."""
    for entry in ALLOWED:
        if entry.path == path and entry.rule == rule.name and re.search(entry.line, line):
            used.add(entry)
            return True
    return False


def check(root, paths, rules=None):
    """Returns the findings as (path, line number, rule, line), and the entries of ALLOWED that were used."""
    compiled = [(rule, re.compile(rule.pattern)) for rule in rules or RULES]
    findings, used = [], set()
    for path in paths:
        try:
            lines = Path(root, path).read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            continue  # deleted, but not committed yet
        for number, line in enumerate(lines, 1):
            for rule, pattern in compiled:
                if pattern.search(line) and not is_allowed(path, rule, line, used):
                    findings.append((path, number, rule, line.strip()))
    return findings, used


def folder_of(path):
    """Returns the folder of a file for the summary: `crates/<name>`, or the first folder."""
    parts = path.split("/")
    return "/".join(parts[:2]) if parts[0] == "crates" else parts[0] if len(parts) > 1 else "."


def self_test():
    """Checks that each rule finds its bad lines and not its good ones, and that a bad file fails the check."""
    faults = []
    for rule in RULES:
        pattern = re.compile(rule.pattern)
        faults += [f"{rule.name}: does not find {line!r}" for line in rule.bad if not pattern.search(line)]
        faults += [f"{rule.name}: finds {line!r}" for line in rule.good if pattern.search(line)]
        if not rule.bad:
            faults.append(f"{rule.name}: has no bad line")
    names = {rule.name for rule in RULES}
    faults += [f"ALLOWED: unknown rule {entry.rule!r}" for entry in ALLOWED if entry.rule not in names]
    faults += [f"ALLOWED: {entry.path} has no reason" for entry in ALLOWED if not entry.reason]
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "bad.rs").write_text("// One.\n// Who waits is told.\n", encoding="utf-8")
        Path(folder, "good.rs").write_text("// Notifies waiting requests.\n", encoding="utf-8")
        subprocess.run(["git", "init", "-q", folder], check=True)
        subprocess.run(["git", "-C", folder, "add", "."], check=True)
        found = [(path, number, rule.name) for path, number, rule, _ in check(folder, tracked(folder))[0]]
        if found != [("bad.rs", 2, "told")]:
            faults.append(f"a bad file is not reported: {found}")
    for fault in faults:
        print(f"self-test: {fault}", file=sys.stderr)
    lines = sum(len(rule.bad) + len(rule.good) for rule in RULES)
    print(f"self-test: {len(RULES)} rules, {lines} lines, {len(faults)} faults")
    return 1 if faults else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
                                     usage=argparse.SUPPRESS)
    parser.add_argument("paths", nargs="*", metavar="PATH", help="a file or folder, relative to the repository")
    parser.add_argument("--list", action="store_true", help="print the words and their replacements")
    parser.add_argument("--summary", action="store_true", help="print the number of findings per folder only")
    parser.add_argument("--self-test", action="store_true", help="check the rules and exit")
    arguments = parser.parse_args()
    if arguments.self_test:
        return self_test()
    if arguments.list:
        width = max(len(rule.name) for rule in RULES)
        for rule in RULES:
            print(f"{rule.name:<{width}}  use: {rule.instead}")
        return 0
    root = Path(__file__).resolve().parent.parent
    paths, prefixes = tracked(root), [path.rstrip("/") for path in arguments.paths]
    for prefix in prefixes:
        if not Path(root, prefix).exists():
            parser.error(f"{prefix} does not exist")
    if prefixes:
        paths = [path for path in paths if any(path == prefix or path.startswith(f"{prefix}/") for prefix in prefixes)]
    findings, used = check(root, paths)
    if not arguments.summary:
        for path, number, rule, line in findings:
            print(f"{path}:{number}: {rule.name}; use: {rule.instead}\n    {line[:160]}")
    for folder, count in sorted(Counter(folder_of(path) for path, *_ in findings).items()):
        print(f"{count:5}  {folder}")
    unused = [] if prefixes else [entry for entry in ALLOWED if entry not in used]
    for entry in unused:
        print(f"ALLOWED: no line of {entry.path} needs the exception for {entry.rule!r}; remove it", file=sys.stderr)
    print(f"{len(findings)} findings in {len(paths)} files")
    return 1 if findings or unused else 0


if __name__ == "__main__":
    sys.exit(main())
