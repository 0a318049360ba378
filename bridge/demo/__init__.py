"""What `fluent-bridge demo` runs."""
