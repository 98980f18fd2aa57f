//! `docs/events.md` equals what the schemas generate. `CARBON_WRITE_DOCS=1 cargo test -p carbon-schemas` writes it.
#![allow(clippy::unwrap_used)]

use std::fmt::Write as _;

use carbon_schemas::{current, event_names, versions};
use serde_json::Value;

/// A field's Avro type as the table shows it.
fn type_name(kind: &Value) -> String {
    match kind {
        Value::String(name) => name.clone(),
        Value::Array(variants) => variants.iter().map(type_name).collect::<Vec<_>>().join(" or "),
        Value::Object(object) => match object["type"].as_str() {
            Some("map") => format!("map of {}", type_name(&object["values"])),
            Some("array") => format!("array of {}", type_name(&object["items"])),
            Some("enum") => {
                let symbols: Vec<_> =
                    object["symbols"].as_array().unwrap().iter().map(|s| s.as_str().unwrap()).collect();
                format!("enum: {}", symbols.join(", "))
            }
            Some("record") => {
                let fields: Vec<_> =
                    object["fields"].as_array().unwrap().iter().map(|f| f["name"].as_str().unwrap()).collect();
                format!("{{{}}}", fields.join(", "))
            }
            Some(base) => object.get("logicalType").and_then(Value::as_str).unwrap_or(base).to_owned(),
            None => type_name(&object["type"]),
        },
        other => other.to_string(),
    }
}

#[test]
fn the_event_catalogue_is_up_to_date() {
    let mut page = String::from(
        "# Events\n\nGenerated from `schemas/<event>/NNN.avsc`. The topic has the event's name; `topology.yaml` says its key, its\n\
         partitions and how long it is kept. Records are Avro in single-object encoding (`C3 01`, then the CRC-64-AVRO\n\
         fingerprint, little-endian); headers are `event_id`, `tenant_id`, `content_type` and `traceparent`, and\n\
         `source_position` where a stage made the record. Every version of an event can read every other.\n",
    );
    for event in event_names() {
        let version = current(event).unwrap();
        let schema: Value = serde_json::from_str(version.json).unwrap();
        let count = versions().iter().filter(|other| other.event == event).count();
        let fingerprint = version.fingerprint;
        writeln!(page, "\n## `{event}`\n\n{}\n", schema["doc"].as_str().unwrap_or_default()).unwrap();
        writeln!(
            page,
            "Version {} of {count}, fingerprint `{fingerprint}`.\n\n| field | type | |\n|---|---|---|",
            version.number
        )
        .unwrap();
        for field in schema["fields"].as_array().unwrap() {
            let (name, doc) = (field["name"].as_str().unwrap(), field["doc"].as_str().unwrap_or_default());
            writeln!(page, "| `{name}` | {} | {doc} |", type_name(&field["type"])).unwrap();
        }
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/events.md");
    if std::env::var_os("CARBON_WRITE_DOCS").is_some() {
        std::fs::write(path, &page).unwrap();
    }
    assert_eq!(std::fs::read_to_string(path).unwrap_or_default(), page, "docs/events.md is out of date");
}
