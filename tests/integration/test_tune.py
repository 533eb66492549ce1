"""anygate tune: on systems that are folders with files, so that this one is not touched.

The rows of docs/TUNING.md are the program's; what is better is left alone; what may not be set is not;
every failure is told.
"""
import json
import os
import pty
import re
import subprocess

import pytest
from gate import BINARY, ROOT, run

# As wanted, each at its bound.
GOOD = {
    "proc/sys/net/core/somaxconn": "4096",
    "proc/sys/net/ipv4/tcp_max_syn_backlog": "8192",
    "proc/sys/net/ipv4/tcp_syncookies": "1",
    "proc/sys/net/core/netdev_max_backlog": "4096",
    "proc/sys/net/ipv4/ip_local_port_range": "10240\t65535",
    "proc/sys/net/ipv4/tcp_tw_reuse": "1",
    "proc/sys/net/ipv4/tcp_fin_timeout": "60",
    "proc/sys/net/ipv4/tcp_slow_start_after_idle": "0",
    "proc/sys/net/ipv4/tcp_rmem": "4096\t131072\t6291456",
    "proc/sys/net/ipv4/tcp_wmem": "4096\t16384\t4194304",
    "proc/sys/net/netfilter/nf_conntrack_max": "262144",
    "proc/sys/fs/file-max": "1048576",
    "proc/sys/fs/nr_open": "1048576",
    "proc/sys/vm/overcommit_memory": "1",
    "proc/sys/kernel/io_uring_disabled": "0",
    "proc/sys/kernel/osrelease": "6.1.0-18-amd64",
    "proc/self/limits": "Limit                     Soft Limit           Hard Limit           Units\n"
                        "Max open files            1024                 65536                files\n"
                        "Max locked memory         65536                8388608              bytes",
    "proc/self/status": "Name:\tx\nCpus_allowed:\tf\nCpus_allowed_list:\t0-3",
    "proc/self/cgroup": "1:name=x:/\n0::/system.slice/anygate.service",
    "sys/fs/cgroup/system.slice/anygate.service/cpu.max": "400000 100000",
    "sys/devices/system/cpu/online": "0-3",
    **{f"sys/devices/system/cpu/cpu{i}/cpufreq/scaling_governor": "performance" for i in range(4)},
    "sys/kernel/mm/transparent_hugepage/enabled": "always [madvise] never",
    "sys/kernel/mm/transparent_hugepage/defrag": "always defer [defer+madvise] madvise never",
    **{f"sys/class/net/eth0/queues/rx-{i}/rps_cpus": "0" for i in range(4)},
    **{f"sys/class/net/eth0/queues/tx-{i}/xps_cpus": "f" for i in range(4)},
    **{f"sys/class/net/eth0/device/msi_irqs/{30 + i}": "msix" for i in range(4)},
    **{f"proc/irq/{30 + i}/effective_affinity_list": str(i) for i in range(4)},
    **{f"proc/irq/{30 + i}/smp_affinity_list": "0-3" for i in range(4)},
    "sys/class/net/lo/queues/rx-0/rps_cpus": "0",
}
PORTS = "proc/sys/net/ipv4/ip_local_port_range"
RMEM = "proc/sys/net/ipv4/tcp_rmem"
WMEM = "proc/sys/net/ipv4/tcp_wmem"
GOVERNOR = "sys/devices/system/cpu/cpu3/cpufreq/scaling_governor"
QUOTA = "sys/fs/cgroup/system.slice/anygate.service/cpu.max"
THP = "sys/kernel/mm/transparent_hugepage"
QUEUES = "sys/class/net/eth0/queues"


def limits(files="65536", locked="8388608"):
    return GOOD["proc/self/limits"].replace(
        " 65536                files", f" {files:21}files").replace("8388608", locked)


def make(root, files):
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if text is None:
            path.unlink(missing_ok=True)
        else:
            path.write_text(text + "\n")
    return root


@pytest.fixture
def system(tmp_path):
    return make(tmp_path / "root", GOOD)


