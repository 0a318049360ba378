"""A running sidecar as it is seen through its admin port: `fluent-bridge tap` and `top`."""
