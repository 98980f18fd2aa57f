//! Reading a body that another version of the schema wrote.

use apache_avro::Schema;
use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::types::Value;

use crate::event::Event;

/// What reading a body comes to.
pub(crate) enum Read<E> {
    Event(E),
    /// It says something that this program has no word for (law 13).
    Newer {
        needs: String,
    },
    Malformed(String),
}

/// Reads a body written by the reader's own schema: serde directly.
pub(crate) fn read_own<E: Event>(mut body: &[u8]) -> Read<E> {
    match E::schema().reader.read_deser::<E>(&mut body) {
        Ok(event) if body.is_empty() => Read::Event(event),
        Ok(_) => Read::Malformed(format!("{} bytes follow the record", body.len())),
        Err(error) => Read::Malformed(error.to_string()),
    }
}

/// Reads a body written by another schema: by value, resolved to ours. Enum symbols are looked up
/// before resolution, so that `unknown` as written is told from `unknown` by resolution.
pub(crate) fn read_other<E: Event>(writer: &Schema, mut body: &[u8]) -> Read<E> {
    let ours = &E::schema().version.schema;
    let reader = match GenericDatumReader::builder(writer).human_readable(false).build() {
        Ok(reader) => reader,
        Err(error) => return Read::Malformed(format!("its schema is unusable: {error}")),
    };
    let value = match reader.read_value(&mut body) {
        Ok(value) if body.is_empty() => value,
        Ok(_) => return Read::Malformed(format!("{} bytes follow the record", body.len())),
        Err(error) => return Read::Malformed(error.to_string()),
    };
    if let Some((field, symbol)) = new_symbol(&value, ours) {
        let version = match writer {
            Schema::Record(record) => record.attributes.get("version").map(ToString::to_string),
            _ => None,
        };
        let version = version.unwrap_or_else(|| "a later one".into());
        return Read::Newer {
            needs: format!("{} version {version}: {field} {symbol:?} is not known to this program", E::NAME),
        };
    }
    match value.resolve(ours).and_then(|value| apache_avro::from_value::<E>(&value)) {
        Ok(event) => Read::Event(event),
        Err(error) => Read::Malformed(format!("it cannot be read as {}: {error}", E::NAME)),
    }
}

/// The first enum field whose symbol our schema lacks.
fn new_symbol(value: &Value, ours: &Schema) -> Option<(String, String)> {
    let (Value::Record(fields), Schema::Record(record)) = (value, ours) else { return None };
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
