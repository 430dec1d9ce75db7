"""A history service of one's own: keeps what is written in groups whose `history_mode` is `external`.

A reference for the contract in docs/external-history.md, complete but for what an organization adds of its
own (more than one process, backups, TLS). Python 3.9 or newer, nothing but its standard library.

    python3 history_service.py --listen 127.0.0.1:9090 --db history.db --secret-file secret.txt

Faults for tests: `--fail-first N` answers the first N requests with 503 after having done what they ask, so
that everything comes again; `--slow SECONDS` waits before each answer.
"""

import argparse
import hmac
import json
import re
import sqlite3
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

MAX_BODY = 8 * 1024 * 1024
MAX_PAGE = 200

SCHEMA = """
CREATE TABLE IF NOT EXISTS groups (
    group_id TEXT PRIMARY KEY, org_id TEXT NOT NULL, history TEXT NOT NULL, last INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS messages (
    group_id TEXT NOT NULL, seq INTEGER NOT NULL, body TEXT NOT NULL, PRIMARY KEY (group_id, seq));
CREATE TABLE IF NOT EXISTS runs (
    group_id TEXT NOT NULL, seq INTEGER NOT NULL, body TEXT NOT NULL, PRIMARY KEY (group_id, seq));
"""


class Refused(Exception):
    """A request that is answered with a status and a JSON document."""

    def __init__(self, status, document):
        super().__init__(status)
        self.status, self.document = status, document


