#!/usr/bin/env -S python3 -I -S
"""The CNI IPAM plugin `spiderpool`: one command of the container runtime becomes one request to the node's agent.

The runtime, or a main plugin such as macvlan, starts it with CNI_COMMAND and its companions in the environment and the
network configuration on stdin. `main`, at the end, reads and checks both and calls the function of the command:

    ADD      POST /v1/ipam/ip; the answer's addresses of CNI_IFNAME are printed as a CNI result
    DEL      DELETE /v1/ipam/ip; a release that the agent cannot do now is kept on disk for it, and DEL succeeds
    CHECK    GET /v1/workloadendpoint, compared with prevResult
    STATUS   GET /v1/runtime/readiness
    GC       nothing, see `collect_garbage`
    VERSION  answered without agent and stdin

stdout gets one JSON document or nothing; a failure is CNI error JSON and exit status 1. One JSON line goes to the log.
All state is the agent's, so a signal may end this process at any moment. CNI: https://www.cni.dev/docs/spec/.

It starts for every pod: standard library only, no module that loads slowly (dataclasses, http.client, pathlib, typing),
`-I -S` so that no PYTHON* variable or site directory has a say. 17 of the 25 ms of an ADD are Python, json and socket.
"""
# ruff: noqa: PTH103, PTH104, PTH108, PTH110, PTH116, PTH120 - pathlib loads in 6 ms

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
import socket
import stat
import sys
import time

TYPE_CHECKING = False  # as in typing, which loads in 4 ms
if TYPE_CHECKING:
    from types import FrameType
    from typing import Any

    Json = dict[str, Any]

# CNI error codes; 999 is what the original plugin uses for everything of its own.
INCOMPATIBLE, BAD_ENVIRONMENT, IO_FAILURE, CANNOT_DECODE, BAD_CONFIG = 1, 4, 5, 6, 7
TRY_LATER, NOT_AVAILABLE, FAILED = 11, 50, 999

VERSIONS = ("0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")
FIRST_VERSION = {"ADD": "0.3.0", "DEL": "0.3.0", "CHECK": "0.4.0", "STATUS": "1.1.0", "GC": "1.1.0"}

# Seconds from the start of the process to its end, and of them those in which a missing or refusing socket is tried
# again (an agent that restarts is back soon). Kubelet and runtimes give a sandbox up after 2 to 4 minutes. A DEL has
# 0.6 s left for start and intent within the promised 2 s, and 0.7 s of the promised 1 s without agent.
ADD_DEADLINE_S, ADD_PATIENCE_S = 60.0, 2.0
DEL_DEADLINE_S, DEL_PATIENCE_S = 1.4, 0.3
ASK_DEADLINE_S, ASK_PATIENCE_S = 5.0, 0.4
RETRY_PAUSE_S = 0.1

STDIN_LIMIT = ANSWER_LIMIT = 1 << 20
ARGS_LIMIT = 8 << 10  # of CNI_ARGS; the names and UID of a pod take less than 600 bytes

ID_FORM = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.\-]*")  # container IDs and network names
POD_NAME_FORM = re.compile(r"[a-z0-9]([a-z0-9.\-]*[a-z0-9])?")  # RFC 1123; needs no quoting in a URL
POD_ARGS = ("K8S_POD_NAMESPACE", "K8S_POD_NAME", "K8S_POD_UID")
OTHER_ARGS = ("K8S_POD_INFRA_CONTAINER_ID", "IP", "IgnoreUnknown")
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGALRM)
LEVELS = {"debug": 0, "info": 1, "warn": 2, "error": 3, "fatal": 3, "panic": 3}


class CniError(Exception):
    """What the runtime is told: `msg` is one line for people, `details` says where to look or what to do."""

    def __init__(self, code: int, msg: str, details: str = "") -> None:
        super().__init__(msg)
        self.code, self.msg, self.details = code, msg, details


PATH, NAMES, FLAG = "an absolute path", "a list of pool names", "true or false"
LEVEL, NUMBER = f"one of {', '.join(LEVELS)}", "a whole number below a million"
SETTINGS: dict[str, tuple[Any, str]] = {  # member of `ipam`: default, form
    "ipam_unix_socket_path": ("/var/run/spidernet/spiderpool.sock", PATH),
    "state_dir": ("/var/lib/spiderpool", PATH),
    "log_file_path": ("/var/log/spidernet/spiderpool.log", PATH),
    "log_level": ("info", LEVEL),
    "log_file_max_size": (100, NUMBER),  # MB; 0 stands for 100
    "log_file_max_age": (30, NUMBER),  # days; 0: no limit
    "log_file_max_count": (7, NUMBER),  # rotated files; 0: no limit
    "default_ipv4_ippool": (None, NAMES),
    "default_ipv6_ippool": (None, NAMES),
    "clean_gateway": (False, FLAG),
    "match_master_subnet": (False, FLAG),
}


