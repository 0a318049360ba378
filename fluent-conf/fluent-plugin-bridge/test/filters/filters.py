"""What the gem's tests run events through."""

import bridge


@bridge.filter("ad.**")
def enrich(record: dict) -> dict:
    record["site"] = record["url"].split("/", 3)[2]
    return record


@bridge.filter("drop.**")
def nothing(record: dict) -> None:
    return None


@bridge.filter("mixed.**")
def by_kind(event: bridge.Event) -> bridge.Event | None:
    kind = event.record["kind"]
    if kind == "drop":
        return None
    if kind == "fail":
        raise bridge.Reject("it is of the wrong kind")
    if kind == "move":
        return bridge.Event(
            "mixed.moved", event.time, {**event.record, "moves": event.record.get("moves", 0) + 1}
        )
    return event


@bridge.filter("later.**")
def later(record: dict) -> dict:
    raise bridge.Retry(2)
