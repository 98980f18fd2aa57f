#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;
use crate::predict::{DataType, Declared};

fn field(name: &str, data_type: DataType, shape: &[i64]) -> Field {
    let shape = shape.iter().map(|size| usize::try_from(*size).map_or(Dimension::Free, Dimension::Fixed)).collect();
    Field { name: name.to_owned(), data_type, shape }
}

fn declared(columns: &[(&str, bool)]) -> Declared {
    let columns = columns.iter().map(|(name, required)| Column { name: (*name).to_owned(), required: *required });
    Declared { columns: columns.collect() }
}

fn matrix_of(data_type: DataType) -> Signature {
    Signature::new(vec![field("X", data_type, &[-1, 2])], vec![], &declared(&[("spot", true), ("lag", false)])).unwrap()
}

fn fields(inputs: Vec<Field>) -> Signature {
    Signature::new(inputs, vec![], &Declared::default()).unwrap()
}

fn rows(values: Value) -> Vec<Row> {
    values.as_array().unwrap().iter().map(|row| row.as_object().unwrap().clone()).collect()
}

fn fault(signature: &Signature, values: Value) -> String {
    rows_to_tensors(signature, &rows(values)).unwrap_err().to_string()
}

#[test]
fn columns_become_a_matrix_in_the_declared_order() {
    let tensors = rows_to_tensors(
        &matrix_of(DataType::Float32),
        &rows(json!([{"lag": 2, "spot": 1.5}, {"spot": 3, "lag": null}, {"spot": 4}])),
    )
    .unwrap();
    let [tensor] = tensors.as_slice() else { panic!("{tensors:?}") };
    assert_eq!((tensor.name(), tensor.shape()), ("X", &[3, 2][..]));
    let TensorData::Float32(values) = tensor.data() else { panic!("{tensor:?}") };
    assert_eq!(values[..3], [1.5, 2.0, 3.0]);
    assert!(values[3].is_nan() && values[4] == 4.0 && values[5].is_nan());
}

#[test]
fn a_fault_names_row_and_column() {
    let floats = matrix_of(DataType::Float32);
    assert_eq!(fault(&floats, json!([{"spot": 1}, {"lag": 1}])), "row 1, column \"spot\": the column is missing");
    assert_eq!(
        fault(&floats, json!([{"spot": 1, "lag": 1, "extra": 0}])),
        "row 0, column \"extra\": the model has no such column"
    );
    assert_eq!(fault(&floats, json!([{"spot": "x"}])), "row 0, column \"spot\": expected a number, found a string");
    assert!(fault(&floats, json!([{"spot": 1e300}])).contains("out of the range of a 32-bit float"));
    assert_eq!(fault(&floats, json!([])), "there is no row to predict");
    let integers = matrix_of(DataType::Int64);
    assert!(fault(&integers, json!([{"spot": 1, "lag": null}])).contains("expected an integer, found null"));
    assert!(fault(&integers, json!([{"spot": 1}])).contains("the column is missing"), "an integer cannot be missing");
    assert!(fault(&integers, json!([{"spot": 1.5, "lag": 1}])).contains("expected an integer, found 1.5"));
    assert!(fault(&integers, json!([{"spot": 1e19, "lag": 1}])).contains("expected an integer"));
}

#[test]
fn fields_hold_scalars_strings_and_nested_arrays() {
    let signature = fields(vec![
        field("price", DataType::Float64, &[-1, 1]),
        field("hub", DataType::Text, &[-1, 1]),
        field("count", DataType::Uint8, &[-1]),
        field("window", DataType::Float32, &[-1, 2, -1]),
    ]);
    let tensors = rows_to_tensors(
        &signature,
        &rows(json!([
            {"price": 2.5, "hub": "henry", "count": 3.0, "window": [[1, 2, 3], [4, 5, 6]]},
            {"price": [3], "hub": "ttf", "count": 255, "window": [[7, 8, 9], [0, 0, 0]]},
        ])),
    )
    .unwrap();
    let shapes: Vec<_> = tensors.iter().map(|tensor| (tensor.name(), tensor.shape().to_vec())).collect();
    let expected = [("price", vec![2, 1]), ("hub", vec![2, 1]), ("count", vec![2]), ("window", vec![2, 2, 3])];
    assert_eq!(shapes, expected);
    assert_eq!(tensors[1].data(), &TensorData::Text(vec!["henry".into(), "ttf".into()]));
    assert_eq!(tensors[2].data(), &TensorData::Uint8(vec![3, 255]));
}

