import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_dead_server_is_one_line_and_exit_1(tmp_path):
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    folder = tmp_path / "data/encoders/quick/quick-simclr/0"
    folder.mkdir(parents=True)
    (folder / "encoder.json").write_text("{}")
    env = {**os.environ, "PYTHONPATH": str(ROOT / "ssl"), "MLFLOW_TRACKING_URI": "http://127.0.0.1:9"}
    command = [sys.executable, ROOT / "pipelines/track.py"]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and "no MLflow server answers" in done.stderr
