import pytest

from bench.harness.stage import Stage
from serving.transport import Transport, frames

EXTENSION = ".cpython-311-x86_64-linux-gnu.so"


@pytest.mark.parametrize(("suffix", "native"), [(".py", "native"), (EXTENSION, "native, compiled")])
def test_figures_say_whether_the_native_transport_is_compiled(
    monkeypatch: pytest.MonkeyPatch, suffix: str, native: str
) -> None:
    monkeypatch.setattr(frames, "__file__", f"frames{suffix}")
    named = [Stage(kind, 1.0, 1).named for kind in (Transport.NATIVE, Transport.GRPCIO)]
    assert named == [native, "grpcio"]
