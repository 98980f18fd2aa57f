#!/usr/bin/env python3
"""Produces records as they should not be, for tests: each line of stdin is one.

    {"key": "acme/curve/C1" or null, "headers": {"tenant_id": "acme"}, "partition": 3,
     "value": base64 or null, or else "event": {...}, which is serialized by the registry's schema;
     "schema_id": 999999 puts another id into the value's frame}

The fields of an event that are left out are good ones. Prints a line for each record that the brokers have.
With --transaction all records are one transaction, which is committed, aborted, or left open. With --schema events are
written by a schema of the producer's own, which it registers.
"""

import base64
import json
import os
import struct
import sys
import uuid
from datetime import datetime, timezone

from confluent_kafka.schema_registry import SchemaRegistryClient, topic_subject_name_strategy
from confluent_kafka.schema_registry.avro import AvroSerializer
from confluent_kafka.serialization import MessageField, SerializationContext
from produce_entities import PATIENCE_S, TOPIC, Deliveries, entity_serializer, parser_of, producer_of, send

GOOD = {"text": "some text", "tags": [], "metadata": {}, "deleted": False}


def own_serializer(registry, schema):
    settings = {"subject.name.strategy": topic_subject_name_strategy}
    serialize = AvroSerializer(SchemaRegistryClient({"url": registry}), schema, conf=settings)
    return lambda event: serialize(event, SerializationContext(TOPIC, MessageField.VALUE))


def value_of(record, serialize):
    if "event" in record:
        base = {**GOOD, "event_id": str(uuid.uuid4()), "occurred_at": datetime.now(timezone.utc)}
        value = serialize({**base, **record["event"]})
    else:
        value = base64.b64decode(record["value"]) if record["value"] is not None else None
    if "schema_id" in record:
        value = struct.pack(">bi", 0, record["schema_id"]) + value[5:]
    return value


def main():
    parser = parser_of(__doc__)
    parser.add_argument("--schema", help="a schema of one's own, as JSON")
    parser.add_argument("--partitioner", default="murmur2_random")
    parser.add_argument("--transaction", choices=["commit", "abort", "leave"])
    arguments = parser.parse_args()
    transaction = arguments.transaction
    more = {"transactional.id": f"foreign-{uuid.uuid4()}"} if transaction else {}
    if arguments.schema:
        serialize = own_serializer(arguments.registry, arguments.schema)
    else:
        serialize = entity_serializer(arguments.registry)
    producer, deliveries = producer_of(arguments, **more), Deliveries()
    if transaction:
        producer.init_transactions(PATIENCE_S)
        producer.begin_transaction()
    for line in sys.stdin:
        record = json.loads(line)
        place = {"partition": record["partition"]} if "partition" in record else {}
        send(producer, topic=TOPIC, key=record["key"], value=value_of(record, serialize),
             headers=record.get("headers", {}), on_delivery=deliveries, **place)
    # Before an abort as well: the records must lie in the log, or there would be nothing to abort.
    left = producer.flush(PATIENCE_S + 5)
    if transaction == "commit":
        producer.commit_transaction(PATIENCE_S)
    elif transaction == "abort":
        producer.abort_transaction(PATIENCE_S)
    elif transaction == "leave":
        sys.stdout.flush()
        # As a crash would; a close would abort.
        os._exit(0)
    return 1 if left or deliveries.failed else 0


if __name__ == "__main__":
    sys.exit(main())
