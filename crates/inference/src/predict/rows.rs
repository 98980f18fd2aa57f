//! JSON rows to input tensors, and output tensors to JSON values, one per row.

use serde_json::{Map, Number, Value, json};

use super::signature::Column;
use super::tensor::with_elements;
use super::{Dimension, Field, Layout, PredictError, Signature, Tensor, TensorData};

/// A row of a table: a value per column.
pub type Row = Map<String, Value>;

/// One output of a model.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    Tensor(Tensor),
    /// A score per class and row, as scikit-learn classifiers return it that are exported with a ZipMap.
    Scores {
        name: String,
        rows: Vec<Vec<(String, f32)>>,
    },
}

/// Converts rows to the model's input tensors, one batch of `rows.len()`.
///
/// Errors name the row (from 0) and the column: a missing or extra column, a value of another type, a number out of
/// range, or rows of different shapes. `null` is a missing value (NaN) of a float column, and an error elsewhere.
pub fn rows_to_tensors(signature: &Signature, rows: &[Row]) -> Result<Vec<Tensor>, PredictError> {
    if rows.is_empty() {
        return Err(PredictError::input(None, None, "there is no row to predict"));
    }
    match (&signature.layout, signature.inputs.as_slice()) {
        (Layout::Matrix(columns), [input]) => Ok(vec![matrix(input, columns, rows)?]),
        _ => {
            for (index, row) in rows.iter().enumerate() {
                reject_extra(index, row, |name| signature.inputs.iter().any(|field| field.name == name))?;
            }
            signature.inputs.iter().map(|field| stacked(signature, field, rows)).collect()
        }
    }
}

fn reject_extra(index: usize, row: &Row, known: impl Fn(&str) -> bool) -> Result<(), PredictError> {
    match row.keys().find(|name| !known(name)) {
        None => Ok(()),
        Some(name) => Err(PredictError::input(Some(index), Some(name), "the model has no such column")),
    }
}

/// The tensor `[rows, columns]` of a model with a single input.
fn matrix(input: &Field, columns: &[Column], rows: &[Row]) -> Result<Tensor, PredictError> {
    let mut data = TensorData::with_capacity(input.data_type, rows.len() * columns.len());
    for (index, row) in rows.iter().enumerate() {
        let mut found = 0;
        for column in columns {
            let fault = |reason| PredictError::Input { row: Some(index), column: Some(column.name.clone()), reason };
            match row.get(&column.name) {
                Some(value) => {
                    found += 1;
                    push(&mut data, value).map_err(fault)?;
                }
                None if !column.required && input.data_type.is_float() => {
                    push(&mut data, &Value::Null).map_err(fault)?;
                }
                None => return Err(fault("the column is missing".to_owned())),
            }
        }
        if found < row.len() {
            reject_extra(index, row, |name| columns.iter().any(|column| column.name == name))?;
        }
    }
    Tensor::new(&input.name, vec![rows.len(), columns.len()], data).map_err(PredictError::Run)
}

/// The tensor of one input: the values that the rows have under its name, one after the other.
fn stacked(signature: &Signature, field: &Field, rows: &[Row]) -> Result<Tensor, PredictError> {
    let mut data = TensorData::with_capacity(field.data_type, rows.len());
    let mut shape: Option<Vec<usize>> = None;
    for (index, row) in rows.iter().enumerate() {
        let fault = |reason| PredictError::Input { row: Some(index), column: Some(field.name.clone()), reason };
        let value = match row.get(&field.name) {
            Some(value) => value,
            None if signature.may_lack(field) => &Value::Null,
            None => return Err(fault("the column is missing".to_owned())),
        };
        let found = push_nested(&mut data, value, field).map_err(fault)?;
        match &shape {
            None => shape = Some(found),
            Some(first) if *first == found => {}
            Some(first) => {
                return Err(fault(format!("its shape is {found:?}, that of the first row is {first:?}")));
            }
        }
    }
    let mut whole = vec![rows.len()];
    whole.extend(shape.unwrap_or_default());
    Tensor::new(&field.name, whole, data).map_err(PredictError::Run)
}

/// Appends a scalar or nested arrays; returns the shape of the row, without the batch dimension.
fn push_nested(data: &mut TensorData, value: &Value, field: &Field) -> Result<Vec<usize>, String> {
    // `[n, 1]` takes a scalar as well as an array of one.
    if field.is_column() && !value.is_array() {
        push(data, value)?;
        return Ok(vec![1; field.row_shape().len()]);
    }
    let mut shape = Vec::with_capacity(field.row_shape().len());
    push_array(data, value, field.row_shape(), 0, &mut shape)?;
    Ok(shape)
}

fn push_array(
    data: &mut TensorData,
    value: &Value,
    expected: &[Dimension],
    depth: usize,
    shape: &mut Vec<usize>,
) -> Result<(), String> {
    let Some(dimension) = expected.get(depth) else { return push(data, value) };
    let Value::Array(items) = value else {
        return Err(format!("expected an array of {} dimension(s)", expected.len() - depth));
    };
    match (shape.get(depth), dimension) {
        (Some(size), _) if *size != items.len() => {
            return Err(format!("ragged arrays: {} and {} elements in dimension {depth}", size, items.len()));
        }
        (None, Dimension::Fixed(size)) if *size != items.len() => {
            return Err(format!("expected {size} elements in dimension {depth}, found {}", items.len()));
        }
        (None, _) => shape.push(items.len()),
        _ => {}
    }
    items.iter().try_for_each(|item| push_array(data, item, expected, depth + 1, shape))
}