def tune(root, *options, code=None):
    """What it says as JSON, by name."""
    done = run("tune", "--root", root, "--format", "json", *options)
    assert done.stderr == ""
    said = json.loads(done.stdout)
    assert done.returncode == (0 if said["good"] else 1)
    assert code is None or done.returncode == code
    return {check["name"]: check for check in said["checks"]}


def states(checks, *wanted):
    return {name: c["state"] for name, c in checks.items() if c["state"] in wanted}


def test_a_system_that_is_as_wanted(system):
    checks = tune(system, code=0)
    assert states(checks, "absent") == {"kernel.backend": "absent"}  # another kernel's
    assert set(states(checks, "good")) == set(checks) - {"kernel.backend"}
    assert checks["net.ipv4.ip_local_port_range"]["now"] == "10240 65535"
    assert checks["cpu.quota"]["now"] == "4.00 cores"
    assert checks["nic.eth0.interrupts"]["now"] == "4 queues on 4 cores"
    assert "nic.lo.steering" not in checks


def test_a_system_without_anything(tmp_path):
    checks = tune(tmp_path, code=0)
    assert set(states(checks, "absent")) == set(checks)
    assert {"nic.*.interrupts", "nic.*.steering"} <= set(checks)


# What is changed, what differs by it.
WRONG = [
    ({"proc/sys/net/core/somaxconn": "4095"}, "net.core.somaxconn"),
    ({"proc/sys/net/ipv4/tcp_max_syn_backlog": "8191"}, "net.ipv4.tcp_max_syn_backlog"),
    ({"proc/sys/net/ipv4/tcp_syncookies": "0"}, "net.ipv4.tcp_syncookies"),
    ({"proc/sys/net/core/netdev_max_backlog": "1000"}, "net.core.netdev_max_backlog"),
    ({PORTS: "10241\t65535"}, "net.ipv4.ip_local_port_range"),
    ({PORTS: "1024\t60999"}, "net.ipv4.ip_local_port_range"),
    ({"proc/sys/net/ipv4/tcp_tw_reuse": "2"}, "net.ipv4.tcp_tw_reuse"),
    ({"proc/sys/net/ipv4/tcp_tw_reuse": "0"}, "net.ipv4.tcp_tw_reuse"),
    ({"proc/sys/net/ipv4/tcp_fin_timeout": "61"}, "net.ipv4.tcp_fin_timeout"),
    ({"proc/sys/net/ipv4/tcp_slow_start_after_idle": "1"}, "net.ipv4.tcp_slow_start_after_idle"),
    ({RMEM: "4096 131072 6291455"}, "net.ipv4.tcp_rmem"),
    ({WMEM: "4096 16384 4194303"}, "net.ipv4.tcp_wmem"),
    ({"proc/sys/net/netfilter/nf_conntrack_max": "65536"}, "net.netfilter.nf_conntrack_max"),
    ({"proc/sys/fs/file-max": "1048575"}, "fs.file-max"),
    ({"proc/sys/fs/nr_open": "1048575"}, "fs.nr_open"),
    ({"proc/sys/vm/overcommit_memory": "2"}, "vm.overcommit_memory"),
    ({"proc/sys/kernel/io_uring_disabled": "1"}, "kernel.io_uring_disabled"),
    ({"proc/sys/kernel/osrelease": "6.0.19"}, "kernel.release"),
    ({"proc/sys/kernel/osrelease": "5.15.0-generic"}, "kernel.release"),
    ({"proc/self/limits": limits(files="65535")}, "limit.nofile"),
    ({"proc/self/limits": limits(locked="65536")}, "limit.memlock"),
    ({"proc/self/status": "Cpus_allowed_list:\t0-1,3", QUOTA: "max 100000"}, "cpu.affinity"),
    ({QUOTA: "399000 100000"}, "cpu.quota"),
    ({GOVERNOR: "powersave"}, "cpu.governor"),
    ({f"{THP}/enabled": "[always] madvise never"}, "memory.thp"),
    ({f"{THP}/defrag": "[always] defer never"}, "memory.thp_defrag"),
    ({f"proc/irq/{30 + i}/effective_affinity_list": "0" for i in range(4)}, "nic.eth0.interrupts"),
    ({"proc/irq/33/effective_affinity_list": "0"}, "nic.eth0.interrupts"),
    ({f"{QUEUES}/rx-3/rps_cpus": None}, "nic.eth0.steering"),
]


