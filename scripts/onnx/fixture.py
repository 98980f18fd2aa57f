#!/usr/bin/env python3
"""Writes crates/inference/tests/fixtures/linear.onnx: y = 2a - b + 1 over X: [n, 2]. The same bytes each time.

  python="$(scripts/python_env.sh -r scripts/onnx/requirements.txt)"
  $python scripts/onnx/fixture.py
"""

from pathlib import Path

from onnx import TensorProto, checker, helper

weights = helper.make_tensor("weights", TensorProto.FLOAT, [2, 1], [2.0, -1.0])
bias = helper.make_tensor("bias", TensorProto.FLOAT, [1], [1.0])
graph = helper.make_graph(
    [helper.make_node("MatMul", ["X", "weights"], ["product"]), helper.make_node("Add", ["product", "bias"], ["y"])],
    "linear", [helper.make_tensor_value_info("X", TensorProto.FLOAT, ["n", 2])],
    [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 1])], [weights, bias])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10, producer_name="carbon-ml")
checker.check_model(model)
out = Path(__file__).parents[2] / "crates/inference/tests/fixtures/linear.onnx"
out.write_bytes(model.SerializeToString())
print(f"{out}: {out.stat().st_size} bytes")
