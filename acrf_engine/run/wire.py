"""Events as JSON: one object on one line, with `type`, `seq`, `time` and the event's own fields.

So they go over the socket, into the journal and out with `--json`. Floats are never rounded. A number that is not
finite travels as null, and its field is named in `non_finite`.
"""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

from acrf_engine.protocol import EVENT_TYPES, Device, Event, Hardware

MAX_EVENT_BYTES = 4000
"""An encoded event stays below this: a pipe takes a write of up to 4,096 bytes whole or not at all."""


def to_wire(event: Event) -> dict[str, Any]:
    """The event as a JSON-ready dict: `type`, `seq`, `time`, then its fields.

    Non-finite floats become null. Text that is no UTF-8 (Linux allows any bytes in a file name) is backslash-escaped.
    """
    fields = {name: _encodable(value) for name, value in dataclasses.asdict(event).items()}
    if isinstance(event, Hardware):  # what a card does not report is absent: many cards must fit in one event
        fields["devices"] = [{k: v for k, v in device.items() if v is not None} for device in fields["devices"]]
    body: dict[str, Any] = {"type": event.type, "seq": fields.pop("seq"), "time": fields.pop("time")}
    bad = [name for name, value in fields.items() if _has_non_finite(value)]
    body.update({name: _finite(value) if name in bad else value for name, value in fields.items()})
    if bad:
        body["non_finite"] = bad
    return body


def from_wire(body: dict[str, Any]) -> Event | None:
    """The event of a wire dict, None for a type this version does not know. Unknown fields are ignored."""
    cls = EVENT_TYPES.get(str(body.get("type")))
    if cls is None:
        return None
    names = {f.name for f in dataclasses.fields(cls)}
    values = {key: value for key, value in body.items() if key in names}
    for name in body.get("non_finite", ()):
        if name in values:
            values[name] = _restore_nan(values[name])
    if cls is Hardware:  # the only event with a nested type
        known = {f.name for f in dataclasses.fields(Device)}
        values["devices"] = [Device(**{k: v for k, v in d.items() if k in known}) for d in values.get("devices", [])]
    return cls(**values)


def encode(body: dict[str, Any]) -> str:
    """One line of strict JSON (no NaN literal), without the newline."""
    return json.dumps(body, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def fitting(body: dict[str, Any]) -> str:
    """`encode`, with the longest texts cut until the event stays below MAX_EVENT_BYTES."""
    line = encode(body)
    while len(line.encode("utf-8", "surrogatepass")) > MAX_EVENT_BYTES:
        texts = {key: value for key, value in body.items() if isinstance(value, str) and len(value) > 64}
        if not texts:
            raise ValueError(f"an event of type {body['type']} is too long: {len(line)} characters")
        longest = max(texts, key=lambda key: len(texts[key]))
        body = {**body, longest: clip_text(texts[longest], len(texts[longest].encode("utf-8", "replace")) // 2)}
        line = encode(body)
    return line


def clip_text(text: str, limit: int = 1500) -> str:
    """The end of `text`, at most `limit` UTF-8 bytes: a traceback says what happened in its last lines."""
    raw = text.encode("utf-8", "replace")
    if len(raw) <= limit:
        return text
    return "..." + raw[-limit:].decode("utf-8", "ignore")


def _encodable(value: Any) -> Any:
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-8", "backslashreplace").decode("utf-8")
    if isinstance(value, list):
        return [_encodable(item) for item in value] if value and not isinstance(value[0], float | int) else value
    if isinstance(value, dict):
        return {_encodable(key): _encodable(item) for key, item in value.items()}
    return value


def _has_non_finite(value: Any) -> bool:
    if isinstance(value, float):
        return not math.isfinite(value)
    if isinstance(value, list):
        return any(_has_non_finite(item) for item in value)
    return False


def _finite(value: Any) -> Any:
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if _has_non_finite(value) else value


def _restore_nan(value: Any) -> Any:
    if isinstance(value, list):
        return [_restore_nan(item) for item in value]
    return math.nan if value is None else value
