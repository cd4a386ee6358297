"""Everything that needs a GPU, in under nine minutes: `python -m bench.gpu --out DIR`.

Builds the extension where it has no CUDA kernels, runs the `cuda` tests, compute-sanitizer over a selection of them,
and the measurements of `bench.device`. Each stage is a process with a time limit; one that fails is recorded with the
end of its output, and the others still run. `DIR/gpu.json` is written after each stage: device, driver, versions,
commit, and every figure beside its limit. The last stage says which file is to be committed, and where. Run it in a
clone, from its top folder; with `--quick` it runs without a GPU too, and leaves out what needs one.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

SCHEMA = 1
TOTAL = 525.0  # seconds for all stages
TAIL = 4000  # characters of output that are kept
LAST = "commit"
ANYWHERE = ("ops", "loop", LAST)  # stages that run without a GPU
ROOT = Path(__file__).parent.parent
ABOUT = """
import json, shutil, subprocess, sys, torch
from headstart.io.machine import describe
about, gpu = describe(), torch.cuda.is_available()
if gpu:
    at = torch.cuda.get_device_properties(0)
    about |= {"device": at.name, "capability": f"{at.major}.{at.minor}", "memory": at.total_memory,
              "processors_of_device": at.multi_processor_count, "cuda_of_torch": torch.version.cuda}
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    about["driver"] = subprocess.run(query, capture_output=True, text=True).stdout.strip() if shutil.which(query[0]) else None
else:
    about["missing"] = (f"torch {torch.__version__} was built without CUDA" if torch.version.cuda is None
                        else f"torch {torch.__version__} sees no CUDA device")
