#!/usr/bin/env python3
"""Produces invalid records for tests. Reads one record per line from stdin:

    {"key": "acme/curve/C1" or null, "headers": {"tenant_id": "acme"}, "partition": 3,
     "value": base64 or null, or instead "event": {...}, which is serialized with the registered schema;
     "schema_id": 999999 replaces the schema id in the first bytes of the value}

Missing fields of an event get valid values. Prints one JSON line per record that the brokers acknowledged. With
--transaction all records are in one transaction, which is committed, aborted, or left open. With --schema the script
registers that schema and serializes events with it.
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
from produce_entities import TIMEOUT_S, TOPIC, Deliveries, entity_serializer, parser_of, producer_of, send

GOOD = {"text": "some text", "tags": [], "metadata": {}, "deleted": False}


def own_serializer(registry, schema):
    """Returns a function that serializes an event with this schema, which it registers."""
    settings = {"subject.name.strategy": topic_subject_name_strategy}
    serialize = AvroSerializer(SchemaRegistryClient({"url": registry}), schema, conf=settings)
    return lambda event: serialize(event, SerializationContext(TOPIC, MessageField.VALUE))


def value_of(record, serialize):
    """Returns the bytes of the value of a record, or None."""
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
    parser.add_argument("--schema", help="Avro schema as JSON; the script registers it")
    parser.add_argument("--partitioner", default="murmur2_random")
    parser.add_argument("--transaction", choices=["commit", "abort", "leave"],
                        help="leave: exit without commit or abort")
    arguments = parser.parse_args()
    transaction = arguments.transaction
    more = {"transactional.id": f"foreign-{uuid.uuid4()}"} if transaction else {}
    if arguments.schema:
        serialize = own_serializer(arguments.registry, arguments.schema)
    else:
        serialize = entity_serializer(arguments.registry)
    producer, deliveries = producer_of(arguments, **more), Deliveries()
    if transaction:
        producer.init_transactions(TIMEOUT_S)
        producer.begin_transaction()
    for line in sys.stdin:
        record = json.loads(line)
        partition = {"partition": record["partition"]} if "partition" in record else {}
        send(producer, topic=TOPIC, key=record["key"], value=value_of(record, serialize),
             headers=record.get("headers", {}), on_delivery=deliveries, **partition)
    # Flush before an abort too, so that the aborted records are in the log.
    unsent = producer.flush(TIMEOUT_S + 5)
    if transaction == "commit":
        producer.commit_transaction(TIMEOUT_S)
    elif transaction == "abort":
        producer.abort_transaction(TIMEOUT_S)
    elif transaction == "leave":
        sys.stdout.flush()
        # Exit as in a crash: a normal close would abort the transaction.
        os._exit(0)
    return 1 if unsent or deliveries.failed else 0


if __name__ == "__main__":
    sys.exit(main())