class History:
    """Everything that is kept, in one SQLite file; one request at a time writes."""

    def __init__(self, path):
        self.lock = threading.Lock()
        self.db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self.db.execute("PRAGMA journal_mode = WAL")
        self.db.execute("PRAGMA synchronous = FULL")
        self.db.execute("PRAGMA secure_delete = ON")
        self.db.executescript(SCHEMA)

    def append(self, group_id, request):
        """Takes entries in; those that are known already change nothing."""
        after, upto = request["after"], request["upto"]
        with self.lock:
            self.db.execute("BEGIN IMMEDIATE")
            try:
                row = self.db.execute(
                    "SELECT last, org_id, history FROM groups WHERE group_id = ?", (group_id,)
                ).fetchone()
                last = row[0] if row else 0
                if row and row[1] != request["org_id"]:
                    raise Refused(403, {"error": "the group belongs to another organization"})
                if row and row[2] != request["history"] and after < last:
                    # A backup of Convene was restored: numbers beyond `after` are used again. What had
                    # them is set aside.
                    for table in ("messages", "runs"):
                        self.db.execute(
                            f"UPDATE OR REPLACE {table} SET group_id = group_id || '@' || ?"
                            " WHERE group_id = ? AND seq > ?",
                            (row[2], group_id, after),
                        )
                    last = after
                if after > last:
                    # Something is missing in between: say from where on it is wanted.
                    raise Refused(409, {"last": last})
                for entry in request["entries"]:
                    if entry["seq"] > last:
                        self.apply(group_id, entry)
                last = max(last, upto)
                self.db.execute(
                    "INSERT INTO groups (group_id, org_id, history, last) VALUES (?, ?, ?, ?)"
                    " ON CONFLICT (group_id) DO UPDATE SET history = excluded.history, last = excluded.last",
                    (group_id, request["org_id"], request["history"], last),
                )
                self.db.execute("COMMIT")
            except BaseException:
                self.db.execute("ROLLBACK")
                raise
        return {"last": last}

    def apply(self, group_id, entry):
        kind = entry["kind"]
        if kind == "message":
            self.put("messages", group_id, entry["seq"], entry)
        elif kind == "edit":
            message = self.get(group_id, entry["message_seq"])
            if message and not message.get("deleted"):
                message["text"], message["edited_at"] = entry["text"], entry["at"]
                self.put("messages", group_id, entry["message_seq"], message)
        elif kind == "delete":
            message = self.get(group_id, entry["message_seq"])
            if message:
                message["text"], message["deleted"] = "", True
                self.put("messages", group_id, entry["message_seq"], message)
        elif kind == "run":
            self.put("runs", group_id, entry["seq"], entry)
        # Kinds that are not known yet are passed over, so that a newer Convene is understood.

    def get(self, group_id, seq):
        row = self.db.execute(
            "SELECT body FROM messages WHERE group_id = ? AND seq = ?", (group_id, seq)
        ).fetchone()
        return json.loads(row[0]) if row else None

    def put(self, table, group_id, seq, body):
        self.db.execute(
            f"INSERT OR REPLACE INTO {table} (group_id, seq, body) VALUES (?, ?, ?)",
            (group_id, seq, json.dumps(body, ensure_ascii=False)),
        )

    def page(self, group_id, after, before, limit):
        with self.lock:
            rows = self.db.execute(
                "SELECT body FROM messages WHERE group_id = ? AND seq > ? AND seq < ?"
                " ORDER BY seq DESC LIMIT ?",
                (group_id, after, before, limit),
            ).fetchall()
        return {"messages": [json.loads(body) for (body,) in reversed(rows)]}

    def erase(self, group_id):
        with self.lock:
            self.db.execute("BEGIN IMMEDIATE")
            for table in ("messages", "runs", "groups"):
                self.db.execute(
                    f"DELETE FROM {table} WHERE group_id = ? OR substr(group_id, 1, ?) = ?",
                    (group_id, len(group_id) + 1, group_id + "@"),
                )
            self.db.execute("COMMIT")
            self.db.execute("PRAGMA wal_checkpoint(TRUNCATE)")


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    history = None
    secret = b""
    slow = 0.0
    fail_first = 0

    def do_POST(self):
        self.answer(self.post)

    def do_GET(self):
        self.answer(self.get)

    def do_DELETE(self):
        self.answer(self.delete)

    def post(self):
        group_id = self.group("entries")
        length = int(self.headers.get("content-length", "0"))
        if length > MAX_BODY:
            raise Refused(413, {"error": "the body is too large"})
        try:
            request = json.loads(self.rfile.read(length))
            if request["group_id"] != group_id:
                raise Refused(400, {"error": "the body is of another group"})
            return 200, self.history.append(group_id, request)
        except (ValueError, KeyError, TypeError) as error:
            raise Refused(400, {"error": f"the body is not of the documented form: {error}"}) from error

    def get(self):
        group_id = self.group("messages")
        query = parse_qs(urlsplit(self.path).query)

        def number(name, default):
            try:
                return int(query.get(name, [default])[0])
            except ValueError as error:
                raise Refused(400, {"error": f"{name} is no number"}) from error

        limit = number("limit", 50)
        if not 1 <= limit <= MAX_PAGE:
            raise Refused(400, {"error": f"limit is 1 to {MAX_PAGE}"})
        return 200, self.history.page(group_id, number("after", 0), number("before", 2**53), limit)

    def delete(self):
        self.history.erase(self.group(None))
        return 200, {}

    def group(self, what):
        tail = f"/{what}" if what else ""
        found = re.fullmatch(rf".*/groups/([A-Za-z0-9_-]{{1,64}}){tail}", urlsplit(self.path).path)
        if not found:
            raise Refused(404, {"error": "there is nothing here"})
        return found.group(1)

    def answer(self, do):
        try:
            given = self.headers.get("authorization", "").encode()
            if not hmac.compare_digest(given, b"Bearer " + self.secret):
                # What was not read would be taken for the next request.
                self.close_connection = True
                raise Refused(401, {"error": "the secret is wrong"})
            status, document = do()
        except Refused as refused:
            status, document = refused.status, refused.document
        if Handler.fail_first > 0:
            Handler.fail_first -= 1
            status, document = 503, {"error": "as asked for"}
        if self.slow:
            time.sleep(self.slow)
        body = json.dumps(document, ensure_ascii=False).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, form, *args):
        sys.stderr.write(f"{self.command} {urlsplit(self.path).path} {args[1] if len(args) > 1 else ''}\n")


def main():
    parser = argparse.ArgumentParser(description="Keeps what is written in groups of Convene.")
    parser.add_argument("--listen", default="127.0.0.1:9090")
    parser.add_argument("--db", default="history.db")
    parser.add_argument("--secret-file", required=True)
    parser.add_argument("--fail-first", type=int, default=0, help="for tests")
    parser.add_argument("--slow", type=float, default=0.0, help="for tests")
    args = parser.parse_args()
    Handler.history = History(args.db)
    Handler.secret = Path(args.secret_file).read_text(encoding="utf-8").strip().encode()
    Handler.slow, Handler.fail_first = args.slow, args.fail_first
    host, port = args.listen.rsplit(":", 1)
    server = ThreadingHTTPServer((host, int(port)), Handler)
    print(f"http://{host}:{server.server_address[1]}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
