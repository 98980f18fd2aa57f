//! Decodes the body of a value: directly, or by resolving the writer's schema to the current one.

use apache_avro::Schema;
use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::types::Value;

use crate::event::Event;

/// The result of decoding a body.
pub(crate) enum DecodedBody<E> {
    Event(E),
    /// The body contains an enum symbol that this binary does not know (law 13).
    Newer {
        needs: String,
    },
    Malformed(String),
}

/// Decodes a body that was written with the current schema, by serde.
pub(crate) fn decode_own<E: Event>(mut body: &[u8]) -> DecodedBody<E> {
    match E::schema().reader.read_deser::<E>(&mut body) {
        Ok(event) if body.is_empty() => DecodedBody::Event(event),
        Ok(_) => DecodedBody::Malformed(format!("{} bytes follow the record", body.len())),
        Err(error) => DecodedBody::Malformed(error.to_string()),
    }
}

/// Decodes a body that was written with another schema, by resolving the value to the current schema.
///
/// Resolution turns enum symbols that the current schema lacks into `unknown`. This function checks for such symbols
/// before it resolves, so an `unknown` in the result was written by the writer.
pub(crate) fn decode_other<E: Event>(writer: &Schema, mut body: &[u8]) -> DecodedBody<E> {
    let current = &E::schema().version.schema;
    let reader = match GenericDatumReader::builder(writer).human_readable(false).build() {
        Ok(reader) => reader,
        Err(error) => return DecodedBody::Malformed(format!("the writer's schema is not usable: {error}")),
    };
    let value = match reader.read_value(&mut body) {
        Ok(value) if body.is_empty() => value,
        Ok(_) => return DecodedBody::Malformed(format!("{} bytes follow the record", body.len())),
        Err(error) => return DecodedBody::Malformed(error.to_string()),
    };
    if let Some((field, symbol)) = unknown_symbol(&value, current) {
        let version = match writer {
            Schema::Record(record) => record.attributes.get("version").map(ToString::to_string),
            _ => None,
        };
        let version = version.unwrap_or_else(|| "unspecified".into());
        return DecodedBody::Newer {
            needs: format!("{} version {version}: {field} {symbol:?} is not known to this program", E::NAME),
        };
    }
    match value.resolve(current).and_then(|value| apache_avro::from_value::<E>(&value)) {
        Ok(event) => DecodedBody::Event(event),
        Err(error) => DecodedBody::Malformed(format!("the value cannot be resolved to {}: {error}", E::NAME)),
    }
}

/// The first top-level enum field whose symbol the current schema lacks: its name, and the symbol.
fn unknown_symbol(value: &Value, current: &Schema) -> Option<(String, String)> {
    let (Value::Record(fields), Schema::Record(record)) = (value, current) else { return None };
    fields.iter().find_map(|(name, value)| {
        let value = match value {
            Value::Union(_, inner) => inner,
            other => other,
        };
        let Value::Enum(_, symbol) = value else { return None };
        let schema = &record.fields.iter().find(|field| field.name == *name)?.schema;
        let known = match schema {
            Schema::Enum(kind) => kind.symbols.contains(symbol),
            Schema::Union(union) => union.variants().iter().any(|variant| match variant {
                Schema::Enum(kind) => kind.symbols.contains(symbol),
                _ => false,
            }),
            _ => true,
        };
        (!known).then(|| (name.clone(), symbol.clone()))
    })
}
