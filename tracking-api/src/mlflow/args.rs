//! The arguments of a call: a JSON object, or the pairs of a query string. Values that MLflow silently drops are rejected.

use std::borrow::Cow;

use serde_json::{Map, Value};

use super::error::MlflowError;

/// One object of arguments.
#[derive(Clone, Debug, Default)]
pub(crate) struct Args<'a> {
    fields: Cow<'a, Map<String, Value>>,
    /// The path of the object in error messages, such as `metrics[0].`.
    prefix: String,
    /// True for a query string: each field is an array of the texts of a parameter, which may be repeated.
    is_query: bool,
}

type Result<T> = std::result::Result<T, MlflowError>;

impl Args<'_> {
    /// Parses a body. A body that is not a JSON object counts as an empty object, as in MLflow; the error then names the
    /// first missing parameter.
    pub fn from_body(body: &[u8]) -> Self {
        let parsed =
            serde_json::from_slice(body).ok().or_else(|| serde_json::from_slice(&with_quoted_numbers(body)).ok());
        let fields = match parsed {
            Some(Value::Object(fields)) => fields,
            // Some clients encode the body twice.
            Some(Value::String(text)) => serde_json::from_str(&text).unwrap_or_default(),
            _ => Map::new(),
        };
        Self { fields: Cow::Owned(fields), prefix: String::new(), is_query: false }
    }

    pub fn from_pairs(pairs: Vec<(String, String)>) -> Self {
        let mut fields = Map::new();
        for (name, value) in pairs {
            match fields.entry(name).or_insert_with(|| Value::Array(Vec::new())) {
                Value::Array(values) => values.push(Value::String(value)),
                other => *other = Value::String(value),
            }
        }
        Self { fields: Cow::Owned(fields), prefix: String::new(), is_query: true }
    }

    /// Returns the name of a field in error messages, such as `metrics[0].key`.
    pub fn full_name(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// Returns the value of a field; `None` if it is missing or null.
    fn get(&self, name: &str) -> Option<&Value> {
        let value = self.fields.get(name).filter(|value| !value.is_null())?;
        match (self.is_query, value) {
            // The last value of a repeated parameter counts.
            (true, Value::Array(values)) => values.last(),
            _ => Some(value),
        }
    }

    fn wrong_type(&self, name: &str, value: &Value) -> MlflowError {
        MlflowError::wrong_type(&self.full_name(name), &value.to_string(), python_type(value))
    }

    pub fn text(&self, name: &str) -> Result<Option<&str>> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(self.wrong_type(name, other)),
        }
    }

    /// Returns a text that is given and not empty.
    pub fn non_empty(&self, name: &str) -> Result<Option<String>> {
        Ok(self.text(name)?.filter(|text| !text.is_empty()).map(str::to_owned))
    }

    /// Returns the text of the first of `names` that is given and not empty.
    pub fn any_text(&self, names: &[&str]) -> Result<Option<&str>> {
        for name in names {
            if let Some(text) = self.text(name)?.filter(|text| !text.is_empty()) {
                return Ok(Some(text));
            }
        }
        Ok(None)
    }

    /// Returns a text that is given and not empty; otherwise an error.
    pub fn required(&self, name: &str) -> Result<&str> {
        self.text(name)?.filter(|text| !text.is_empty()).ok_or_else(|| MlflowError::missing(&self.full_name(name)))
    }

    pub fn run_id(&self) -> Result<&str> {
        self.any_text(&["run_id", "run_uuid"])?.ok_or_else(|| MlflowError::missing(&self.full_name("run_id")))
    }

    /// Returns an integer, which may be given as text.
    pub fn integer(&self, name: &str) -> Result<Option<i64>> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let whole = |number: f64| (number.fract() == 0.0 && number.abs() < 9e18).then_some(number as i64);
        let integer = match value {
            Value::Number(number) => number.as_i64().or_else(|| number.as_f64().and_then(whole)),
            Value::String(text) => text.trim().parse().ok(),
            _ => None,
        };
        integer.map(Some).ok_or_else(|| self.wrong_type(name, value))
    }

    /// Returns a number, which may be given as text, `NaN` and `Infinity` included. Infinity becomes `f64::MAX`, with its
    /// sign.
    pub fn number(&self, name: &str) -> Result<Option<f64>> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let number = match value {
            Value::Number(number) => number.as_f64(),
            Value::Bool(value) => Some(f64::from(u8::from(*value))),
            Value::String(text) => text.trim().parse::<f64>().ok(),
            _ => None,
        };
        let number = number.ok_or_else(|| self.wrong_type(name, value))?;
        Ok(Some(if number.is_infinite() { f64::MAX.copysign(number) } else { number }))
    }

    pub fn boolean(&self, name: &str) -> Result<Option<bool>> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::Bool(value)) => Ok(Some(*value)),
            Some(other) => Err(self.wrong_type(name, other)),
        }
    }

    fn list(&self, name: &str) -> Result<&[Value]> {
        match self.fields.get(name) {
            None | Some(Value::Null) => Ok(&[]),
            Some(Value::Array(values)) => Ok(values),
            Some(other) => Err(self.wrong_type(name, other)),
        }
    }

    /// Returns a list of texts; empty if it is missing.
    pub fn texts(&self, name: &str) -> Result<Vec<String>> {
        let text = |value: &Value| match value {
            Value::String(text) => Ok(text.clone()),
            // Clients often write ids as numbers.
            Value::Number(number) => Ok(number.to_string()),
            other => Err(self.wrong_type(name, other)),
        };
        self.list(name)?.iter().map(text).collect()
    }

    /// Returns a list of objects; empty if it is missing.
    pub fn objects(&self, name: &str) -> Result<Vec<Args<'_>>> {
        let mut objects = Vec::new();
        for (at, value) in self.list(name)?.iter().enumerate() {
            let Value::Object(fields) = value else { return Err(self.wrong_type(name, value)) };
            let prefix = format!("{}{name}[{at}].", self.prefix);
            objects.push(Args { fields: Cow::Borrowed(fields), prefix, is_query: false });
        }
        Ok(objects)
    }

    pub fn object(&self, name: &str) -> Result<Option<Args<'_>>> {
        match self.fields.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Object(fields)) => Ok(Some(Args {
                fields: Cow::Borrowed(fields),
                prefix: self.full_name(&format!("{name}.")),
                is_query: false,
            })),
            Some(other) => Err(self.wrong_type(name, other)),
        }
    }

    /// Returns the same arguments without a borrow.
    pub fn into_owned(self) -> Args<'static> {
        let Self { fields, prefix, is_query } = self;
        Args { fields: Cow::Owned(fields.into_owned()), prefix, is_query }
    }
}

