"""The Open Inference Protocol v2: HTTP with JSON or binary tensors, and gRPC.

Source: kserve/open-inference-protocol, specification/protocol (inference_rest.md,
inference_grpc.md, extension binary tensor data). A model is a pipeline; its inputs are
the features, each of shape [n] or [n, 1].
"""
