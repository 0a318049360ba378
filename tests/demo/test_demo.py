"""The demo with the real parts."""

import subprocess
import sys

import pytest


@pytest.mark.kafka
@pytest.mark.fluentd
@pytest.mark.timeout(300)
def test_the_demo_uses_a_real_fluentd_and_a_real_kafka(kafka, fluentd):
    done = subprocess.run(
        [sys.executable, "-m", "bridge", "demo", "--events", "20000"],
        capture_output=True,
        text=True,
        timeout=280,
    )
    print(done.stdout)
    assert done.returncode == 0, done.stderr
    assert "real: kafka-server-start.sh" in done.stdout
    assert "real: fluentd" in done.stdout
    assert "20000 in = 19560 out + 400 dropped + 40 dead-lettered" in done.stdout
