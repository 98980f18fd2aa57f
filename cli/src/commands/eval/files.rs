//! The files of an evaluation, in BEIR's form; whatever is wrong is named with file and line.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};

use carbon_core::{EntityId, EntityType, Metadata, MetadataValue};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use super::ids;
use super::metrics::Grades;
use crate::error::CliError;

/// The lines of a file that hold something, with their numbers.
pub struct Lines {
    path: PathBuf,
    reader: BufReader<File>,
    number: u64,
}

impl Lines {
    pub fn open(path: &Path) -> Result<Self, CliError> {
        let file = File::open(path).map_err(CliError::file(path))?;
        Ok(Self { path: path.to_owned(), reader: BufReader::with_capacity(256 * 1024, file), number: 0 })
    }

    pub fn wrong(&self, what: impl Into<String>) -> CliError {
        CliError::malformed(&self.path, self.number, what)
    }

    /// The next line, without its end.
    pub fn next(&mut self) -> Result<Option<String>, CliError> {
        loop {
            let mut bytes = Vec::new();
            if self.reader.read_until(b'\n', &mut bytes).map_err(CliError::file(&self.path))? == 0 {
                return Ok(None);
            }
            self.number += 1;
            let text = std::str::from_utf8(&bytes).map_err(|_| self.wrong("the line is not UTF-8"))?;
            let text = if self.number == 1 { text.trim_start_matches('\u{feff}') } else { text };
            let text = text.trim_end_matches(['\n', '\r']);
            if !text.trim().is_empty() {
                return Ok(Some(text.to_owned()));
            }
        }
    }

    fn json<T: serde::de::DeserializeOwned>(&self, line: &str) -> Result<T, CliError> {
        serde_json::from_str(line).map_err(|error| self.wrong(error.to_string()))
    }
}

/// What a corpus consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `{_id, title, text, metadata?}`; all documents are entities of one type.
    Beir,
    /// `{entity_type, entity_id, text, …}`; judgements name them `type/id`.
    Entities,
}

/// An id; some collections write numbers.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Id {
    Text(String),
    Number(u64),
}

impl Id {
    fn text(self) -> String {
        match self {
            Self::Text(text) => text,
            Self::Number(number) => number.to_string(),
        }
    }
}

#[derive(Debug, Deserialize)]
struct Document {
    _id: Id,
    #[serde(default)]
    title: Option<String>,
    #[serde(default)]
    text: Option<String>,
    #[serde(default)]
    metadata: Option<Map<String, Value>>,
}

/// Reads a corpus, entity by entity, as tracking-api wants them.
pub struct Corpus {
    lines: Lines,
    form: Option<Form>,
    entity_type: EntityType,
}

/// One entity to be.
pub struct Entity {
    /// As judgements name it.
    pub id: String,
    /// `None` where there is no text to search.
    pub body: Option<Value>,
}

impl Corpus {
    pub fn open(path: &Path, entity_type: &EntityType) -> Result<Self, CliError> {
        Ok(Self { lines: Lines::open(path)?, form: None, entity_type: entity_type.clone() })
    }

    pub fn next(&mut self) -> Result<Option<Entity>, CliError> {
        let Some(line) = self.lines.next()? else { return Ok(None) };
        let fields: Map<String, Value> = self.lines.json(&line)?;
        let form = *self.form.get_or_insert(match fields.contains_key("entity_id") {
            true => Form::Entities,
            false => Form::Beir,
        });
        match form {
            Form::Beir => self.document(fields),
            Form::Entities => self.entity(fields),
        }
        .map(Some)
    }

    fn document(&self, fields: Map<String, Value>) -> Result<Entity, CliError> {
        let document: Document =
            serde_json::from_value(Value::Object(fields)).map_err(|error| self.lines.wrong(error.to_string()))?;
        let id = document._id.text();
        let entity_id = match ids::escape(&id) {
            Some(entity_id) if !id.is_empty() => entity_id,
            _ => return Err(self.lines.wrong("_id is empty, or too long to be an entity's id")),
        };
        let (title, text) = (document.title.unwrap_or_default(), document.text.unwrap_or_default());
        let text = match (title.trim(), text.trim()) {
            ("", "") => return Ok(Entity { id, body: None }),
            ("", text) => text.to_owned(),
            (title, "") => title.to_owned(),
            (title, text) => format!("{title}. {text}"),
        };
        // Metadata of entities are scalars; nothing else could be filtered by.
        let scalar = |(key, value): (String, Value)| {
            let value: MetadataValue = serde_json::from_value(value).ok()?;
            Some((key, value))
        };
        let metadata: Metadata = document.metadata.unwrap_or_default().into_iter().filter_map(scalar).collect();
        let body = json!({"entity_type": self.entity_type, "entity_id": entity_id, "text": text, "metadata": metadata});
        Ok(Entity { id, body: Some(body) })
    }

    fn entity(&self, mut fields: Map<String, Value>) -> Result<Entity, CliError> {
        let field = |name: &str| match fields.get(name) {
            Some(Value::String(text)) => Ok(text.as_str()),
            _ => Err(self.lines.wrong(format!("{name} is missing, or no text"))),
        };
        let entity_type =
            EntityType::parse(field("entity_type")?).map_err(|error| self.lines.wrong(error.to_string()))?;
        let entity_id = EntityId::parse(field("entity_id")?).map_err(|error| self.lines.wrong(error.to_string()))?;
        let empty = field("text")?.trim().is_empty();
        // The evaluation has its own tenant.
        fields.remove("tenant_id");
        let id = format!("{entity_type}/{entity_id}");
        Ok(Entity { id, body: (!empty).then_some(Value::Object(fields)) })
    }

