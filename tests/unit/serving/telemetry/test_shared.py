import pytest

from serving.telemetry.exposition import Exposition, counter, gauge, histogram
from serving.telemetry.histogram import Histogram
from serving.telemetry.shared import SharedExposition, merged
from serving.telemetry.worker_files import Teller, Told


def exposition(count):
    took = Histogram()
    took.observe(0.003)

    def reading():
        yield counter("tessera_things", "Things.", [({"kind": "a"}, float(count))])
        yield gauge("tessera_level", "Level.", [({}, count / 2)])
        yield histogram("tessera_took_seconds", "Time.", [({}, took)])

    return Exposition((reading,))


def lines(text):
    return text.decode().splitlines()


def test_samples_of_all_have_the_name_of_theirs():
    shown = lines(merged({"here/1": exposition(4).text(), "here/0": exposition(3).text()}))
    assert shown.count("# TYPE tessera_things_total counter") == 1
    assert 'tessera_things_total{kind="a",replica="here/0"} 3.0' in shown
    assert 'tessera_things_total{kind="a",replica="here/1"} 4.0' in shown
    assert 'tessera_level{replica="here/1"} 2.0' in shown
    assert 'tessera_took_seconds_bucket{le="0.005",replica="here/0"} 1.0' in shown
    assert 'tessera_took_seconds_count{replica="here/1"} 1.0' in shown


@pytest.fixture
def expositions():
    return exposition(1), exposition(2)  # they look at the process when they are made


async def test_a_worker_shows_itself_as_it_is_now_beside_the_others(expositions):
    async def others():
        return [Told("here/1", "1", expositions[1].text())]

    shown = lines(await SharedExposition(expositions[0], Teller(None, "here/0", "1"), others).text())
    assert 'tessera_things_total{kind="a",replica="here/0"} 1.0' in shown
    assert 'tessera_things_total{kind="a",replica="here/1"} 2.0' in shown


@pytest.mark.parametrize(("own", "others"), [("1", "2"), ("2", "1")])
async def test_a_worker_and_its_successor_are_one_line_that_of_the_successor(expositions, own, others):
    by_generation = dict(zip("12", expositions, strict=True))

    async def told():
        return [Told("here/0", others, by_generation[others].text())]

    shown = lines(await SharedExposition(by_generation[own], Teller(None, "here/0", own), told).text())
    assert [line for line in shown if line.startswith("tessera_things_total")] == [
        'tessera_things_total{kind="a",replica="here/0"} 2.0'
    ]
