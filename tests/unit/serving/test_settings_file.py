import pytest

from serving.settings import LogLevel
from serving.settings_file import SettingsError, load

CERTIFIED = 'certificate = "c"\nkey = "k"\n'
OPERATOR = f"[principals.ann]\nrole = 'operator'\ntoken_sha256 = '{'a' * 64}'\n"
INLINE = f"principals.ann = {{role = 'operator', token_sha256 = '{'a' * 64}'}}"
MINIMAL = """
party = "bank"
state_dir = "state"
registry = "registry"
"""


def write(tmp_path, text):
    path = tmp_path / "node.toml"
    path.write_text(text)
    return path


def problems(tmp_path, text, environ=None):
    path = write(tmp_path, text)
    with pytest.raises(SettingsError) as caught:
        load(path, environ or {})
    return [line.replace(str(path), "node.toml") for line in caught.value.problems]


def test_defaults_stand_for_what_is_not_said(tmp_path):
    settings = load(write(tmp_path, MINIMAL), {})
    assert settings.ports.service == "127.0.0.1:8700"
    assert settings.cache.shared_ttl_s == 86_400.0
    assert settings.log_level is LogLevel.INFO


def test_relative_paths_start_at_the_folder_of_the_file(tmp_path):
    text = MINIMAL + '[features.default]\npath = "f.csv"\n[cache]\nsecret_file = "/etc/secret"\n'
    settings = load(write(tmp_path, text), {"TESSERA_REGISTRY": "elsewhere"})
    assert settings.state_dir == str(tmp_path / "state")
    assert settings.registry == str(tmp_path / "elsewhere")
    assert settings.features["default"].path == str(tmp_path / "f.csv")
    assert settings.cache.secret_file == "/etc/secret"


def test_the_environment_overrides_the_file(tmp_path):
    text = MINIMAL + '[peers.card-issuer]\naddress = "127.0.0.1:1"\n[limits]\ndrain_s = 3\n'
    settings = load(
        write(tmp_path, text),
        {
            "TESSERA_PARTY": "123",
            "TESSERA_LIMITS__DRAIN_S": "0.5",
            "TESSERA_CACHE__EMBEDDED": "false",
            "TESSERA_CACHE__URL": "redis://h:1/0",
            "TESSERA_LOG_LEVEL": "debug",
            "TESSERA_PEERS__CARD_ISSUER__MAY_LOAD": '["a", "b"]',
            "TESSERA_PEERS__SHOP__ADDRESS": "[::1]:8701",
            "OTHER": "ignored",
        },
    )
    assert settings.party == "123"
    assert settings.limits.drain_s == 0.5
    assert settings.cache.embedded is False
    assert settings.cache.url == "redis://h:1/0"
    assert settings.log_level is LogLevel.DEBUG
    assert settings.peers["card-issuer"].may_load == ("a", "b")
    assert settings.peers["card-issuer"].address == "127.0.0.1:1"
    assert settings.peers["shop"].address == "[::1]:8701"


def test_what_kubernetes_sets_for_a_service_named_tessera_is_no_setting(tmp_path):
    environ = {
        "TESSERA_SERVICE_HOST": "10.0.0.1",
        "TESSERA_SERVICE_PORT_GRPC": "8700",
        "TESSERA_PORT": "tcp://10.0.0.1:8700",
        "TESSERA_PORT_8700_TCP_ADDR": "10.0.0.1",
    }
    assert load(write(tmp_path, MINIMAL), environ).party == "bank"


