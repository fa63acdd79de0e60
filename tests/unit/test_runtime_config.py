from pathlib import Path

import pytest
import structlog.testing

from allocator.runtime.config import (
    DEFAULT_SOCKET,
    Conf,
    ConfigError,
    env_bool,
    env_float,
    env_int,
    env_str,
    load_conf,
)


def conf_file(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "conf.yml"
    path.write_text(text, encoding="utf-8")
    return path


def test_without_a_file_the_settings_are_those_of_the_chart() -> None:
    conf = load_conf(None)
    assert conf == Conf(
        ipam_unix_socket_path="/var/run/spidernet/spiderpool.sock",
        enable_ipv4=True,
        enable_ipv6=True,
        enable_stateful_set=True,
        enable_kubevirt_static_ip=True,
        enable_spider_subnet=True,
        enable_auto_pool_for_application=True,
        enable_ip_conflict_detection=False,
        enable_gateway_detection=False,
        enable_clean_outdated_endpoint=False,
        enable_validating_resources_deleted_webhook=None,
        cluster_default_ipv4_subnet=(),
        cluster_default_ipv6_subnet=(),
        cluster_subnet_auto_pool_default_redundant_ip_number=1,
        tune_sysctl_config=True,
    )


def test_a_missing_file_means_defaults_and_is_logged(tmp_path: Path) -> None:
    with structlog.testing.capture_logs() as lines:
        assert load_conf(tmp_path / "conf.yml") == Conf()
    assert [line["event"] for line in lines] == ["conf_missing"]


def test_an_empty_file_means_defaults(tmp_path: Path) -> None:
    assert load_conf(conf_file(tmp_path, "# nothing here\n")) == Conf()


def test_every_key_reaches_its_field(tmp_path: Path) -> None:
    text = """
ipamUnixSocketPath: /run/other.sock
enableIPv4: false
enableIPv6: false
enableStatefulSet: false
enableKubevirtStaticIP: false
enableSpiderSubnet: false
enableAutoPoolForApplication: false
enableIPConflictDetection: true
enableGatewayDetection: true
enableCleanOutdatedEndpoint: true
enableValidatingResourcesDeletedWebhook: true
clusterDefaultIPv4Subnet: [one, two]
clusterDefaultIPv6Subnet: [three]
clusterSubnetAutoPoolDefaultRedundantIPNumber: 3
tuneSysctlConfig: false
"""
    assert load_conf(conf_file(tmp_path, text)) == Conf(
        ipam_unix_socket_path="/run/other.sock",
        enable_ipv4=False,
        enable_ipv6=False,
        enable_stateful_set=False,
        enable_kubevirt_static_ip=False,
        enable_spider_subnet=False,
        enable_auto_pool_for_application=False,
        enable_ip_conflict_detection=True,
        enable_gateway_detection=True,
        enable_clean_outdated_endpoint=True,
        enable_validating_resources_deleted_webhook=True,
        cluster_default_ipv4_subnet=("one", "two"),
        cluster_default_ipv6_subnet=("three",),
        cluster_subnet_auto_pool_default_redundant_ip_number=3,
        tune_sysctl_config=False,
    )


@pytest.mark.parametrize("text", ["ipamUnixSocketPath:\n", 'ipamUnixSocketPath: ""\n'], ids=["null", "empty"])
def test_a_key_without_a_value_counts_as_missing(tmp_path: Path, text: str) -> None:
    assert load_conf(conf_file(tmp_path, text)).ipam_unix_socket_path == DEFAULT_SOCKET


def test_the_chart_name_of_the_spare_addresses_is_read_too(tmp_path: Path) -> None:
    conf = load_conf(conf_file(tmp_path, "clusterSubnetDefaultFlexibleIPNumber: 2\n"))
    assert conf.cluster_subnet_auto_pool_default_redundant_ip_number == 2


@pytest.mark.parametrize("order", [0, 1])
def test_of_the_two_names_of_the_spare_addresses_the_one_the_code_reads_wins(tmp_path: Path, order: int) -> None:
    lines = [
        "clusterSubnetAutoPoolDefaultRedundantIPNumber: 2\n",
        "clusterSubnetDefaultFlexibleIPNumber: 1\n",
    ]
    conf = load_conf(conf_file(tmp_path, "".join(lines[::-1] if order else lines)))
    assert conf.cluster_subnet_auto_pool_default_redundant_ip_number == 2


def test_unknown_keys_are_named_in_a_warning_and_ignored(tmp_path: Path) -> None:
    with structlog.testing.capture_logs() as lines:
        conf = load_conf(conf_file(tmp_path, "enableIPV4: false\npodResourceInject: {enabled: true}\n"))
    assert conf == Conf()
    assert [(line["log_level"], line["keys"]) for line in lines] == [("warning", ["enableIPV4"])]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ('enableIPv4: "true"\n', "enableIPv4"),
        ("clusterSubnetAutoPoolDefaultRedundantIPNumber: -1\n", "clusterSubnetAutoPoolDefaultRedundantIPNumber"),
        ("clusterSubnetAutoPoolDefaultRedundantIPNumber: true\n", "clusterSubnetAutoPoolDefaultRedundantIPNumber"),
        ("clusterDefaultIPv4Subnet: one\n", "clusterDefaultIPv4Subnet"),
        ("clusterDefaultIPv6Subnet: [one, one]\n", "clusterDefaultIPv6Subnet"),
        ("- enableIPv4\n", "the document"),
        ("enableIPv4: [\n", "no YAML"),
    ],
)
def test_a_value_of_a_wrong_type_is_refused_and_named(tmp_path: Path, text: str, named: str) -> None:
    path = conf_file(tmp_path, text)
    with pytest.raises(ConfigError) as refused:
        load_conf(path)
    assert named in str(refused.value)
    assert str(path) in str(refused.value)


def test_all_wrong_keys_are_reported_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"enableIPv4.*enableIPv6"):
        load_conf(conf_file(tmp_path, "enableIPv6: 1\nenableIPv4: 2\n"))


@pytest.mark.parametrize("text", ["1", "t", "T", "TRUE", "true", "True", " true "])
def test_go_words_for_true_are_true(text: str) -> None:
    assert env_bool("X", False, environ={"X": text}) is True


@pytest.mark.parametrize("text", ["0", "f", "F", "FALSE", "false", "False"])
def test_go_words_for_false_are_false(text: str) -> None:
    assert env_bool("X", True, environ={"X": text}) is False


@pytest.mark.parametrize("text", ["yes", "on", "tRUE"])
def test_other_words_are_no_booleans_and_the_variable_is_named(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^X="):
        env_bool("X", True, environ={"X": text})


def test_an_empty_variable_counts_as_unset() -> None:
    environ = {"X": "  "}
    assert env_str("X", "a", environ=environ) == "a"
    assert env_int("X", 7, environ=environ) == 7
    assert env_float("X", 0.5, environ=environ) == 0.5
    assert env_bool("X", True, environ=environ) is True


def test_numbers_are_parsed_and_bounded() -> None:
    assert env_int("X", 7, environ={"X": "12"}) == 12
    assert env_float("X", 7.0, environ={"X": "1.5"}) == 1.5
    with pytest.raises(ConfigError, match=r"X='1\.5': use a whole number"):
        env_int("X", 7, environ={"X": "1.5"})
    with pytest.raises(ConfigError, match="at least 1"):
        env_int("X", 7, minimum=1, environ={"X": "0"})
    with pytest.raises(ConfigError, match="at least 0"):
        env_float("X", 7.0, minimum=0.0, environ={"X": "nan"})
