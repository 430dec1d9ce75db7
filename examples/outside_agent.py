#!/usr/bin/env python3
"""An agent of your own: a process that joins a group with its own token and answers there.

It repeats what it is asked, backwards; put your own program into `answer`. It comes back after every
cut, takes on what waits for it, and gives up nothing that it has begun. Needs the package `websockets`.
"""

import argparse
import itertools
import json
import os
import sys
import time
import urllib.request

from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect


def answer(text):
    """The reply, piece by piece, as a model would stream it."""
    for word in reversed(text.split()):
        if not word.startswith("@"):
            yield word + " "


class Refused(Exception):
    """The group said no."""


class Agent:
    """One agent in one group."""

    def __init__(self, url, group, agent_id, token):
        self.url, self.group, self.agent_id = url.rstrip("/"), group, agent_id
        self.headers = {"authorization": f"Bearer {token}"}
        self.refs = itertools.count(1)
        self.socket = None
        self.waiting = []

    def message(self, message_id):
        """A message of the group, as it is now."""
        path = f"/api/groups/{self.group}/messages/{message_id}"
        request = urllib.request.Request(self.url + path, headers=self.headers)
        with urllib.request.urlopen(request) as response:
            return json.loads(response.read())["message"]

    def receive(self):
        """The next frame; runs that are started for this agent are noted."""
        frame = json.loads(self.socket.recv())
        if frame["type"] == "event" and frame["kind"] == "run.started":
            if frame["agent_id"] == self.agent_id:
                self.waiting.append(frame)
        return frame

    def ask(self, frame):
        """Sends a frame and waits for its answer."""
        ref = str(next(self.refs))
        self.socket.send(json.dumps({**frame, "ref": ref}))
        while True:
            got = self.receive()
            if got.get("ref") == ref:
                if got["type"] == "error":
                    raise Refused(f"{got['code']}: {got.get('detail', '')}")
                return got

    def work(self, run):
        """Takes a run on, answers it, ends it."""
        name = {"run_id": run["run_id"], "attempt": run["attempt"]}
        try:
            self.ask({"type": "run.claim", **name})
        except Refused as no:
            # Another process of the agent was faster, or the run is over.
            print(f"left {run['run_id']}: {no}", flush=True)
            return
        offset = 0
        try:
            for piece in answer(self.message(run["trigger"])["text"]):
                self.ask({"type": "run.text", **name, "offset": offset, "text": piece})
                offset += len(piece.encode())
            self.ask({"type": "run.end", **name, "outcome": {"status": "completed"}})
            print(f"answered {run['run_id']}", flush=True)
        except Refused as no:
            # Somebody stopped it, say.
            print(f"gave up {run['run_id']}: {no}", flush=True)

    def serve(self, once):
        """Answers until the connection ends, or one run if `once`."""
        uri = self.url.replace("http", "ws", 1) + f"/api/groups/{self.group}/ws"
        with connect(uri, additional_headers=self.headers, subprotocols=["convene.v1"]) as socket:
            self.socket, self.waiting = socket, []
            state = self.ask({"type": "attach"})["state"]
            # What was started while nobody was here.
            self.waiting += [
                run for run in state["runs"]
                if run["agent_id"] == self.agent_id and run["phase"] == "thinking"
            ]
            print("here", flush=True)
            while True:
                while self.waiting:
                    self.work(self.waiting.pop(0))
                    if once:
                        return
                self.receive()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", default="http://127.0.0.1:8080")
    parser.add_argument("--group", required=True)
    parser.add_argument("--agent", required=True, help="the agent's id")
    parser.add_argument("--once", action="store_true", help="end after one run")
    args = parser.parse_args()
    token = os.environ.get("CONVENE_AGENT_TOKEN")
    if not token:
        sys.exit("CONVENE_AGENT_TOKEN is not set: it is the token that the workspace has made")
    agent = Agent(args.url, args.group, args.agent, token)
    pause = 1
    while True:
        try:
            agent.serve(args.once)
            return
        except InvalidStatus as refused:
            if refused.response.status_code in (401, 403, 404):
                sys.exit(f"not let in: {refused}")
        except (ConnectionClosed, OSError) as cut:
            if isinstance(cut, ConnectionClosed) and cut.rcvd and cut.rcvd.code == 4003:
                sys.exit("the token was revoked, or the agent taken out of the group")
            print(f"cut: {cut}; coming back", file=sys.stderr)
        time.sleep(pause)
        pause = min(pause * 2, 30)


if __name__ == "__main__":
    main()