@pytest.mark.parametrize(
    ("extra", "problem"),
    [
        ("colour = 1", "colour: is not a setting; known here: party, "),
        ("[cache]\nremote_tll_s = 1", "cache.remote_tll_s: is not a setting; did you mean cache.remote_ttl_s?"),
        ("[cache]\nshared_ttl_s = 0", "cache.shared_ttl_s: must be float > 0.0"),
        ("[cache]\nremote_ttl_s = -1", "cache.remote_ttl_s: must be float >= 0.0"),
        ("[cache]\nshared_ttl_s = nan", "cache.shared_ttl_s: must be float > 0.0"),
        ("[cache]\nremote_ttl_s = nan", "cache.remote_ttl_s: must be float >= 0.0"),
        ("[cache]\nremote_ttl_s = inf", "cache.remote_ttl_s: must be float <= "),
        ('[cache]\nremote_ttl_s = "5"', "cache.remote_ttl_s: must be float, got str"),
        ("[cache]\nresult_max_entries = 1.5", "cache.result_max_entries: must be int, got float"),
        ('[cache]\nurl = "http://x"', "cache.url: must be a redis://, rediss:// or unix:// address"),
        ("cache = 5", "cache: must be a section"),
        ("[fallbacks.s]\npolicy = 'default'", "fallbacks.s.score: goes with policy 'default', and only with it"),
        ("[fallbacks.s]\nscore = 1.0", "fallbacks.s.score: goes with policy 'default', and only with it"),
        ("[fallbacks.s]\npolicy = 'stale'", "fallbacks.s.policy: is stale, which needs cache.stale_s"),
        (
            "[fallbacks.s]\npolicy = 'stale'\n[cache]\nstale_s = 1\nremote_ttl_s = 0\nembedded = false",
            "fallbacks.s.policy: is stale, which needs a level for partials: see cache.remote_ttl_s",
        ),
        ("[peers.a]\nhedge_address = '127.0.0.1:1'", "peers.a.hedge_address: needs an address, and protocol 'tessera'"),
        ("[warmup]\nschedule = 'nightly'", "warmup.schedule: 'nightly' is no cron expression of five fields, such as"),
        ("[warmup]\nschedule = '0 25 * * *'", "warmup.schedule: '0 25 * * *' is no time of cron's: "),
        ("[warmup]\ntime_zone = 'Mars'", "warmup.time_zone: 'Mars' is no time zone, such as"),
        ("[warmup]\nshare = 1.5", "warmup.share: must be float <= 1.0"),
        ("[warmup]\nusers_per_s = 0", "warmup.users_per_s: must be float > 0.0"),
        ("[warmup]\nschedule = '0 3 * * *'\ncount = false", "warmup.schedule: needs warmup.count: nobody knows"),
        (
            "workers = 2\ncache.embedded = false\nwarmup.schedule = '0 3 * * *'\n",
            "warmup.schedule: one process warms the cache of all: set cache.url",
        ),
        (
            "[control]\nurl = 'unix:///c'\n[warmup]\nschedule = '0 3 * * *'",
            "warmup.schedule: one process warms the cache of all: set cache.url",
        ),
        ("peers = 5", "peers: must be a section"),
        ("[transport]\nkind = 1", "transport: must be a value"),
        ('log_level = "loud"', "log_level: must be one of debug, info, warning, error"),
        ('transport = "pigeon"', "transport: must be one of grpcio"),
        ('[ports]\nservice = "8700"', "ports.service: '8700' is not host:port"),
        ('[ports]\nservice = "127.0.0.1:99999"', "ports.service: '127.0.0.1:99999' has no port from 0 to 65535"),
        ('[ports]\nservice = "::1:80"', "ports.service: '::1:80' is not host:port"),
        ('[ports]\nparty = "0.0.0.0:80"', "ports.party: 0.0.0.0:80 is reachable from other machines without TLS; set"),
        ('[ports]\nadmin = "db.local:80"', "ports.admin: db.local:80 is reachable from other machines without TLS"),
        ('[peers.Bank]\naddress = ""', "peers.Bank: must be up to 64 of a-z, 0-9"),
        ('[peers.bank]\naddress = ""', "peers.bank: is this party itself"),
        ('[peers.shop]\naddress = "nowhere"', "peers.shop.address: 'nowhere' is not host:port"),
        ("[peers.shop]\nmay_load = [1]", "peers.shop.may_load: must be str, got int"),
        ('plaintext_caller = "shop"', "plaintext_caller: 'shop' is not among peers"),
        ('[peers.shop]\napp_key = "k"', "peers.shop.app_key: 'k' is no key of fate.keys whose party is this one"),
        (
            'fate.unary_over_http = true\nfate.keys.k = {party = "bank", secret_file = "k"}\n',
            "fate.unary_over_http: needs fate.keys of other parties: a packet's signature tells whose it is",
        ),
        (
            'workers = 2\ncache.embedded = false\nfate.keys.k = {party = "shop", secret_file = "k"}\n',
            "fate.keys: several processes remember signed packets together in one cache: set cache.url",
        ),
        ('[peers.shop]\naddress = "shop.example:1"', "peers.shop.address: shop.example:1 is called without TLS"),
        (
            '[peers.shop]\naddress = "127.0.0.1:1"\nhedge_address = "shop.example:1"',
            "peers.shop.hedge_address: shop.example:1 is called without TLS",
        ),
        ('[tls.ssh]\nkey = "k"', "tls.ssh: must be default, service, party, admin, http or single"),
        ('[tls.service]\nkey = "k"', "tls.service: certificate and key come together"),
        (f'[tls.service]\n{CERTIFIED}clients = "required"', "tls.service.authority: is missing"),
        (f"[tls.party]\n{CERTIFIED}", "tls.party.authority: is missing"),
        (
            f'[tls.default]\n{CERTIFIED}authority = "a"\n[ports]\nadmin = "0.0.0.0:1"',
            "ports.admin: 0.0.0.0:1 is reachable from other machines by everybody; name principals",
        ),
        ("[principals.ann]\nrole = 'viewer'", "principals.ann: needs either a certificate or a token_sha256"),
        (
            "[ports]\nsingle = '127.0.0.1:0'",
            "ports.single: tells operators from everybody else by their tokens: name an operator in principals",
        ),
        (
            f"[ports]\nsingle = '127.0.0.1:0'\n[principals.vic]\nrole = 'viewer'\ntoken_sha256 = '{'a' * 64}'",
            "ports.single: tells operators from everybody else by their tokens: name an operator in principals",
        ),
        (
            f"plaintext_caller = 'shop'\nports.single = '127.0.0.1:0'\npeers.shop = {{}}\n{INLINE}\n",
            "plaintext_caller: cannot be with ports.single: every caller would be that party",
        ),
        (
            f"[ports]\nsingle = '0.0.0.0:1'\n{OPERATOR}",
            "ports.single: 0.0.0.0:1 is reachable from other machines without TLS",
        ),
        (
            f"[tls.single]\n{CERTIFIED}authority = 'a'\n[ports]\nsingle = '127.0.0.1:0'\n[peers.shop]\n{OPERATOR}",
            "tls.single.clients: must be 'optional' or 'required' with ports.single: other parties are known by",
        ),
        (
            f"[tls.admin]\n{CERTIFIED}[ports]\nsingle = '127.0.0.1:0'\n{OPERATOR}",
            "tls.admin: has no use: ports.single serves all",
        ),
        (
            f"[tls.single]\n{CERTIFIED}\n[ports]\nsingle = '127.0.0.1:0'\n{OPERATOR}",
            "tls.single.authority: is missing; it signs the other parties' certificates",
        ),
        ("[principals.ann]\nrole = 'root'", "principals.ann.role: must be one of caller, viewer, operator"),
        ("[principals.ann]\ntoken_sha256 = 'abc'", "principals.ann.token_sha256: must be a SHA-256 in hexadecimal"),
    ],
)
def test_one_problem_names_file_key_and_reason(tmp_path, extra, problem):
    # Keys of the top level come first in TOML.
    text = MINIMAL + extra if extra.startswith("[") else extra + MINIMAL
    (found,) = problems(tmp_path, text)
    assert found.startswith(f"node.toml: {problem}")


