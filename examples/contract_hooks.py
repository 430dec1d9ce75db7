"""Holds a running Convene to its OpenAPI documents, with schemathesis.

For the infra API this is an app of your own: each request is signed with its key, as outside_app.py
does it. For the App's API it is a bearer. Ids that exist are put into half of the paths, queries and
bodies, so that requests get beyond "there is nothing here".

    SCHEMATHESIS_HOOKS=contract_hooks CONTRACT='{"key": "portal.key", "issuer": "our-portal", …}' \\
        schemathesis run docs/api/openapi-infra.json --url http://127.0.0.1:8081

CONTRACT is JSON:

* `bearer`; or `key`, `issuer`, `org_id` (`null` for all of the app's) and `infra`, the address of the infra API, where routing tokens
  come from. With `controllers_key` (a file of the data directory) the callbacks of the groups in
  `controllers_groups` are signed as their controllers would;
* `ids`: what exists, a list of ids for each name of a parameter;
* `spare`: the same for the operations in `taking_away`, and `doomed` for what a DELETE is about, so that the
  others still find something;
* `of`: by operation, ids that it alone is about;
* `bodies`: by operation, bodies that hold what no generator guesses, for half of its requests;
* `report`, a file: a line of JSON for each answer, with `operation` and `status`.
"""

import collections
import hashlib
import json
import os
import random
import time
import urllib.parse
import uuid

import requests
import schemathesis

from outside_app import Infra, Key, b64

CONTRACT = json.loads(os.environ["CONTRACT"])
KEY = Key.load(CONTRACT["key"]) if "key" in CONTRACT else None
HOST = Key.load(CONTRACT["controllers_key"]) if "controllers_key" in CONTRACT else None
CALLBACKS = ("/usage", "/reserve", "/release-resources")
IDS, SPARE, DOOMED = (CONTRACT.get(which, {}) for which in ("ids", "spare", "doomed"))
# Names of members are the same wherever they occur, but for the `id` of the infra API's paths.
CHOICES = random.Random(7)
# So many requests of each operation are about what exists, of the others three in four.
CERTAIN = 6
CALLS = collections.Counter()
# Routing tokens hold for five minutes.
RENEW_AFTER = 120


class Credentials(requests.auth.AuthBase):
    """What the request needs, made when its final bytes are known: a token is bound to them."""

    def __init__(self):
        self.routing_tokens = {}

    def __call__(self, request):
        if KEY is None:
            request.headers["authorization"] = f"Bearer {CONTRACT['bearer']}"
            return request
        path = urllib.parse.urlsplit(request.path_url).path
        body = request.body or b""
        body = body.encode() if isinstance(body, str) else body
        request.headers["authorization"] = f"Bearer {self.token(request.method, path, body)}"
        if path.startswith("/groups/") and (token := self.routing_token(path.split("/")[2])):
            request.headers["x-routing-token"] = token
        return request

    def token(self, method, path, body):
        groups = CONTRACT.get("controllers_groups", []) if HOST else []
        for group in groups:
            if path.startswith(f"/infra/groups/{group}/") and method == "POST" and path.endswith(CALLBACKS):
                return controller_token(group, method, path, body)
        return KEY.app_token(CONTRACT["issuer"], CONTRACT["org_id"], method, path, body)

    def routing_token(self, group):
        if group not in IDS["group_id"]:
            return None
        token, until = self.routing_tokens.get(group, (None, 0))
        if time.monotonic() > until:
            infra = Infra(CONTRACT["infra"], KEY, CONTRACT["issuer"], CONTRACT["org_id"])
            token = infra.routing_token(group, "ana")
            self.routing_tokens[group] = (token, time.monotonic() + RENEW_AFTER)
        return token


def controller_token(group, method, path, body):
    """What a group's controller brings to a callback."""
    now = int(time.time())
    header = {"alg": "EdDSA", "typ": "controller+jwt", "kid": HOST.kid}
    claims = {
        "iss": "controllers",
        "aud": "orchestrator",
        "iat": now,
        "nbf": now,
        "exp": now + 60,
        "jti": str(uuid.uuid4()),
        "group_id": group,
        "epoch": 1,
        "htm": method,
        "htu": path,
        "bh": b64(hashlib.sha256(body).digest()),
    }
    message = ".".join(b64(json.dumps(part).encode()) for part in (header, claims))
    return f"{message}.{b64(HOST.private.sign(message.encode()))}"


schemathesis.auth.set_from_requests(Credentials())


def known(operation, name):
    """Ids that exist for a member of an operation."""
    parameter = name
    if name == "id":
        kinds = {"orgs": "org_id", "tasks": "task_id"}
        name = kinds.get(operation.path.split("/")[2], "group_id")
        if HOST and operation.method == "post" and operation.path.endswith(CALLBACKS):
            return CONTRACT["controllers_groups"]
    operation_id = operation.definition.raw.get("operationId")
    if name in (own := CONTRACT.get("of", {}).get(operation_id, {})):
        return own[name]
    first = {}
    if operation.method == "delete":
        # The group of a message that goes stays.
        first = DOOMED if operation.path.endswith("{" + parameter + "}") else {}
    elif operation_id in CONTRACT.get("taking_away", []):
        first = SPARE
    return first.get(name) or IDS.get(name, [])


def with_known(operation, members, likely):
    """The same members, most likely with ids that exist."""
    if not isinstance(members, dict):
        return members
    members = dict(members)
    for name, value in members.items():
        found = known(operation, name)
        if found and CHOICES.random() < likely:
            members[name] = CHOICES.choice(found)
        elif isinstance(value, dict):
            members[name] = with_known(operation, value, likely)
        elif isinstance(value, list) and (found := known(operation, name.removesuffix("s"))):
            members[name] = [CHOICES.choice(found)] if CHOICES.random() < likely else value
    return members


@schemathesis.hook
def before_call(context, case, kwargs):
    # Here, not while a request is made up: what is made up is shared between operations.
    operation = case.operation
    operation_id = operation.definition.raw.get("operationId")
    bodies = CONTRACT.get("bodies", {}).get(operation_id)
    likely = 0.75
    if case.method.lower() == operation.method and (bodies is None or isinstance(case.body, dict)):
        CALLS[operation_id] += 1
        likely = 1 if CALLS[operation_id] <= CERTAIN else likely
    case.path_parameters = with_known(operation, case.path_parameters, likely)
    case.query = with_known(operation, case.query, likely)
    if bodies and isinstance(case.body, dict) and CHOICES.random() < max(likely - 0.25, int(likely)):
        case.body = CHOICES.choice(bodies)
    case.body = with_known(operation, case.body, likely)


@schemathesis.hook
def after_call(context, case, response):
    if "report" in CONTRACT:
        said = {"operation": case.operation.label, "status": response.status_code}
        with open(CONTRACT["report"], "a", encoding="utf-8") as report:
            report.write(json.dumps(said) + "\n")
