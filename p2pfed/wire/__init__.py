"""Bytes on the wire: messages to msgpack frames and back, tensors to bytes and back.

Bytes of strangers are capped, parsed, validated and only then allocated.
"""
