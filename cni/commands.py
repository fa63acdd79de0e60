"""What each command of the CNI specification asks of the agent, and what it makes of the answer.

* ADD: `POST /v1/ipam/ip`; the answer's addresses of CNI_IFNAME are printed as a CNI result
* DEL: `DELETE /v1/ipam/ip`; a release that the agent cannot do now is kept on disk for it, and DEL succeeds
* CHECK: `GET /v1/workloadendpoint`; that and the interface in CNI_NETNS are compared with prevResult
* STATUS: `POST /v1/ipam/status`
* GC: `POST /v1/ipam/gc`
"""

from __future__ import annotations

from cni.agent import Agent, AgentRefusal
from cni.call import is_id, is_interface
from cni.errors import BAD_CONFIG, FAILED, LIMITED, NOT_AVAILABLE, CniError
from cni.result import parse_cidr, result_of
from cni.wire import decode, encode, nonsense, objects

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni.call import Call
    from cni.wire import Json

# Seconds from the start of the process to its end, and of them those in which a missing or refusing socket is tried
# again. Kubelet and runtimes give a sandbox up after 2 to 4 minutes. A DEL has 0.6 s left for start and intent within
# the promised 2 s, and 0.7 s of the promised 1 s without agent.
ADD_DEADLINE_S, ADD_PATIENCE_S = 60.0, 2.0
DEL_DEADLINE_S, DEL_PATIENCE_S = 1.4, 0.3
ASK_DEADLINE_S, ASK_PATIENCE_S = 5.0, 0.4
GC_DEADLINE_S = 60.0  # many releases in one request

# The specification's name, and that of some runtimes.
VALID_LISTS = ("cni.dev/valid-attachments", "cni.dev/attachments")


def add(call: Call) -> Json | None:
    # Unlike the original, no GET /v1/ipam/healthy first: connecting tells the same, one round trip earlier, and the
    # agent could still go away between the two.
    body = attachment(call) | default_pools(call) | {"networkName": call.config["name"]}
    flags = {"cleanGateway": call.settings["clean_gateway"], "matchMasterSubnet": call.settings["match_master_subnet"]}
    body |= {member: True for member, is_set in flags.items() if is_set}
    answer = Agent(call, ADD_DEADLINE_S, ADD_PATIENCE_S).ask("POST", "/v1/ipam/ip", body)
    result = result_of(answer, call.cni_version, call.if_name)
    call.notes["ips"] = [ip["address"] for ip in result["ips"]]
    return result


def delete(call: Call) -> Json | None:
    try:
        Agent(call, DEL_DEADLINE_S, DEL_PATIENCE_S).ask("DELETE", "/v1/ipam/ip", attachment(call))
    except CniError as error:
        from cni import intents  # noqa: PLC0415 - read only where it is needed

        # Also when the agent refuses: the runtime may not come again, the agent tries until it can.
        call.notes["intent"] = intents.keep(call.settings["state_dir"], attachment(call))
        call.notes["warning"] = f"the release is left to the agent: {error.msg}"
    return None


def check(call: Call) -> Json | None:
    previous = call.config.get("prevResult")
    if not isinstance(previous, dict):
        raise CniError(BAD_CONFIG, "CHECK needs prevResult, the result of ADD, in the network configuration")
    wanted = {parse_cidr(text): text for text in addresses_of(previous, call.if_name)}
    held = {parse_cidr(text): text for text in held_by(call)}
    if not held:
        raise CniError(FAILED, f"{call.if_name} of {call.namespace}/{call.pod} holds no address")
    for cidr, text in wanted.items():
        if cidr not in held:
            problem = f"{call.if_name} of {call.namespace}/{call.pod} uses {text}, which it does not hold"
            raise CniError(FAILED, problem, f"the agent lists for it: {', '.join(held.values())}")
    from cni import interface  # noqa: PLC0415 - ctypes, which no other command needs

    configured = interface.addresses(call.netns, call.if_name)
    for (_, packed, _), text in held.items():
        if packed not in configured:
            problem = f"{call.if_name} of {call.namespace}/{call.pod} should have {text}, which is not configured on it"
            raise CniError(FAILED, problem, f"see the interface in {call.netns}; a new sandbox gets its address anew")
    return None


