"""A node's ports as the commands see them: real gRPC servers with a small memory."""

import json
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from click.testing import CliRunner

from serving.cli import main
from tessera.v1 import admin_pb2, admin_pb2_grpc, federation_pb2, inference_pb2, inference_pb2_grpc


class Admin(admin_pb2_grpc.AdminServicer):
    """Keeps what it was asked. `fails`: method name -> (status, text). It answers once `go` is set."""

    def __init__(self) -> None:
        self.asked = []
        self.at_replicas = [admin_pb2.ReplicaState(replica="b/0", state="READY")]
        self.fails = {}
        self.go = threading.Event()
        self.go.set()
        self.limits = [
            admin_pb2.LimitStatus(
                kind=admin_pb2.LIMIT_KIND_SERVICE,
                name="credit",
                limit=admin_pb2.Limit(per_s=0),
                is_set=True,
                settings=admin_pb2.Limit(per_s=2.5, burst=9),
            ),
            admin_pb2.LimitStatus(
                kind=admin_pb2.LIMIT_KIND_CALLER, name="default", limit=admin_pb2.Limit(concurrent=7)
            ),
        ]
        self.services = {
            "credit": admin_pb2.ServiceStatus(
                service="credit",
                revision=7,
                variants=[admin_pb2.VariantWeight(model="lr", version="v2", weight=10_000)],
                previous=[admin_pb2.VariantWeight(model="lr", version="v1", weight=10_000)],
                app="scorecard",
                is_default=True,
            )
        }

    def _note(self, method, request, context):
        self.asked.append(request)
        self.go.wait(10)
        if method in self.fails:
            context.abort(*self.fails[method])

    def PublishLoad(self, request, context):
        self._note("PublishLoad", request, context)
        state = federation_pb2.LOAD_STATE_FAILED if request.version == "bad" else federation_pb2.LOAD_STATE_LOADED
        reason = "digest differs" if request.version == "bad" else ""
        return admin_pb2.PublishLoadReply(
            replicas=[
                federation_pb2.ReplicaOutcome(
                    party="bank", replica="0", state=federation_pb2.LOAD_STATE_ALREADY_LOADED
                ),
                federation_pb2.ReplicaOutcome(party="shop", replica="0", state=state, reason=reason),
            ],
            binding_digest=b"\xab" * 32,
        )

    def PublishOnline(self, request, context):
        self._note("PublishOnline", request, context)
        return admin_pb2.PublishOnlineReply(
            service=request.service, revision=request.revision + 1, variants=request.variants, shadows=request.shadows
        )

    def Rollback(self, request, context):
        self._note("Rollback", request, context)
        return admin_pb2.PublishOnlineReply(
            service=request.service, revision=request.revision + 1, variants=self.services[request.service].previous
        )

    def Unload(self, request, context):
        self._note("Unload", request, context)
        return admin_pb2.UnloadReply()

    def SetDefaultService(self, request, context):
        self._note("SetDefaultService", request, context)
        return admin_pb2.SetDefaultServiceReply()

    def RemoveService(self, request, context):
        self._note("RemoveService", request, context)
        return admin_pb2.RemoveServiceReply(removed=request.service in self.services)

    def ListModels(self, request, context):
        self._note("ListModels", request, context)
        status = admin_pb2.ModelStatus(
            model="lr",
            version="v2",
            state="READY",
            role="guest",
            format="tessera.linear",
            since_ms=1_700_000_000_000,
            bytes=10,
            binding_digest=b"\xab" * 32,
            held_by=["service credit"],
            replicas=self.at_replicas,
        )
        return admin_pb2.ListModelsReply(models=[status])

    def ListServices(self, request, context):
        self._note("ListServices", request, context)
        return admin_pb2.ListServicesReply(services=self.services.values())

    def Figures(self, request, context):
        self._note("Figures", request, context)
        counted = admin_pb2.VariantFigures(
            service=request.service,
            variant="lr:v2",
            answers=1_000,
            positives=10,
            negatives=90,
            auc=0.75,
            ks=0.5,
            score_quantiles=[0.1, 0.2, 0.3, 0.4, 0.5],
            seconds_mean=0.002,
            seconds_p99=0.01,
        )
        return admin_pb2.FiguresReply(
            variants=[counted, admin_pb2.VariantFigures(service=request.service, variant="lr:v3", shadow=True)]
        )

    def ListPeers(self, request, context):
        self._note("ListPeers", request, context)
        half = admin_pb2.PeerHalf(model="lr", version="v2", state=federation_pb2.HALF_STATE_READY)
        shop = admin_pb2.PeerState(
            party="shop",
            round_trip_s=0.0012,
            protocol="1.0",
            software="0.1.0",
            halves=[half],
            may_load=["*"],
            purposes=["infer", "warmup"],
            budget=1_000,
            spent=70,
            refused=3,
            users=5_000,
            window_ends_ms=1_700_006_400_000,
        )
        return admin_pb2.ListPeersReply(peers=[admin_pb2.PeerState(party="bakery", problem="unreachable"), shop])

    def LoadApp(self, request, context):
        self._note("LoadApp", request, context)
        state = federation_pb2.LOAD_STATE_FAILED if request.version == "bad" else federation_pb2.LOAD_STATE_LOADED
        other = federation_pb2.ReplicaOutcome(party="bank", replica="1", state=state)
        loaded = federation_pb2.ReplicaOutcome(
            party="bank", replica="0", state=federation_pb2.LOAD_STATE_ALREADY_LOADED
        )
        return admin_pb2.LoadAppReply(replicas=[loaded, other], digest=b"\xab" * 32)

    def UnloadApp(self, request, context):
        self._note("UnloadApp", request, context)
        return admin_pb2.UnloadAppReply()

    def ListApps(self, request, context):
        self._note("ListApps", request, context)
        risk = admin_pb2.AppStatus(
            name="risk",
            version="2",
            state="READY",
            since_ms=1_700_000_000_000,
            digest=b"\xab" * 32,
            used_by=["service 'credit'"],
        )
        return admin_pb2.ListAppsReply(apps=[admin_pb2.AppStatus(name="rules", state="BUILT_IN"), risk])

    def SetLogLevel(self, request, context):
        self._note("SetLogLevel", request, context)
        return admin_pb2.SetLogLevelReply()

    def SetLimit(self, request, context):
        self._note("SetLimit", request, context)
        return admin_pb2.SetLimitReply()

    def ClearLimit(self, request, context):
        self._note("ClearLimit", request, context)
        found = [one for one in self.limits if (one.kind, one.name) == (request.kind, request.name)]
        return admin_pb2.ClearLimitReply(cleared=bool(found), status=found[0] if found else None)

    def ListLimits(self, request, context):
        self._note("ListLimits", request, context)
        return admin_pb2.ListLimitsReply(limits=self.limits)

    def Feedback(self, request, context):
        self._note("Feedback", request, context)
        refused = [place for place, one in enumerate(request.outcomes) if one.attribution == b"\xff"]
        return admin_pb2.FeedbackReply(accepted=len(request.outcomes) - len(refused), refused=refused)


