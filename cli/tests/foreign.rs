//! Clients that share no code with the platform: Python's, on librdkafka and with an Avro of their own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "foreign/python.rs"]
mod python;
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use carbon_core::{Partitioner, Position};
use python::{EMBEDDINGS, ENTITIES, Foreign, TENANT, entities, entity, ids, key, placed, positions};
use serde_json::{Value, json};
use support::PATIENCE;
use support::deployment::no_lag;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "starts brokers: scripts/services.sh fetches them; run with --ignored"]
async fn entities_of_a_foreign_producer_are_searchable() {
    let foreign = Foreign::start().await;
    let written = entities("E", 50, "foreign contract");
    let lines = foreign.produce(&[], &written).await;
    for line in &lines {
        let key = line["key"].as_str().unwrap();
        assert_eq!(line["partition"], Partitioner::Murmur2.partition(key.as_bytes(), 6), "{key}");
    }
    let position = positions(&lines);
    assert_eq!(foreign.found("foreign", &position).await, ids("E", 0..50));
    for (n, entity) in written.iter().enumerate() {
        let (status, known) = foreign.catalog(&format!("E{n}"), &position).await;
        assert_eq!(status, 200, "{known}");
        for field in ["entity_type", "entity_id", "text", "tags"] {
            assert_eq!(known[field], entity[field], "{known}");
        }
        assert_eq!((&known["metadata"]["lot"], &known["metadata"]["id"]), (&json!(10.0), &entity["entity_id"]));
    }
    let gone = json!({"entity_type": "curve", "entity_id": "E7", "deleted": true});
    let position = positions(&foreign.produce(&[], &[gone]).await);
    assert_eq!(foreign.found("foreign", &position).await, ids("E", (0..50).filter(|n| *n != 7)));
    let (status, known) = foreign.catalog("E7", &position).await;
    assert!(status == 404 && known["detail"].as_str().unwrap().contains("is deleted"), "{known}");
    no_lag(&foreign.server).await;
    foreign.has_dead_letters(json!({})).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "starts brokers: scripts/services.sh fetches them; run with --ignored"]
async fn law_10_a_producer_that_places_keys_otherwise_is_told_its_setting() {
    let foreign = Foreign::start().await;
    let written = entities("E", 50, "foreign contract");
    let lines = foreign.produce(&["--partitioner", "consistent_random"], &written).await;
    let (mut right, mut wrong) = (BTreeSet::new(), BTreeSet::new());
    for line in &lines {
        let key = line["key"].as_str().unwrap();
        assert_eq!(line["partition"], Partitioner::Crc32.partition(key.as_bytes(), 6), "{key}");
        match line["partition"] == Partitioner::Murmur2.partition(key.as_bytes(), 6) {
            true => right.insert(key.rsplit('/').next().unwrap().to_owned()),
            false => wrong.insert(placed(line)),
        };
    }
    assert!(wrong.len() > 30 && !right.is_empty(), "{} of 50 lie in a wrong partition", wrong.len());
    let position = positions(&lines);
    assert_eq!(foreign.found("foreign", &foreign.fence().await).await, right);
    for n in 0..50 {
        let id = format!("E{n}");
        let (status, known) = foreign.catalog(&id, &position).await;
        assert_eq!(status, if right.contains(&id) { 200 } else { 404 }, "{known}");
    }
    let letters = foreign.dead_letters().await;
    assert_eq!(letters.keys().cloned().collect::<BTreeSet<_>>(), wrong);
    for letter in letters.values() {
        assert_eq!(letter["reason"], "wrong_partition");
        assert!(letter["message"].as_str().unwrap().contains("partitioner=murmur2_random"), "{letter}");
    }
    foreign.has_dead_letters(json!({"wrong_partition": wrong.len()})).await;
    // The setting mends it, and nothing of what went wrong is in the way.
    let position = positions(&foreign.produce(&[], &written).await);
    assert_eq!(foreign.found("foreign", &position).await, ids("E", 0..50));
    foreign.has_dead_letters(json!({"wrong_partition": wrong.len()})).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "starts brokers: scripts/services.sh fetches them; run with --ignored"]
