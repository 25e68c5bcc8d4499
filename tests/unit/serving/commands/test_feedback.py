import base64

import pytest

from serving.commands.feedback import ROWS


@pytest.fixture
def file(tmp_path):
    def write(*lines, head="label,attribution"):
        path = tmp_path / "outcomes.csv"
        path.write_text("\n".join([head, *lines]))
        return str(path)

    return write


def test_outcomes_go_out_in_calls_of_a_bounded_size(tessera, admin, file):
    lines = [f"{number % 2},{number:08x}" for number in range(ROWS + 1)]
    assert tessera("feedback", file(*lines)).stdout == f"{ROWS + 1} accepted, 0 known before, 0 refused\n"
    assert [len(request.outcomes) for request in admin.asked] == [ROWS, 1]
    assert (admin.asked[1].outcomes[0].attribution.hex(), admin.asked[1].outcomes[0].label) == (f"{ROWS:08x}", 0.0)


def test_base64_is_understood_and_refused_lines_are_named(tessera, as_json, file):
    path = file(f"1,{base64.b64encode(b'some bytes').decode()}", "0,ff")
    assert as_json("feedback", path) == {"accepted": 1, "known": 0, "refused_lines": [3]}
    assert "line 3" in tessera("feedback", path).stderr


@pytest.mark.parametrize("line", ["x,00ff", "1,???", "1"])
def test_a_line_that_is_none_is_named(tessera, file, line):
    result = tessera("feedback", file("1,00", line))
    assert (result.exit_code, "outcomes.csv, line 3" in result.stderr) == (1, True)


def test_a_missing_column_is_named(tessera, admin, file):
    assert "no column label" in tessera("feedback", file("00", head="attribution")).stderr
    assert admin.asked == []
