"""The way of messages from lanes into the index: `base` has the protocol."""
