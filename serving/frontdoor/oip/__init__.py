"""Open Inference Protocol v2 with Triton's extensions, over gRPC and HTTP: a thin form of the same pipeline.

A service appears as a model of its name, with the features and a BYTES `user_id` as inputs; a loaded version appears
under the model's name and its version. https://github.com/kserve/open-inference-protocol
"""
