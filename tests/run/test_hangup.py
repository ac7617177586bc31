"""A closed terminal: the run is saved, as for SIGTERM; under nohup it goes on."""

import os
import pty
import signal
import subprocess
from pathlib import Path

from test_resume import command_line, run_until

ROOT = Path(__file__).parents[2]


def test_a_closed_terminal_saves_the_run(tmp_path):
    """The command runs on a terminal of its own, which goes away."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(ROOT)
        command = command_line(tmp_path)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # whatever the tests run under, such as nohup
        os.execv(command[0], command)
    seen = b""
    while b"tick 1 " not in seen:
        seen += os.read(terminal, 4096)
    os.close(terminal)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    (folder,) = tmp_path.iterdir()
    assert "stopped by SIGHUP at kimg" in (folder / "log.txt").read_text()
    assert status == 0
    assert (folder / "training-state.pt").is_file()
    assert not (folder / ".lock").exists()


def test_an_ignored_hangup_is_ignored(tmp_path):
    """As nohup starts it."""
    process = subprocess.Popen(
        command_line(tmp_path),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),
    )
    run_until(process, "tick 1 ")
    process.send_signal(signal.SIGHUP)
    run_until(process, "tick 2 ")
    process.send_signal(signal.SIGTERM)
    assert "stopped by SIGTERM" in process.communicate()[0]
    assert process.returncode == 0
