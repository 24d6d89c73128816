"""The seeds' own snippets run as written, and end where the seeds say: `ready`, with connection details.

The files under `seeds/` are the code blocks of seeds 002 and 004, character for character. Only the port in
`localhost:3000` is exchanged for the one the system picked, and a few lines are added behind to call what a block
defines. JavaScript runs where there is a node; `jq` blocks where there is a jq.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.journey.platform import Platform

SEEDS = Path(__file__).parent / "seeds"
SNIPPET_MAX_S = 90
needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="no node on this machine")
# A page's `fetch('/health')` is relative to where the page came from; node has no page.
RELATIVE_FETCH = "const pageFetch = fetch; fetch = (u, o) => pageFetch(u.startsWith('/') ? 'PAGE_ORIGIN' + u : u, o);\n"


def snippet(name: str, up: Platform, *, before: str = "", after: str = "") -> str:
    text = before + (SEEDS / name).read_text() + after
    return text.replace("http://localhost:3000", up.api_url).replace("PAGE_ORIGIN", up.api_url)


def run(command: list[str], text: str) -> str:
    done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=SNIPPET_MAX_S, check=False)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


def node(text: str) -> str:
    return run(["node", "-"], text)


@needs_node
@pytest.mark.parametrize("name", ["002_06_javascript_example.js", "004_00_create_and_monitor_instance.js"])
def test_the_javascript_examples_end_at_ready_with_connection_details(up: Platform, name: str):
    output = node(snippet(name, up))
    assert "ssh: 'ssh " in output
    assert "Failed" not in output


@pytest.mark.parametrize("name", ["002_07_python_example.py.txt", "004_01_python_example.py.txt"])
def test_the_python_examples_end_at_ready_with_connection_details(up: Platform, name: str):
    output = run([sys.executable, "-"], snippet(name, up))
    assert "'ssh': 'ssh " in output
    assert "Error" not in output


@pytest.mark.skipif(shutil.which("jq") is None or shutil.which("curl") is None, reason="needs curl and jq")
def test_the_shell_example_ends_at_ready_with_connection_details(up: Platform):
    output = run(["bash", "-s"], snippet("002_14_1_simple_instance_creation_and_usage.sh", up))
    assert "Instance is ready!" in output
    assert '"ssh": "ssh ' in output


@needs_node
def test_the_batch_of_three_becomes_ready(up: Platform):
    output = node(
        snippet(
            "004_02_batch_instance_management.js",
            up,
            after="\nbatchExample().catch(e => { console.error(e); process.exit(1); });\n",
        )
    )
    assert "Created 3 instances, 0 failed" in output
    assert "3 instances are ready" in output


@needs_node
def test_the_short_batch_example_creates_three(up: Platform):
    top_level_await = RELATIVE_FETCH + "(async () => {\n"
    after = "\n})().catch(e => { console.error(e); process.exit(1); });\n"
    output = node(snippet("002_15_2_batch_instance_management.js", up, before=top_level_await, after=after))
    assert output.count("inst_") == 3


@needs_node
def test_the_retrying_client_gets_its_instance(up: Platform):
    call = """
const client = new RobustAPIClient();
client.createInstance({ name: 'retrying', productName: 'RTX 4090 24GB', templateId: 'pytorch-jupyter' })
  .then(made => client.getInstance(made.instanceId)).then(got => console.log('got', got.id, got.status))
  .catch(e => { console.error(e); process.exit(1); });
"""
    assert "got inst_" in node(snippet("004_03_error_handling_with_retries.js", up, after=call))


@needs_node
def test_the_usage_tracker_updates_last_used(up: Platform):
    made = up.request(
        "POST",
        "/api/instances",
        {"name": "tracked", "productName": "RTX 4090 24GB", "templateId": "pytorch-jupyter"},
    ).json
    text = snippet("004_06_prevent_auto_stop_during_active_use.js", up)
    text = text.replace("inst_abc123def456", made["instanceId"])
    output = node(text + "\nsetTimeout(() => tracker.stopTracking(), 2000);\n")
    assert "Updated last used time: 20" in output


@needs_node
def test_the_auto_stop_monitor_reads_its_numbers(up: Platform):
    text = snippet(
        "004_07_monitor_auto_stop_service.js",
        up,
        before=RELATIVE_FETCH,
        after="\nmonitorAutoStopService().then(() => process.exit(0));\n",
    )
    output = node(text)
    assert "running: true" in output
    assert "inactivityThreshold: '20 minutes'" in output


@needs_node
@pytest.mark.parametrize(
    ("name", "call", "expected"),
    [
        ("002_16_3_health_monitoring.js", "checkHealth()", "Service healthy"),
        ("004_08_comprehensive_health_check.js", "performHealthCheck()", "Overall Status: healthy"),
    ],
)
def test_the_health_checks_find_a_healthy_service(up: Platform, name: str, call: str, expected: str):
    after = f"\n{call}.then(ok => process.exit(ok ? 0 : 1));\n"
    output = node(snippet(name, up, before=RELATIVE_FETCH, after=after))
    assert expected in output
    assert "❌" not in output
