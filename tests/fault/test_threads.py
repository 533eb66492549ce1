"""Under ThreadSanitizer: reloads, messages between threads and the log while requests are under way."""
import errno
import os
import signal
import subprocess
import threading
import time

import pytest
from faults import Rig
from gate import built, free_port

LOAD_S = 6
CONFIG = """
server:
  listen: ["127.0.0.1:$PORT"%s]
  workers: 2
  drain_timeout: 10s
  access_log: json
  limits: {idle_timeout: 1h}
static: {cache: {max_file: 64k}}
routes:
  "/fixed": OK fixed
  "/echo": "*"
  "/files/*": "$FILES/*"
  "/up/*": {action: "http://127.0.0.1:$UP", timeouts: {connect: 1m}}
"""


@pytest.fixture(scope="module")
def tsan():
    return built("build/gcc-tsan/anygate")


def has_reloaded(text):
    return text.count("reloaded: ") >= 10 and text.count("reload refused") >= 5


def enough(gate, begun):
    """The load has lasted for long enough, and so many reloads have come to pass as on a machine that is not busy."""
    lasted = time.monotonic() - begun
    return lasted > LOAD_S and (has_reloaded(gate.stderr()) or lasted > 10 * LOAD_S)


def test_no_race_between_reload_inbox_log_and_requests(backend, tsan, tmp_path):
    # The kernel's wide address randomisation can leave ThreadSanitizer no room for its shadow.
    wrap = ["setarch", "-R"] if subprocess.run(["setarch", "-R", "true"]).returncode == 0 else []
    rig = Rig(tmp_path, backend, config=CONFIG % "", binary=tsan, wrap=wrap,
              env={"TSAN_OPTIONS": "halt_on_error=0:exitcode=66"})
    config = tmp_path / "anygate.yml"
    base = config.read_text()
    texts = [base, base.replace(f'"127.0.0.1:{rig.gate.port}"',
                                f'"127.0.0.1:{rig.gate.port}", "127.0.0.1:{free_port()}"'),
             base.replace("OK fixed", "NONSENSE fixed"), base + '  "/more": OK more\n']
    # Files go by the helper threads, and what they bring comes by the inbox.
    rig.table.arm("file.cold", errno.EAGAIN, 1, 1 << 30)
    begun, over, wrong = time.monotonic(), threading.Event(), []

    def load():
        while not over.is_set() and not wrong:
            try:
                failed = rig.work()
            except AssertionError as e:
                failed = [e]
            wrong.extend(failed)

    threads = [threading.Thread(target=load) for _ in range(3)]
    for t in threads:
        t.start()
    reloads = 0
    while not wrong and not enough(rig.gate, begun):
        (tmp_path / "next").write_text(texts[reloads % len(texts)])
        os.replace(tmp_path / "next", config)
        rig.gate.process.send_signal(signal.SIGHUP)
        reloads += 1
        time.sleep(0.05)
    over.set()
    for t in threads:
        t.join()
    rig.close()  # exit code 66 if there was a report
    text = (tmp_path / "stderr.log").read_text(errors="replace")
    assert "ThreadSanitizer" not in text, text[text.index("ThreadSanitizer") - 100:][:6000]
    assert not wrong, wrong[0]
    assert has_reloaded(text), reloads
