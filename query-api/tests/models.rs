//! `GET /models/{name}` and `GET /models/{name}/history`.
#![allow(clippy::unwrap_used)]

mod support;

use carbon_core::{Partitioner, Position, Positions, TenantId, Timestamp, TopicName};
use carbon_read_models::Projection as _;
use carbon_read_models::registry::{Registry, RegistryRecord};
use carbon_runtime::consume::Progress;
use carbon_schemas::events::{ModelKind, ModelPromoted, ModelRegistered};
use carbon_schemas::{Decoded, Event, Recorded};
use carbon_store::Site;
use serde_json::{Value, json};
use support::{Service, assert_problem};
use tokio::sync::watch;
use uuid::Uuid;

fn recorded<E: Event>(offset: u64, event: E) -> Recorded<E> {
    event.check().unwrap();
    let key = event.key().unwrap();
    assert_eq!(Partitioner::Murmur2.partition(E::partition_key(&key).as_bytes(), 1), 0);
    let position = Position::new(TopicName::parse(E::NAME).unwrap(), 0, offset);
    let body = Decoded::Event { key, event };
    Recorded { position, timestamp: Timestamp(0), traceparent: None, body }
}

/// Records of a model `m` with 2 versions. Version 1 is in production from second 10, version 2 from second 20.
fn records() -> Vec<RegistryRecord> {
    let tenant = TenantId::parse("default").unwrap();
    let of = |at, kind| ModelRegistered {
        registration_id: Some(Uuid::from_u128(1)),
        ..ModelRegistered::of(Uuid::nil(), Timestamp(at), &tenant, "m", kind)
    };
    let version = |at, number: i64| ModelRegistered {
        version: Some(number),
        version_id: Some(Uuid::from_u128(10 + number as u128)),
        source: Some("s3://b/x".into()),
        run_id: Some(format!("run-{number}")),
        ..of(at, ModelKind::VersionCreated)
    };
    let staged = |at, number| ModelPromoted {
        version: Some(number),
        stage: Some("Production".into()),
        archive_existing: true,
        promoted_by: Some("desk".into()),
        ..ModelPromoted::of(Uuid::nil(), Timestamp(at), &tenant, "m")
    };
    let registered = [of(1_000, ModelKind::Created), version(2_000, 1), version(3_000, 2)];
    let promoted = [staged(10_000, 1), staged(20_000, 2), staged(30_000, 9)];
    let registered = registered.into_iter().enumerate();
    let promoted = promoted.into_iter().enumerate();
    registered
        .map(|(at, event)| RegistryRecord::Model(recorded(at as u64, event)))
        .chain(promoted.map(|(at, event)| RegistryRecord::Promotion(recorded(at as u64, event))))
        .collect()
}

/// A service whose registry has folded `records`.
async fn service_with(records: &[RegistryRecord], dir: &tempfile::TempDir) -> (Service, watch::Sender<Progress>) {
    let service = Service::new().await;
    let site = Site::File(dir.path().join("registry.db"));
    let rows = carbon_read_models::open::<Registry>(&site).await.unwrap();
    let tables = rows.begin().await.unwrap();
    let folded = Registry.apply(tables, records).await.unwrap();
    folded.commit().await.unwrap();
    service.serve("registry", &rows, ModelPromoted::NAME);
    let progress = service.progress.clone();
    (service, progress)
}

#[tokio::test]
async fn a_model_is_returned_as_of_now_or_of_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let (service, _progress) = service_with(&records(), &dir).await;
    let now = service.get("/models/m").await.json();
    assert_eq!((&now["active_version"], &now["stage"]), (&json!(2), &json!("Production")));
    assert_eq!(now["created_at"], "1970-01-01T00:00:01.000Z");
    assert_eq!((&now["versions"][0]["stage"], &now["versions"][0]["run_id"]), (&json!("Archived"), &json!("run-1")));
    let active = async |at: &str| -> Value {
        service.get(&format!("/models/m?as_of={at}")).await.json()["active_version"].clone()
    };
    assert_eq!(active("1970-01-01T00:00:15Z").await, json!(1));
    assert_eq!(active("1970-01-01T00:00:05Z").await, json!(null));
    assert_problem("before it was", &service.get("/models/m?as_of=1970-01-01T00:00:00Z").await, 404);
    assert_problem("another tenant's", &service.get("/tenants/acme/models/m").await, 404);
    assert_problem("no time", &service.get("/models/m?as_of=yesterday").await, 400);
    assert_problem("nobody", &service.get("/models/none").await, 404);
}

#[tokio::test]
async fn the_history_lists_promotions_with_their_effects() {
    let dir = tempfile::tempdir().unwrap();
    let (service, progress) = service_with(&records(), &dir).await;
    let history = service.get("/models/m/history").await.json();
    let effects: Vec<_> = history["promotions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|promotion| (&promotion["version"], &promotion["effect"]))
        .collect();
    let (applied, none) = (json!("applied"), json!("no_such_version"));
    assert_eq!(effects, [(&json!(9), &none), (&json!(2), &applied), (&json!(1), &applied)]);
    let first = &history["promotions"][2];
    assert_eq!((&first["promoted_by"], &first["at"]), (&json!("desk"), &json!("1970-01-01T00:00:10.000Z")));
    assert_eq!((&first["position"], &history["next"]), (&json!("ml.model.promoted.v1:0:0"), &json!(null)));

    let page = service.get("/models/m/history?limit=1&as_of=1970-01-01T00:00:20Z").await.json();
    assert_eq!((&page["promotions"][0]["version"], &page["next"]), (&json!(2), &json!(1)));
    let page = service.get("/models/m/history?limit=1&before=1").await.json();
    assert_eq!((&page["promotions"][0]["version"], &page["next"]), (&json!(1), &json!(null)));
    assert_problem("nobody", &service.get("/models/none/history").await, 404);
    for bad in ["limit=0", "limit=1001", "limit=x", "before=-1", "as_of=1", "unknown=1"] {
        assert_problem(bad, &service.get(&format!("/models/m/history?{bad}")).await, 400);
    }
    // The read waits for `x-min-position`.
    let headers = [("x-min-position", "ml.model.promoted.v1:0:2"), ("x-timeout-ms", "30")];
    assert_problem("behind", &service.get_with("/models/m/history", &headers).await, 503);
    progress.send_modify(|progress| {
        let mut positions = Positions::new();
        positions.advance_past(&Position::new(TopicName::parse(ModelPromoted::NAME).unwrap(), 0, 2));
        progress.positions = positions;
    });
    assert_eq!(service.get_with("/models/m/history", &headers).await.status, 200);
}

#[tokio::test]
async fn a_process_without_the_registry_answers_503() {
    let service = Service::new().await;
    assert_problem("no registry", &service.get("/models/m").await, 503);
}