def has_form(value: Any, form: str) -> bool:
    if form == NUMBER:  # also as a string: samples that people copy have it so
        return type(value) in (int, str) and re.fullmatch("-?[0-9]{1,6}", str(value)) is not None
    if form == NAMES:
        return isinstance(value, list) and all(isinstance(name, str) for name in value)
    if form == PATH:
        return isinstance(value, str) and value.startswith("/") and not re.search("[\0\ud800-\udfff]", value)
    return isinstance(value, bool) if form == FLAG else isinstance(value, str) and value.lower() in LEVELS


def read_settings(ipam: Json) -> tuple[Json, list[str]]:
    """A usable value for every member of SETTINGS, and what is wrong with those given."""
    settings, problems = {}, []
    for key, (default, form) in SETTINGS.items():
        value = ipam.get(key)
        if value is not None and not has_form(value, form):
            problems.append(f"ipam.{key} must be {form}")
            # Nobody looks for the log of this network at the default's place.
            value = "" if key == "log_file_path" else None
        if form == NUMBER and value is not None:
            value = int(value) if int(value) >= 0 else None  # the original takes -1 for "the default"
        settings[key] = default if value is None else value
    return settings, problems


class Call:
    """One run of the plugin: what it was told, and what its log line will say beside that."""

    def __init__(self) -> None:
        self.started = time.monotonic()
        self.command = os.environ.get("CNI_COMMAND", "")
        self.container_id = os.environ.get("CNI_CONTAINERID", "")
        self.netns = os.environ.get("CNI_NETNS", "")
        self.if_name = os.environ.get("CNI_IFNAME", "")
        self.namespace = self.pod = self.pod_uid = ""
        self.cni_version = VERSIONS[-1]
        self.prev_result: object = None
        self.settings: Json = {}  # empty: no configuration was read, so no log file is known
        self.notes: Json = {}

    def read_config(self) -> None:
        """Take and check stdin. CniError 1, 5, 6 or 7."""
        try:
            with open(0, "rb", closefd=False) as stdin:
                data = stdin.read(STDIN_LIMIT + 1)
        except OSError as error:
            raise CniError(IO_FAILURE, f"cannot read the network configuration from stdin: {error}") from error
        if len(data) > STDIN_LIMIT:
            raise CniError(CANNOT_DECODE, f"the network configuration on stdin has more than {STDIN_LIMIT} bytes")
        config = decode(data, "the network configuration on stdin")
        ipam = config.get("ipam")
        self.settings, problems = read_settings(ipam if isinstance(ipam, dict) else {})
        self.check_version(config)
        if self.command == "DEL":
            # It must not fail for a configuration that was edited or cut short since the ADD.
            for problem in problems:
                complain(f"{problem}; its default is used")
            return
        if not isinstance(ipam, dict):
            problems.append("ipam must be an object")
        if not matches(ID_FORM, config.get("name")):
            problems.append("name must be letters, digits, '_', '.' and '-'")
        if problems:
            problem = f"the network configuration is not valid: {'; '.join(problems)}"
            raise CniError(BAD_CONFIG, problem, "see the CNI configuration file or NetworkAttachmentDefinition")
        self.prev_result = config.get("prevResult")

    def check_version(self, config: Json) -> None:
        version = config.get("cniVersion")
        if version is None and self.command == "DEL":
            return
        if version not in VERSIONS:
            problem = f"cniVersion {json.dumps(version)[:40]} is not supported"
            raise CniError(INCOMPATIBLE, problem, f"supported are {', '.join(VERSIONS)}")
        self.cni_version = version
        first = FIRST_VERSION[self.command]
        if VERSIONS.index(version) < VERSIONS.index(first):
            raise CniError(INCOMPATIBLE, f"cniVersion {version} has no {self.command}; {first} is the first")

    def check_environment(self) -> None:
        """CniError 4 unless the variables that the command needs are there and have the right form."""
        if self.command in ("STATUS", "GC"):
            return
        if not matches(ID_FORM, self.container_id):
            raise bad_variable("CNI_CONTAINERID", self.container_id, "letters, digits, '_', '.' and '-'")
        name = self.if_name
        if not 0 < len(os.fsencode(name)) < 16 or name in (".", "..") or re.search(r"[/:\s]", name):
            raise bad_variable("CNI_IFNAME", name, "1 to 15 bytes without '/', ':' and spaces, not '.' or '..'")
        if self.command != "DEL" and not self.netns:
            raise bad_variable("CNI_NETNS", "", "the path of the pod's network namespace")
        self.take_args(os.environ.get("CNI_ARGS", ""))

    def take_args(self, text: str) -> None:
        pairs = [pair.split("=") for pair in text.split(";") if pair]
        args = {pair[0]: pair[1] for pair in pairs if len(pair) == 2}
        self.namespace, self.pod, self.pod_uid = (args.get(key, "") for key in POD_ARGS)
        if self.command == "DEL":
            return  # container and interface are enough to find what to release
        if len(text) > ARGS_LIMIT or any(len(pair) != 2 for pair in pairs):
            raise bad_variable("CNI_ARGS", text, f"KEY=VALUE;KEY=VALUE, at most {ARGS_LIMIT} characters")
        unknown = sorted(set(args) - {*POD_ARGS, *OTHER_ARGS})
        if unknown and args.get("IgnoreUnknown", "").lower() not in ("1", "true"):
            raise bad_variable("CNI_ARGS", text, f"without {', '.join(unknown)}, or with IgnoreUnknown=1")
        for key in POD_ARGS[:2]:
            if not matches(POD_NAME_FORM, args.get(key)):
                raise bad_variable(f"{key} of CNI_ARGS", args.get(key, ""), "a name that Kubernetes allows")

    def request(self) -> Json:
        """IpamDelArgs of the agent's API; IpamAddArgs has more."""
        return {
            "containerID": self.container_id,
            "ifName": self.if_name,
            "netNamespace": self.netns,
            "podNamespace": self.namespace,
            "podName": self.pod,
            "podUID": self.pod_uid,
        }