json.dump(about, open(sys.argv[1], "w"))
"""  # noqa: E501
SANITIZED = (  # every kernel, on tails, misaligned memory and more components than fit into shared memory at once
    "shape3 or shape5 or uniform or misaligned or in_place or origin or 2-2-37 or 16-16-25 or 17-17-25 or 129-5-3"
)


def run(command: Sequence[str], limit: float, env: dict[str, str]) -> dict[str, Any]:
    """One process in a group of its own: how it ended, the seconds it took and the end of its output."""
    began = time.perf_counter()
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", cwd=ROOT, env=env,
        start_new_session=True,
    )  # fmt: skip
    try:
        output, _ = process.communicate(timeout=max(limit, 1.0))
        status = "passed" if process.returncode == 0 else f"failed with status {process.returncode}"
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
        status = f"stopped after {limit:.0f} s"
    seconds = time.perf_counter() - began
    summary = output.strip().rpartition("\n")[2][-100:]
    return {
        "status": status, "seconds": seconds, "command": list(command), "summary": summary, "output": output[-TAIL:],
    }  # fmt: skip


def built(env: dict[str, str]) -> bool:
    """Whether the installed extension has CUDA kernels."""
    code = "from headstart import _core; raise SystemExit(not _core.build_info()['cuda'])"
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True).returncode == 0


def build(limit: float, env: dict[str, str]) -> dict[str, Any]:
    if built(env):
        return {"status": "passed", "seconds": 0.0, "output": "the extension has CUDA kernels"}
    env.pop("PYTHONPATH", None)  # what is installed now, not the sources
    command = [sys.executable, "-m", "pip", "install", "--no-build-isolation", "--no-deps", "--force-reinstall", "."]
    stage = run(command, limit, {**env, "CMAKE_ARGS": "-DHEADSTART_CUDA=on"})
    if stage["status"] == "passed" and not built(env):
        stage["status"] = "failed: the built extension has no CUDA kernels"
    return stage


def sanitize(tool: str, limit: float, env: dict[str, str]) -> dict[str, Any]:
    """`tool` of compute-sanitizer on headstart's own kernels in a selection of the tests."""
    sanitizer = shutil.which("compute-sanitizer")
    if sanitizer is None:
        return skip("compute-sanitizer was not found")
    options = subprocess.run([sanitizer, "--help"], capture_output=True, text=True).stdout
    only = ["--kernel-regex", "kns=headstart"] if "--kernel-regex" in options else []
    tests = [sys.executable, "-m", "pytest", "-q", "-x", "-m", "cuda", "-k", SANITIZED, "tests/ops/test_cuda.py"]
    if tool != "racecheck":  # blocks of their own, so that torch's pool hides no access outside of a tensor
        env = {**env, "PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    return run([sanitizer, "--tool", tool, *only, "--error-exitcode", "86", *tests], limit, env)


def measure(what: str, quick: bool, limit: float, env: dict[str, str]) -> dict[str, Any]:
    """The measurements of `bench.device`; those made before a failure are kept."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "cases.json"
        command = [sys.executable, "-m", "bench.device", what, "--out", str(file), *["--quick"] * quick]
        stage = run(command, limit, env)
        return {**stage, "cases": json.loads(file.read_text()) if file.exists() else []}


def about(env: dict[str, str]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "about.json"
        stage = run([sys.executable, "-c", ABOUT, str(file)], 60.0, env)
        return json.loads(file.read_text()) if file.exists() else {"missing": stage["output"].strip()[-500:]}


def save(path: Path, report: dict[str, Any]) -> None:
    temporary = path.with_name(f".{path.name}.part")
    temporary.write_text(json.dumps(report, indent=1) + "\n")
    os.replace(temporary, path)


def show(report: dict[str, Any]) -> None:
    machine = report["machine"]
    print(f"\n{machine.get('device', machine.get('name'))}, torch {machine.get('torch')}, {machine.get('commit')}")
    for name, stage in report["stages"].items():
        print(f"{name:<12} {stage['status']:<44} {stage['seconds']:6.1f} s  {stage.get('summary', '')}")
        if stage["status"].startswith(("failed", "stopped")):
            print("  " + "\n  ".join(stage["output"].strip().splitlines()[-12:]))
        for case in stage.get("cases", []):
            for at in case["figures"]:
                verdict = "(dry run)" if report["quick"] else "met" if at["met"] else "MISSED"
                print(f"  {case['name']:<76} {at['figure']:<18} {at['value']:8.3f}  limit {at['limit']:<5} {verdict}")


def skip(reason: str) -> dict[str, Any]:
    return {"status": f"skipped: {reason}", "seconds": 0.0}


def name_commit(report: dict[str, Any], out: Path) -> dict[str, Any]:
    """What of the run is to be committed: its file, where every stage before this one passed on a GPU."""
    failed = [name for name, stage in report["stages"].items() if stage["status"].startswith(("failed", "stopped"))]
    machine = report["machine"]
    if report["quick"] or "missing" in machine:
        text = "commit nothing: a dry run measures nothing"
    elif failed:
        text = f"commit nothing: {', '.join(failed)} did not pass"
    else:
        name = re.sub(r"[^a-z0-9]+", "-", machine["device"].lower()).strip("-")
        text = f"commit {out / 'gpu.json'} as bench/results/gpu/{name}.json"
    print(text)
    return {"status": "passed", "seconds": 0.0, "summary": text}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for gpu.json")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, on the CPU where there is no GPU: a dry run")
    arguments = parser.parse_args()
    env, began = dict(os.environ), time.perf_counter()
    machine = about(env)
    if "missing" in machine and not arguments.quick:
        raise SystemExit(f"bench.gpu: needs a GPU: {machine['missing']}")
    arguments.out.mkdir(parents=True, exist_ok=True)
    report: dict[str, Any] = {"schema": SCHEMA, "machine": machine, "quick": arguments.quick, "stages": {}}
    tests = [sys.executable, "-m", "pytest", "-q", "-m", "cuda", "tests"]
    stages = {
        "build": (120, lambda limit: build(limit, env)),
        "tests": (120, lambda limit: run(tests, limit, env)),
        "ops": (150, lambda limit: measure("ops", arguments.quick, limit, env)),
        "loop": (110, lambda limit: measure("loop", arguments.quick, limit, env)),
        "memcheck": (60, lambda limit: sanitize("memcheck", limit, env)),
        "racecheck": (60, lambda limit: sanitize("racecheck", limit, env)),
        "initcheck": (60, lambda limit: sanitize("initcheck", limit, env)),
        LAST: (1, lambda limit: name_commit(report, arguments.out)),
    }
    for name, (limit, stage) in stages.items():
        left = TOTAL - (time.perf_counter() - began)
        if "missing" in machine and name not in ANYWHERE:
            done = skip(machine["missing"])
        else:
            done = stage(min(limit, left)) if left > 5 or name == LAST else skip("no time left")
        report["stages"][name] = done
        if name == "build":
            report["machine"] = about(env)
        report["seconds"] = time.perf_counter() - began
        save(arguments.out / "gpu.json", report)
        print(f"{name}: {report['stages'][name]['status']}", flush=True)
    show(report)


if __name__ == "__main__":
    main()
