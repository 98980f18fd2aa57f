#!/usr/bin/env python3
"""Produces entities for carbon-ml directly to Kafka. Use it as an example for your own producer.

Reads one entity per line from stdin:

    {"entity_type": "instrument", "entity_id": "NG_HH_BALMO", "text": "Henry Hub natural gas, balance of month",
     "tags": ["gas"], "metadata": {"name": "NG balmo", "lot": 10000, "listed": true}}

A line is the complete new state of its entity; {"entity_type", "entity_id", "deleted": true} deletes the entity. Prints
one JSON line per durable record: topic, partition, offset and key. Exits with 1 if a line is invalid or a record is not
durable.

Needs confluent-kafka[avro]; `scripts/python_env.sh` prints the path of a Python that has it.
"""

import argparse
import json
import os
import sys
import uuid
from datetime import datetime, timezone

from confluent_kafka import KafkaException, Producer
from confluent_kafka.schema_registry import SchemaRegistryClient, topic_subject_name_strategy
from confluent_kafka.schema_registry.avro import AvroSerializer
from confluent_kafka.serialization import MessageField, SerializationContext, SerializationError

TOPIC = "ml.entity.changed.v1"
FIELDS = {"entity_type", "entity_id", "text", "tags", "metadata", "deleted"}
TIMEOUT_S = 30


def entity_serializer(registry):
    """Returns a function that serializes an event with the newest schema that the platform has registered."""
    settings = {
        "auto.register.schemas": False,
        "use.latest.version": True,
        # A field that is not in the schema is an error; by default the serializer drops it silently.
        "validate.strict.allow.default": True,
        "subject.name.strategy": topic_subject_name_strategy,
    }
    serialize = AvroSerializer(SchemaRegistryClient({"url": registry}), conf=settings)
    return lambda event: serialize(event, SerializationContext(TOPIC, MessageField.VALUE))


def event_of(entity, tenant):
    """Returns the event with the complete new state of an entity."""
    unknown = entity.keys() - FIELDS
    if unknown:
        raise ValueError(f"unknown fields {sorted(unknown)}")
    return {
        "event_id": str(uuid.uuid4()),
        "occurred_at": datetime.now(timezone.utc),
        "tenant_id": tenant,
        "entity_type": entity["entity_type"],
        "entity_id": entity["entity_id"],
        "text": entity.get("text", ""),
        "tags": entity.get("tags", []),
        "metadata": entity.get("metadata", {}),
        "deleted": entity.get("deleted", False),
    }


def key_of(event):
    """Returns the record key. All records of an entity have the same key, so they are in one partition, in order."""
    return f"{event['tenant_id']}/{event['entity_type']}/{event['entity_id']}"


class Deliveries:
    """Delivery callback: prints each durable record and counts failures."""

    def __init__(self):
        self.failed = 0

    def __call__(self, error, message):
        key = message.key().decode(errors="replace") if message.key() is not None else None
        if error is not None:
            self.failed += 1
            print(f"{key}: {error}", file=sys.stderr)
            return
        position = {"topic": message.topic(), "partition": message.partition(), "offset": message.offset()}
        print(json.dumps({**position, "key": key}), flush=True)


def send(producer, **record):
    """Gives a record to the producer; waits while the queue of the producer is full."""
    while True:
        try:
            producer.produce(**record)
            producer.poll(0)
            return
        except BufferError:
            producer.poll(1)


def producer_of(arguments, **more):
    settings = {
        "bootstrap.servers": arguments.brokers,
        # carbon-ml partitions by murmur2, as Java clients do. librdkafka's default is CRC-32: most records would be in
        # a wrong partition and become dead letters.
        "partitioner": arguments.partitioner,
        # Sets acks=all; retries neither duplicate nor reorder records.
        "enable.idempotence": True,
        "delivery.timeout.ms": TIMEOUT_S * 1000,
        **dict(arguments.settings),
        **more,
    }
    return Producer(settings)


def parser_of(description):
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    brokers, registry = os.environ.get("ML_KAFKA_BROKERS"), os.environ.get("ML_SCHEMA_REGISTRY_URL")
    parser.add_argument("--brokers", default=brokers, required=not brokers, help="[ML_KAFKA_BROKERS]")
    parser.add_argument("--registry", default=registry, required=not registry, help="[ML_SCHEMA_REGISTRY_URL]")
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="NAME=VALUE",
                        type=lambda text: tuple(text.split("=", 1)) if "=" in text else parser.error(f"{text}: no ="),
                        help="another property of librdkafka, such as compression.type=zstd; can be repeated")
    return parser


def main():
    parser = parser_of(__doc__)
    parser.add_argument("--tenant", default="default")
    parser.add_argument("--partitioner", default="murmur2_random",
                        help="default: murmur2_random, which is right unless the topology declares another "
                             "partitioner for the topic")
    arguments = parser.parse_args()
    serialize, producer, deliveries = entity_serializer(arguments.registry), producer_of(arguments), Deliveries()
    rejected = 0
    for number, line in enumerate(sys.stdin, 1):
        if not line.strip():
            continue
        try:
            event = event_of(json.loads(line), arguments.tenant)
            value = serialize(event)
        except (KeyError, TypeError, ValueError, SerializationError) as error:
            rejected += 1
            print(f"line {number}: {type(error).__name__}: {error}", file=sys.stderr)
            continue
        headers = {"event_id": event["event_id"], "tenant_id": event["tenant_id"]}
        send(producer, topic=TOPIC, key=key_of(event), value=value, headers=headers, on_delivery=deliveries)
    unsent = producer.flush(TIMEOUT_S + 5)
    return 1 if unsent or rejected or deliveries.failed else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KafkaException as error:
        sys.exit(f"kafka: {error}")
