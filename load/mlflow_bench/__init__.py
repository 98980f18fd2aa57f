"""The parts of mlflow_compare.py."""
