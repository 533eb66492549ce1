"""What a report says of the machine, the kernel and the programs."""
import datetime
import os
import pathlib
import platform
import re
import subprocess

VERSIONS = {"nginx": ["nginx", "-v"], "haproxy": ["haproxy", "-v"], "h2o": ["h2o", "-v"], "wrk": ["wrk", "-v"],
            "h2load": ["h2load", "--version"], "openssl": ["openssl", "version"], "gcc": ["cc", "--version"]}


def version(command):
    try:
        done = subprocess.run(command, text=True, capture_output=True)
    except FileNotFoundError:
        return "not installed"
    first = (done.stdout + done.stderr).splitlines()[0]
    found = re.search(r"\d+\.\d+[\w.]*", first)
    return found.group(0) if found else first


def describe(binary):
    """The document's "meta" but for what the run itself knows."""
    cpuinfo = pathlib.Path("/proc/cpuinfo").read_text()
    model = re.search(r"^model name\s*:\s*(.+)$", cpuinfo, re.M)
    memory = int(re.search(r"MemTotal:\s+(\d+)", pathlib.Path("/proc/meminfo").read_text()).group(1))
    commit = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=pathlib.Path(__file__).parent, text=True,
                            capture_output=True).stdout.strip()
    return {"date": datetime.date.today().isoformat(), "commit": commit,
            "machine": f"{model.group(1) if model else platform.machine()}, {os.cpu_count()} cores",
            "memory_gib": round(memory / (1 << 20)), "kernel": platform.release(), "load_before": os.getloadavg()[0],
            "versions": {"anygate": version([binary, "version"]),
                         **{name: version(command) for name, command in VERSIONS.items()}}}