async fn a_foreign_consumer_reads_embeddings_and_what_the_index_has() {
    let foreign = Foreign::start().await;
    let mut written = foreign.produce(&[], &entities("E", 40, "first version")).await;
    written.extend(foreign.produce(&[], &entities("E", 20, "second version")).await);
    let gone: Vec<Value> =
        (0..3).map(|n| json!({"entity_type": "curve", "entity_id": format!("E{n}"), "deleted": true})).collect();
    written.extend(foreign.produce(&[], &gone).await);
    let position = positions(&written);
    assert_eq!(foreign.found("version", &position).await, ids("E", 3..40));

    let all = ["--from-beginning", "--until-end"];
    let embeddings = foreign.python("consume.py", &[&[EMBEDDINGS], &all[..]].concat(), &[]).await;
    let (mut sources, mut last, mut ends) = (BTreeSet::new(), BTreeMap::new(), BTreeMap::new());
    for line in &embeddings {
        let value = &line["value"];
        let deleted = value["deleted"].as_bool().unwrap();
        match deleted {
            true => assert_eq!((&value["dimension"], &value["vector"]), (&json!(0), &Value::Null)),
            false => assert!(value["dimension"].as_u64().unwrap() > 0, "{line}"),
        }
        let length = line.get("vector_dimension").cloned().unwrap_or(json!(0));
        assert_eq!(length, value["dimension"]);
        let source: Position = line["headers"]["source_position"].as_str().unwrap().parse().unwrap();
        assert_eq!(
            (json!(source.partition), &value["source"]["offset"]),
            (line["partition"].clone(), &json!(source.offset))
        );
        // Of one key's records the later one is of a later version.
        let before = last.insert(line["key"].to_string(), source.offset);
        assert!(before < Some(source.offset), "{}: {before:?} is before {source}", line["key"]);
        sources.insert(source);
        ends.insert(line["partition"].as_u64().unwrap(), line["offset"].as_u64().unwrap() + 1);
    }
    assert_eq!((embeddings.len(), sources), (63, written.iter().map(placed).collect()));

    // The notice comes after the commit that a search may have seen already.
    let search = foreign.server.search(TENANT, json!({"query": "version"}), Some(&position)).await;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let notices = foreign.python("consume.py", &[&["search.index.updated.v1"], &all[..]].concat(), &[]).await;
        let (mut reached, mut upserts) = (BTreeMap::new(), 0);
        for notice in &notices {
            assert_eq!(
                (&notice["value"]["generation"], &notice["key"]),
                (&search["generation"], &search["generation"])
            );
            upserts += notice["value"]["upserts"].as_u64().unwrap();
            for up_to in notice["value"]["up_to"].as_array().unwrap() {
                assert_eq!(up_to["topic"], EMBEDDINGS);
                let next = up_to["next_offset"].as_u64().unwrap();
                let before = reached.insert(up_to["partition"].as_u64().unwrap(), next);
                assert!(before <= Some(next), "{notices:?}");
            }
        }
        if ends.iter().all(|(partition, end)| reached.get(partition) >= Some(end)) {
            assert!((40..=60).contains(&upserts), "{upserts} upserts");
            return;
        }
        assert!(Instant::now() < deadline, "{ends:?} is not reached: {reached:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "starts brokers: scripts/services.sh fetches them; run with --ignored"]
async fn law_10_each_foreign_poison_is_one_dead_letter_and_the_stream_goes_on() {
    let foreign = Foreign::start().await;
    let event = |id: &str| json!({"tenant_id": TENANT, "entity_type": "curve", "entity_id": id});
    let with = |id: &str, field: &str, value: Value| {
        let mut event = event(id);
        event[field] = value;
        json!({"event": event})
    };
    let tags: Vec<String> = (0..65).map(|n| format!("tag{n}")).collect();
    // By the id of a good entity: the record that follows it, why it is poison, and what the letter says.
    let mut poison = vec![
        ("UNKNOWN", json!({"event": event("UNKNOWN"), "schema_id": 999_999}), "unknown_schema", "registry id 999999"),
        ("HUGE", json!({"event": event("HUGE"), "schema_id": -1}), "unknown_schema", "registry id 4294967295"),
        ("GARBAGE", json!({"value": "3q2+7w=="}), "malformed", "starts with 0xde"),
        ("EMPTY", json!({"value": ""}), "malformed", "empty"),
        ("SHORT", json!({"value": "AAAA"}), "malformed", "starts with 0x00 and has 3 bytes"),
        ("TAGS", with("TAGS", "tags", json!(tags)), "field_limit", "65 tags"),
        ("BLANK", with("BLANK", "text", json!(" ")), "field_limit", "text is empty"),
        ("TENANT", with("TENANT", "tenant_id", json!("other")), "key_mismatch", ""),
        ("OTHER", json!({"event": event("ANOTHER")}), "key_mismatch", ""),
        ("HEADER", json!({"event": event("HEADER"), "headers": {"tenant_id": "other"}}), "header_mismatch", ""),
        ("ID", json!({"event": event("ID"), "headers": {"event_id": "x"}}), "header_mismatch", ""),
    ];
    // An id that the registry has, with what its schema has not written.
    for (id, event) in [("TORN", ENTITIES), ("FOREIGN", "search.index.updated.v1")] {
        let latest = foreign.latest_schema(event).await;
        poison.push((id, json!({"value": "AAAAAAAC/w==", "schema_id": latest["id"]}), "malformed", ""));
    }
    let words: Vec<Value> = poison.iter().map(|(id, ..)| entity(id, "good before")).collect();
    let erased = entity("ERASED", "good before");
    let before = positions(&foreign.produce(&[], &[words, vec![erased]].concat()).await);
    let all: BTreeSet<String> = poison.iter().map(|(id, ..)| (*id).to_owned()).chain(["ERASED".to_owned()]).collect();
    assert_eq!(foreign.found("good", &before).await, all);

    let mut records: Vec<Value> = poison
        .iter()
        .map(|(id, record, ..)| {
            let mut record = record.clone();
            record["key"] = json!(key(id));
            record
        })
        .collect();
    let keyless = [json!("x"), json!(""), json!("acme/curve/not a key"), json!("acme/curve/a/b")];
    records.extend(
        keyless.iter().map(|key| json!({"key": key, "event": event("KEYLESS"), "headers": {"tenant_id": TENANT}})),
    );
    // A null value is no poison: it erases.
    records.push(json!({"key": key("ERASED"), "value": null}));
    let lines = foreign.python("produce_raw.py", &[], &records).await;
    let position = positions(&lines);
    assert_eq!(foreign.found("good", &foreign.fence().await).await, BTreeSet::new());
    for id in &all {
        let (status, problem) = foreign.catalog(id, &position).await;
        let why = if id == "ERASED" { "does not exist" } else { "is quarantined" };
        assert!(status == 404 && problem["detail"].as_str().unwrap().contains(why), "{id}: {problem}");
    }
    // A record without a key is no matter of ours: on a compacted topic the brokers refuse it.
    let keyless_too = json!({"key": null, "event": event("KEYLESS")});
    let (good, _, complaint) = foreign.try_python("produce_raw.py", &[], &[keyless_too]).await;
    assert!(!good && complaint.contains("INVALID_RECORD"), "{complaint}");

    let letters = foreign.dead_letters().await;
    let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
    for (id, _, reason, message) in &poison {
        *reasons.entry(reason).or_default() += 1;
        let line = lines.iter().find(|line| line["key"] == key(id)).unwrap();
        let letter = &letters[&placed(line)];
        assert_eq!(letter["reason"], *reason, "{id}: {letter}");
        assert!(letter["message"].as_str().unwrap().contains(message), "{id}: {letter}");
        // Nobody knows whose bytes these are.
        let hidden = reason.ends_with("_mismatch");
        assert_eq!(hidden, letter["payload"].is_null() && letter["message"] == "", "{id}: {letter}");
    }
    reasons.insert("unreadable_key", keyless.len());
    assert_eq!(letters.len(), poison.len() + keyless.len(), "{letters:?}");
    foreign.has_dead_letters(json!(reasons)).await;

    let words: Vec<Value> = all.iter().map(|id| entity(id, "back again")).collect();
    let position = positions(&foreign.produce(&[], &words).await);
    assert_eq!(foreign.found("back", &position).await, all);
    for id in &all {
        assert_eq!(foreign.catalog(id, &position).await.0, 200, "{id}");
    }
    no_lag(&foreign.server).await;
    foreign.has_dead_letters(json!(reasons)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "starts brokers: scripts/services.sh fetches them; run with --ignored"]
async fn law_05_what_a_foreign_transaction_takes_back_was_never_there() {
    let foreign = Foreign::start().await;
    let records = |prefix: &str, text: &str| -> Vec<Value> {
        let record = |n: usize| {
            let id = format!("{prefix}{n}");
            let event = json!({"tenant_id": TENANT, "entity_type": "curve", "entity_id": id, "text": text});
            json!({"key": key(&id), "event": event})
        };
        (0..40).map(record).collect()
    };
    let abort = ["--transaction", "abort"];
    let aborted = foreign.python("produce_raw.py", &abort, &records("A", "taken back")).await;
    let partitions: BTreeSet<u32> = aborted.iter().map(|line| placed(line).partition).collect();
    assert_eq!(partitions.len(), 6);
    // The end of every partition is a marker.
    no_lag(&foreign.server).await;
    let after = positions(&foreign.produce(&[], &[entity("AFTER", "never taken back")]).await);
    let began = Instant::now();
    assert_eq!(foreign.found("taken", &after).await, BTreeSet::from(["AFTER".to_owned()]));
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert_eq!(foreign.found("taken", &foreign.fence().await).await, BTreeSet::from(["AFTER".to_owned()]));
    for n in 0..40 {
        let (status, problem) = foreign.catalog(&format!("A{n}"), &positions(&aborted)).await;
        assert!(status == 404 && problem["detail"].as_str().unwrap().contains("does not exist"), "{problem}");
    }
    no_lag(&foreign.server).await;
    let committed = foreign.python("produce_raw.py", &["--transaction", "commit"], &records("C", "kept")).await;
    assert_eq!(foreign.found("kept", &positions(&committed)).await, ids("C", 0..40));
    // One that is left open holds up what comes after it until the brokers end it.
    let short = ["--set", "transaction.timeout.ms=3000", "--set", "delivery.timeout.ms=3000"];
    let leave = [&["--transaction", "leave"], &short[..]].concat();
    foreign.python("produce_raw.py", &leave, &records("C", "left")).await;
    let position = positions(&foreign.produce(&[], &entities("C", 40, "at last")).await);
    assert_eq!(foreign.found("last", &position).await, ids("C", 0..40));
    assert_eq!(foreign.found("left", &position).await, BTreeSet::new());
    no_lag(&foreign.server).await;
    foreign.has_dead_letters(json!({})).await;
    let all = ["--from-beginning", "--until-end"];
    let embeddings = foreign.python("consume.py", &[&[EMBEDDINGS], &all[..]].concat(), &[]).await;
    assert_eq!(embeddings.len(), 1 + 60 + 40 + 40);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "starts brokers: scripts/services.sh fetches them; run with --ignored"]
async fn every_compression_of_a_foreign_producer_is_read() {
    let foreign = Foreign::start().await;
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        // Enough of the same in one batch that it is worth compressing.
        let text = format!("squeezed {codec} {}", "the same words again and again ".repeat(50));
        let arguments = ["--set", &format!("compression.type={codec}"), "--set", "linger.ms=200"];
        let position = positions(&foreign.produce(&arguments, &entities(codec, 60, &text)).await);
        assert_eq!(foreign.found(codec, &position).await, ids(codec, 0..60), "{codec}");
        let (status, known) = foreign.catalog(&format!("{codec}59"), &position).await;
        assert_eq!((status, &known["text"]), (200, &json!(format!("{text} number59"))));
    }
    no_lag(&foreign.server).await;
    foreign.has_dead_letters(json!({})).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "starts brokers: scripts/services.sh fetches them; run with --ignored"]
async fn law_13_a_version_of_the_schema_that_a_foreign_producer_registered_is_read() {
    let foreign = Foreign::start().await;
    let latest = foreign.latest_schema(ENTITIES).await;
    let ours: Value = serde_json::from_str(latest["schema"].as_str().unwrap()).unwrap();
    let (mut more, mut less) = (ours.clone(), ours);
    let colour = json!({"name": "colour", "type": ["null", "string"], "default": null});
    more["fields"].as_array_mut().unwrap().insert(3, colour);
    less["fields"].as_array_mut().unwrap().retain(|field| field["name"] != "tags" && field["name"] != "metadata");
    let mut lines = Vec::new();
    for (id, schema, tags) in [("MORE", more, json!(["kept"])), ("LESS", less, json!([]))] {
        let mut event = json!({"tenant_id": TENANT, "entity_type": "curve", "entity_id": id, "tags": tags});
        (event["text"], event["colour"]) = (json!("evolved"), json!("red"));
        let arguments = ["--schema", &schema.to_string()];
        lines.extend(foreign.python("produce_raw.py", &arguments, &[json!({"key": key(id), "event": event})]).await);
    }
    assert!(foreign.latest_schema(ENTITIES).await["version"].as_u64() > latest["version"].as_u64());
    let position = positions(&lines);
    let both = BTreeSet::from(["LESS".to_owned(), "MORE".to_owned()]);
    assert_eq!(foreign.found("evolved", &position).await, both);
    assert_eq!(foreign.catalog("MORE", &position).await.1["tags"], json!(["kept"]));
    assert_eq!(foreign.catalog("LESS", &position).await.1["tags"], json!([]));
    // The latest version has no tags now: whoever writes by it is told, and loses none.
    let tagged = [entity("TAGGED", "some text")];
    let (good, lines, complaint) = foreign.try_python("produce_entities.py", &["--tenant", TENANT], &tagged).await;
    assert!(!good && lines.is_empty() && complaint.contains("line 1"), "{complaint}");
    // The platform writes by its own version, whatever the latest is.
    let answer = foreign.server.produce(TENANT, &json!(tagged)).await;
    assert_eq!(foreign.found("some", &answer).await, BTreeSet::from(["TAGGED".to_owned()]));
    foreign.has_dead_letters(json!({})).await;
}