def test_optional_certificates_need_the_native_transport(tmp_path):
    text = f'transport = "grpcio"\n{MINIMAL}[tls.service]\n{CERTIFIED}authority = "a"\nclients = "optional"'
    (found,) = problems(tmp_path, text)
    assert found.endswith("tls.service.clients: 'optional' needs transport = 'native'")


@pytest.mark.parametrize(
    ("variable", "value", "problem"),
    [
        ("TESSERA_PARTYY", "x", "partyy: is not a setting; did you mean party?"),
        ("TESSERA_CACHE__KEY_ID", "-1", "cache.key_id: must be int >= 0"),
        ("TESSERA_PARTY__NAME", "x", "party is a value, not a section"),
        ("TESSERA_CACHE", "x", "cache: must be a section"),
        ("TESSERA_PORTS__ADMIN", "here", "ports.admin: 'here' is not host:port"),
        ("TESSERA_LIMITS__DRAIN_S", "long", "limits.drain_s: must be float, got str"),
    ],
)
def test_a_problem_of_the_environment_names_the_variable(tmp_path, variable, value, problem):
    assert problems(tmp_path, MINIMAL, {variable: value})[0].startswith(f"{variable}: {problem}")


def test_all_problems_are_reported_at_once(tmp_path):
    found = problems(tmp_path, 'party = "UP"\ncolour = 1\n[cache]\nkey_id = -1\n', {"TESSERA_LOG_LEVEL": "loud"})
    assert sorted(line.split(": ")[:2] for line in found) == [
        ["TESSERA_LOG_LEVEL", "log_level"],
        ["node.toml", "cache.key_id"],
        ["node.toml", "colour"],
        ["node.toml", "party"],
        ["node.toml", "registry"],
        ["node.toml", "state_dir"],
    ]


