//! A `Produce` request that is encoded by hand, for records that client libraries cannot send.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::in_time;

/// The CRC-32C checksum.
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0_u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { (crc >> 1) ^ 0x82f6_3b78 } else { crc >> 1 })
    })
}

/// Appends a zigzag varint.
fn varint(out: &mut Vec<u8>, number: i64) {
    let mut rest = ((number << 1) ^ (number >> 63)) as u64;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// Appends bytes with a varint length; `None` has length -1.
fn bytes(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    varint(out, bytes.map_or(-1, |bytes| bytes.len() as i64));
    out.extend_from_slice(bytes.unwrap_or_default());
}

/// A record batch (magic 2) of one record without a key.
fn batch(value: &[u8], headers: &[(&[u8], Option<&[u8]>)]) -> Vec<u8> {
    // Attributes, timestamp delta, offset delta.
    let mut record = vec![0, 0, 0];
    bytes(&mut record, None);
    bytes(&mut record, Some(value));
    varint(&mut record, headers.len() as i64);
    for (name, value) in headers {
        bytes(&mut record, Some(name));
        bytes(&mut record, *value);
    }
    // Attributes, last offset delta, base and maximum timestamp; no producer id, epoch and sequence; number of records.
    let mut checked = [0_i16.to_be_bytes().as_slice(), &0_i32.to_be_bytes(), &[0; 16], &[0xff; 14]].concat();
    checked.extend(1_i32.to_be_bytes());
    bytes(&mut checked, Some(&record));
    let mut rest = [(-1_i32).to_be_bytes().as_slice(), &[2], &crc32c(&checked).to_be_bytes()].concat();
    rest.extend(checked);
    [0_i64.to_be_bytes().as_slice(), &(rest.len() as i32).to_be_bytes(), &rest].concat()
}

/// Appends a string with a 16-bit length.
fn text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as i16).to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

/// Sends one record to partition 0 of a topic, with a `Produce` request of version 3.
pub async fn produce(broker: &str, topic: &str, value: &[u8], headers: &[(&[u8], Option<&[u8]>)]) {
    let batch = batch(value, headers);
    let mut request = [0_i16.to_be_bytes().as_slice(), &3_i16.to_be_bytes(), &7_i32.to_be_bytes()].concat();
    text(&mut request, "by-hand");
    // No transactional id, acks = all, timeout in ms, number of topics.
    request.extend([(-1_i16).to_be_bytes(), (-1_i16).to_be_bytes()].concat());
    request.extend([10_000_i32.to_be_bytes(), 1_i32.to_be_bytes()].concat());
    text(&mut request, topic);
    // Number of partitions, partition 0, and the size of its records.
    request.extend([1_i32.to_be_bytes(), 0_i32.to_be_bytes(), (batch.len() as i32).to_be_bytes()].concat());
    request.extend(batch);
    let answer = async {
        let mut broker = TcpStream::connect(broker).await.unwrap();
        broker.write_all(&(request.len() as u32).to_be_bytes()).await.unwrap();
        broker.write_all(&request).await.unwrap();
        let mut answer = vec![0; broker.read_u32().await.unwrap() as usize];
        broker.read_exact(&mut answer).await.unwrap();
        answer
    };
    let answer = in_time("the broker's answer", answer).await;
    // The error code follows the correlation id, the topic count and name, and the partition count and number.
    let error = 4 + 4 + 2 + topic.len() + 4 + 4;
    assert_eq!(answer[error..error + 2], [0, 0], "the broker rejected the record");
}