def addresses_of(previous: Json, if_name: str) -> list[str]:
    """The addresses of this interface in a CNI result; those of no interface in particular are taken for its own."""
    interfaces = objects(previous, "interfaces")
    own = []
    for ip in objects(previous, "ips"):
        index = ip.get("interface")
        if type(index) is int and 0 <= index < len(interfaces) and interfaces[index].get("name") != if_name:
            continue
        if not isinstance(ip.get("address"), str):
            raise nonsense("prevResult has an address that is no string")
        own.append(ip["address"])
    return own


def held_by(call: Call) -> list[str]:
    """What the agent's record of the pod says about this interface."""
    target = f"/v1/workloadendpoint?podNamespace={call.namespace}&podName={call.pod}"
    endpoint = decode(Agent(call, ASK_DEADLINE_S, ASK_PATIENCE_S).ask("GET", target), "the agent's answer")
    if call.pod_uid and endpoint.get("podUID") not in (None, "", call.pod_uid):
        raise CniError(FAILED, f"{call.namespace}/{call.pod} holds addresses as UID {endpoint['podUID']} only")
    own = [item for item in objects(endpoint, "interfaces") if item.get("interface") == call.if_name]
    return [str(item[family]) for item in own for family in ("ipv4", "ipv6") if item.get(family)]


def ask_status(call: Call) -> Json | None:
    agent = Agent(call, ASK_DEADLINE_S, ASK_PATIENCE_S)
    for method, target, body in (
        ("POST", "/v1/ipam/status", default_pools(call)),
        ("GET", "/v1/runtime/readiness", None),  # of an older agent
        ("GET", "/v1/ipam/healthy", None),  # of the original, which answers readiness on its TCP port only
    ):
        try:
            agent.ask(method, target, body)
        except AgentRefusal as refusal:
            if not refusal.is_unknown_route:
                code = refusal.code if refusal.code in (NOT_AVAILABLE, LIMITED) else NOT_AVAILABLE
                raise CniError(code, refusal.msg, refusal.details) from refusal
        except CniError as error:
            raise CniError(NOT_AVAILABLE, error.msg, error.details) from error
        else:
            return None
    raise CniError(NOT_AVAILABLE, "the agent does not say whether it is ready", "is it a spiderpool-agent?")


def collect_garbage(call: Call) -> Json | None:
    """The agent decides: of this network, on its node, and not many at once. An agent that cannot is no failure."""
    body = {"networkName": call.config["name"], "validAttachments": valid_attachments(call.config)}
    try:
        Agent(call, GC_DEADLINE_S, ASK_PATIENCE_S).ask("POST", "/v1/ipam/gc", body)
    except AgentRefusal as refusal:
        if not refusal.is_unknown_route:
            raise
        call.notes["warning"] = "this agent collects no garbage on request; reclaim does"
    return None


def valid_attachments(config: Json) -> list[Json]:
    """CniError 7 where a list is missing or torn: that must never read as 'none is valid'."""
    given = [config[key] for key in VALID_LISTS if config.get(key) is not None]
    if not given or not all(isinstance(items, list) for items in given):
        problem = f"GC needs the list {VALID_LISTS[0]} in the network configuration"
        raise CniError(BAD_CONFIG, problem, "nothing was released; give an empty list if no attachment is valid")
    return [valid_attachment(item) for items in given for item in items]


def valid_attachment(item: object) -> Json:
    container, interface = (item.get("containerID"), item.get("ifname")) if isinstance(item, dict) else (None, None)
    if not is_id(container) or not isinstance(interface, str) or not is_interface(interface):
        problem = f"{VALID_LISTS[0]} has {encode(item)[:100]}, which is no containerID with an ifname"
        raise CniError(BAD_CONFIG, problem, "nothing was released")
    return {"containerID": container, "ifName": interface}


def attachment(call: Call) -> Json:
    """IpamDelArgs of the agent's API; IpamAddArgs has more."""
    return {
        "containerID": call.container_id,
        "ifName": call.if_name,
        "netNamespace": call.netns,
        "podNamespace": call.namespace,
        "podName": call.pod,
        "podUID": call.pod_uid,
    }


def default_pools(call: Call) -> Json:
    return {
        "defaultIPv4IPPool": call.settings["default_ipv4_ippool"],
        "defaultIPv6IPPool": call.settings["default_ipv6_ippool"],
    }


COMMANDS = {"ADD": add, "DEL": delete, "CHECK": check, "STATUS": ask_status, "GC": collect_garbage}