class Inference(inference_pb2_grpc.InferenceServicer):
    def __init__(self) -> None:
        self.asked = []

    def Predict(self, request, context):
        self.asked.append(request)
        if request.service == "nothing":
            context.abort(grpc.StatusCode.NOT_FOUND, "no service nothing")
        return inference_pb2.PredictReply(
            score=[0.25],
            model="lr",
            version="v2",
            variant="lr:v2",
            complete=True,
            cache=inference_pb2.CACHE_LEVEL_NONE,
            parties=[inference_pb2.PartyOutcome(party="shop", level=inference_pb2.CACHE_LEVEL_L2)],
            attribution=b"\x01\x02",
        )


@pytest.fixture
def admin():
    return Admin()


@pytest.fixture
def inference():
    return Inference()


@pytest.fixture
def address(admin, inference):
    """Both services on one port."""
    with ThreadPoolExecutor(4) as threads:
        server = grpc.server(threads)
        admin_pb2_grpc.add_AdminServicer_to_server(admin, server)
        inference_pb2_grpc.add_InferenceServicer_to_server(inference, server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        yield f"127.0.0.1:{port}"
        server.stop(0).wait()


@pytest.fixture
def nobody():
    """An address where nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"127.0.0.1:{listener.getsockname()[1]}"


@pytest.fixture
def tessera(address):
    """Runs `tessera ARGUMENTS --admin ADDRESS`."""

    def run(*arguments, target=address, **options):
        return CliRunner().invoke(main, [*arguments, "--admin", target], **options)

    return run


@pytest.fixture
def as_json(tessera):
    def run(*arguments, **options):
        result = tessera(*arguments, "--json", **options)
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    return run
