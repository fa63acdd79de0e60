"""What one run of the plugin was told: CNI_* in the environment, the network configuration on stdin."""

from __future__ import annotations

import os
import time

from cni.errors import BAD_CONFIG, BAD_ENVIRONMENT, CANNOT_DECODE, INCOMPATIBLE, IO_FAILURE, CniError
from cni.wire import decode, encode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from cni.wire import Json

VERSIONS = ("0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")
FIRST_VERSION = {"ADD": "0.3.0", "DEL": "0.3.0", "CHECK": "0.4.0", "STATUS": "1.1.0", "GC": "1.1.0"}

STDIN_LIMIT = 1 << 20
CONTAINER_ID_LIMIT = 200  # the name of an intent's file has it, and that of an interface, in 255 bytes
ARGS_LIMIT = 8 << 10  # of CNI_ARGS; the names and UID of a pod take less than 600 bytes

LOWER = frozenset("abcdefghijklmnopqrstuvwxyz0123456789")
ALPHANUMERIC = LOWER | frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
POD_ARGS = ("K8S_POD_NAMESPACE", "K8S_POD_NAME", "K8S_POD_UID")
OTHER_ARGS = ("K8S_POD_INFRA_CONTAINER_ID", "IP", "IgnoreUnknown")
LEVELS = {"debug": 0, "info": 1, "warn": 2, "error": 3, "fatal": 3, "panic": 3}

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


class Call:
    """One run of the plugin: what it was told, and what its log line will say beside that."""

    def __init__(self) -> None:
        self.started = time.monotonic()
        self.command = variable("CNI_COMMAND")
        self.container_id = variable("CNI_CONTAINERID")
        self.netns = variable("CNI_NETNS")
        self.if_name = variable("CNI_IFNAME")
        self.namespace = self.pod = self.pod_uid = ""
        self.cni_version = VERSIONS[-1]
        self.config: Json = {}
        self.settings: Json = {}  # empty: no configuration was read, so no log file is known
        self.notes: Json = {}

    def read_config(self) -> None:
        """Take and check stdin. CniError 1, 5, 6 or 7; a DEL takes what it finds."""
        if self.command == "DEL":
            self._read_what_is_left()
            return
        config = self.config = decode(read_stdin(), "the network configuration on stdin")
        ipam = config.get("ipam")
        self.settings, problems = read_settings(ipam if isinstance(ipam, dict) else {})
        self._check_version(config.get("cniVersion"))
        if not isinstance(ipam, dict):
            problems.append("ipam must be an object")
        if not is_id(config.get("name")):
            problems.append("name must be letters, digits, '_', '.' and '-'")
        if problems:
            problem = f"the network configuration is not valid: {'; '.join(problems)}"
            raise CniError(BAD_CONFIG, problem, "see the CNI configuration file or NetworkAttachmentDefinition")

    def _read_what_is_left(self) -> None:
        """The configuration may have been edited or cut short since the ADD: none of that may keep an address."""
        try:
            self.config = decode(read_stdin(), "the network configuration on stdin")
        except CniError as error:
            complain(f"{error.msg}; defaults are used")
        ipam = self.config.get("ipam")
        self.settings, problems = read_settings(ipam if isinstance(ipam, dict) else {})
        for problem in problems:
            complain(f"{problem}; its default is used")
        if self.config.get("cniVersion") in VERSIONS:
            self.cni_version = self.config["cniVersion"]

    def _check_version(self, version: Any) -> None:
        if version not in VERSIONS:
            problem = f"cniVersion {encode(version)[:40]} is not supported"
            raise CniError(INCOMPATIBLE, problem, f"supported are {', '.join(VERSIONS)}")
        self.cni_version = version
        first = FIRST_VERSION[self.command]
        if VERSIONS.index(version) < VERSIONS.index(first):
            raise CniError(INCOMPATIBLE, f"cniVersion {version} has no {self.command}; {first} is the first")

    def check_environment(self) -> None:
        """CniError 4 unless the variables that the command needs are there and have the right form."""
        if self.command in ("STATUS", "GC"):
            return
        if not is_id(self.container_id) or len(self.container_id) > CONTAINER_ID_LIMIT:
            form = f"at most {CONTAINER_ID_LIMIT} letters, digits, '_', '.' and '-'"
            raise bad_variable("CNI_CONTAINERID", self.container_id, form)
        if not is_interface(self.if_name):
            form = "1 to 15 bytes of UTF-8 without '/', ':' and spaces, not '.' or '..'"
            raise bad_variable("CNI_IFNAME", self.if_name, form)
        if self.command != "DEL" and not self.netns:
            raise bad_variable("CNI_NETNS", "", "the path of the pod's network namespace")
        self._take_args(variable("CNI_ARGS"))

    def _take_args(self, text: str) -> None:
        pairs = [pair.split("=") for pair in text.split(";") if pair]
        args = {pair[0]: pair[1] for pair in pairs if len(pair) == 2}
        self.namespace, self.pod, self.pod_uid = (args.get(key, "") for key in POD_ARGS)
        if self.command == "DEL":
            if not (is_pod_name(self.namespace) and is_pod_name(self.pod)):
                self.namespace = self.pod = self.pod_uid = ""  # container and interface tell whose it is
            return
        if len(text) > ARGS_LIMIT or any(len(pair) != 2 for pair in pairs):
            raise bad_variable("CNI_ARGS", text, f"KEY=VALUE;KEY=VALUE, at most {ARGS_LIMIT} characters")
        unknown = sorted(set(args) - {*POD_ARGS, *OTHER_ARGS})
        if unknown and args.get("IgnoreUnknown", "").lower() not in ("1", "true"):
            raise bad_variable("CNI_ARGS", text, f"without {', '.join(unknown)}, or with IgnoreUnknown=1")
        for key in POD_ARGS[:2]:
            if not is_pod_name(args.get(key, "")):
                raise bad_variable(f"{key} of CNI_ARGS", args.get(key, ""), "a name that Kubernetes allows")


