#!/usr/bin/env python3
"""A chat client for Convene: sign in, join a group, post, stream a reply, resume after a cut.

Needs the package `websockets`. Everything else is in the standard library.
"""

import argparse
import contextlib
import json
import socket
import sys
import urllib.error
import urllib.request
import uuid

from websockets.sync.client import connect


class Convene:
    """The App's HTTP API, with a bearer token."""

    def __init__(self, url):
        self.url = url.rstrip("/")
        self.token = None

    def call(self, method, path, body=None):
        request = urllib.request.Request(self.url + path, method=method)
        if self.token:
            request.add_header("authorization", f"Bearer {self.token}")
        data = None
        if body is not None:
            request.add_header("content-type", "application/json")
            data = json.dumps(body).encode()
        try:
            with urllib.request.urlopen(request, data) as response:
                return json.loads(response.read() or b"null")
        except urllib.error.HTTPError as error:
            problem = json.loads(error.read() or b"{}")
            raise RuntimeError(f"{method} {path}: {problem.get('code', error.code)}") from None

    def sign_in(self, email, password):
        """Signs in, or signs up when there is no such account yet."""
        account = {"email": email, "password": password, "bearer": True}
        try:
            answer = self.call("POST", "/api/auth/sign-in", account)
        except RuntimeError:
            name = email.split("@")[0].capitalize()
            answer = self.call("POST", "/api/auth/sign-up", {**account, "name": name})
        self.token = answer["token"]

    def group(self, group_id, invite):
        """The group to talk in: the one that is named, or a new one in a new workspace."""
        if invite:
            self.call("POST", f"/api/invites/{invite}", {})
        if group_id:
            return group_id
        org = self.call("POST", "/api/orgs", {"name": "Python examples"})
        group = {"org_id": org["org_id"], "title": "Hello", "is_private": False}
        return self.call("POST", "/api/groups", group)["group_id"]


class Stream:
    """A group's stream: attach, post, and read on from the last event that was seen."""

    def __init__(self, convene, group_id):
        self.uri = convene.url.replace("http", "ws", 1) + f"/api/groups/{group_id}/ws"
        self.headers = {"authorization": f"Bearer {convene.token}"}
        self.last_seq = None
        self.history = None
        self.stack = contextlib.ExitStack()
        self.socket = None

    def open(self):
        self.socket = self.stack.enter_context(
            connect(self.uri, additional_headers=self.headers, subprotocols=["convene.v1"])
        )
        attach = {"type": "attach", "ref": "attach"}
        if self.last_seq is not None:
            attach |= {"after": self.last_seq, "history": self.history}
        self.socket.send(json.dumps(attach))
        attached = json.loads(self.socket.recv(timeout=30))
        if attached["type"] != "attached":
            raise RuntimeError(f"not attached: {attached}")
        self.history = attached["history"]
        if self.last_seq is None:
            self.last_seq = attached["seq"]
        return attached

    def cut(self):
        """Loses the connection without saying goodbye."""
        self.socket.socket.shutdown(socket.SHUT_RDWR)

    def post(self, text):
        message_id = str(uuid.uuid4())
        frame = {"type": "post", "ref": message_id, "message_id": message_id, "text": text}
        self.socket.send(json.dumps(frame))
        return message_id

    def change(self, kind, message_id, **what):
        """Edits a message, reacts to it and the like; returns the number of the event."""
        ref = str(uuid.uuid4())
        frame = {"type": kind, "ref": ref, "message_id": message_id, **what}
        self.socket.send(json.dumps(frame))
        answer = next(frame for frame in self.frames() if frame.get("ref") == ref)
        if answer["type"] == "error":
            sys.exit(f"{kind} refused: {answer['code']}")
        return answer["seq"]

    def frames(self):
        while True:
            frame = json.loads(self.socket.recv(timeout=60))
            if frame["type"] == "event":
                if frame["seq"] != self.last_seq + 1:
                    raise RuntimeError(f"event {frame['seq']} follows {self.last_seq}")
                self.last_seq = frame["seq"]
            yield frame


def print_reply(stream, cut_after):
    """Prints the agent's reply as it comes; cuts the connection once, after some bytes of it."""
    printed = 0
    while True:
        for frame in stream.frames():
            if frame["type"] == "delta":
                # The text so far is sent again after an attach: print only what is new.
                data = frame["text"].encode()[max(0, printed - frame["offset"]):]
                printed += len(data)
                print(data.decode(), end="", flush=True)
                if cut_after is not None and printed >= cut_after:
                    break
            elif frame.get("kind") == "message.posted" and frame.get("run_id"):
                print(frame["text"].encode()[printed:].decode())
            elif frame.get("kind") == "run.finished":
                return frame
        cut_after = None
        stream.cut()
        print(" …[cut, resuming]… ", end="", flush=True)
        stream.open()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", default="http://127.0.0.1:8080")
    parser.add_argument("--email", required=True)
    parser.add_argument("--password", required=True)
    parser.add_argument("--group", help="a group that exists")
    parser.add_argument("--invite", help="the token of an invitation to accept first")
    parser.add_argument("text", help="what to say; mention an agent by @name")
    args = parser.parse_args()

    convene = Convene(args.url)
    convene.sign_in(args.email, args.password)
    group_id = convene.group(args.group, args.invite)
    print(f"group {group_id}")

    stream = Stream(convene, group_id)
    stream.open()
    posted = stream.post(args.text)
    for frame in stream.frames():
        if frame.get("ref") == posted:
            break
    if frame["type"] == "error":
        sys.exit(f"refused: {frame['code']}")
    print(f"posted as event {frame['seq']}")
    with stream.stack:
        finished = print_reply(stream, cut_after=40)
        print(f"run {finished['run_id']} {finished['status']} at event {stream.last_seq}")
        if finished["status"] != "completed":
            sys.exit(1)
        reacted = stream.change("react", finished["message_id"], emoji="👍", on=True)
        print(f"thanked as event {reacted}")
        edited = stream.change("edit", posted, text=f"{args.text} (thank you)")
        print(f"edited as event {edited}")


if __name__ == "__main__":
    main()
