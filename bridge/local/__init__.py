"""Programs on this machine, started as child processes: Kafka, Fluentd, a sidecar, a sink."""