@pytest.mark.parametrize("files, name", WRONG, ids=[f"{n}-{i}" for i, (_, n) in enumerate(WRONG)])
def test_what_differs(system, files, name):
    if any(text is None for text in files.values()):
        for path in files:
            (system / path).unlink()
            (system / path).parent.rmdir()
        files = {}
    checks = tune(make(system, files), code=1)
    assert states(checks, "differs") == {name: "differs"}
    assert checks[name]["may_apply"] or checks[name]["how"]


BETTER = [
    {"proc/sys/net/core/somaxconn": "65535", "proc/sys/net/ipv4/tcp_fin_timeout": "30",
     PORTS: "1024\t65535", RMEM: "4096\t87380\t33554432", "proc/sys/net/ipv4/tcp_syncookies": "2",
     "proc/sys/fs/file-max": "9223372036854775807", "proc/sys/vm/overcommit_memory": "0"},
    {"proc/self/limits": limits("unlimited", "unlimited")},
    {"proc/sys/kernel/osrelease": "10.0"},
    {QUOTA: "max 100000"},
    {QUOTA: None},
    {f"{THP}/enabled": "always madvise [never]", f"{THP}/defrag": "always [never]"},
    {"proc/irq/33/effective_affinity_list": None},
    {"sys/class/net/eth0/queues/rx-4/rps_cpus": "0"},
    # One queue less than cores, and steering to all of them.
    {f"{QUEUES}/rx-0/rps_cpus": "00000000,0000000f"},
]


@pytest.mark.parametrize("files", BETTER, ids=range(len(BETTER)))
def test_what_is_better_is_good(system, files):
    tune(make(system, files), code=0)


def test_steering_makes_up_for_queues(system):
    for i in range(1, 4):
        (system / f"{QUEUES}/rx-{i}/rps_cpus").unlink()
        (system / f"{QUEUES}/rx-{i}").rmdir()
    make(system, {f"{QUEUES}/rx-0/rps_cpus": "7"})
    assert tune(system, code=1)["nic.eth0.steering"]["now"] == "1 queue, rps 3, 4 cores"
    make(system, {f"{QUEUES}/rx-0/rps_cpus": "f"})
    tune(system, code=0)


def test_interrupts_of_a_parent_device(system):
    device = system / "sys/class/net/eth0/device"
    (system / "sys/devices/pci/virtio2").mkdir(parents=True)
    (device / "msi_irqs").rename(system / "sys/devices/pci/msi_irqs")
    device.rmdir()
    device.symlink_to("../../../devices/pci/virtio2")
    assert tune(system, code=0)["nic.eth0.interrupts"]["state"] == "good"
    make(system, {f"proc/irq/{30 + i}/effective_affinity_list": "2" for i in range(4)})
    assert tune(system, code=1)["nic.eth0.interrupts"]["now"] == "4 queues on 1 core"


def test_more_interfaces_than_are_looked_at(system):
    make(system, {f"sys/class/net/n{i}/device/x": "" for i in range(64)})
    names = [name for name in tune(system) if name.startswith("nic.")]
    assert len(names) == 32


# ---- what cannot be read

UNREADABLE = [("proc/sys/net/core/somaxconn", "net.core.somaxconn"), (RMEM, "net.ipv4.tcp_rmem"),
              (f"{THP}/enabled", "memory.thp")]


NONE = ["", "much", "-1", "1 2 3 4 5", "99999999999999999999", "\0", "\\\"\x1b]0;x\xff" * 40]


@pytest.mark.parametrize("text", NONE, ids=range(len(NONE)))
@pytest.mark.parametrize("file, name", UNREADABLE)
def test_values_that_are_none(system, file, name, text):
    (system / file).write_bytes(text.encode("latin-1"))
    assert states(tune(system, code=1), "unknown") == {name: "unknown"}


