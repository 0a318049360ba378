"""Rules of k8s/components/monitoring: valid, and each alert fires when it has to, by promtool's tests with made-up series."""

import re
import shutil
import subprocess

import pytest
import yaml
from alert_cases import CASES
from monitoring import GROUPS, RULES


@pytest.fixture(scope="session")
def promtool():
    """Return a function that runs promtool."""
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not on the PATH")

    def run(*arguments):
        done = subprocess.run(
            ["promtool", *map(str, arguments)], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


@pytest.fixture
def rules_file(tmp_path):
    file = tmp_path / "rules.yaml"
    file.write_text(yaml.safe_dump(GROUPS))
    return file


def test_rules_are_valid(promtool, rules_file):
    assert f"{len(RULES)} rules found" in promtool("check", "rules", rules_file)


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_every_alert_says_what_to_do(rule):
    assert rule["labels"]["severity"] in {"warning", "critical"}
    assert rule["for"]
    assert set(rule["annotations"]) == {"summary", "description"}
    assert "kubectl -n {{ $labels.namespace }} " in rule["annotations"]["description"]


def test_every_alert_is_seen_to_fire_and_not_to():
    assert {name for name, *_, labels in CASES if labels} == set(RULES)
    assert {name for name, *_, labels in CASES if labels is None} == set(RULES)


@pytest.mark.parametrize(
    ("name", "minute", "given", "labels"),
    CASES,
    ids=[
        f"{name}-{'fires' if labels else 'quiet'}-{n}" for n, (name, *_, labels) in enumerate(CASES)
    ],
)
def test_alerts(promtool, rules_file, tmp_path, name, minute, given, labels):
    expected = []
    if labels is not None:
        rule = RULES[name]
        used = set(re.findall(r"\$labels\.(\w+)", str(rule["annotations"])))
        assert used <= set(labels), "an annotation names a label that the alert does not have"
        every = {
            "__name__": "ALERTS",
            "alertname": name,
            "alertstate": "firing",
            **labels,
            **rule["labels"],
        }
        text = ",".join(f'{key}="{value}"' for key, value in every.items())
        expected = [{"labels": f"{{{text}}}", "value": 1}]
    test = {
        "rule_files": [str(rules_file)],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": given,
                "promql_expr_test": [
                    {
                        "expr": f'ALERTS{{alertname="{name}", alertstate="firing"}}',
                        "eval_time": f"{minute}m",
                        "exp_samples": expected,
                    }
                ],
            }
        ],
    }
    file = tmp_path / "test.yaml"
    file.write_text(yaml.safe_dump(test))
    promtool("test", "rules", file)