def test_a_file_that_cannot_be_read_says_so(tmp_path):
    with pytest.raises(SettingsError, match=r"absent\.toml: cannot be read: No such file"):
        load(tmp_path / "absent.toml", {})
    with pytest.raises(SettingsError, match=r"node\.toml: is not TOML: Invalid value"):
        load(write(tmp_path, "party = "), {})


@pytest.mark.parametrize("address", ["127.0.0.1:0", "[::1]:80", "localhost:1", "127.9.9.9:5"])
def test_loopback_needs_no_permission(tmp_path, address):
    assert load(write(tmp_path, MINIMAL + f'[ports]\nservice = "{address}"\n'), {}).ports.service == address


def test_a_schedule_is_taken_from_the_environment(tmp_path):
    environ = {"TESSERA_WARMUP__SCHEDULE": "30 2 * * mon-fri", "TESSERA_WARMUP__TIME_ZONE": "Europe/Berlin"}
    warmup = load(write(tmp_path, MINIMAL), environ).warmup
    assert (warmup.schedule, warmup.time_zone) == ("30 2 * * mon-fri", "Europe/Berlin")


def test_a_single_port_stands_for_those_of_callers_parties_and_operators(tmp_path):
    text = (
        f"{MINIMAL}[ports]\nsingle = '127.0.0.1:1'\nservice = '0.0.0.0:2'\n[tls.single]\n{CERTIFIED}authority = 'a'\n"
    )
    settings = load(write(tmp_path, text + OPERATOR), {})
    assert settings.ports.bound() == {"single": "127.0.0.1:1", "http": "127.0.0.1:8703"}
    assert {settings.tls_of(port) for port in ("service", "party", "admin")} == {settings.tls["single"]}
    assert settings.tls_of("http") is None


def test_insecure_permits_any_bind(tmp_path):
    settings = load(write(tmp_path, "insecure = true" + MINIMAL + '[ports]\nservice = "0.0.0.0:80"\n'), {})
    assert settings.ports.service == "0.0.0.0:80"


def test_a_registry_may_be_a_url_of_an_allowed_protocol(tmp_path):
    text = MINIMAL.replace('registry = "registry"', 'registry = "s3://bucket/models"')
    settings = load(write(tmp_path, text + '[artifacts]\nprotocols = ["s3"]\n'), {})
    assert settings.registry == "s3://bucket/models"
    assert settings.registry_folder == tmp_path / "state" / "registry"
    assert load(write(tmp_path, MINIMAL), {}).registry_folder == tmp_path / "registry"
    with pytest.raises(SettingsError, match=r"registry: has protocol 's3'; artifacts.protocols allows file"):
        load(write(tmp_path, text), {})
    chained = text.replace("s3://", "simplecache::s3://")
    with pytest.raises(SettingsError, match="registry: is a chain of protocols"):
        load(write(tmp_path, chained + '[artifacts]\nprotocols = ["s3", "simplecache::s3"]\n'), {})


def test_apps_may_be_behind_a_url_of_an_allowed_protocol(tmp_path):
    text = MINIMAL + '[apps]\nroot = "s3://bucket/apps"\n'
    settings = load(write(tmp_path, text + '[artifacts]\nprotocols = ["s3"]\n'), {})
    assert settings.apps.root == "s3://bucket/apps"
    assert settings.apps_folder == tmp_path / "state" / "apps"
    assert load(write(tmp_path, MINIMAL + '[apps]\nroot = "apps"\n'), {}).apps.root == str(tmp_path / "apps")
    with pytest.raises(SettingsError, match=r"apps\.root: has protocol 's3'; artifacts.protocols allows file"):
        load(write(tmp_path, text), {})
    with pytest.raises(SettingsError, match=r"apps\.root: is a chain of protocols"):
        load(write(tmp_path, text.replace("s3://", "simplecache::s3://")), {})


def test_allowed_apps_are_digests(tmp_path):
    assert load(write(tmp_path, MINIMAL + f'[apps]\nallowed = ["{"a" * 64}"]\n'), {}).apps.allowed == ("a" * 64,)
    with pytest.raises(SettingsError, match=r"apps\.allowed"):
        load(write(tmp_path, MINIMAL + '[apps]\nallowed = ["risk"]\n'), {})