def test_values_do_not_reach_the_terminal(system):
    (system / f"{THP}/enabled").write_bytes(b"[\x1b0;x\x07\xff]")
    assert tune(system)["memory.thp"]["now"] == "?0;x??"


@pytest.mark.parametrize("file, name", UNREADABLE)
def test_files_that_are_none(system, file, name):
    (system / file).unlink()
    (system / file).mkdir()
    checks = tune(system, "--apply", code=1)
    assert states(checks, "unknown") == {name: "unknown"}
    assert checks[name]["note"]


# ---- apply

def test_apply(system):
    make(system, {
        "proc/sys/net/core/somaxconn": "128", PORTS: "32768\t60999", RMEM: "4096\t87380\t4194304",
        "proc/sys/net/ipv4/tcp_tw_reuse": "2", "proc/sys/net/ipv4/tcp_fin_timeout": "120",
        "proc/sys/fs/nr_open": "2000000", "proc/sys/vm/overcommit_memory": "2",
        "proc/sys/kernel/io_uring_disabled": "2", GOVERNOR: "powersave",
        f"{THP}/enabled": "[always] never"})
    before = {p: p.read_bytes() for p in system.rglob("*") if p.is_file()}
    checks = tune(system, "--apply", code=1)
    assert states(checks, "set", "failed", "differs") == {
        "net.core.somaxconn": "set", "net.ipv4.ip_local_port_range": "set",
        "net.ipv4.tcp_rmem": "set", "net.ipv4.tcp_tw_reuse": "set",
        "net.ipv4.tcp_fin_timeout": "set", "vm.overcommit_memory": "differs",
        "kernel.io_uring_disabled": "differs", "cpu.governor": "differs", "memory.thp": "differs"}
    changed = {str(p.relative_to(system)): p.read_text() for p, old in before.items()
               if p.read_bytes() != old}
    assert changed == {
        "proc/sys/net/core/somaxconn": "4096", PORTS: "10240 65535",
        RMEM: "4096 87380 6291456", "proc/sys/net/ipv4/tcp_tw_reuse": "1",
        "proc/sys/net/ipv4/tcp_fin_timeout": "60"}
    assert checks["net.core.somaxconn"]["note"] == "it was 128"
    assert checks["net.core.somaxconn"]["now"] == "4096"
    assert {c["sysctl"] for c in checks.values() if c["sysctl"]} == {
        "net.core.somaxconn = 4096", "net.ipv4.ip_local_port_range = 10240 65535",
        "net.ipv4.tcp_rmem = 4096 87380 6291456", "net.ipv4.tcp_tw_reuse = 1",
        "net.ipv4.tcp_fin_timeout = 60"}
    again = tune(system, "--apply", code=1)
    assert states(again, "set", "failed") == {}


def test_apply_widens_a_range_on_one_side_only(system):
    make(system, {PORTS: "1024\t60999"})
    tune(system, "--apply", code=0)
    assert (system / PORTS).read_text() == "1024 65535"


def test_apply_may_be_all_that_is_needed(system):
    make(system, {"proc/sys/net/ipv4/tcp_tw_reuse": "0"})
    assert tune(system, "--apply", code=0)["net.ipv4.tcp_tw_reuse"]["state"] == "set"


def test_without_apply_nothing_is_written(system):
    make(system, {"proc/sys/net/ipv4/tcp_tw_reuse": "0", "proc/sys/net/core/somaxconn": "1"})
    before = {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in system.rglob("*") if p.is_file()}
    tune(system, code=1)
    assert before == {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in before}


