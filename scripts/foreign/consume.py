#!/usr/bin/env python3
"""Reads a topic of carbon-ml directly from Kafka. Use it as an example for your own consumer.

Prints one JSON line per record: key, partition, offset, timestamp, headers and value, with bytes as base64. For an
embedding the line has `vector_dimension`, the number of components of the decoded vector. Exits with 1 if fewer than
--count records arrived before the timeout, or if a vector does not have the dimension that its record states.

Needs confluent-kafka[avro]; `scripts/python_env.sh` prints the path of a Python that has it.
"""

import argparse
import array
import base64
import json
import os
import sys
import time
import uuid
from datetime import datetime

from confluent_kafka import Consumer, KafkaError, KafkaException
from confluent_kafka.schema_registry import SchemaRegistryClient, topic_subject_name_strategy
from confluent_kafka.schema_registry.avro import AvroDeserializer
from confluent_kafka.schema_registry.error import SchemaRegistryError
from confluent_kafka.serialization import MessageField, SerializationContext


def vector_of(value):
    """Decodes the vector of an embedding: little-endian 32-bit floats."""
    numbers = array.array("f")
    numbers.frombytes(value["vector"])
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers


def to_json(value):
    """Converts a value that JSON has no type for."""
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")


def line_of(message, deserialize):
    """Returns the output line of a record."""
    # A null value is not an event. It erases the key, or an embedding of a retired model.
    value = deserialize(message.value(), SerializationContext(message.topic(), MessageField.VALUE))
    line = {
        "key": message.key().decode() if message.key() is not None else None,
        "partition": message.partition(),
        "offset": message.offset(),
        "timestamp": message.timestamp()[1],
        "headers": {name: content.decode(errors="replace") for name, content in message.headers() or []},
        "value": value,
    }
    if value is not None and value.get("vector") is not None:
        line["vector_dimension"] = len(vector_of(value))
        if line["vector_dimension"] != value["dimension"]:
            raise ValueError(f"{line['key']}: {line['vector_dimension']} components, expected {value['dimension']}")
    return line


def consume(consumer, deserialize, arguments):
    """Prints records until the count, the end or the timeout. Returns whether the requested records arrived."""
    deadline, seen, unread = time.monotonic() + arguments.timeout, 0, None

    def assigned(_, partitions):
        nonlocal unread
        unread = {partition.partition for partition in partitions}

    consumer.subscribe([arguments.topic], on_assign=assigned)
    while arguments.count is None or seen < arguments.count:
        left = deadline - time.monotonic()
        if left <= 0:
            break
        message = consumer.poll(left)
        if message is None:
            continue
        if message.error() is None:
            print(json.dumps(line_of(message, deserialize), default=to_json), flush=True)
            seen += 1
        elif message.error().code() == KafkaError._PARTITION_EOF:
            unread.discard(message.partition())
            if arguments.until_end and not unread:
                return arguments.count is None or seen >= arguments.count
        else:
            raise KafkaException(message.error())
    return seen >= arguments.count if arguments.count is not None else not arguments.until_end


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    brokers, registry = os.environ.get("ML_KAFKA_BROKERS"), os.environ.get("ML_SCHEMA_REGISTRY_URL")
    parser.add_argument("topic", metavar="TOPIC", help="such as ml.embedding.generated.v1 or search.index.updated.v1")
    parser.add_argument("--brokers", default=brokers, required=not brokers, help="[ML_KAFKA_BROKERS]")
    parser.add_argument("--registry", default=registry, required=not registry, help="[ML_SCHEMA_REGISTRY_URL]")
    parser.add_argument("--group", default=f"foreign-{uuid.uuid4()}", help="consumer group; default: a new one")
    parser.add_argument("--from-beginning", action="store_true", help="read existing records too, not only new ones")
    parser.add_argument("--until-end", action="store_true", help="stop at the end of all partitions")
    parser.add_argument("--count", type=int, help="stop after this number of records")
    parser.add_argument("--timeout", type=float, default=30, help="stop after this number of seconds (default: 30)")
    arguments = parser.parse_args()
    consumer = Consumer({
        "bootstrap.servers": arguments.brokers,
        "group.id": arguments.group,
        "auto.offset.reset": "earliest" if arguments.from_beginning else "latest",
        # Stages of the platform write in transactions; read_committed hides records of aborted transactions.
        "isolation.level": "read_committed",
        # This example commits no offsets. A real consumer commits offsets after it has processed the records.
        "enable.auto.commit": False,
        "enable.partition.eof": True,
    })
    # Each record is decoded with its writer's schema; the schema id is in the first bytes of the value.
    deserialize = AvroDeserializer(SchemaRegistryClient({"url": arguments.registry}),
                                   conf={"subject.name.strategy": topic_subject_name_strategy})
    try:
        return 0 if consume(consumer, deserialize, arguments) else 1
    finally:
        consumer.close()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (KafkaException, SchemaRegistryError, ValueError) as error:
        sys.exit(str(error))
