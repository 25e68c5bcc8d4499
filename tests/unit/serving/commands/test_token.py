import hashlib
import tomllib

from click.testing import CliRunner

from serving.commands.token import token
from serving.settings import PrincipalSettings


def test_what_goes_to_the_caller_and_what_into_the_settings_belong_together():
    made = [CliRunner().invoke(token, ["ann", "--role", "operator"]) for _ in range(2)]
    settings = tomllib.loads(made[0].stderr)["principals"]["ann"]
    secret = made[0].stdout.strip()
    assert settings == {"role": "operator", "token_sha256": hashlib.sha256(secret.encode()).hexdigest()}
    assert secret not in made[0].stderr
    assert len(secret) >= 43
    assert made[0].stdout != made[1].stdout
    assert set(settings) <= set(PrincipalSettings.__struct_fields__)