def test_apply_that_is_refused(system):
    """A sysctl that not even root may write stands in for one."""
    path = system / "proc/sys/net/ipv4/tcp_slow_start_after_idle"
    path.unlink()
    path.symlink_to("/proc/sys/kernel/ngroups_max")
    make(system, {"proc/sys/net/ipv4/tcp_tw_reuse": "0"})
    checks = tune(system, "--apply", code=1)
    assert states(checks, "set", "failed") == {
        "net.ipv4.tcp_slow_start_after_idle": "failed", "net.ipv4.tcp_tw_reuse": "set"}
    failed = checks["net.ipv4.tcp_slow_start_after_idle"]
    assert "permission denied" in failed["note"]
    assert failed["sysctl"] == "net.ipv4.tcp_slow_start_after_idle = 0"


def test_apply_that_does_not_last(system):
    """What is written and reads otherwise afterwards was not set: 0 means "as before" to this one."""
    path = system / "proc/sys/net/ipv4/tcp_slow_start_after_idle"
    path.unlink()
    path.symlink_to("/proc/self/timerslack_ns")
    checks = tune(system, "--apply", code=1)
    assert states(checks, "failed") == {"net.ipv4.tcp_slow_start_after_idle": "failed"}
    assert "refuses" in checks["net.ipv4.tcp_slow_start_after_idle"]["note"]


# ---- what it prints

def test_the_table(system):
    make(system, {"proc/sys/net/ipv4/tcp_tw_reuse": "2", "proc/self/limits": limits("1024")})
    done = run("tune", "--root", system)
    lines = done.stdout.splitlines()
    assert done.returncode == 1 and "\033" not in done.stdout
    columns = [lines[0].index(word) for word in ("NAME", "NOW", "WANTED", "WHY")]
    rows = lines[1:lines.index("")]
    assert len(rows) == len(tune(system))
    for row in rows:
        assert all(row[at - 1] == " " and row[at] != " " for at in columns), row
    assert any(row.split()[:4] == ["differs", "net.ipv4.tcp_tw_reuse", "2", "1"] for row in rows)
    assert "  limit.nofile: LimitNOFILE=" in done.stdout
    assert "anygate tune --apply sets 1 of them" in done.stdout
    assert lines[-1] == "23 good, 2 differ, 1 absent"
    done = run("tune", "--root", system, "--apply")
    assert "/etc/sysctl.d/60-anygate.conf:\n\nnet.ipv4.tcp_tw_reuse = 1\n" in done.stdout
    assert "(it was 2)" in done.stdout and "--apply sets" not in done.stdout


@pytest.mark.parametrize("no_colour", [False, True])
def test_colours_on_terminals_only(system, no_colour):
    master, slave = pty.openpty()
    env = {**os.environ, **({"NO_COLOR": "1"} if no_colour else {})}
    if not no_colour:
        env.pop("NO_COLOR", None)
    process = subprocess.Popen([BINARY, "tune", "--root", system], stdout=slave, env=env)
    os.close(slave)
    out = b""
    while True:
        try:
            part = os.read(master, 65536)
        except OSError:
            break
        if not part:
            break
        out += part
    os.close(master)
    assert process.wait(30) == 0
    assert (b"\033[32mgood" in out) is not no_colour


def test_this_system():
    """Whatever it is: it is understood, and nothing is written."""
    done = run("tune", "--format", "json")
    said = json.loads(done.stdout)
    assert done.returncode == (0 if said["good"] else 1)
    assert [c for c in said["checks"] if c["name"] == "kernel.backend"][0]["state"] != "absent"
    assert run("tune", "--root", "/", "--format", "json").stdout == done.stdout


@pytest.mark.parametrize("options, hint", [
    (["--format", "xml"], "human or json"), (["--aply"], "did you mean --apply?"),
    (["--root", "/nowhere/at/all"], "cannot be read"), (["now"], "unexpected argument")])
def test_usage(options, hint):
    done = run("tune", *options)
    assert done.returncode == 2 and hint in done.stderr and done.stdout == ""


# ---- docs/TUNING.md

def test_the_page_has_the_same_table(system):
    page = (ROOT / "docs/TUNING.md").read_text()
    rows = dict(re.findall(r"(?m)^\| `([a-z0-9_.*-]+)` \| ([^|]+) \| [^|]{30,} \|$", page))
    assert rows == {c["check"]: c["wanted"] for c in tune(system).values()}
