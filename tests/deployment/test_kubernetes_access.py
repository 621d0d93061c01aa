"""Who may reach whom on Kubernetes: Kafka's rights, and the network's policies."""

import re
from itertools import permutations

from driftloop.contracts.access import Right, access_rights, outside_rights
from driftloop.contracts.topics import SERVICES, WITH_DOOR, all_topics

from tests.deployment.kustomized import LABEL, OURS, Object, Pod, matches, named, pods


def topics_of(objects: list[Object]) -> dict[str, tuple[int, dict[str, str]]]:
    return {
        each["metadata"]["name"]: (
            each["spec"]["partitions"],
            {key: str(value) for key, value in each["spec"]["config"].items()},
        )
        for each in objects
        if each["kind"] == "KafkaTopic"
    }


def test_topics_are_the_topic_table(objects: list[Object]) -> None:
    """Partitions, retention and compaction of each, and none beside them."""
    table = {name: (count, config) for name, count, config in all_topics()}
    assert topics_of(objects) == table
    named(objects, "KafkaTopic", "pipeline-applied")["spec"]["config"][
        "cleanup.policy"
    ] = "delete"
    assert topics_of(objects) != table  # negative control


def rights_of(objects: list[Object]) -> set[Right]:
    """Return what Kafka's users may do, but for those that only describe."""
    return {
        Right(
            each["metadata"]["name"],
            operation.upper(),
            acl["resource"]["type"].upper(),
            acl["resource"]["name"],
            acl["resource"]["patternType"] == "prefix",
        )
        for each in objects
        if each["kind"] == "KafkaUser"
        for acl in each["spec"]["authorization"]["acls"]
        for operation in acl["operations"]
        if operation != "Describe"
    }


def test_users_have_the_rights_of_the_table(objects: list[Object]) -> None:
    """Not one more: who scales sees lags and nothing else."""
    table = {*access_rights(), *outside_rights()}
    assert rights_of(objects) == table
    user = named(objects, "KafkaUser", "scorer")
    user["spec"]["authorization"]["acls"][0]["operations"].append("Write")
    assert len(rights_of(objects) - table) == 1  # negative control


def test_copies_fit_the_nodes(objects: list[Object]) -> None:
    """No more copies than nodes, and one node may be away where there are several."""
    nodes = named(objects, "KafkaNodePool", "nodes")["spec"]["replicas"]
    config = named(objects, "Kafka", "kafka")["spec"]["kafka"]["config"]
    copies = {key: n for key, n in config.items() if key.endswith("replication.factor")}
    in_step = {n for key, n in config.items() if re.search(r"min\.(insync|isr)", key)}
    assert set(copies.values()) == {nodes}
    assert in_step == {max(nodes - 1, 1)}
    assert len(copies) == 4


def takes(peers: list[Object] | None, pod: Pod) -> bool:
    """Whether a rule's list of peers has the pod; without one it has everybody."""
    if not peers:
        return True
    namespace, labels = pod
    for peer in peers:
        assert set(peer) <= {"namespaceSelector", "podSelector"}
        if "namespaceSelector" in peer:
            of_namespace = {"kubernetes.io/metadata.name": namespace}
            if not matches(peer["namespaceSelector"], of_namespace):
                continue
        elif namespace != OURS:
            continue
        if matches(peer.get("podSelector", {}), labels):
            return True
    return False


def is_open(
    objects: list[Object], way: str, pod: Pod, other: Pod, port: str | int
) -> bool:
    """Whether the policies let a pod of ours talk (``egress``, ``ingress``) so."""
    policies = [
        each["spec"]
        for each in objects
        if each["kind"] == "NetworkPolicy"
        and pod[0] == OURS
        and matches(each["spec"]["podSelector"], pod[1])
        and way.capitalize() in each["spec"]["policyTypes"]
    ]
    if not policies:
        return True
    return any(
        takes(rule.get("to" if way == "egress" else "from"), other)
        and ("ports" not in rule or port in {p["port"] for p in rule["ports"]})
        for policy in policies
        for rule in policy.get(way, [])
    )


