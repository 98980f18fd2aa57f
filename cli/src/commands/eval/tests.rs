#![allow(clippy::unwrap_used)]

use std::collections::HashSet;
use std::path::PathBuf;

use carbon_core::EntityType;

use super::files::{Corpus, Form, Judged, Survey};
use crate::error::CliError;

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn file(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }
}

fn doc() -> EntityType {
    EntityType::parse("doc").unwrap()
}

#[test]
fn a_beir_corpus_becomes_entities() {
    let folder = Folder::new();
    let text = "{\"_id\":\"a/1\",\"title\":\"T\",\"text\":\"x\",\"metadata\":{\"year\":1999,\"list\":[1],\"none\":null}}\n\n\
                {\"_id\":2,\"title\":\"\",\"text\":\"y\"}\n{\"_id\":\"3\",\"text\":\" \"}\n";
    let path = folder.file("corpus.jsonl", text);
    let survey = Survey::read(&path, &doc()).unwrap();
    assert_eq!((survey.form, survey.ids.len(), survey.empty), (Form::Beir, 3, 1));
    assert!(survey.ids.contains("a/1") && survey.ids.contains("2"));
    assert_eq!(survey.digest.len(), 12);
    let mut corpus = Corpus::open(&path, &doc()).unwrap();
    let body = corpus.next().unwrap().unwrap().body.unwrap();
    assert_eq!(
        body,
        serde_json::json!({"entity_type": "doc", "entity_id": "esc.a.2F1", "text": "T. x", "metadata": {"year": 1999.0}})
    );
    assert_eq!(Corpus::judged_id(Form::Beir, &doc(), "doc", "esc.a.2F1"), "a/1");
    assert_eq!(Corpus::judged_id(Form::Entities, &doc(), "curve", "X"), "curve/X");
}

#[test]
fn entities_keep_everything_but_their_tenant() {
    let folder = Folder::new();
    let line =
        "{\"entity_type\":\"curve\",\"entity_id\":\"X\",\"text\":\"t\",\"tags\":[\"a\"],\"tenant_id\":\"other\"}";
    let path = folder.file("entities.jsonl", line);
    let survey = Survey::read(&path, &doc()).unwrap();
    assert_eq!((survey.form, survey.ids), (Form::Entities, HashSet::from(["curve/X".to_owned()])));
    let body = Corpus::open(&path, &doc()).unwrap().next().unwrap().unwrap().body.unwrap();
    assert_eq!(body, serde_json::json!({"entity_type": "curve", "entity_id": "X", "text": "t", "tags": ["a"]}));
}

#[test]
fn what_is_wrong_in_a_corpus_is_named_with_its_line() {
    let folder = Folder::new();
    for (text, line, part) in [
        ("", 1, "empty"),
        ("{\"_id\":\"1\",\"text\":\"x\"}\n{oops", 2, "key must be a string"),
        ("{\"_id\":\"1\",\"text\":\"x\"}\n\n{\"_id\":\"1\",\"text\":\"y\"}", 3, "twice"),
        ("{\"text\":\"x\"}", 1, "_id"),
        ("[1]", 1, "invalid type"),
        ("{\"entity_id\":\"a b\",\"entity_type\":\"t\",\"text\":\"x\"}", 1, "entity_id"),
        ("{\"entity_id\":\"a\",\"entity_type\":\"t\"}", 1, "text is missing"),
    ] {
        let path = folder.file("corpus.jsonl", text);
        let error = Survey::read(&path, &doc()).unwrap_err();
        let CliError::Malformed { line: found, .. } = &error else { panic!("{error}") };
        assert_eq!(*found, line, "{text}: {error}");
        assert!(error.to_string().contains(part), "{text}: {error}");
    }
    let path = folder.file("corpus.jsonl", b"{\"_id\":\"1\",\"text\":\"\xff\"}");
    assert!(Survey::read(&path, &doc()).unwrap_err().to_string().ends_with("corpus.jsonl:1: the line is not UTF-8"));
}

const QUERIES: &str =
    "{\"_id\":\"q1\",\"text\":\"one\"}\n{\"_id\":\"q2\",\"text\":\"two\"}\n{\"_id\":\"q3\",\"text\":\"three\"}\n";

fn judged(queries: &str, qrels: &str) -> Result<Judged, CliError> {
    let folder = Folder::new();
    let corpus = HashSet::from(["a".to_owned(), "b".to_owned()]);
    Judged::read(&folder.file("queries.jsonl", queries), &folder.file("test.tsv", qrels), &corpus)
}

#[test]
fn queries_without_a_relevant_document_are_left_out() {
    let found = judged(QUERIES, "query-id\tcorpus-id\tscore\r\nq2\ta\t2\r\nq2\tgone\t1\r\nq3\ta\t0\r\n").unwrap();
    assert_eq!((found.queries.len(), found.left_out, found.unknown_documents), (1, 2, 1));
    assert_eq!((found.queries[0].text.as_str(), found.queries[0].grades["a"]), ("two", 2));
}

#[test]
fn what_is_wrong_in_judgements_is_named_with_its_line() {
    let header = "query-id\tcorpus-id\tscore\n";
    for (queries, qrels, part) in [
        (QUERIES, String::new(), "test.tsv:1: expected the header"),
        (QUERIES, "q1\ta\t1\n".into(), "test.tsv:1: expected the header"),
        (QUERIES, format!("{header}q1 a 1\n"), "test.tsv:2: expected 3 fields"),
        (QUERIES, format!("{header}q1\ta\tmuch\n"), "test.tsv:2: the score \"much\""),
        (QUERIES, format!("{header}q1\ta\t1\nq1\ta\t2\n"), "test.tsv:3: document \"a\" is judged twice"),
        (QUERIES, format!("{header}q1\ta\t1\n\nq9\ta\t1\n"), "test.tsv:4: query \"q9\" is not in"),
        (QUERIES, format!("{header}q1\tx\t1\n"), "names no document of the corpus"),
        (QUERIES, format!("{header}q1\ta\t0\n"), "has a relevant document"),
        ("", header.to_owned(), "queries.jsonl:1: there are no queries"),
        ("{\"_id\":\"q1\"}", header.to_owned(), "queries.jsonl:1: missing field `text`"),
        (
            "{\"_id\":\"q1\",\"text\":\"x\"}\n{\"_id\":\"q1\",\"text\":\"x\"}",
            header.to_owned(),
            "queries.jsonl:2: query \"q1\" is there twice",
        ),
    ] {
        let error = judged(queries, &qrels).unwrap_err();
        assert!(error.exit_code() == 1 && error.to_string().contains(part), "{error}");
    }
}
