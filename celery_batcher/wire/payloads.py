"""Payloads: what Kombu's serializers make of them, JSON in less time."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from json import encoder as json_encoder
from typing import Any

from kombu import serialization
from kombu.exceptions import ContentDisallowed, SerializerNotInstalled
from kombu.utils import json as kombu_json
from kombu.utils.encoding import str_to_bytes

from ..errors import ConfigurationError, PayloadError

MAX_PAYLOAD = 1024 * 1024
"""Bytes of the largest payload."""

_REGISTRY: Any = serialization.registry  # type: ignore[attr-defined]
_JSON_ENCODER = kombu_json.JSONEncoder(separators=(",", ":"))
_JSON_DECODER = json.JSONDecoder()
_scan_json = _JSON_DECODER.scan_once  # type: ignore[attr-defined]
_HOOKED_JSON_DECODER = json.JSONDecoder(object_hook=kombu_json.object_hook)
_MAX_REASON = 300
_JSON_HOOK = b"__type__"  # in every object that Kombu's hook would change


def _json_chunks() -> Callable[[Any, int], Iterable[str]]:
    """What `JSONEncoder.encode` makes anew for each value, made once: that takes half its time."""
    make: Any = getattr(json_encoder, "c_make_encoder", None)
    if make is None:  # not CPython
        return lambda value, _: _JSON_ENCODER.iterencode(value)
    chunks: Callable[[Any, int], Iterable[str]] = make(
        None,  # no check for cycles: these end in a RecursionError
        _JSON_ENCODER.default,
        json_encoder.encode_basestring_ascii,
        None,
        _JSON_ENCODER.key_separator,
        _JSON_ENCODER.item_separator,
        _JSON_ENCODER.sort_keys,
        _JSON_ENCODER.skipkeys,
        _JSON_ENCODER.allow_nan,
    )
    return chunks


_chunks = _json_chunks()


def encode_payload(payload: Any, serializer: str) -> bytes:
    """Serialise a payload with one of Kombu's serializers.

    Raises:
        PayloadError: it cannot be serialised, or is larger than `MAX_PAYLOAD`.
        ConfigurationError: the serializer is unknown.
    """
    try:
        if serializer == "json":
            data = "".join(_chunks(payload, 0)).encode()
        else:
            _, _, encoded = serialization.dumps(payload, serializer=serializer)
            data = str_to_bytes(encoded)
    except SerializerNotInstalled as exc:
        raise ConfigurationError(f"batcher_serializer: {exc}") from exc
    except Exception as exc:  # a serializer may raise anything
        raise PayloadError(
            f"payload of type {type(payload).__name__} cannot be serialised "
            f"with {serializer}: {exc}"
        ) from exc
    if len(data) > MAX_PAYLOAD:
        raise PayloadError(
            f"payload of {len(data)} bytes is above {MAX_PAYLOAD}: keep the data where it is "
            "and enqueue a reference to it"
        )
    return data


def accepted(accept_content: Iterable[str]) -> frozenset[str]:
    """The content types that an app accepts, from its ``accept_content`` (names or types)."""
    return frozenset(serialization.prepare_accept_content(accept_content) or ())


def load_json(data: bytes) -> Any:
    """What Kombu's JSON serializer reads, without its hook where there is nothing to hook."""
    text = data.decode()
    if _JSON_HOOK in data:
        return _HOOKED_JSON_DECODER.decode(text)
    try:
        value, end = _scan_json(text, 0)
    except StopIteration:
        end = -1
    return value if end == len(text) else _JSON_DECODER.decode(text)  # spaces around, or an error


def decode_payload(serializer: str, payload: bytes, accept: frozenset[str]) -> Any:
    """A payload, through a serializer that the app accepts.

    Raises:
        kombu.exceptions.ContentDisallowed: the app does not accept it.
    """
    content_type = _REGISTRY.name_to_type.get(serializer, serializer)
    if content_type not in accept:  # Kombu itself takes bytes and text from anybody
        raise ContentDisallowed(f"serializer {serializer!r} is not in accept_content")
    if content_type == "application/json":
        return load_json(payload)
    encoder = _REGISTRY._encoders.get(serializer)
    encoding = encoder.content_encoding if encoder else "utf-8"
    return serialization.loads(payload, content_type, encoding, accept=accept)


def explain(exc: Exception) -> str:
    """What an error of a reader says of itself, and nothing of the data in its arguments."""
    what = exc if isinstance(exc, UnicodeError) or len(exc.args) == 1 else next(iter(exc.args), "")
    try:
        text = str(what)
    except Exception:  # noqa: BLE001 - an argument that is nested too deeply, for one
        text = ""
    return f"{type(exc).__name__}: {text[:_MAX_REASON]}"
