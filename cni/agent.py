"""One request to the node's agent: HTTP over its unix socket, by hand, since http.client would double the start.

It is HTTP/1.0, so that the server ends the connection after its answer, and may not send that in chunks.
"""

from __future__ import annotations

import time

# What the module socket is made of; its enumerations cost 4 ms.
from _socket import AF_UNIX, socket

from cni.errors import FAILED, IO_FAILURE, TRY_LATER, CniError
from cni.wire import encode, nonsense, parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni.call import Call
    from cni.wire import Json

RETRY_PAUSE_S = 0.1
ANSWER_LIMIT = 1 << 20


class AgentRefusal(CniError):
    """The agent answered with another status than 200: a JSON string, or `{"code":..,"message":..}`, says why."""

    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.status = status
        try:
            said = parse(body.decode())
        except (ValueError, RecursionError):
            said = body.decode(errors="replace").strip()
        said = said.get("message") if isinstance(said, dict) else said
        msg = said[:2000] if said and isinstance(said, str) else "the agent gave no reason"
        # The original agent sends neither header.
        code, reason = (headers.get(f"x-spiderpool-{name}", "") for name in ("cni-code", "reason"))
        fallback = TRY_LATER if status in (429, 503) else FAILED
        details = f"{reason[:100]}{'; ' if reason else ''}the agent answered {status}"
        super().__init__(int(code) if is_number(code, 4) and code[0] != "0" else fallback, msg, details)

    @property
    def is_unknown_route(self) -> bool:
        """The original answers 501 to routes of ours, an older agent of ours 404 or 405."""
        return self.status in (404, 405, 501)


class Agent:
    """`deadline_s` counts from the start of the process to the end of the answer; for `patience_s` of it a socket that
    is missing or refuses is tried again: an agent that restarts is back soon.
    """

    def __init__(self, call: Call, deadline_s: float, patience_s: float) -> None:
        self.path: str = call.settings["ipam_unix_socket_path"]
        self.deadline = call.started + deadline_s
        self.patience_s = patience_s

    def ask(self, method: str, target: str, body: Json | None = None) -> bytes:
        """The body of the answer. AgentRefusal if its status is not 200, CniError 5, 6 or 11 if there is none."""
        content = b"" if body is None else encode(body).encode()
        connection = socket(AF_UNIX)
        try:
            self._connect(connection)
            head = (
                f"{method} {target} HTTP/1.0\r\nHost: spiderpool\r\nContent-Type: application/json\r\n"
                f"Content-Length: {len(content)}\r\n"
                f"X-Spiderpool-Deadline-Seconds: {self._seconds_left():.3f}\r\n\r\n"
            )
            connection.sendall(head.encode() + content)
            received = self._receive(connection)
        except OSError as error:
            reason = "did not answer in time" if isinstance(error, TimeoutError) else f"broke off: {error}"
            raise CniError(TRY_LATER, f"the agent on {self.path} {reason}") from error
        finally:
            connection.close()
        status, headers, answer = parse_http(received)
        if status != 200:
            raise AgentRefusal(status, headers, answer)
        return answer

    def _connect(self, connection: socket) -> None:
        give_up = time.monotonic() + self.patience_s
        while True:
            connection.settimeout(self._seconds_left())
            try:
                connection.connect(self.path)
                return
            except (FileNotFoundError, ConnectionRefusedError, BlockingIOError) as error:
                # BlockingIOError: its queue of connections is full.
                if time.monotonic() + RETRY_PAUSE_S < give_up:
                    time.sleep(RETRY_PAUSE_S)
                    continue
                msg = f"no agent listens on {self.path}: {error.strerror}"
                raise CniError(TRY_LATER, msg, "is the spiderpool-agent of this node running?") from error
            except OSError as error:
                raise CniError(IO_FAILURE, f"cannot connect to {self.path}: {error}") from error

    def _receive(self, connection: socket) -> bytes:
        received, piece = b"", b"-"
        while piece:
            connection.settimeout(self._seconds_left())
            piece = connection.recv(65536)
            received += piece
            if len(received) > ANSWER_LIMIT:
                raise CniError(IO_FAILURE, f"the agent's answer has more than {ANSWER_LIMIT} bytes")
        return received

    def _seconds_left(self) -> float:
        if (left := self.deadline - time.monotonic()) > 0:
            return left
        raise TimeoutError


def parse_http(received: bytes) -> tuple[int, dict[str, str], bytes]:
    """Status, headers by lower-case name, body."""
    head, is_whole, body = received.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    protocol, _, rest = first.partition(" ")
    status = rest.partition(" ")[0]
    is_status = protocol in ("HTTP/1.0", "HTTP/1.1") and is_number(status, 3) and "100" <= status <= "599"
    length = headers.get("content-length", str(len(body)))
    if (received and not is_status) or not is_number(length, 9):
        raise nonsense("it is not HTTP")
    if not is_status or not is_whole or len(body) < int(length):
        raise CniError(TRY_LATER, "the agent broke off within its answer", "was it restarted?")
    return int(status), headers, body


def is_number(text: str, digits: int) -> bool:
    return len(text) <= digits and text.isascii() and text.isdecimal()
