"""Personal data leaves masked: emails, IP addresses, and the fields that name somebody."""

import os
import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from hashlib import blake2b
from ipaddress import IPv6Address
from typing import Any

import bridge

# What may stand before a local part is looked at, so that no text takes quadratic time.
EMAIL = re.compile(r"(?<![\w.+-])[\w.+-]+(?:@|%40)[\w-]+(?:\.[\w-]+)+")
IPV4 = re.compile(r"(?<![\d.])(\d{1,3}\.\d{1,3}\.\d{1,3})\.\d{1,3}(?!\.?\d)")
IPV6 = re.compile(r"(?<![\w.])(?:[0-9A-Fa-f]{0,4}:){2,7}[0-9A-Fa-f]{0,4}(?![\w:])")
REMOVED = "[removed]"
HARMLESS = frozenset({int, float, bool, type(None)})

failures = bridge.counter("mask_failures_total", "Events put aside because masking failed.")


# Dead letters hold the event as it came: they come here too, once Fluentd sends them. See README.
@bridge.filter("app.** error.app.**")
class Mask:
    """Mask all of a record, however deep.

    The same value gives the same hash, so masked events can still be counted and joined; without
    the key nobody can try out which value it was.

    Args:
        key: the key of the hashes; by default what the environment's MASK_KEY holds.
        hashed: fields whose values are hashed, whatever they are.
        removed: fields whose values leave nothing behind.
    """

    def __init__(
        self,
        key: str | None = None,
        hashed: Sequence[str] = ("user", "user_id", "email", "phone"),
        removed: Sequence[str] = ("password", "authorization", "cookie"),
    ) -> None:
        self._key = (key or os.environ.get("MASK_KEY", "")).encode()
        if not 16 <= len(self._key) <= 64:  # BLAKE2b takes no more
            raise ValueError("set MASK_KEY to a secret of 16 to 64 bytes: openssl rand -hex 32")
        self._hashed = frozenset(hashed)
        self._removed = frozenset(removed)
        # Names come again and again. Typed, because 1 and True are the same name to a dict.
        self._rule = lru_cache(4096, typed=True)(self._choose)

    def __call__(self, event: bridge.Event) -> bridge.Event:
        try:
            event.record = self._map(event.record)
        except Exception as error:  # noqa: BLE001 - what is raised here makes an unmasked dead letter
            failures.inc()
            stub = {"masking": type(error).__name__}  # its message may quote the record
            return bridge.Event(f"unmasked.{event.tag}", event.time, stub)
        return event

    def _map(self, record: dict[Any, Any]) -> dict[Any, Any]:
        masked = {}
        for name, value in record.items():
            masked_name, mask = self._rule(name)
            masked[masked_name] = mask(value)
        return masked

    def _choose(self, name: Any) -> tuple[Any, Callable[[Any], Any]]:
        """Return a field's name, which may hold an email itself, and what masks its value."""
        folded = name.lower() if type(name) is str else name
        if folded in self._hashed:
            return name, self._hash
        if folded in self._removed:
            return name, lambda _: REMOVED
        return self._value(name), self._value

    def _value(self, value: Any) -> Any:
        kind = type(value)
        if kind is str:
            return self._text(value)
        if kind is dict:
            return self._map(value)
        if kind is list:
            return [self._value(item) for item in value]
        if kind is bytes:
            return self._text(value.decode("utf-8", "surrogateescape")).encode(
                "utf-8", "surrogateescape"
            )
        # An ext type, or what lies too deep to be decoded, may hold anything.
        return value if kind in HARMLESS else REMOVED

    def _text(self, text: str) -> str:
        # Most texts hold none of it: to look for one character is a tenth of a search.
        if "@" in text or "%40" in text:
            text = EMAIL.sub(lambda found: f"<{self._hash(found[0].replace('%40', '@'))}>", text)
        if text.count(".") > 2:
            text = IPV4.sub(r"\1.0", text)
        if text.count(":") > 1:
            text = IPV6.sub(_site, text)
        return text

    def _hash(self, value: Any) -> Any:
        if value is None:
            return None
        if isinstance(value, dict):
            return {self._value(name): self._hash(inner) for name, inner in value.items()}
        if isinstance(value, list):
            return [self._hash(item) for item in value]
        folded = str(value).strip().lower().encode("utf-8", "surrogateescape")
        return blake2b(folded, digest_size=12, key=self._key).hexdigest()


def _site(found: re.Match[str]) -> str:
    """Return the /48 of an IPv6 address; what only looks like one, a time, as it is."""
    try:
        address = IPv6Address(found[0])
    except ValueError:
        return found[0]
    return str(IPv6Address(int(address) >> 80 << 80))
