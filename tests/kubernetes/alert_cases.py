"""Made-up series for each of the component's alerts: some with which it fires, and some with which it does not."""

INSTANCE = {"app_kubernetes_io_instance": "fluent-bridge"}  # all that is scraped has it
POD = {"namespace": "ads", "job": "ads/fluent-bridge", "pod": "fluent-bridge-0"}
OTHER = POD | {"pod": "fluent-bridge-1"}
OURS = POD | INSTANCE | {"app_kubernetes_io_name": "fluent-bridge"}
GROUP = {"group": "ads"}
FLUENTD = POD | GROUP | {"container": "fluentd", "worker": "0"}
JOB = INSTANCE | {"namespace": "ads", "job": "ads/fluent-bridge"}


def series(name, values, labels, **more):
    text = ",".join(f'{key}="{value}"' for key, value in (INSTANCE | labels | more).items())
    return {"series": f"{name}{{{text}}}", "values": values}


def lag(values, labels=FLUENTD, partition=0):
    return series("fluent_bridge_kafka_lag", values, labels, topic="ad", partition=partition)


def consumed(values, labels=FLUENTD):
    return series("fluent_bridge_kafka_consumed_events_total", values, labels)


def units(outcome, values):
    return series("fluent_bridge_kafka_units_total", values, FLUENTD, outcome=outcome)


def emitted(values, **labels):
    return series(
        "fluentd_output_status_emit_count", values, OURS | {"container": "fluentd"}, **labels
    )


def up(values, container="sidecar", labels=OURS):
    return series("up", values, labels, container=container)


def errors(share):
    return [
        series("fluent_bridge_received_events_total", "0+6000x60", POD),
        series("fluent_bridge_error_events_total", f"0+{6000 * share}x60", POD),
    ]


def restarts(values, reason="killed"):
    return series("fluent_bridge_worker_restarts_total", values, POD, reason=reason)


def refused(values, plugin_id="refused_to_kafka"):
    return series("fluentd_output_status_emit_records", values, POD, plugin_id=plugin_id)


def workers(values="2x60"):
    return series("fluent_bridge_ready_workers", values, POD)


def assigned(values, labels=FLUENTD):
    return series("fluent_bridge_kafka_assigned_partitions", values, labels)


def started(values, labels=OURS, **more):
    return series("process_start_time_seconds", values, labels, container="sidecar", **more)


def space(values, labels=OURS, plugin_id="to_kafka"):
    name = "fluentd_output_status_buffer_available_space_ratio"
    return series(name, values, labels, plugin_id=plugin_id)


def outdated(values):
    return series("fluent_bridge_filters_outdated", values, POD)


def reloads(result, values):
    return series("fluent_bridge_filter_reloads_total", values, POD, result=result)


def filters(digest, labels, **more):
    return series("fluent_bridge_filters_info", "1x60", labels, digest=digest, **more)