    /// How judgements name a result of a search.
    pub fn judged_id(form: Form, entity_type: &EntityType, found_type: &str, found_id: &str) -> String {
        match form {
            Form::Beir if found_type == entity_type.as_str() => ids::unescape(found_id),
            _ => format!("{found_type}/{found_id}"),
        }
    }
}

/// What the first reading of a corpus found.
#[derive(Debug)]
pub struct Survey {
    pub form: Form,
    pub ids: HashSet<String>,
    /// Documents without a text: they cannot be searched.
    pub empty: u64,
    /// Of the entities as they are sent, so that another corpus is another tenant.
    pub digest: String,
}

impl Survey {
    pub fn read(path: &Path, entity_type: &EntityType) -> Result<Self, CliError> {
        let mut corpus = Corpus::open(path, entity_type)?;
        let (mut ids, mut empty, mut hasher) = (HashSet::new(), 0, Sha256::new());
        while let Some(entity) = corpus.next()? {
            match &entity.body {
                Some(body) => hasher.update(body.to_string()),
                None => empty += 1,
            }
            if ids.contains(&entity.id) {
                return Err(corpus.lines.wrong(format!("the id {:?} is there twice", entity.id)));
            }
            ids.insert(entity.id);
        }
        let Some(form) = corpus.form else {
            return Err(CliError::malformed(path, 1, "the corpus is empty"));
        };
        let digest = hasher.finalize().iter().take(6).map(|byte| format!("{byte:02x}")).collect();
        Ok(Self { form, ids, empty, digest })
    }
}

/// A query with its judgements.
#[derive(Clone, Debug)]
pub struct Query {
    pub id: String,
    pub text: String,
    pub grades: Grades,
}

#[derive(Debug, Deserialize)]
struct QueryLine {
    _id: Id,
    text: String,
}

/// The queries that have a relevant document, in the file's order.
#[derive(Debug)]
pub struct Judged {
    pub queries: Vec<Query>,
    /// Queries of the file without a relevant document: they measure nothing.
    pub left_out: usize,
    /// Judgements on documents that the corpus does not hold; they count as never found.
    pub unknown_documents: usize,
}

impl Judged {
    pub fn read(queries: &Path, qrels: &Path, corpus: &HashSet<String>) -> Result<Self, CliError> {
        let (all, mut judgements) = (read_queries(queries)?, read_qrels(qrels)?);
        let known: HashSet<&str> = all.iter().map(|(id, _)| id.as_str()).collect();
        if let Some((id, (_, line))) =
            judgements.iter().filter(|(id, _)| !known.contains(id.as_str())).min_by_key(|(_, (_, line))| *line)
        {
            return Err(CliError::malformed(qrels, *line, format!("query {id:?} is not in {}", queries.display())));
        }
        let total = all.len();
        let mut unknown_documents = 0;
        let mut judged = Vec::new();
        for (id, text) in all {
            let Some((grades, _)) = judgements.remove(&id) else { continue };
            if grades.values().any(|grade| *grade > 0) {
                unknown_documents += grades.keys().filter(|document| !corpus.contains(*document)).count();
                judged.push(Query { id, text, grades });
            }
        }
        if judged.is_empty() {
            return Err(CliError::Failed(format!("no query of {} has a relevant document", queries.display())));
        }
        if judged.iter().all(|query| query.grades.keys().all(|document| !corpus.contains(document))) {
            let example = judged[0].grades.keys().next().cloned().unwrap_or_default();
            return Err(CliError::Failed(format!(
                "{} names no document of the corpus (one is {example:?}); BEIR's corpora are judged by _id, entities by type/id",
                qrels.display()
            )));
        }
        Ok(Self { left_out: total - judged.len(), queries: judged, unknown_documents })
    }
}

fn read_queries(path: &Path) -> Result<Vec<(String, String)>, CliError> {
    let mut lines = Lines::open(path)?;
    let (mut all, mut seen) = (Vec::new(), HashSet::new());
    while let Some(line) = lines.next()? {
        let query: QueryLine = lines.json(&line)?;
        let id = query._id.text();
        if query.text.trim().is_empty() {
            return Err(lines.wrong(format!("query {id:?} has no text")));
        }
        if !seen.insert(id.clone()) {
            return Err(lines.wrong(format!("query {id:?} is there twice")));
        }
        all.push((id, query.text));
    }
    match all.is_empty() {
        true => Err(CliError::malformed(path, 1, "there are no queries")),
        false => Ok(all),
    }
}

/// Query to grades, and the line that first names the query.
fn read_qrels(path: &Path) -> Result<HashMap<String, (Grades, u64)>, CliError> {
    const HEADER: &str = "query-id\tcorpus-id\tscore";
    let mut lines = Lines::open(path)?;
    match lines.next()? {
        Some(header) if header.trim() == HEADER => {}
        _ => {
            return Err(CliError::malformed(
                path,
                lines.number.max(1),
                "expected the header query-id, corpus-id, score, separated by tabs",
            ));
        }
    }
    let mut all: HashMap<String, (Grades, u64)> = HashMap::new();
    while let Some(line) = lines.next()? {
        let fields: Vec<&str> = line.split('\t').map(str::trim).collect();
        let [query, document, score] = fields[..] else {
            return Err(lines.wrong(format!("expected 3 fields separated by tabs, found {}", fields.len())));
        };
        let grade = score.parse().map_err(|_| lines.wrong(format!("the score {score:?} is not a whole number")))?;
        let (grades, _) = all.entry(query.to_owned()).or_insert_with(|| (Grades::new(), lines.number));
        if grades.insert(document.to_owned(), grade).is_some() {
            return Err(lines.wrong(format!("document {document:?} is judged twice for query {query:?}")));
        }
    }
    Ok(all)
}
