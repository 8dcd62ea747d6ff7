"""When, where and by which code a training was made: facts that change no result, for cost.json beside what it took."""

import contextlib
import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

PACKAGES = ("torch", "torchvision", "timm", "numpy", "accelerate")  # what a training is computed by
CODE = ("ssl", "pipelines")


def facts(device):
    """{"date", "machine", "versions"}, and where there is git "commit", of a training that ends now. device: torch's."""
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    made = {"date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"), "machine": machine(device), "versions": versions}
    return made | ({"commit": found} if (found := commit()) else {})


def machine(device):
    """The hardware in words, and never a host's name, since results are shared: 2 × AMD EPYC 7B13; NVIDIA H200."""
    if device.type == "cuda":
        import torch

        return f"{torch.cuda.device_count()} × {torch.cuda.get_device_name(device)}"
    name = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):  # Linux alone has it
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), name)
    return f"{os.cpu_count()} × {name}"


def commit(root="."):
    """The commit that is checked out, with "+" where the library has been edited since; None outside git."""
    def git(*words):
        return subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + "+" * bool(git("status", "--porcelain", "--untracked-files=no", "--", *CODE))
    except (OSError, subprocess.CalledProcessError):
        return None
