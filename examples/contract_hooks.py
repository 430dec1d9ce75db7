"""Holds a running Convene to its OpenAPI documents, with schemathesis.

For the infra API this is an app of your own: each request is signed with its key, as outside_app.py
does it. For the App's API it is a bearer. Ids that exist are put into half of the paths, queries and
bodies, so that requests get beyond "there is nothing here".

    SCHEMATHESIS_HOOKS=contract_hooks CONTRACT='{"key": "portal.key", "issuer": "our-portal", …}' \\
        schemathesis run docs/api/openapi-infra.json --url http://127.0.0.1:8081

CONTRACT is JSON: `ids`, a list of ids that exist for each name of a parameter; and either `bearer`, or
`key`, `issuer`, `org_id`, and `routing_tokens` by group.
"""

import json
import os
import random
import urllib.parse

import requests
import schemathesis

from outside_app import Key

CONTRACT = json.loads(os.environ["CONTRACT"])
KEY = Key.load(CONTRACT["key"]) if "key" in CONTRACT else None
IDS = CONTRACT["ids"]
# Names of members are the same wherever they occur, but for the `id` of the infra API's paths.
CHOICES = random.Random(7)


class Credentials(requests.auth.AuthBase):
    """What the request needs, made when its final bytes are known: a token is bound to them."""

    def __call__(self, request):
        if KEY is None:
            request.headers["authorization"] = f"Bearer {CONTRACT['bearer']}"
            return request
        path = urllib.parse.urlsplit(request.path_url).path
        body = request.body or b""
        body = body.encode() if isinstance(body, str) else body
        token = KEY.app_token(CONTRACT["issuer"], CONTRACT["org_id"], request.method, path, body)
        request.headers["authorization"] = f"Bearer {token}"
        for group, routing_token in CONTRACT["routing_tokens"].items():
            if path.startswith(f"/groups/{group}/"):
                request.headers["x-routing-token"] = routing_token
        return request


schemathesis.auth.set_from_requests(Credentials())


def known(operation, name):
    """Ids that exist for a member of an operation."""
    if name == "id":
        name = "org_id" if "/orgs/" in operation.path else "group_id"
    return IDS.get(name, [])


def with_known(operation, members):
    """The same members, with ids that exist in half of all cases."""
    if not isinstance(members, dict):
        return members
    members = dict(members)
    for name in members:
        found = known(operation, name)
        if found and CHOICES.random() < 0.5:
            members[name] = CHOICES.choice(found)
    return members


@schemathesis.hook
def map_path_parameters(context, path_parameters):
    return with_known(context.operation, path_parameters)


@schemathesis.hook
def map_query(context, query):
    return with_known(context.operation, query)


@schemathesis.hook
def map_body(context, body):
    return with_known(context.operation, body)
