//! What a model takes and returns: the tensors of its graph, and the columns that its `MLmodel` file declares.

use std::fmt;

use serde::Deserialize;

use super::{DataType, PredictError};

/// One dimension of a tensor's shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dimension {
    Fixed(usize),
    /// Any size: the batch, or another free dimension.
    Free,
}

impl fmt::Display for Dimension {
    /// `-1` for a free dimension, as ONNX and the Open Inference Protocol write it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(size) => write!(f, "{size}"),
            Self::Free => f.write_str("-1"),
        }
    }
}

/// One input or output tensor of a model. The first dimension is the batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    pub name: String,
    pub data_type: DataType,
    pub shape: Vec<Dimension>,
}

impl Field {
    /// The shape of one row: all dimensions but the first.
    pub fn row_shape(&self) -> &[Dimension] {
        self.shape.get(1..).unwrap_or_default()
    }

    /// True if a row of this field is one element: shape `[n]` or `[n, 1]`.
    pub fn is_column(&self) -> bool {
        self.shape.len() == 1 || self.row_shape() == [Dimension::Fixed(1)]
    }

    /// The number of columns where a row is a vector: the second of exactly two dimensions.
    pub fn width(&self) -> Option<Dimension> {
        match self.row_shape() {
            [width] => Some(*width),
            _ => None,
        }
    }

    /// True if a tensor of that shape fits: the same number of dimensions, and the fixed ones equal.
    pub(super) fn takes(&self, shape: &[usize]) -> bool {
        let fits = |(expected, found): (&Dimension, &usize)| match expected {
            Dimension::Fixed(size) => size == found,
            Dimension::Free => true,
        };
        self.shape.len() == shape.len() && self.shape.iter().zip(shape).all(fits)
    }

    fn shape_text(&self) -> String {
        let sizes: Vec<String> = self.shape.iter().map(Dimension::to_string).collect();
        format!("[{}]", sizes.join(", "))
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} {}", self.name, self.data_type, self.shape_text())
    }
}

/// One column of a table, as a model's signature declares it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    pub name: String,
    /// False: a row may leave it out, where the element type can say "missing" (NaN).
    pub required: bool,
}

/// How the columns of a row become the model's input tensors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Layout {
    /// All columns of a row, in this order, are the vector of the one input.
    Matrix(Vec<Column>),
    /// Each input is named like a field of the row, which holds its value: a scalar or nested arrays.
    Fields,
}

/// What a model takes and returns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    pub inputs: Vec<Field>,
    pub outputs: Vec<Field>,
    pub layout: Layout,
    /// Names of the columns that a row may leave out.
    optional: Vec<String>,
}

/// The input columns that an `MLmodel` file declares, in order; empty where it declares none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Declared {
    pub columns: Vec<Column>,
}

#[derive(Deserialize)]
struct MlflowColumn {
    name: Option<String>,
    #[serde(rename = "type")]
    kind: String,
    #[serde(default = "yes")]
    required: bool,
}

fn yes() -> bool {
    true
}

impl Declared {
    /// Parses `signature.inputs` of an `MLmodel` file: JSON, a list of columns or of tensors.
    ///
    /// A tensor without a name, as MLflow writes it for a NumPy input, declares no column.
    pub fn from_mlflow(inputs: &str) -> Result<Self, PredictError> {
        let columns: Vec<MlflowColumn> = serde_json::from_str(inputs)
            .map_err(|error| PredictError::Load(format!("signature.inputs of MLmodel: {error}")))?;
        let columns = columns.into_iter().filter(|column| column.kind != "tensor");
        let columns =
            columns.filter_map(|column| Some(Column { name: column.name?, required: column.required })).collect();
        Ok(Self { columns })
    }
}

