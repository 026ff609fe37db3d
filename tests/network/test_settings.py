"""Settings of a coordinator: what is read, and what is refused with words that help."""

import pytest

from matl.errors import ConfigError
from matl.network.settings import NetworkSettings, RunSettings, Terms, load_settings

FILE = """
folder = "data"
host = "0.0.0.0"
port = 8443
grpc_port = 8444
blobs = "blobs"

[tls]
certificate = "tls/cert.pem"
key = "tls/key.pem"
client_ca = "tls/ca.pem"

[limits]
max_message = 1000000
retention = 5
event_days = 30

[runs.hospitals]
dataset = "synthetic"
clients = 8
rounds = 3
mode = "mode0"

[runs.hospitals.network]
quorum = 5
deadline = 600

[runs]
others = "others.toml"
"""
OTHERS = 'dataset = "synthetic"\nclients = 4\n[network]\ntarget = 3\n'


@pytest.fixture
def file(tmp_path):
    (tmp_path / "others.toml").write_text(OTHERS)
    (tmp_path / "matl.toml").write_text(
        FILE.replace("[runs]\nothers", "[runs.unused]\n", 1).partition("[runs.unused]")[0]
    )
    text = (
        (tmp_path / "matl.toml")
        .read_text()
        .replace("[runs.hospitals]", '[runs]\nothers = "others.toml"\n[runs.hospitals]')
    )
    (tmp_path / "matl.toml").write_text(text)
    return tmp_path / "matl.toml"


def test_a_file_is_read_with_paths_beside_it(file):
    settings = load_settings(file)
    folder = file.parent
    assert settings.folder == folder / "data"
    assert settings.database_url == f"sqlite:///{folder / 'data' / 'matl.db'}"
    assert settings.blobs_url == str(folder / "blobs")
    assert settings.tls.certificate == folder / "tls" / "cert.pem"
    assert settings.tls.client_ca == folder / "tls" / "ca.pem"
    assert (settings.port, settings.grpc_port) == (8443, 8444)
    assert (settings.limits.retention, settings.limits.event_days) == (5, 30.0)
    run = RunSettings.of(settings.runs["hospitals"])
    assert (run.config.label, run.terms.quorum, run.terms.deadline, run.rounds) == ("mode0", 5, 600, 3)
    assert RunSettings.of(settings.runs["others"]).terms.target == 3


def test_a_password_stays_in_the_environment(file, monkeypatch):
    monkeypatch.setenv("MATL_DATABASE", "postgresql://matl:secret@db/matl")
    assert load_settings(file).database_url == "postgresql://matl:secret@db/matl"
    assert "secret" not in repr(load_settings(file))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "folder: is missing"),
        ("folder = 3", "folder: "),
        ('folder = "x"\nport = 70000', "port: input should be less than or equal to 65535, got 70000"),
        ('folder = "x"\nprot = 1', "prot: unknown key (did you mean 'port'?)"),
        ('folder = "x"\nhost = "0.0.0.0"', "expected tls where others can reach the coordinator, got host='0.0.0.0'"),
        ('folder = "x"\nhost = "0.0.0.0"\ntrusted_proxies = []', "expected tls where others can reach"),
        ('folder = "x"\ntrusted_proxies = ["*"]', "trusted_proxies.0: value is not a valid IPv4 or IPv6 network, got"),
        ('folder = "x"\ntrusted_proxies = ["10.0.0.5/8"]', "trusted_proxies.0: value is not a valid IPv4 or IPv6"),
        ('folder = "x"\ntrusted_proxies = ["::/0"]', "expected the addresses or networks of the proxies, got ::/0"),
        ('folder = "x"\ntrusted_proxy = "10.0.0.5"', "unknown key (did you mean 'trusted_proxies'?)"),
        (
            'folder = "x"\nhost = "0.0.0.0"\ntrusted_proxies = ["10.0.0.5"]\ngrpc_port = 8471',
            "expected tls for gRPC where others can reach it, got grpc_port=8471 and host='0.0.0.0'",
        ),
        ('folder = "x"\n[tls]\nkey = "k"', "tls.certificate: is missing"),
        ('folder = "x"\n[runs."a b"]\nclients = 3', "runs"),
        ('folder = "x"\n[runs.a]\nclient = 3', "a.client: unknown key (did you mean 'clients'?)"),
        ('folder = "x"\n[runs.a]\nattack = "alie"', "a.attack: clients are real and not ours to command"),
        ('folder = "x"\n[runs.a.network]\nqourum = 3', "a.network.qourum: unknown key (did you mean 'quorum'?)"),
        ('folder = "x"\n[runs.a.network]\nquorum = 3\ntarget = 2', "expected quorum <= target"),
        ('folder = "x"\n[runs.a.network]\noverselect = 2', "expected overselect with a target of real clients"),
        ('folder = "x"\n[runs.a.network]\ntarget = 2\noverselect = 2\nmax_staleness = 1', "max_staleness = 0"),
        ('folder = "x"\n[runs.a.network]\ntarget = 2\noverselect = 0.5', "greater than or equal to 1"),
        ('folder = "x"\n[runs]\na = "none.toml"', "cannot be read"),
        ("folder = ", "is not TOML"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, text, words):
    path = tmp_path / "matl.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_settings(path)
    assert words in str(caught.value)


def test_all_problems_are_listed_at_once(tmp_path):
    (tmp_path / "matl.toml").write_text('folder = "x"\nport = -1\nprot = 1\n')
    with pytest.raises(ConfigError) as caught:
        load_settings(tmp_path / "matl.toml")
    assert len(caught.value.problems) == 2


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_loopback_and_proxies_need_no_certificate(tmp_path, host):
    assert NetworkSettings(folder=tmp_path, host=host, grpc_port=0).tls is None
    settings = NetworkSettings(
        folder=tmp_path, host="0.0.0.0", trusted_proxies=["10.0.0.5", "10.244.0.0/16", "fd00::/8"]
    )
    assert [str(one) for one in settings.trusted_proxies] == ["10.0.0.5/32", "10.244.0.0/16", "fd00::/8"]


def test_settings_of_a_run_survive_json():
    given = {
        "dataset": "synthetic",
        "attack": {"name": "sleeper", "wake_round": "3"},
        "local": {"learning_rate": 0.05},
        "network": {"simulated": True, "rounds": 12},
    }
    run = RunSettings.of(given)
    again = RunSettings.of(run.as_settings())
    assert again == run
    assert again.config.digest == run.config.digest
    assert run.rounds == 12
    assert Terms() == RunSettings.of({}).terms


def test_files_of_an_oracle_are_beside_the_file_that_names_them(tmp_path):
    (tmp_path / "matl.toml").write_text("""
        folder = "data"
        [runs.sealed]
        dataset = "synthetic"
        [runs.sealed.network.oracle]
        url = "https://oracle:8450"
        token_file = "oracle/token"
        measurements = ["5f"]
        vendor_keys = ["keys/tpm.der"]
    """)
    oracle = RunSettings.of(load_settings(tmp_path / "matl.toml").runs["sealed"]).terms.oracle
    assert oracle.token_file == tmp_path / "oracle" / "token"
    assert oracle.vendor_keys == (tmp_path / "keys" / "tpm.der",)
