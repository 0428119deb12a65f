"""The Open Inference Protocol, version 2 (REST), which clients of KServe and Triton speak."""