def ways_between_services(objects: list[Object]) -> set[tuple[str, str]]:
    """Return pairs of services of which one can send to the other, or is let in."""
    ours = pods(objects)
    return {
        (one, other)
        for one, other in permutations(SERVICES, 2)
        for port in ("http", "grpc", 8000, 8001)
        if is_open(objects, "egress", ours[one], ours[other], port)
        or is_open(objects, "ingress", ours[other], ours[one], port)
    }


def test_services_talk_through_topics_only(objects: list[Object]) -> None:
    """Rule 1, on the wire: nobody sends to another, and nobody would let it in."""
    assert ways_between_services(objects) == set()
    policy = named(objects, "NetworkPolicy", "services")
    peer = {"podSelector": {"matchLabels": {LABEL: "registry"}}}
    policy["spec"]["egress"].append({"to": [peer]})
    assert ways_between_services(objects) == {
        (name, "registry") for name in SERVICES if name != "registry"
    }  # negative controls
    policy["spec"]["egress"].pop()
    del policy["spec"]["egress"][1]["to"]  # whoever has port 9093
    policy["spec"]["ingress"][0]["from"] = [{"podSelector": {}}]
    assert len(ways_between_services(objects)) == 8 * 7


BROKER: Pod = (OURS, {"strimzi.io/cluster": "kafka", "strimzi.io/kind": "Kafka"})
NAMES: Pod = ("kube-system", {"k8s-app": "kube-dns"})
STRANGER: Pod = ("default", {})


def test_services_reach_what_they_need_and_nothing_else(objects: list[Object]) -> None:
    """Kafka, database, store, collector and names."""
    needed = [(BROKER, 9093), (NAMES, 53), (("monitoring", {}), 4318)]
    needed += [(("data", {}), 5432), (("data", {}), 443)]
    closed = [(STRANGER, 443), (BROKER, 9091), (NAMES, 443), (("data", {}), 22)]
    for name, pod in pods(objects).items():
        for other, port in needed:
            assert is_open(objects, "egress", pod, other, port), (name, other)
        for other, port in closed:
            assert not is_open(objects, "egress", pod, other, port), (name, other)
    someone: Pod = (OURS, {"app": "other"})
    assert not is_open(objects, "egress", someone, STRANGER, 443)  # default: nobody


def test_only_the_doors_are_open(objects: list[Object]) -> None:
    """The gateway comes to those with an interface, Prometheus to all."""
    gateway, prometheus = ("gateway", {}), ("monitoring", {})
    for name, pod in pods(objects).items():
        has_door = name in WITH_DOOR
        assert is_open(objects, "ingress", pod, gateway, "http") == has_door, name
        has_rpc = name == "scorer"
        assert is_open(objects, "ingress", pod, gateway, "grpc") == has_rpc, name
        assert is_open(objects, "ingress", pod, prometheus, "http")
        assert not is_open(objects, "ingress", pod, prometheus, "grpc")
        assert not is_open(objects, "ingress", pod, STRANGER, "http")


def test_kafka_lets_services_in(objects: list[Object], overlay: str) -> None:
    """With a password by TLS; who scales, too, where somebody does; nobody else."""
    [listener] = named(objects, "Kafka", "kafka")["spec"]["kafka"]["listeners"]
    assert listener["tls"] is True
    assert listener["authentication"] == {"type": "scram-sha-512"}
    peers = listener["networkPolicyPeers"]
    assert all(takes(peers, pod) for pod in pods(objects).values())
    assert takes(peers, ("keda", {})) == (overlay == "production")
    assert not takes(peers, STRANGER)
    assert not takes(peers, (OURS, {LABEL: "training"}))
    broker = named(objects, "ConfigMap", "driftloop")["data"]["DRIFTLOOP_BROKER"]
    assert broker == f"kafka-kafka-bootstrap:{listener['port']}"