#[test]
fn shapes_that_do_not_fit_are_rejected() {
    let signature = fields(vec![field("w", DataType::Float32, &[-1, 2, -1])]);
    for (values, expected) in [
        (json!([{"w": 1}]), "expected an array of 2 dimension(s)"),
        (json!([{"w": [1, 2]}]), "expected an array of 1 dimension(s)"),
        (json!([{"w": [[1]]}]), "expected 2 elements in dimension 0, found 1"),
        (json!([{"w": [[1, 2], [3]]}]), "ragged arrays"),
        (json!([{"w": [[[1]], [[2]]]}]), "expected a number, found an array"),
        (
            json!([{"w": [[1], [2]]}, {"w": [[1, 2], [3, 4]]}]),
            "row 1, column \"w\": its shape is [2, 2], that of the first row is [2, 1]",
        ),
    ] {
        let message = fault(&signature, values.clone());
        assert!(message.contains(expected), "{values}: {message}");
    }
    assert!(
        fault(&fields(vec![field("n", DataType::Uint8, &[-1])]), json!([{"n": 256}]))
            .contains("out of the range of u8")
    );
    assert!(fault(&fields(vec![field("n", DataType::Bool, &[-1])]), json!([{"n": 1}])).contains("expected a boolean"));
}

fn tensor(name: &str, shape: &[usize], data: TensorData) -> Output {
    Output::Tensor(Tensor::new(name, shape.to_vec(), data).unwrap())
}

#[test]
fn outputs_become_one_value_a_row() {
    let single = [tensor("y", &[2, 1], TensorData::Float32(vec![1.0, f32::NAN]))];
    assert_eq!(outputs_to_rows(&single, 2).unwrap(), [json!(1.0), json!(null)]);
    let wide = [tensor("y", &[2, 2], TensorData::Float64(vec![1.0, 2.0, 3.0, 4.0]))];
    assert_eq!(outputs_to_rows(&wide, 2).unwrap(), [json!([1.0, 2.0]), json!([3.0, 4.0])]);
    let several = [
        tensor("label", &[2], TensorData::Text(vec!["up".into(), "down".into()])),
        Output::Scores { name: "scores".into(), rows: vec![vec![("up".into(), 0.5)], vec![("up".into(), 0.25)]] },
    ];
    let expected = [json!({"label": "up", "scores": {"up": 0.5}}), json!({"label": "down", "scores": {"up": 0.25}})];
    assert_eq!(outputs_to_rows(&several, 2).unwrap(), expected);
    let error = outputs_to_rows(&single, 3).unwrap_err();
    assert_eq!(error.to_string(), "the model failed: output \"y\" has 2 rows for 3 rows of input");
}

proptest! {
    /// Whatever a caller sends, it is a tensor of the right size or an error; nothing panics.
    #[test]
    fn any_json_is_taken_or_rejected(values in proptest::collection::vec(any_value(), 1..4)) {
        let rows: Vec<Row> = values.into_iter().map(|value| Row::from_iter([("w".to_owned(), value)])).collect();
        for data_type in DataType::ALL {
            for shape in [&[-1][..], &[-1, 1], &[-1, -1], &[-1, 2, -1]] {
                if let Ok(tensors) = rows_to_tensors(&fields(vec![field("w", data_type, shape)]), &rows) {
                    prop_assert_eq!(tensors[0].rows(), rows.len());
                    let back = outputs_to_rows(&[Output::Tensor(tensors[0].clone())], rows.len()).unwrap();
                    prop_assert_eq!(back.len(), rows.len());
                }
            }
        }
    }
}

fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        (0i64..3).prop_map(Value::from),
        "[a-z]{0,3}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 3, |inner| proptest::collection::vec(inner, 0..3).prop_map(Value::from))
}