/// Appends one JSON value, converted to the element type.
fn push(data: &mut TensorData, value: &Value) -> Result<(), String> {
    match data {
        TensorData::Bool(values) => values.push(value.as_bool().ok_or_else(|| wrong_type("a boolean", value))?),
        TensorData::Int8(values) => values.push(integer(value)?),
        TensorData::Int16(values) => values.push(integer(value)?),
        TensorData::Int32(values) => values.push(integer(value)?),
        TensorData::Int64(values) => values.push(integer(value)?),
        TensorData::Uint8(values) => values.push(integer(value)?),
        TensorData::Uint16(values) => values.push(integer(value)?),
        TensorData::Uint32(values) => values.push(integer(value)?),
        TensorData::Uint64(values) => values.push(integer(value)?),
        TensorData::Float32(values) => {
            let wide = float(value)?;
            let narrow = wide as f32;
            if narrow.is_infinite() && wide.is_finite() {
                return Err(format!("{wide} is out of the range of a 32-bit float"));
            }
            values.push(narrow);
        }
        TensorData::Float64(values) => values.push(float(value)?),
        TensorData::Text(values) => {
            values.push(value.as_str().ok_or_else(|| wrong_type("a string", value))?.to_owned())
        }
    }
    Ok(())
}

fn float(value: &Value) -> Result<f64, String> {
    match value {
        Value::Null => Ok(f64::NAN),
        Value::Number(number) => number.as_f64().ok_or_else(|| format!("{number} is not a 64-bit float")),
        other => Err(wrong_type("a number", other)),
    }
}

/// An integer, also where it is written with a zero fraction: `3.0`.
fn integer<T: TryFrom<i64> + TryFrom<u64>>(value: &Value) -> Result<T, String> {
    let Value::Number(number) = value else { return Err(wrong_type("an integer", value)) };
    let out_of_range = || format!("{number} is out of the range of {}", std::any::type_name::<T>());
    if let Some(signed) = number.as_i64() {
        return T::try_from(signed).map_err(|_| out_of_range());
    }
    if let Some(unsigned) = number.as_u64() {
        return T::try_from(unsigned).map_err(|_| out_of_range());
    }
    match number.as_f64() {
        // Above 2^53 a float does not say which integer is meant.
        Some(float) if float.fract() == 0.0 && float.abs() <= 9_007_199_254_740_992.0 => {
            T::try_from(float as i64).map_err(|_| out_of_range())
        }
        _ => Err(format!("expected an integer, found {number}")),
    }
}

fn wrong_type(expected: &str, value: &Value) -> String {
    let found = match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    };
    format!("expected {expected}, found {found}")
}

/// Converts a model's outputs to one JSON value per row.
///
/// With one output a value is its row: a scalar for `[n]` and `[n, 1]`, else nested arrays. With several it is an object
/// by output name. NaN and infinities are `null`: JSON has no such numbers. Fails where an output has another number of rows.
pub fn outputs_to_rows(outputs: &[Output], rows: usize) -> Result<Vec<Value>, PredictError> {
    for output in outputs {
        let (name, found) = match output {
            Output::Tensor(tensor) => (tensor.name(), tensor.rows()),
            Output::Scores { name, rows } => (name.as_str(), rows.len()),
        };
        if found != rows {
            return Err(PredictError::Run(format!("output {name:?} has {found} rows for {rows} rows of input")));
        }
    }
    let value = |row| match outputs {
        [only] => row_of(only, row),
        several => Value::Object(
            several
                .iter()
                .map(|output| match output {
                    Output::Tensor(tensor) => (tensor.name().to_owned(), row_of(output, row)),
                    Output::Scores { name, .. } => (name.clone(), row_of(output, row)),
                })
                .collect(),
        ),
    };
    Ok((0..rows).map(value).collect())
}

fn row_of(output: &Output, row: usize) -> Value {
    match output {
        Output::Scores { rows, .. } => Value::Object(
            rows[row].iter().map(|(class, score)| (class.clone(), float_value(f64::from(*score)))).collect(),
        ),
        Output::Tensor(tensor) => {
            let shape = tensor.shape().get(1..).unwrap_or_default();
            let size: usize = shape.iter().product();
            let first = row * size;
            match shape {
                [] | [1] => element(tensor.data(), first),
                _ => nested(tensor.data(), shape, first),
            }
        }
    }
}

fn nested(data: &TensorData, shape: &[usize], first: usize) -> Value {
    let Some((size, inner)) = shape.split_first() else { return element(data, first) };
    let step: usize = inner.iter().product();
    Value::Array((0..*size).map(|at| nested(data, inner, first + at * step)).collect())
}

fn element(data: &TensorData, at: usize) -> Value {
    match data {
        TensorData::Float32(values) => float_value(f64::from(values[at])),
        TensorData::Float64(values) => float_value(values[at]),
        other => with_elements!(other, values => json!(values[at])),
    }
}

fn float_value(value: f64) -> Value {
    Number::from_f64(value).map_or(Value::Null, Value::Number)
}

#[cfg(test)]
#[path = "rows/tests.rs"]
mod tests;