def decode(data: bytes, what: str) -> Json:
    """A JSON object, without what two parsers may read in two ways: a key twice, NaN. CniError 6."""

    def unique(pairs: list[tuple[str, object]]) -> Json:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise ValueError("an object has a key twice")
        return found

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is not JSON")

    try:
        decoded = json.loads(data.decode(), object_pairs_hook=unique, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise CniError(CANNOT_DECODE, f"{what} is not valid JSON: {error}") from error
    if not isinstance(decoded, dict):
        raise CniError(CANNOT_DECODE, f"{what} is not a JSON object")
    return decoded


def matches(form: re.Pattern[str], text: object) -> bool:
    return isinstance(text, str) and len(text) < 254 and form.fullmatch(text) is not None


def bad_variable(name: str, value: str, form: str) -> CniError:
    said = f"is {json.dumps(value[:60])}" if value else "is missing or empty"
    return CniError(BAD_ENVIRONMENT, f"{name} {said}; it must be {form}")


def add(call: Call) -> Json | None:
    # Unlike the original, no GET /v1/ipam/healthy first: connecting tells the same, one round trip earlier, and the
    # agent could still go away between the two.
    body = call.request() | {
        "defaultIPv4IPPool": call.settings["default_ipv4_ippool"],
        "defaultIPv6IPPool": call.settings["default_ipv6_ippool"],
    }
    flags = {"cleanGateway": call.settings["clean_gateway"], "matchMasterSubnet": call.settings["match_master_subnet"]}
    body |= {member: True for member, is_set in flags.items() if is_set}
    answer = Agent(call, ADD_DEADLINE_S, ADD_PATIENCE_S).ask("POST", "/v1/ipam/ip", body)
    result = result_of(answer, call.cni_version, call.if_name)
    call.notes["ips"] = [ip["address"] for ip in result["ips"]]
    return result


def delete(call: Call) -> Json | None:
    try:
        Agent(call, DEL_DEADLINE_S, DEL_PATIENCE_S).ask("DELETE", "/v1/ipam/ip", call.request())
    except CniError as error:
        # Also when the agent refuses: the runtime may not come again, the agent tries until it can.
        call.notes["intent"] = keep_intent(call.settings["state_dir"], call.request())
        call.notes["warning"] = f"the release is left to the agent: {error.msg}"
    return None


def check(call: Call) -> Json | None:
    if not isinstance(call.prev_result, dict):
        raise CniError(BAD_CONFIG, "CHECK needs prevResult, the result of ADD, in the network configuration")
    target = f"/v1/workloadendpoint?podNamespace={call.namespace}&podName={call.pod}"
    endpoint = decode(Agent(call, ASK_DEADLINE_S, ASK_PATIENCE_S).ask("GET", target), "the agent's answer")
    if call.pod_uid and endpoint.get("podUID") not in (None, "", call.pod_uid):
        raise CniError(FAILED, f"{call.namespace}/{call.pod} holds addresses as UID {endpoint['podUID']} only")
    own = [item for item in objects(endpoint, "interfaces") if item.get("interface") == call.if_name]
    held = [str(item[family]) for item in own for family in ("ipv4", "ipv6") if item.get(family)]
    interfaces = objects(call.prev_result, "interfaces")
    for ip in objects(call.prev_result, "ips"):
        index = ip.get("interface")
        if type(index) is int and index < len(interfaces) and interfaces[index].get("name") != call.if_name:
            continue
        if parse_cidr(ip.get("address")) not in map(parse_cidr, held):
            problem = f"{call.if_name} of {call.namespace}/{call.pod} uses {ip['address']}, which it does not hold"
            raise CniError(FAILED, problem, f"the agent lists for it: {', '.join(held) or 'nothing'}")
    return None


def ask_status(call: Call) -> Json | None:
    agent = Agent(call, ASK_DEADLINE_S, ASK_PATIENCE_S)
    try:
        try:
            agent.ask("GET", "/v1/runtime/readiness")
        except AgentRefusal as refusal:
            if refusal.status not in (404, 405, 501):
                raise
            agent.ask("GET", "/v1/ipam/healthy")  # the original answers readiness on its TCP port only
    except CniError as error:
        raise CniError(NOT_AVAILABLE, error.msg, error.details) from error
    return None


def collect_garbage(_call: Call) -> Json | None:
    # Nothing, as CNI allows. The list that GC brings speaks for one network name, which several configurations may
    # share: taken at its word it would release addresses of running pods. The controller's reclaim finds the same
    # leaks, and asks the API server before it frees an address.
    return None


COMMANDS = {"ADD": add, "DEL": delete, "CHECK": check, "STATUS": ask_status, "GC": collect_garbage}


class AgentRefusal(CniError):
    """The agent answered with another status than 200: a JSON string, or `{"code":..,"message":..}`, says why."""

    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.status = status
        try:
            said = json.loads(body)
        except (ValueError, RecursionError):
            said = body.decode(errors="replace").strip()
        said = said.get("message") if isinstance(said, dict) else said
        msg = said[:2000] if said and isinstance(said, str) else "the agent gave no reason"
        # The original agent sends neither header.
        code, reason = (headers.get(f"x-spiderpool-{name}", "") for name in ("cni-code", "reason"))
        fallback = TRY_LATER if status in (429, 503) else FAILED
        details = f"{reason[:100]}{'; ' if reason else ''}the agent answered {status}"
        super().__init__(int(code) if re.fullmatch("[1-9][0-9]{0,3}", code) else fallback, msg, details)


class Agent:
    """HTTP over the agent's unix socket, by hand: http.client would double the plugin's start. It is HTTP/1.0, so that
    the server ends the connection after its answer, and may not send that in chunks.
    """

    def __init__(self, call: Call, deadline_s: float, patience_s: float) -> None:
        self.path: str = call.settings["ipam_unix_socket_path"]
        self.deadline = call.started + deadline_s
        self.patience_s = patience_s

    def ask(self, method: str, target: str, body: Json | None = None) -> bytes:
        """The body of the answer. AgentRefusal if its status is not 200, CniError 5, 6 or 11 if there is none."""
        content = b"" if body is None else json.dumps(body).encode()
        try:
            with self._connect() as connection:
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
        status, headers, answer = parse_http(received)
        if status != 200:
            raise AgentRefusal(status, headers, answer)
        return answer

    def _connect(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX)
        give_up = time.monotonic() + self.patience_s
        while True:
            connection.settimeout(self._seconds_left())
            try:
                connection.connect(self.path)
                return connection
            except (FileNotFoundError, ConnectionRefusedError, BlockingIOError) as error:
                # BlockingIOError: its queue of connections is full.
                if time.monotonic() + RETRY_PAUSE_S < give_up:
                    time.sleep(RETRY_PAUSE_S)
                    continue
                msg = f"no agent listens on {self.path}: {error.strerror}"
                raise CniError(TRY_LATER, msg, "is the spiderpool-agent of this node running?") from error
            except OSError as error:
                raise CniError(IO_FAILURE, f"cannot connect to {self.path}: {error}") from error

    def _receive(self, connection: socket.socket) -> bytes:
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
    status = re.fullmatch(r"HTTP/1\.[01] ([1-5][0-9]{2})( .*)?", first)
    length = headers.get("content-length", str(len(body)))
    if (received and not status) or not re.fullmatch("[0-9]{1,9}", length):
        raise nonsense("it is not HTTP")
    if not status or not is_whole or len(body) < int(length):
        raise CniError(TRY_LATER, "the agent broke off within its answer", "was it restarted?")
    return int(status[1]), headers, body


def result_of(data: bytes, cni_version: str, if_name: str) -> Json:
    """The part of an IpamAddResponse that is this interface's, as a CNI result; all of the response is checked."""
    answer = decode(data, "the agent's answer")
    ips, routes = [], []
    for item in objects(answer, "ips"):
        family = parse_cidr(item.get("address"))[0]
        if item.get("version") != family or not isinstance(item.get("nic"), str):
            raise nonsense(f"version or nic of {item['address']} do not fit")
        ip = {"version": str(family)} if VERSIONS.index(cni_version) < VERSIONS.index("1.0.0") else {}
        ip["address"] = item["address"]
        if item.get("gateway"):
            ip["gateway"] = item["gateway"]
            parse_ip(ip["gateway"], family)
        if item["nic"] == if_name:
            ips.append(ip)
    for item in objects(answer, "routes"):
        parse_ip(item.get("gw"), parse_cidr(item.get("dst"))[0])
        if item.get("ifName") == if_name:
            routes.append({"dst": item["dst"], "gw": item["gw"]})
    if not ips:
        raise CniError(FAILED, f"the agent gave {if_name} no address", "see the events of the pod")
    # `interfaces`, and the index into them, are the main plugin's to fill in.
    return {"cniVersion": cni_version, "ips": ips} | ({"routes": routes} if routes else {}) | {"dns": {}}


def objects(parent: Json, key: str) -> list[Json]:
    items = parent.get(key) or []
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise nonsense(f"{key} is not a list of objects")
    return items


def parse_cidr(text: object) -> tuple[int, bytes, int]:
    """Family (4 or 6), packed address and prefix length of `address/prefix`. CniError 6."""
    address, _, prefix = text.partition("/") if isinstance(text, str) else ("", "", "")
    family = 6 if ":" in address else 4
    packed = parse_ip(address, family)
    if not re.fullmatch("[0-9]{1,3}", prefix) or int(prefix) > len(packed) * 8:
        raise nonsense(f"{json.dumps(text)[:60]} is no address with a prefix length")
    return family, packed, int(prefix)


def parse_ip(text: object, family: int) -> bytes:
    try:
        return socket.inet_pton(socket.AF_INET6 if family == 6 else socket.AF_INET, str(text))
    except (OSError, ValueError) as error:
        raise nonsense(f"{json.dumps(text)[:60]} is no IPv{family} address") from error


def nonsense(why: str) -> CniError:
    return CniError(CANNOT_DECODE, f"the agent's answer (or the prevResult of a CHECK) makes no sense: {why}")


def keep_intent(state_dir: str, intent: Json) -> str:
    """Write the request where the agent looks for it, so that it survives a power cut. The path; CniError 11."""
    import hashlib  # noqa: PLC0415 - 4 ms that only this path pays

    folder = f"{state_dir}/intents"
    name = hashlib.sha256(os.fsencode(f"{intent['containerID']}/{intent['ifName']}")).hexdigest()
    path, temporary = f"{folder}/{name}.json", f"{folder}/.{name}.{os.getpid()}"
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        try:
            with open(temporary, "wb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
                file.write(json.dumps(intent).encode())
                file.flush()
                os.fsync(file.fileno())
            os.rename(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
        for directory in (folder, state_dir):
            descriptor = os.open(directory, os.O_RDONLY)
            os.fsync(descriptor)
            os.close(descriptor)
    except OSError as error:
        msg = f"the agent cannot release now, and the release cannot be kept for it: {error}"
        raise CniError(TRY_LATER, msg, f"start the agent, or make {folder} writable") from error
    return path


def write_log(call: Call, error: CniError | None) -> None:
    """One line about this command. What goes wrong here goes to stderr and no further."""
    level = "error" if error else "warn" if "warning" in call.notes else "info"
    if not call.settings.get("log_file_path") or LEVELS[level] < LEVELS[call.settings["log_level"].lower()]:
        return
    now = time.time()
    line = {
        "ts": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now % 1 * 1000):03}Z",
        "level": level,
        "event": "cni_command_failed" if error else "cni_command_done",
        "Action": call.command,
        "ContainerID": call.container_id[:128],
        "Netns": call.netns[:256],
        "IfName": call.if_name[:32],
        "PodName": call.pod[:253],
        "PodNamespace": call.namespace[:253],
        "PodUID": call.pod_uid[:64],
        "duration_ms": round((time.monotonic() - call.started) * 1000),
    } | call.notes
    line |= {"error": error.msg, "code": error.code, "details": error.details} if error else {}
    data = json.dumps(line).encode() + b"\n"
    try:
        log = open_log(call.settings, len(data))
        os.write(log, data)  # one write with O_APPEND: lines of processes that run side by side do not mix
    except OSError as failure:
        complain(f"cannot log to {call.settings['log_file_path']}: {failure}")


def open_log(settings: Json, size: int) -> int:
    """The log file, opened, with room for `size` more bytes; rotated where it had none."""
    path = settings["log_file_path"]
    os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
    while True:
        # NONBLOCK: a pipe without reader must not hold up a pod.
        log = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o640)
        status = os.fstat(log)
        if not stat.S_ISREG(status.st_mode):
            raise OSError("it is not a regular file")
        if status.st_size == 0 or status.st_size + size <= (settings["log_file_max_size"] or 100) << 20:
            return log
        try:
            fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return log  # another process is rotating this file; the line ends up in the rotated one
        # The lock is on the file, not on its name: a process that gets it later sees that the name has moved on.
        try:
            if os.path.samestat(os.stat(path), status):
                rotate(path, settings["log_file_max_age"] * 86400, settings["log_file_max_count"])
        except FileNotFoundError:
            pass  # moved on, and nobody has begun the next file yet
        os.close(log)


