"""A service over a fake engine, as a process of its own: `job_server.py PORT FRAME_S`, each frame of which takes that
long. Its other settings come from the environment.
"""

import sys
import time

from conftest import FakeEngine

from service.app import create_app
from service.server import Server
from service.settings import Settings


class SlowEngine(FakeEngine):
    """Takes its time for each frame."""

    def _misbehave(self, index: int) -> None:
        time.sleep(float(sys.argv[2]))


if __name__ == "__main__":
    Server(create_app(Settings(port=int(sys.argv[1])), SlowEngine())).run()
