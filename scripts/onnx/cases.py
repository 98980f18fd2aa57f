#!/usr/bin/env python3
"""Exports models of several libraries to ONNX, each with rows and what onnxruntime answers to them.

Each case is a folder of OUT: `model.onnx`, and `case.json` with the rows, the declared columns and the expected outputs.
`cargo run -p carbon-inference --example onnx_cases -- OUT` loads each model, compares the answers and measures.

  python="$(scripts/python_env.sh -r scripts/onnx/requirements.txt)"
  $python scripts/onnx/cases.py /tmp/onnx-cases

exit: 0 all exported, 1 one could not be, 2 wrong usage
"""

import json
import sys
import warnings
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

ROWS = 1000
COLUMNS = ["spot", "lag_1", "lag_7", "storage", "degree_days", "volume"]
HUBS = np.array(["henry", "ttf", "nbp"])


def table(seed=7):
    """Six numeric features, a hub, and two targets."""
    random = np.random.default_rng(seed)
    numbers = random.normal(size=(ROWS, len(COLUMNS))).astype(np.float32)
    hub = HUBS[random.integers(0, len(HUBS), ROWS)]
    price = numbers @ np.array([3, -2, 1, 0.5, 0, 1.5]) + (hub == "ttf") * 2 + random.normal(scale=0.1, size=ROWS)
    return numbers, hub, price.astype(np.float32), (price > 0).astype(np.int64), np.digitize(price, [-2, 2])


def scikit_learn():
    from sklearn import (decomposition, ensemble, impute, linear_model, naive_bayes, neighbors, neural_network,
                         pipeline, preprocessing, svm, tree)
    scaled = lambda model: pipeline.make_pipeline(preprocessing.StandardScaler(), model)
    small = {"n_estimators": 20, "random_state": 7}
    numbers, _, price, up, band = table()
    names = np.array(["down", "flat", "up"])[band]
    horizons = np.stack([price * (1 + 0.1 * step) for step in range(5)], axis=1)
    missing = numbers.copy()
    missing[::7, 2] = np.nan
    yield "linear regression", linear_model.LinearRegression(), numbers, price
    yield "linear regression, 5 horizons", linear_model.LinearRegression(), numbers, horizons
    yield "ridge, scaled", scaled(linear_model.Ridge()), numbers, price
    yield "elastic net", linear_model.ElasticNet(alpha=0.01), numbers, price
    yield "polynomial features", pipeline.make_pipeline(preprocessing.PolynomialFeatures(2), linear_model.Ridge()), numbers, price
    yield "principal components", pipeline.make_pipeline(decomposition.PCA(3), linear_model.Ridge()), numbers, price
    yield "imputer, missing values", pipeline.make_pipeline(impute.SimpleImputer(), linear_model.Ridge()), missing, price
    yield "logistic regression", linear_model.LogisticRegression(), numbers, up
    yield "logistic regression, 3 classes by name", linear_model.LogisticRegression(), numbers, names
    yield "decision tree", tree.DecisionTreeRegressor(max_depth=6, random_state=7), numbers, price
    yield "random forest", ensemble.RandomForestRegressor(**small), numbers, price
    yield "random forest, 2 classes", ensemble.RandomForestClassifier(**small), numbers, up
    yield "random forest, 3 classes by name", ensemble.RandomForestClassifier(**small), numbers, names
    yield "extra trees", ensemble.ExtraTreesRegressor(**small), numbers, price
    yield "gradient boosting", ensemble.GradientBoostingRegressor(**small), numbers, price
    yield "gradient boosting, 2 classes", ensemble.GradientBoostingClassifier(**small), numbers, up
    yield "support vectors", scaled(svm.SVR()), numbers, price
    yield "support vectors, 2 classes", scaled(svm.SVC()), numbers, up
    yield "nearest neighbours", neighbors.KNeighborsRegressor(), numbers, price
    yield "naive Bayes, 3 classes", naive_bayes.GaussianNB(), numbers, band
    yield "perceptron", scaled(neural_network.MLPRegressor(hidden_layer_sizes=(16, 8), max_iter=300, random_state=7)), numbers, price
    yield "perceptron, 3 classes", scaled(neural_network.MLPClassifier(hidden_layer_sizes=(16,), max_iter=300, random_state=7)), numbers, band


def export_scikit_learn():
    from skl2onnx import to_onnx
    for name, model, features, target in scikit_learn():
        model.fit(features, target)
        options = {} if not hasattr(model, "classes_") else {"zipmap": False}
        yield "scikit-learn", name, to_onnx(model, features[:1], options=options or None), features, COLUMNS
    yield from export_columns()
    from sklearn.linear_model import LogisticRegression
    numbers, _, _, up, _ = table()
    model = LogisticRegression().fit(numbers, up)
    yield "scikit-learn", "logistic regression with a ZipMap", to_onnx(model, numbers[:1]), numbers, COLUMNS


def export_columns():
    """A pipeline over a data frame: one input per column, one of them text."""
    import pandas
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import FloatTensorType, StringTensorType
    from sklearn.compose import ColumnTransformer
    from sklearn.linear_model import Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler
    numbers, hub, price, _, _ = table()
    frame = pandas.DataFrame({"spot": numbers[:, 0], "storage": numbers[:, 3], "hub": hub})
    columns = ColumnTransformer([("numbers", StandardScaler(), ["spot", "storage"]), ("hub", OneHotEncoder(), ["hub"])])
    model = make_pipeline(columns, Ridge()).fit(frame, price)
    types = [("spot", FloatTensorType([None, 1])), ("storage", FloatTensorType([None, 1])), ("hub", StringTensorType([None, 1]))]
    inputs = {"spot": numbers[:, :1], "storage": numbers[:, 3:4], "hub": hub.reshape(-1, 1).astype(object)}
    yield "scikit-learn", "scaler and one-hot encoder by column", to_onnx(model, initial_types=types), inputs, None


