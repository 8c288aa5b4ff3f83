"""What an agent can be told, what it refuses, and that docs/agent.md says all of it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from livery.runtime.config import ConfigError, Section, load
from livery_agent.config import AgentConfig
from livery_agent.errors import UnusableConfig
from livery_agent.main import node_attestor, operators_bundle
from tests.pki import TestCa

GOOD = """
[agent]
trust_domain = "example.org"
ca_address = "ca.example.org:8081"
trust_bundle_path = "/etc/livery/bundle.pem"

[agent.join_token]
path = "/etc/livery/token"
"""

BOTH = '[agent.x509pop]\ncertificate_path = "/c"\nprivate_key_path = "/k"\n'


def read(tmp_path: Path, text: str, **environ: str) -> AgentConfig:
    path = tmp_path / "livery.toml"
    path.write_text(text)
    return load(AgentConfig, "agent", path, environ)


def test_a_short_configuration_is_enough(tmp_path: Path):
    config = read(tmp_path, GOOD)
    assert config.join_token is not None
    assert config.sync_interval.total_seconds() == 5
    assert node_attestor(config).method == "join_token"


def test_x509pop_is_chosen_by_its_table(tmp_path: Path):
    text = GOOD.replace("[agent.join_token]\npath", '[agent.x509pop]\nprivate_key_path = "/k"\ncertificate_path')
    assert node_attestor(read(tmp_path, text)).method == "x509pop"


def test_variables_win_over_the_file(tmp_path: Path):
    config = read(tmp_path, GOOD, LIVERY_AGENT__CA_ADDRESS="[::1]:1", LIVERY_AGENT__LIMITS__MAX_STREAMS="7")
    assert (config.ca_address, config.limits.max_streams) == ("[::1]:1", 7)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('"example.org"', '"EXAMPLE.org"', "lower-case"),
        ('"ca.example.org:8081"', '"ca.example.org"', "host:port"),
        ('"ca.example.org:8081"', '"ca.example.org:99999"', "host:port"),
        ("ca_address", "ca_adress", "did you mean ca_address"),
        ("[agent.join_token]\npath", "[agent.join_token]\npth", "did you mean"),
        ('path = "/etc/livery/token"', "", "exactly one of path and value"),
        ('path = "/etc/livery/token"', 'path = "/t"\nvalue = "t"', "exactly one of path and value"),
        ('[agent.join_token]\npath = "/etc/livery/token"', "", "choose one node attestation"),
        (
            "[agent.join_token]",
            '[agent.x509pop]\ncertificate_path="/c"\nprivate_key_path="/k"\n[agent.join_token]',
            "one",
        ),
        ('trust_bundle_path = "/etc/livery/bundle.pem"', "", "trust_bundle_path is required"),
        ("trust_bundle_path", "insecure_bootstrap = true\ntrust_bundle_path", "contradict"),
        ("ca_address", 'sync_interval = "5"\nca_address', "unit"),
        ("ca_address", 'sync_interval = "1ms"\nca_address', "sync_interval"),
        ("ca_address", 'log_level = "loud"\nca_address', "log_level"),
    ],
)
def test_a_mistake_is_named_with_its_place_and_what_to_do(tmp_path: Path, old: str, new: str, says: str):
    assert old in GOOD
    with pytest.raises(ConfigError) as refused:
        read(tmp_path, GOOD.replace(old, new, 1))
    assert says in f"{refused.value} {refused.value.fix}"


def test_a_token_given_by_value_is_in_no_error_and_no_dump(tmp_path: Path):
    text = GOOD.replace('path = "/etc/livery/token"', 'value = "se-cr-et"')
    config = read(tmp_path, text)
    assert "se-cr-et" not in repr(config)
    assert "se-cr-et" not in config.model_dump_json()
    assert node_attestor(config).prove().payload == b"se-cr-et"


def test_the_operators_bundle_is_read_in_both_forms(tmp_path: Path):
    ca = TestCa()
    for form, data in (("pem", ca.bundle().to_pem()), ("spiffe", ca.bundle().to_jwks())):
        (tmp_path / form).write_bytes(data)
        text = GOOD.replace("/etc/livery/bundle.pem", str(tmp_path / form))
        config = read(tmp_path, text.replace("ca_address", f'trust_bundle_format = "{form}"\nca_address', 1))
        bundle = operators_bundle(config)
        assert bundle is not None
        assert bundle.x509_authorities == ca.bundle().x509_authorities


@pytest.mark.parametrize("content", [None, b"", b"garbage", b'{"keys": []}'])
def test_a_bundle_that_cannot_be_used_is_named(tmp_path: Path, content: bytes | None):
    path = tmp_path / "bundle.pem"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UnusableConfig, match=r"bundle\.pem") as refused:
        operators_bundle(read(tmp_path, GOOD.replace("/etc/livery/bundle.pem", str(path))))
    assert refused.value.fix


def settings(model: type[Section], above: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        nested = _section(field.annotation)
        if nested is None:
            yield above + name
        else:
            yield from settings(nested, f"{above}{name}.")


def _section(annotation: Any) -> type[Section] | None:
    candidates = getattr(annotation, "__args__", (annotation,))
    return next((c for c in candidates if isinstance(c, type) and issubclass(c, Section)), None)


def test_docs_agent_documents_every_setting_and_no_other():
    page = (Path(__file__).parents[3] / "docs" / "agent.md").read_text()
    section = page.partition("\n## Settings\n")[2].partition("\n## ")[0]
    rows = set(re.findall(r"^\| `([a-z0-9_.]+)` \|", section, re.MULTILINE))
    assert rows == set(settings(AgentConfig))
