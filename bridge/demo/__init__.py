"""Kafka and Fluentd started as child processes: for `fluent-bridge demo` and for the tests."""