# An alert, a minute, series with a value a minute, and the labels with which it fires then; None: it does not.
CASES = [
    ("FluentBridgeDown", 7, [up("1 0x20")], OURS | {"container": "sidecar"}),
    ("FluentBridgeDown", 5, [up("1 0x20")], None),
    ("FluentBridgeDown", 7, [up("0x20", labels=POD)], None),  # somebody else's
    (
        "FluentBridgeAllDown",
        6,
        [up("0x20", "fluentd"), up("0x20", "fluentd", OURS | OTHER)],
        JOB | {"container": "fluentd"},
    ),
    ("FluentBridgeAllDown", 6, [up("0x20"), up("1x20", labels=OURS | OTHER)], None),
    (
        "FluentBridgeContainerRestarts",
        9,
        [started("1 1 200 200 400 400 600x10")],
        POD | {"container": "sidecar"},
    ),
    (
        "FluentBridgeContainerRestarts",
        9,
        [emitted("9 0 _ 9 0 9 0x10", plugin_id="to_kafka", type="bridge_kafka")],
        POD | {"container": "fluentd"},
    ),
    (  # a pod that was replaced three times has other addresses
        "FluentBridgeContainerRestarts",
        9,
        [started(f"{'_ ' * n}{n}x3", instance=n) for n in range(4)],
        None,
    ),
    ("FluentBridgeWorkerRestarts", 10, [workers(), restarts("_x5 3x20")], POD),
    ("FluentBridgeWorkerRestarts", 10, [workers(), restarts("0x5 2x20")], None),
    ("FluentBridgeWorkerRestarts", 40, [workers(), restarts("3x60")], None),  # long ago
    (  # the reasons together
        "FluentBridgeWorkerRestarts",
        10,
        [workers(), restarts("_x5 2x20"), restarts("_x5 1x20", "deadline")],
        POD,
    ),
    ("FluentBridgeBehind", 25, [lag("70000x60"), consumed("0+6000x60")], JOB | GROUP),
    ("FluentBridgeBehind", 25, [lag("50000x60"), consumed("0+6000x60")], None),
    ("FluentBridgeBehind", 25, [lag("3x60"), consumed("7x60")], None),  # markers, nothing to read
    (  # moved: the former owner's is 0
        "FluentBridgeBehind",
        25,
        [
            lag("70000x5 0x60"),
            lag("_x5 70000x60", FLUENTD | OTHER),
            consumed("0+6000x60"),
            consumed("0+0x60", FLUENTD | OTHER),
        ],
        JOB | GROUP,
    ),
    ("FluentBridgeLagGrowing", 50, [lag("0+200x60"), consumed("0+6000x60")], JOB | GROUP),
    ("FluentBridgeLagGrowing", 50, [lag("9000x60"), consumed("0+6000x60")], None),
    ("FluentBridgeLagGrowing", 50, [lag("0+100x60"), consumed("0+6000x60")], None),  # 1.7 %
    ("FluentBridgeStalled", 20, [lag("0x2 500x60"), consumed("7x60")], POD | {"worker": "0"}),
    ("FluentBridgeStalled", 20, [lag("0x2 500x60")], POD | {"worker": "0"}),  # never committed
    ("FluentBridgeStalled", 20, [lag("50x60"), consumed("7x60")], None),
    ("FluentBridgeStalled", 20, [lag("500x60"), consumed("7+1x60")], None),
    (
        "FluentBridgeStalled",  # the others go on
        20,
        [lag("500x60"), lag("500x60", FLUENTD | OTHER), consumed("7+1x60", FLUENTD | OTHER)],
        POD | {"worker": "0"},
    ),
    (
        "FluentBridgeBatchesAborted",
        30,
        [units("committed", "0+9x60"), units("aborted", "0+1x60")],
        POD,
    ),
    ("FluentBridgeBatchesAborted", 30, [units("aborted", "0+1x60")], POD),
    (
        "FluentBridgeBatchesAborted",
        30,
        [units("committed", "0+99x60"), units("aborted", "0+1x60")],
        None,
    ),
    (
        "FluentBridgeNoPartitions",
        20,
        [emitted("0x60", type="bridge_kafka", plugin_id="to_kafka")],  # it never joined
        POD,
    ),
    (
        "FluentBridgeNoPartitions",
        20,
        [emitted("0x60", type="bridge_kafka", plugin_id="to_kafka"), assigned("0x60")],
        POD,
    ),
    (  # one of two workers has some
        "FluentBridgeNoPartitions",
        20,
        [
            emitted("0x60", type="bridge_kafka", plugin_id="to_kafka"),
            assigned("0x60"),
            assigned("1x60", FLUENTD | {"worker": "1"}),
        ],
        None,
    ),
    (  # road forward: nobody knows
        "FluentBridgeNoPartitions",
        20,
        [emitted("0x60", type="kafka2", plugin_id="to_kafka")],
        None,
    ),
    ("FluentBridgeDeadLetters", 25, errors(0.02), JOB),
    ("FluentBridgeDeadLetters", 25, errors(0.005), None),
    ("FluentBridgeRefusedByKafka", 10, [refused("0x5 1x30")], POD),
    ("FluentBridgeRefusedByKafka", 10, [refused("0+9x30", "to_kafka")], None),
    ("FluentBridgeBufferFilling", 20, [space("19.5x30")], POD | {"plugin_id": "to_kafka"}),
    ("FluentBridgeBufferFilling", 20, [space("99.9x30")], None),
    ("FluentBridgeFiltersOutdated", 5, [outdated("0 1x9")], POD),
    ("FluentBridgeFiltersOutdated", 5, [outdated("0x9")], None),
    ("FluentBridgeReloadsFail", 30, [reloads("failed", "0x5 1x5 2x5 4x30")], POD),
    ("FluentBridgeReloadsFail", 30, [reloads("failed", "0x5 1x30"), reloads("ok", "0+1x40")], None),
    (
        "FluentBridgeFiltersDiffer",
        35,
        [filters("a", POD, generation=1), filters("b", OTHER, generation=1)],
        JOB,
    ),
    (
        "FluentBridgeFiltersDiffer",
        35,
        [filters("a", POD, generation=1), filters("a", OTHER, generation=2)],
        None,
    ),
    # No targets at all: for 5 minutes, and for 6 hours.
    ("FluentBridgeAllDown", 17, [up("1x10 stale")], JOB | {"container": "sidecar"}),
    ("FluentBridgeAllDown", 360, [up("1x10 stale")], JOB | {"container": "sidecar"}),
    ("FluentBridgeAllDown", 380, [up("1x10 stale")], None),
    ("FluentBridgeAllDown", 14, [up("1x10 stale")], None),
    (
        "FluentBridgeAllDown",
        17,
        [up("1x10 stale", labels=OURS | {"app_kubernetes_io_name": "theirs"})],
        None,
    ),
    ("FluentBridgeAllDown", 30, [up("1x10 stale"), up("_x12 1x40", labels=OURS | OTHER)], None),
    # Somebody else's.
    ("FluentBridgeAllDown", 6, [up("0x20", labels=POD)], None),
    ("FluentBridgeContainerRestarts", 9, [started("1 2 3 4 5 6x9", POD)], None),
    ("FluentBridgeBufferFilling", 20, [space("1x30", POD, "theirs")], None),
    # Once is nothing, and long ago neither.
    ("FluentBridgeContainerRestarts", 9, [started("1 2x20")], None),
    (
        "FluentBridgeContainerRestarts",
        60,
        [started("1 2 3 4 5 6x99"), emitted("9 0 9 0 9 0 9 0x99", plugin_id="to_kafka")],
        None,
    ),
    ("FluentBridgeRefusedByKafka", 10, [refused("0x20")], None),
    ("FluentBridgeRefusedByKafka", 40, [refused("0x5 1x60")], None),
    # Few messages are no lag.
    ("FluentBridgeBehind", 25, [lag("900x60"), consumed("0+60x60")], None),
    ("FluentBridgeBehind", 25, [lag("1100x60"), consumed("0+60x60")], JOB | GROUP),
    ("FluentBridgeLagGrowing", 70, [lag("0+10x99"), consumed("0+60x99")], None),
    ("FluentBridgeLagGrowing", 50, [lag("900+10x60"), consumed("0+60x60")], JOB | GROUP),
    # It has ceased to grow.
    ("FluentBridgeLagGrowing", 70, [lag("0+2000x30 60000x60"), consumed("0+6000x99")], None),
    # It committed until 20 minutes ago.
    ("FluentBridgeStalled", 30, [lag("500x60"), consumed("0+9x10 90x60")], POD | {"worker": "0"}),
    (
        "FluentBridgeBatchesAborted",
        30,
        [units("committed", "0+98x60"), units("aborted", "0+2x60")],
        None,
    ),
    (  # a burst is over
        "FluentBridgeBatchesAborted",
        60,
        [units("committed", "0+9x99"), units("aborted", "0+9x20 180x99")],
        None,
    ),
    (  # several pipelines in a namespace
        "FluentBridgeFiltersDiffer",
        35,
        [filters(name, POD, app_kubernetes_io_instance=name) for name in ("ads", "clicks")],
        None,
    ),
]
