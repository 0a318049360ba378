"""A table of address ranges that do not overlap, IPv4 and IPv6."""

import csv
from bisect import bisect_right
from itertools import pairwise
from pathlib import Path
from socket import AF_INET, AF_INET6, inet_ntop, inet_pton

HERE = Path(__file__).parent

Answer = tuple[str | None, int | None]

# Addresses of one's own network are in nobody's table: RFC 1918, 6598, 4193, and the local ones.
PRIVATE = (
    ("10.0.0.0", "10.255.255.255"),
    ("100.64.0.0", "100.127.255.255"),
    ("127.0.0.0", "127.255.255.255"),
    ("169.254.0.0", "169.254.255.255"),
    ("172.16.0.0", "172.31.255.255"),
    ("192.168.0.0", "192.168.255.255"),
    ("::1", "::1"),
    ("fc00::", "fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
    ("fe80::", "febf:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
)
_MAPPED = bytes(10) + b"\xff\xff"  # ::ffff:192.0.2.1 is an IPv4 address on an IPv6 socket


def packed(address: str) -> bytes:
    """Return an address as 4 or 16 bytes, which sort as the addresses do.

    Raises:
        OSError: it is none.
    """
    if ":" not in address:
        return inet_pton(AF_INET, address)
    data = inet_pton(AF_INET6, address)
    return data[12:] if data.startswith(_MAPPED) else data


class Ranges:
    """Finds the range that an address is in.

    Args:
        path: a CSV without a header: first address, last address, country, number of the network.

    Raises:
        ValueError: a row is no range, or two overlap; says where.
    """

    def __init__(self, path: Path) -> None:
        private: Answer = ("private", None)
        rows = [(*_bounds(first, last), private) for first, last in PRIVATE]
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.reader(file, strict=True)
            for row in reader:
                try:
                    first, last, country, asn = row
                    rows.append((*_bounds(first, last), (country, int(asn))))
                except (ValueError, OSError) as error:
                    raise ValueError(f"{path}:{reader.line_num}: {row}: {error}") from None
        self._families = {size: _columns(rows, size, path) for size in (4, 16)}

    def find(self, address: str) -> Answer:
        """Return the country and the network's number, None for both if no range holds it.

        Raises:
            OSError, ValueError or TypeError: it is no address.
        """
        data = packed(address)
        starts, ends, answers = self._families[len(data)]
        index = bisect_right(starts, data) - 1
        if index >= 0 and data <= ends[index]:
            return answers[index]
        return None, None


def _bounds(first: str, last: str) -> tuple[bytes, bytes]:
    start, end = packed(first), packed(last)
    if len(start) != len(end) or start > end:
        raise ValueError("the last address is before the first, or of the other family")
    return start, end


def _columns(
    rows: list[tuple[bytes, bytes, Answer]], size: int, path: Path
) -> tuple[list[bytes], list[bytes], list[Answer]]:
    """Return the rows of a family, sorted, as lists: bisect wants one, and they take less room."""
    family = sorted((row for row in rows if len(row[0]) == size), key=lambda row: row[0])
    for (_, last, _), (first, _, _) in pairwise(family):
        if first <= last:
            name = inet_ntop(AF_INET if size == 4 else AF_INET6, first)
            raise ValueError(f"{path}: two ranges hold {name}; one may be of PRIVATE")
    same: dict[Answer, Answer] = {}  # one tuple an answer, however many ranges have it
    return (
        [start for start, _, _ in family],
        [end for _, end, _ in family],
        [same.setdefault(answer, answer) for _, _, answer in family],
    )