def rotate(path: str, max_age_s: int, max_count: int) -> None:
    """PATH becomes PATH.1, that becomes PATH.2, and so on; what is too old or one too many is removed."""
    last = 0
    while os.path.exists(f"{path}.{last + 1}"):
        last += 1
    for number in range(last, 0, -1):
        old = f"{path}.{number}"
        if 0 < max_count <= number or 0 < max_age_s < time.time() - os.stat(old).st_mtime:
            os.unlink(old)
        else:
            os.rename(old, f"{path}.{number + 1}")
    os.rename(path, f"{path}.1")  # last: until here the name stands for the locked file, so nobody else comes in


def complain(message: str) -> None:
    os.write(2, f"spiderpool: {message}\n".encode(errors="replace"))


def run(call: Call) -> Json | None:
    if call.command == "VERSION":
        return {"cniVersion": VERSIONS[-1], "supportedVersions": list(VERSIONS)}
    if call.command not in COMMANDS:
        raise bad_variable("CNI_COMMAND", call.command, f"{', '.join(COMMANDS)} or VERSION")
    call.read_config()
    call.check_environment()
    return COMMANDS[call.command](call)


def end(number: int, _frame: FrameType | None) -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # once is enough: what follows is the error's way out
    raise CniError(TRY_LATER, f"ended by {signal.Signals(number).name} before the command was complete")


def main() -> int:
    call, failure, document = Call(), None, None
    try:
        for number in SIGNALS:
            signal.signal(number, end)
        signal.alarm(int(ADD_DEADLINE_S) + 5)  # for what has no deadline of its own, such as a stdin that never ends
        document = run(call)
    except CniError as error:
        failure = error
    except Exception as error:  # noqa: BLE001 - the border of the process
        sys.excepthook(*sys.exc_info())
        failure = CniError(FAILED, f"unexpected {type(error).__name__}: {error}", "please report this as a bug")
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    if failure:
        document = {"cniVersion": call.cni_version, "code": failure.code, "msg": failure.msg}
        document |= {"details": failure.details} if failure.details else {}
    if document:
        with open(1, "wb", closefd=False) as stdout:
            stdout.write(json.dumps(document).encode() + b"\n")
    write_log(call, failure)
    return 1 if failure else 0


if __name__ == "__main__":
    sys.exit(main())
