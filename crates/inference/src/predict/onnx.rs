//! Conversions between this crate's tensors and those of ONNX Runtime.

use ort::session::SessionInputValue;
use ort::value::{DynMap, DynValue, Outlet, TensorElementType, ValueType};

use super::{DataType, Dimension, Field, Output, PredictError, Tensor, TensorData};

fn data_type_of(element: TensorElementType) -> Option<DataType> {
    Some(match element {
        TensorElementType::Bool => DataType::Bool,
        TensorElementType::Int8 => DataType::Int8,
        TensorElementType::Int16 => DataType::Int16,
        TensorElementType::Int32 => DataType::Int32,
        TensorElementType::Int64 => DataType::Int64,
        TensorElementType::Uint8 => DataType::Uint8,
        TensorElementType::Uint16 => DataType::Uint16,
        TensorElementType::Uint32 => DataType::Uint32,
        TensorElementType::Uint64 => DataType::Uint64,
        TensorElementType::Float32 => DataType::Float32,
        TensorElementType::Float64 => DataType::Float64,
        TensorElementType::String => DataType::Text,
        _ => return None,
    })
}

/// The field that an input of the graph is. Fails on types that are no tensor or have no JSON form (float16, sequences).
pub(super) fn input_field(outlet: &Outlet) -> Result<Field, PredictError> {
    tensor_field(outlet.name(), outlet.dtype())
        .ok_or_else(|| PredictError::Load(format!("input {:?} has the type {}", outlet.name(), outlet.dtype())))
}

/// The field that an output of the graph is. A sequence of maps (ZipMap) counts as one Float32 column per class.
pub(super) fn output_field(outlet: &Outlet) -> Result<Field, PredictError> {
    let scores = || match outlet.dtype() {
        ValueType::Sequence(inner) if matches!(**inner, ValueType::Map { value: TensorElementType::Float32, .. }) => {
            let shape = vec![Dimension::Free, Dimension::Free];
            Some(Field { name: outlet.name().to_owned(), data_type: DataType::Float32, shape })
        }
        _ => None,
    };
    tensor_field(outlet.name(), outlet.dtype())
        .or_else(scores)
        .ok_or_else(|| PredictError::Load(format!("output {:?} has the type {}", outlet.name(), outlet.dtype())))
}

fn tensor_field(name: &str, value_type: &ValueType) -> Option<Field> {
    let ValueType::Tensor { ty, shape, .. } = value_type else { return None };
    let shape = shape.iter().map(|size| usize::try_from(*size).map_or(Dimension::Free, Dimension::Fixed)).collect();
    Some(Field { name: name.to_owned(), data_type: data_type_of(*ty)?, shape })
}

/// Moves a tensor into a value of ONNX Runtime; only strings are copied.
pub(super) fn to_value(tensor: Tensor) -> Result<(String, SessionInputValue<'static>), PredictError> {
    let name = tensor.name().to_owned();
    let shape = tensor.shape().to_vec();
    macro_rules! owned {
        ($values:expr) => {
            ort::value::Tensor::from_array((shape, $values)).map(|value| value.into_dyn())
        };
    }
    let value = match tensor.into_data() {
        TensorData::Bool(values) => owned!(values),
        TensorData::Int8(values) => owned!(values),
        TensorData::Int16(values) => owned!(values),
        TensorData::Int32(values) => owned!(values),
        TensorData::Int64(values) => owned!(values),
        TensorData::Uint8(values) => owned!(values),
        TensorData::Uint16(values) => owned!(values),
        TensorData::Uint32(values) => owned!(values),
        TensorData::Uint64(values) => owned!(values),
        TensorData::Float32(values) => owned!(values),
        TensorData::Float64(values) => owned!(values),
        TensorData::Text(values) => {
            ort::value::Tensor::from_string_array((shape, values.as_slice())).map(|value| value.into_dyn())
        }
    };
    // A string with a NUL byte is the one tensor that ONNX Runtime does not take.
    let value = value.map_err(|error| PredictError::input(None, Some(&name), error.to_string()))?;
    Ok((name, value.into()))
}

/// Copies an output out of ONNX Runtime.
pub(super) fn from_value(name: &str, value: &DynValue) -> Result<Output, PredictError> {
    match value.dtype() {
        ValueType::Tensor { ty, .. } => Ok(Output::Tensor(tensor_of(name, *ty, value)?)),
        ValueType::Sequence(_) => Ok(Output::Scores { name: name.to_owned(), rows: scores_of(value)? }),
        other => Err(PredictError::Run(format!("output {name:?} has the type {other}"))),
    }
}

fn tensor_of(name: &str, element: TensorElementType, value: &DynValue) -> Result<Tensor, PredictError> {
    macro_rules! copied {
        ($element:ty, $variant:ident) => {{
            let (shape, values) = value.try_extract_tensor::<$element>().map_err(failed)?;
            (shape, TensorData::$variant(values.to_vec()))
        }};
    }
    let (shape, data) = match data_type_of(element) {
        Some(DataType::Bool) => copied!(bool, Bool),
        Some(DataType::Int8) => copied!(i8, Int8),
        Some(DataType::Int16) => copied!(i16, Int16),
        Some(DataType::Int32) => copied!(i32, Int32),
        Some(DataType::Int64) => copied!(i64, Int64),
        Some(DataType::Uint8) => copied!(u8, Uint8),
        Some(DataType::Uint16) => copied!(u16, Uint16),
        Some(DataType::Uint32) => copied!(u32, Uint32),
        Some(DataType::Uint64) => copied!(u64, Uint64),
        Some(DataType::Float32) => copied!(f32, Float32),
        Some(DataType::Float64) => copied!(f64, Float64),
        Some(DataType::Text) => {
            let (shape, values) = value.try_extract_strings().map_err(failed)?;
            (shape, TensorData::Text(values))
        }
        None => return Err(PredictError::Run(format!("output {name:?} has elements of the type {element}"))),
    };
    let shape = shape.iter().map(|size| usize::try_from(*size).unwrap_or(0)).collect();
    Tensor::new(name, shape, data).map_err(PredictError::Run)
}

/// A ZipMap: a sequence of maps from class to score. Classes are integers or strings.
fn scores_of(value: &DynValue) -> Result<Vec<Vec<(String, f32)>>, PredictError> {
    let maps = value.try_extract_sequence::<ort::value::DynMapValueType>().map_err(failed)?;
    maps.iter().map(scores_of_row).collect()
}

fn scores_of_row(map: &DynMap) -> Result<Vec<(String, f32)>, PredictError> {
    let by_integer = matches!(map.dtype(), ValueType::Map { key: TensorElementType::Int64, .. });
    let mut scores: Vec<(String, f32)> = if by_integer {
        let pairs = map.try_extract_key_values::<i64, f32>().map_err(failed)?;
        pairs.into_iter().map(|(class, score)| (class.to_string(), score)).collect()
    } else {
        map.try_extract_key_values::<String, f32>().map_err(failed)?
    };
    scores.sort_by(|(a, _), (b, _)| a.cmp(b));
    Ok(scores)
}

pub(super) fn failed(error: ort::Error) -> PredictError {
    PredictError::Run(error.to_string())
}