def export_boosting():
    import lightgbm
    import onnxmltools
    import xgboost
    from onnxmltools.convert.common.data_types import FloatTensorType
    numbers, _, price, up, band = table()
    types = [("input", FloatTensorType([None, len(COLUMNS)]))]
    for name, model, target in (("regressor", xgboost.XGBRegressor(n_estimators=50), price),
                                ("2 classes", xgboost.XGBClassifier(n_estimators=50), up),
                                ("3 classes", xgboost.XGBClassifier(n_estimators=50), band)):
        yield "XGBoost", name, onnxmltools.convert_xgboost(model.fit(numbers, target), initial_types=types), numbers, COLUMNS
    for name, model, target in (("regressor", lightgbm.LGBMRegressor(n_estimators=50, verbose=-1), price),
                                ("2 classes", lightgbm.LGBMClassifier(n_estimators=50, verbose=-1), up),
                                ("3 classes", lightgbm.LGBMClassifier(n_estimators=50, verbose=-1), band)):
        converted = onnxmltools.convert_lightgbm(model.fit(numbers, target), initial_types=types, zipmap=False)
        yield "LightGBM", name, converted, numbers, COLUMNS


def export_graphs():
    """Small networks as PyTorch exports them: several inputs, a free dimension, integers."""
    random = np.random.default_rng(7)
    weights = lambda name, *shape: numpy_helper.from_array(random.normal(size=shape).astype(np.float32), name)
    graph = helper.make_graph(
        [helper.make_node("Conv", ["window", "filter"], ["c"], kernel_shape=[3], pads=[1, 1]),
         helper.make_node("Relu", ["c"], ["r"]), helper.make_node("GlobalAveragePool", ["r"], ["p"]),
         helper.make_node("Flatten", ["p"], ["f"]), helper.make_node("MatMul", ["f", "w"], ["forecast"])],
        "window", [helper.make_tensor_value_info("window", TensorProto.FLOAT, ["n", 2, "length"])],
        [helper.make_tensor_value_info("forecast", TensorProto.FLOAT, ["n", 5])], [weights("filter", 4, 2, 3), weights("w", 4, 5)])
    yield "ONNX graph", "convolution over a window of free length", model_of(graph), {"window": random.normal(size=(ROWS, 2, 24)).astype(np.float32)}, None
    graph = helper.make_graph(
        [helper.make_node("Gather", ["table", "hub"], ["e"]), helper.make_node("Concat", ["e", "x"], ["all"], axis=1),
         helper.make_node("MatMul", ["all", "w"], ["h"]), helper.make_node("Tanh", ["h"], ["y"])],
        "embedding", [helper.make_tensor_value_info("hub", TensorProto.INT64, ["n"]), helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 2])], [weights("table", 3, 4), weights("w", 7, 2)])
    inputs = {"hub": random.integers(0, 3, ROWS), "x": random.normal(size=(ROWS, 3)).astype(np.float32)}
    yield "ONNX graph", "embedding of an integer beside numbers", model_of(graph), inputs, None


def model_of(graph):
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    return model


def plain(value):
    """JSON's own types; a missing number is null."""
    if isinstance(value, np.ndarray):
        return [plain(each) for each in value]
    if isinstance(value, (float, np.floating)):
        return None if not np.isfinite(value) else float(value)
    return value.item() if isinstance(value, np.generic) else value


def case_of(library, name, model, inputs, columns):
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    if columns:
        feeds = {session.get_inputs()[0].name: inputs}
        rows = [dict(zip(columns, map(plain, row))) for row in inputs]
    else:
        feeds = inputs
        squeeze = lambda value: plain(value[0]) if value.shape == (1,) else plain(value)
        rows = [{key: squeeze(np.atleast_1d(values[at])) for key, values in inputs.items()} for at in range(ROWS)]
    outputs = [each.name for each in session.get_outputs()]
    answers = session.run(outputs, feeds)
    expected = []
    for at in range(ROWS):
        row = [{str(key): plain(np.float32(score)) for key, score in answer[at].items()} if isinstance(answer, list)
               else plain(answer[at]) for answer in answers]
        row = [value[0] if isinstance(value, list) and len(value) == 1 else value for value in row]
        expected.append(row[0] if len(row) == 1 else dict(zip(outputs, row)))
    return {"library": library, "name": name, "columns": columns or [], "rows": rows, "expected": expected}


def main():
    if len(sys.argv) != 2 or sys.argv[1] in ("-h", "--help"):
        print(__doc__.strip())
        return 0 if len(sys.argv) == 2 else 2
    warnings.filterwarnings("ignore")
    out, count = Path(sys.argv[1]), 0
    for export in (export_scikit_learn, export_boosting, export_graphs):
        for library, name, model, inputs, columns in export():
            case = case_of(library, name, model, inputs, columns)
            folder = out / f"{count:02}"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "model.onnx").write_bytes(model.SerializeToString())
            (folder / "case.json").write_text(json.dumps(case))
            count += 1
            print(f"{folder}: {library}, {name}", flush=True)
    print(f"{count} cases, onnxruntime {onnxruntime.__version__}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
