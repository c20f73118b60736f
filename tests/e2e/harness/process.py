"""A child process with its output in a file, ended together with everything it started."""

import os
import signal
import subprocess
import time

# Whatever ends the tests, even a SIGKILL, ends what they started: the kernel sees to it.
WITH_US = ["setpriv", "--pdeathsig", "KILL", "--"]


class Child:
    """Starts a command in a process group of its own; its output goes to log_path (appended).

    It ends with the thread that started it: start it in the main thread.
    """

    def __init__(self, name, argv, env, log_path, cwd=None):
        self.name, self.argv, self.env, self.log_path, self.cwd = name, argv, env, str(log_path), cwd
        self.process = None

    def start(self):
        assert not self.running, "%s is running already" % self.name
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                WITH_US + self.argv, env=self.env, cwd=self.cwd, stdin=subprocess.DEVNULL, stdout=log,
                stderr=log, start_new_session=True)
        return self

    @property
    def running(self):
        return self.process is not None and self.process.poll() is None

    @property
    def pid(self):
        return self.process.pid

    def log(self):
        if not os.path.exists(self.log_path):
            return ""
        with open(self.log_path, encoding="utf-8", errors="replace") as log:
            return log.read()

    def send_signal(self, number):
        """Signal the process itself, not its children."""
        os.kill(self.process.pid, number)

    def wait(self, timeout):
        """The exit status; a process that does not end in time is killed and the test fails."""
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError("%s did not exit within %g s" % (self.name, timeout))

    def terminate(self, timeout=30, number=signal.SIGTERM):
        """Ask it to end; returns its exit status."""
        self.send_signal(number)
        status = self.wait(timeout)
        self._kill_group()
        return status

    def kill(self):
        """SIGKILL to the process and all of its group; returns when they are gone."""
        if self.process is None:
            return
        self._kill_group()
        self.process.wait(30)

    def _kill_group(self):
        group = self.process.pid
        for _ in range(100):
            try:
                os.killpg(group, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                return
            self.process.poll()
            time.sleep(0.02)