def variable(name: str) -> str:
    """Empty when it is not there; bytes that are no UTF-8 come as the sign for that, which no JSON reader refuses."""
    return os.environb.get(name.encode(), b"").decode(errors="replace")


def read_stdin() -> bytes:
    try:
        with open(0, "rb", closefd=False) as stdin:
            data = stdin.read(STDIN_LIMIT + 1)
    except OSError as error:
        raise CniError(IO_FAILURE, f"cannot read the network configuration from stdin: {error}") from error
    if len(data) > STDIN_LIMIT:
        raise CniError(CANNOT_DECODE, f"the network configuration on stdin has more than {STDIN_LIMIT} bytes")
    return data


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


def has_form(value: Any, form: str) -> bool:
    if form == NUMBER:  # also as a string: samples that people copy have it so
        digits = str(value).removeprefix("-")
        return type(value) in (int, str) and len(digits) < 7 and digits.isascii() and digits.isdecimal()
    if form == NAMES:
        return isinstance(value, list) and all(isinstance(name, str) and is_unicode(name) for name in value)
    if form == PATH:
        return isinstance(value, str) and value.startswith("/") and "\0" not in value and is_unicode(value)
    return isinstance(value, bool) if form == FLAG else isinstance(value, str) and value.lower() in LEVELS


def is_unicode(text: str) -> bool:
    """Not so with half of a surrogate pair, which JSON can write and UTF-8 cannot."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def is_id(text: object) -> bool:
    """The form of container IDs and network names."""
    return isinstance(text, str) and len(text) < 254 and text[:1] in ALPHANUMERIC and {*text} <= ALPHANUMERIC | {*"_.-"}


def is_interface(name: str) -> bool:
    odd = name in (".", "..") or any(character in "/:\ufffd" or character.isspace() for character in name)
    return is_unicode(name) and 0 < len(name.encode()) < 16 and not odd


def is_pod_name(text: str) -> bool:
    """RFC 1123; needs no quoting in a URL."""
    return len(text) < 254 and text[:1] in LOWER and text[-1:] in LOWER and {*text} <= LOWER | {*".-"}


def bad_variable(name: str, value: str, form: str) -> CniError:
    said = f"is {encode(value[:60])}" if value else "is missing or empty"
    return CniError(BAD_ENVIRONMENT, f"{name} {said}; it must be {form}")


def complain(message: str) -> None:
    os.write(2, f"spiderpool: {message}\n".encode(errors="replace"))
