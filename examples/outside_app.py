#!/usr/bin/env python3
"""An app of your own on Convene's infra API: one upstream, two users.

Needs the packages `websockets` and `cryptography`.
"""

import argparse
import base64
import hashlib
import json
import os
import sys
import time
import urllib.error
import urllib.request
import uuid

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from websockets.sync.client import connect


def b64(data):
    """Unpadded base64url, as JWTs have it."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Key:
    """An Ed25519 key that signs app tokens."""

    def __init__(self, private):
        self.private = private
        public = private.public_key().public_bytes(
            serialization.Encoding.Raw, serialization.PublicFormat.Raw
        )
        self.x = b64(public)
        self.kid = b64(hashlib.sha256(public).digest()[:12])

    @classmethod
    def load(cls, path):
        with open(path, "rb") as file:
            return cls(Ed25519PrivateKey.from_private_bytes(file.read()))

    @classmethod
    def make(cls, path):
        private = Ed25519PrivateKey.generate()
        raw = private.private_bytes(
            serialization.Encoding.Raw,
            serialization.PrivateFormat.Raw,
            serialization.NoEncryption(),
        )
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(raw)
        return cls(private)

    def jwks(self):
        key = {"kty": "OKP", "crv": "Ed25519", "x": self.x, "kid": self.kid, "alg": "EdDSA"}
        return {"keys": [{**key, "use": "sig"}]}

    def app_token(self, issuer, org_id, method, path, body):
        """A token that holds for this one request; in one organization, if one is named."""
        now = int(time.time())
        header = {"alg": "EdDSA", "typ": "app+jwt", "kid": self.kid}
        claims = {
            "iss": issuer,
            "aud": "orchestrator",
            "iat": now,
            "nbf": now,
            "exp": now + 60,
            "jti": str(uuid.uuid4()),
            "sub": "example",
            "htm": method,
            "htu": path,
            "bh": b64(hashlib.sha256(body).digest()),
        }
        if org_id is not None:
            claims["org_id"] = org_id
        message = ".".join(b64(json.dumps(part).encode()) for part in (header, claims))
        return f"{message}.{b64(self.private.sign(message.encode()))}"


class Infra:
    """The Orchestrator's infra API."""

    def __init__(self, url, key, issuer, org_id):
        self.url, self.key, self.issuer, self.org_id = url.rstrip("/"), key, issuer, org_id

    def authorization(self, method, path, body=b""):
        token = self.key.app_token(self.issuer, self.org_id, method, path, body)
        return {"authorization": f"Bearer {token}"}

    def call(self, method, path, body):
        data = json.dumps(body).encode()
        headers = {
            **self.authorization(method, path, data),
            "content-type": "application/json",
            "idempotency-key": str(uuid.uuid4()),
        }
        request = urllib.request.Request(self.url + path, data, headers, method=method)
        try:
            with urllib.request.urlopen(request) as response:
                return json.loads(response.read() or b"null")
        except urllib.error.HTTPError as error:
            problem = json.loads(error.read() or b"{}")
            raise RuntimeError(f"{method} {path}: {problem.get('code', error.code)}") from None

    def routing_token(self, group_id, user_id):
        body = {"group_id": group_id, "user_id": user_id, "role": "member"}
        return self.call("POST", "/infra/routing-token", body)["routing_token"]

    def upstream(self, group_id, routing_token):
        path = f"/groups/{group_id}/ws"
        headers = {**self.authorization("GET", path), "x-routing-token": routing_token}
        uri = self.url.replace("http", "ws", 1) + path
        return connect(uri, additional_headers=headers, subprotocols=["convene.v1"])


def run(args):
    infra = Infra(args.infra, Key.load(args.key), args.issuer, args.org)
    activation = infra.call(
        "POST", "/infra/groups", {"group_id": args.group, "org_id": args.org}
    )
    print(f"group {args.group} is {activation['status']} at {activation['group_controller_id'][:12]}…")

    users = ["ana", "ben"]
    tokens = {user: infra.routing_token(args.group, user) for user in users}
    with infra.upstream(args.group, tokens["ana"]) as upstream:

        def receive(wanted):
            while True:
                frame = json.loads(upstream.recv(timeout=30))
                if wanted(frame):
                    return frame

        for user in users:
            attach = {"type": "attach", "ref": "1", "conn": user, "token": tokens[user]}
            upstream.send(json.dumps(attach))
            answer = receive(lambda frame: frame.get("conn") == user)
            if answer["type"] != "attached":
                sys.exit(f"{user} is not attached: {answer}")
            print(f"{user} attached at event {answer['seq']}")
        for user, text in [("ana", "Is this one upstream?"), ("ben", "Yes, and we share it.")]:
            message_id = str(uuid.uuid4())
            post = {"type": "post", "ref": "2", "conn": user, "message_id": message_id, "text": text}
            upstream.send(json.dumps(post))
            event = receive(lambda frame: frame.get("message_id") == message_id and frame["type"] == "event")
            print(f"event {event['seq']}: {event['author']['id']}: {event['text']}")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    keygen = commands.add_parser("keygen", help="make a key and print its public key set")
    keygen.add_argument("key")
    talk = commands.add_parser("run", help="speak for two users in a group")
    talk.add_argument("key")
    token = commands.add_parser("token", help="print a routing token, for trying calls by hand")
    token.add_argument("key")
    token.add_argument("--user", default="ana")
    for command in (talk, token):
        command.add_argument("--infra", default="http://127.0.0.1:8081")
        command.add_argument("--issuer", default="our-portal")
        command.add_argument("--org", default="portal-org")
        command.add_argument("--group", default="portal-group")
    args = parser.parse_args()
    if args.command == "keygen":
        print(json.dumps(Key.make(args.key).jwks()))
    elif args.command == "token":
        infra = Infra(args.infra, Key.load(args.key), args.issuer, args.org)
        print(infra.routing_token(args.group, args.user))
    else:
        run(args)


if __name__ == "__main__":
    main()
