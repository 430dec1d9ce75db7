"""An MCP server with two tools, made with the official SDK, as agents can use it.

    pip install -r requirements-mcp.txt
    python mcp_server.py 8931

Its endpoint is http://127.0.0.1:8931/mcp. An agent reads the count at once, since the tool says that
it changes nothing; it asks for permission before it writes. A server on loopback has to be named by
the operator: agents.allow_hosts = ["127.0.0.1:8931"].
"""

import sys

from mcp.server.mcpserver import MCPServer
from mcp.types import ToolAnnotations

server = MCPServer("notes", version="1.0")
notes: list[str] = []


@server.tool(annotations=ToolAnnotations(read_only_hint=True))
def count() -> str:
    """Tells how many notes there are."""
    return f"{len(notes)} notes"


@server.tool()
def write(text: str) -> str:
    """Writes a note."""
    notes.append(text)
    return f"noted: {text}"


if __name__ == "__main__":
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 8931
    server.run("streamable-http", host="127.0.0.1", port=port)