fn python_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "NoneType",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float",
        Value::Number(_) => "int",
        Value::String(_) => "str",
        Value::Array(_) => "list",
        Value::Object(_) => "dict",
    }
}

/// Puts quotes around `NaN`, `Infinity` and `-Infinity`, which Python writes without quotes although JSON has no such
/// numbers.
fn with_quoted_numbers(body: &[u8]) -> Vec<u8> {
    const NAMES: [&[u8]; 3] = [b"-Infinity", b"Infinity", b"NaN"];
    let mut quoted = Vec::with_capacity(body.len() + 16);
    let (mut at, mut in_string) = (0, false);
    while let Some(&byte) = body.get(at) {
        let name = if in_string { None } else { NAMES.into_iter().find(|name| body[at..].starts_with(name)) };
        if let Some(name) = name {
            quoted.push(b'"');
            quoted.extend_from_slice(name);
            quoted.push(b'"');
            at += name.len();
            continue;
        }
        match byte {
            b'"' => in_string = !in_string,
            b'\\' if in_string => {
                quoted.push(byte);
                at += 1;
                if let Some(&escaped) = body.get(at) {
                    quoted.push(escaped);
                }
                at += 1;
                continue;
            }
            _ => {}
        }
        quoted.push(byte);
        at += 1;
    }
    quoted
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn bodies_of_python_clients_are_parsed() {
        let args = Args::from_body(br#"{"a": NaN, "b": [-Infinity], "c": "NaN \" Infinity", "d": Infinity}"#);
        assert!(args.number("a").unwrap().unwrap().is_nan());
        assert_eq!(args.text("c").unwrap(), Some("NaN \" Infinity"));
        assert_eq!(args.number("d").unwrap(), Some(f64::MAX));
        assert_eq!(Args::from_body(br#""{\"name\":\"twice\"}""#).required("name").unwrap(), "twice");
        for broken in [&b"{bad"[..], b"", b"[1]", b"\xff", b"\"\\"] {
            assert_eq!(Args::from_body(broken).required("name").unwrap_err(), MlflowError::missing("name"));
        }
    }

    #[test]
    fn numbers_may_be_text_and_wrong_values_are_rejected() {
        let args = Args::from_body(br#"{"i": "12", "f": 1.5, "w": 2.0, "t": true, "l": [1], "big": 1e300, "n": null}"#);
        assert_eq!((args.integer("i").unwrap(), args.integer("w").unwrap()), (Some(12), Some(2)));
        assert_eq!((args.integer("n").unwrap(), args.number("t").unwrap()), (None, Some(1.0)));
        for wrong in ["f", "t", "l", "big"] {
            assert!(args.integer(wrong).is_err(), "{wrong}");
        }
        assert!(args.number("l").is_err() && args.text("f").is_err() && args.objects("i").is_err());
    }

    #[test]
    fn a_query_may_repeat_a_parameter() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let args = Args::from_pairs(vec![pair("k", "a"), pair("k", "b"), pair("n", "7")]);
        assert_eq!((args.texts("k").unwrap(), args.text("k").unwrap()), (vec!["a".into(), "b".into()], Some("b")));
        assert_eq!(args.integer("n").unwrap(), Some(7));
    }
}
