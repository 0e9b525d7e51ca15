"""The way of messages into lanes: `base` has the protocol."""
