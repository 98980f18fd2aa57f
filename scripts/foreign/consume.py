#!/usr/bin/env python3
"""Reads a topic of carbon-ml straight from Kafka: an example to copy.

Prints one JSON line a record: key, partition, offset, timestamp, headers and value, with bytes as base64. An
embedding's vector is decoded as well: `vector_dimension` is how many numbers it has. Exits 1 where --count records did
not come in time, or a vector is not as long as its record says.

Needs confluent-kafka[avro]; `scripts/python_env.sh` prints a Python that has it.
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
    """An embedding's numbers: little-endian 32-bit floats."""
    numbers = array.array("f")
    numbers.frombytes(value["vector"])
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers


def plain(value):
    """What JSON has no word for."""
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")


def line_of(message, deserialize):
    # A null value is no event: its key was erased, or a retired model's embedding was.
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
            raise ValueError(f"{line['key']}: {line['vector_dimension']} numbers, not {value['dimension']}")
    return line


def consume(consumer, deserialize, arguments):
    """Prints records until there are enough; whether there were."""
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
            print(json.dumps(line_of(message, deserialize), default=plain), flush=True)
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
    parser.add_argument("--group", default=f"foreign-{uuid.uuid4()}", help="one that nobody else has, unless said")
    parser.add_argument("--from-beginning", action="store_true", help="and not only what comes from now on")
    parser.add_argument("--until-end", action="store_true", help="stop at the end of all partitions")
    parser.add_argument("--count", type=int, help="stop after as many records")
    parser.add_argument("--timeout", type=float, default=30, help="stop after as many seconds; 30 unless said")
    arguments = parser.parse_args()
    consumer = Consumer({
        "bootstrap.servers": arguments.brokers,
        "group.id": arguments.group,
        "auto.offset.reset": "earliest" if arguments.from_beginning else "latest",
        # Nothing that a transaction took back: what the platform's stages write is transactional.
        "isolation.level": "read_committed",
        # What is printed is not remembered: each run stands alone. A real consumer commits what it has processed.
        "enable.auto.commit": False,
        "enable.partition.eof": True,
    })
    # By the schema that wrote each record, which the registry knows by the id in its first bytes.
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
