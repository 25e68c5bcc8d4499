import pytest

from tessera.v1 import inference_pb2


def test_every_option_reaches_the_request(tessera, inference):
    result = tessera(
        *("predict", "--service", "credit", "--user-id", "u1", "--case-id", "c1"),
        *("--number", "age=41", "--number", "x=nan", "--text", "city=Ulm"),
    )
    assert result.exit_code == 0
    (request,) = inference.asked
    assert (request.service, request.user_id, request.case_id) == ("credit", "u1", "c1")
    assert request.numbers["age"] == 41.0
    assert request.numbers["x"] != request.numbers["x"]
    assert dict(request.texts) == {"city": "Ulm"}
    assert result.stdout.splitlines() == [
        "score: 0.25",
        "version: lr v2 (variant lr:v2)",
        "complete: yes",
        "cache: none",
        "party shop: ok, cache l2",
    ]


def test_features_come_from_a_file_and_options_override(as_json, inference, tmp_path):
    path = tmp_path / "case.json"
    path.write_text('{"age": 40, "height": 1.8, "city": "Ulm", "unknown": null}')
    reply = as_json("predict", "--features", str(path), "--number", "age=41", "--model", "lr:v2")
    assert inference.asked == [
        inference_pb2.PredictRequest(
            model="lr", version="v2", numbers={"age": 41.0, "height": 1.8}, texts={"city": "Ulm"}
        )
    ]
    assert (reply["score"], reply["cache"], reply["attribution"]) == ([0.25], "none", "0102")


def test_features_come_from_standard_input(tessera, inference):
    assert tessera("predict", "--service", "credit", "--features", "-", input='{"age": 40}').exit_code == 0
    assert dict(inference.asked[0].numbers) == {"age": 40.0}


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--number", "age"], "'age' is not NAME=VALUE"),
        (["--number", "age=old"], "--number age: 'old' is not a number"),
        (["--features", "-"], "must be a JSON object of numbers, texts and nulls"),
        (["--service", "s", "--model", "m:v"], "not both"),
    ],
)
def test_wrong_input_is_refused_before_any_call(tessera, inference, arguments, reason):
    result = tessera("predict", *arguments, input="[1]")
    assert result.exit_code == 2
    assert reason in result.stderr
    assert inference.asked == []


def test_the_answer_of_an_unknown_service(tessera):
    result = tessera("predict", "--service", "nothing")
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: NOT_FOUND: no service nothing (")
