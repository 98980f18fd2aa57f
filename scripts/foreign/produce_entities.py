#!/usr/bin/env python3
"""Produces entities to carbon-ml straight into Kafka: an example to copy.

Reads one entity a line from stdin,

    {"entity_type": "instrument", "entity_id": "NG_HH_BALMO", "text": "Henry Hub natural gas, balance of month",
     "tags": ["gas"], "metadata": {"name": "NG balmo", "lot": 10000, "listed": true}}

each of which is its entity's whole new state; {"entity_type", "entity_id", "deleted": true} deletes one. Prints a line
for each record that is durable: topic, partition, offset and key. Exits 1 if one is not.

Needs confluent-kafka[avro]; `scripts/python_env.sh` prints a Python that has it.
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
PATIENCE_S = 30


def entity_serializer(registry):
    """From an event to bytes, by the newest schema that the registry has; the platform registers it, not we."""
    settings = {
        "auto.register.schemas": False,
        "use.latest.version": True,
        # A field that the schema lacks is an error, where it would be left out without a word.
        "validate.strict.allow.default": True,
        "subject.name.strategy": topic_subject_name_strategy,
    }
    serialize = AvroSerializer(SchemaRegistryClient({"url": registry}), conf=settings)
    return lambda event: serialize(event, SerializationContext(TOPIC, MessageField.VALUE))


def event_of(entity, tenant):
    """The event that says an entity's whole new state."""
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
    """All records of an entity have this key, and with it one partition and one order."""
    return f"{event['tenant_id']}/{event['entity_type']}/{event['entity_id']}"


class Deliveries:
    """Prints what is durable, and remembers whether something is not."""

    def __init__(self):
        self.failed = 0

    def __call__(self, error, message):
        key = message.key().decode(errors="replace") if message.key() is not None else None
        if error is not None:
            self.failed += 1
            print(f"{key}: {error}", file=sys.stderr)
            return
        place = {"topic": message.topic(), "partition": message.partition(), "offset": message.offset(), "key": key}
        print(json.dumps(place), flush=True)


def send(producer, **record):
    """Hands a record over; where the producer's queue is full, it waits until there is room."""
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
        # carbon-ml places keys as Java's clients do. librdkafka's own default hashes otherwise: most records would
        # lie in a wrong partition and become dead letters.
        "partitioner": arguments.partitioner,
        # Acknowledged by all in-sync replicas; a repeated send neither doubles nor reorders records.
        "enable.idempotence": True,
        "delivery.timeout.ms": PATIENCE_S * 1000,
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
                        help="a further property of librdkafka, such as compression.type=zstd; may be repeated")
    return parser


def main():
    parser = parser_of(__doc__)
    parser.add_argument("--tenant", default="default")
    parser.add_argument("--partitioner", default="murmur2_random",
                        help="murmur2_random, unless the topology says otherwise; librdkafka's own default is "
                             "consistent_random")
    arguments = parser.parse_args()
    serialize, producer, deliveries = entity_serializer(arguments.registry), producer_of(arguments), Deliveries()
    refused = 0
    for number, line in enumerate(sys.stdin, 1):
        if not line.strip():
            continue
        try:
            event = event_of(json.loads(line), arguments.tenant)
            value = serialize(event)
        except (KeyError, TypeError, ValueError, SerializationError) as error:
            refused += 1
            print(f"line {number}: {type(error).__name__}: {error}", file=sys.stderr)
            continue
        headers = {"event_id": event["event_id"], "tenant_id": event["tenant_id"]}
        send(producer, topic=TOPIC, key=key_of(event), value=value, headers=headers, on_delivery=deliveries)
    left = producer.flush(PATIENCE_S + 5)
    return 1 if left or refused or deliveries.failed else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KafkaException as error:
        sys.exit(f"kafka: {error}")
