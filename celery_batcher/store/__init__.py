"""Shared state of a batcher: `base` has the protocol, `redis` and `memory` keep it."""