impl Signature {
    /// Joins the graph's tensors with the declared columns.
    ///
    /// One input of shape `[n, k]` with k declared columns is a matrix of them. Otherwise rows name the inputs.
    pub fn new(inputs: Vec<Field>, outputs: Vec<Field>, declared: &Declared) -> Result<Self, PredictError> {
        let columns = &declared.columns;
        let layout = match inputs.as_slice() {
            [only] if !columns.is_empty() && !names(columns, only) => {
                let fits = match only.width() {
                    Some(Dimension::Fixed(width)) => width == columns.len(),
                    Some(Dimension::Free) => true,
                    None => false,
                };
                if !fits {
                    let declared = columns.len();
                    return Err(PredictError::Load(format!(
                        "its signature declares {declared} columns, but its input is {only}"
                    )));
                }
                Layout::Matrix(columns.clone())
            }
            _ => Layout::Fields,
        };
        let optional = columns.iter().filter(|column| !column.required).map(|column| column.name.clone()).collect();
        Ok(Self { inputs, outputs, layout, optional })
    }

    /// True if a row may leave the field out: it is declared so, and its type has a value for "missing" (NaN).
    pub(super) fn may_lack(&self, field: &Field) -> bool {
        field.data_type.is_float() && field.is_column() && self.optional.contains(&field.name)
    }
}

/// True if the declared columns are the input itself.
fn names(columns: &[Column], field: &Field) -> bool {
    matches!(columns, [column] if column.name == field.name)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn field(name: &str, shape: &[i64]) -> Field {
        let shape = shape.iter().map(|size| usize::try_from(*size).map_or(Dimension::Free, Dimension::Fixed)).collect();
        Field { name: name.to_owned(), data_type: DataType::Float32, shape }
    }

    fn declared(names: &[&str]) -> Declared {
        let columns = names.iter().map(|name| Column { name: (*name).to_owned(), required: true }).collect();
        Declared { columns }
    }

    #[test]
    fn declared_columns_are_the_vector_of_a_single_input() {
        let signature = Signature::new(vec![field("X", &[-1, 2])], vec![], &declared(&["a", "b"])).unwrap();
        assert_eq!(signature.layout, Layout::Matrix(declared(&["a", "b"]).columns));
        let free = Signature::new(vec![field("X", &[-1, -1])], vec![], &declared(&["a", "b"])).unwrap();
        assert_eq!(free.layout, signature.layout);
    }

    #[test]
    fn inputs_with_names_are_fields() {
        for (inputs, columns) in [
            (vec![field("a", &[-1, 1]), field("b", &[-1, 1])], declared(&["a", "b"])),
            (vec![field("X", &[-1, 2])], declared(&[])),
            (vec![field("X", &[-1, 2])], declared(&["X"])),
        ] {
            assert_eq!(Signature::new(inputs, vec![], &columns).unwrap().layout, Layout::Fields);
        }
    }

    #[test]
    fn columns_that_do_not_fit_the_graph_are_rejected() {
        for input in [field("X", &[-1, 3]), field("X", &[-1, 2, 2]), field("X", &[-1])] {
            let error = Signature::new(vec![input], vec![], &declared(&["a", "b"])).unwrap_err();
            assert!(error.to_string().contains("declares 2 columns"), "{error}");
        }
    }

    #[test]
    fn a_signature_of_mlflow_is_read() {
        let columns = r#"[{"type": "double", "name": "spot", "required": true}, {"type": "double", "name": "lag", "required": false}]"#;
        let read = Declared::from_mlflow(columns).unwrap();
        assert_eq!(
            read.columns.iter().map(|each| (each.name.as_str(), each.required)).collect::<Vec<_>>(),
            [("spot", true), ("lag", false)]
        );
        let tensor = r#"[{"type": "tensor", "tensor-spec": {"dtype": "float32", "shape": [-1, 4]}}]"#;
        assert_eq!(Declared::from_mlflow(tensor).unwrap(), Declared::default());
        for broken in ["", "{}", "[1]", r#"[{"name": "a"}]"#] {
            assert!(matches!(Declared::from_mlflow(broken), Err(PredictError::Load(_))), "{broken}");
        }
    }
}
