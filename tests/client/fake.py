"""A coordinator in one file: it keeps everything in memory, and stumbles when a test tells it to."""

from __future__ import annotations

import base64
import secrets
import threading
import time
from collections import Counter
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from matl.attest.challenge import Challenger
from matl.attest.enrolment import EnrolmentRequest, Roster
from matl.attest.keys import SigningKey
from matl.attest.receipts import Receipt, sign_receipt
from matl.attest.replay import ReplayCache
from matl.attest.session import SessionText
from matl.attest.verifying import SignatureVerifier
from matl.errors import MatlError, ProtocolError, ServiceError
from matl.params import ParamLayout, values_hash
from matl.protocol import messages as m
from matl.protocol.envelope import Head, read_head, split
from matl.protocol.problems import CODES, Code, refusal
from matl.records import RoundSpec, Status
from matl.screening import encode_payload, screen_envelope, screen_values


class Coordinator:
    """One run that is one mean: a round is over when ``target`` updates are there."""

    def __init__(self, arrays=None, *, rounds=2, target=1, run="demo", **spec) -> None:
        arrays = arrays if arrays is not None else {"w": np.zeros((2, 3), np.float32), "b": np.zeros(3, np.float32)}
        self.arrays = arrays
        self.layout = ParamLayout.of(arrays)
        self.vector = self.layout.flatten(arrays)
        self.run_id, self.count, self.target, self.options = run, rounds, target, spec
        self.status, self.number = "running", 0
        self.roster, self.challenger = Roster(), Challenger(secrets.token_bytes(32))
        self.key = SigningKey.generate()
        self.replays = ReplayCache()
        self.tokens: dict[str, str] = {}
        self.accepted: dict[tuple[int, str], tuple[Head, np.ndarray]] = {}
        self.models: dict[str, bytes] = {}
        self.uploads: dict[str, dict[str, Any]] = {}
        self.runs_shown: list[m.RunView] | None = None
        self.seen: Counter[str] = Counter()
        self.ranges: list[str] = []
        self.stumbles: list[tuple[str, Any]] = []  # (part of "METHOD /path", what to answer) once each
        self.protocol, self.skew = 1, 0.0
        self.forgets = self.silent = False  # uploads: forgotten once they were taken; never acknowledged
        self.busy = 0  # so often a whole upload cannot be taken just then
        self.oracle = None
        self.mode = "mode1"
        self._keep()

    # What a test does.

    def invite(self, **options) -> str:
        self.roster, token = self.roster.invite(now=self.now(), **options)
        return token

    def now(self) -> datetime:
        return datetime.now(UTC) + timedelta(seconds=self.skew)

    def stumble(self, where: str, *answers: Any) -> None:
        """Answer that to the next requests whose method and path hold ``where``."""
        self.stumbles += [(where, answer) for answer in answers]

    def stumble_after(self, where: str, served: int, *answers: Any) -> None:
        """The same, once so many were served, the first of the answers being the last of them."""
        self.stumble(where, *[PASS] * (served - 1), *answers)

    def spec(self, number: int) -> RoundSpec:
        return RoundSpec(
            run=self.run_id,
            round=number,
            model_hash=values_hash(self.vector),
            layout_hash=self.layout.digest,
            recipe={"learning_rate": 0.5},
            **self.options,
        )

    def view(self) -> m.RunView:
        entries = [
            {"name": e.name, "shape": list(e.shape), "dtype": e.dtype, "role": e.role.value}
            for e in self.layout.entries
        ]
        return m.RunView(
            id=self.run_id,
            status=self.status,
            rounds=self.count,
            round=self.number,
            visibility="clear",
            mode=self.mode,
            model_hash=values_hash(self.vector),
            layout=entries,
            config_digest="",
            created_at=self.now(),
            receipts_key=base64.b64encode(self.key.public.der).decode(),
            oracle=self.oracle,
        )

    def round_view(self) -> m.RoundView:
        spec = self.spec(self.number)
        return m.RoundView(
            run=self.run_id,
            number=self.number,
            status="open" if self.status == "running" else "committed",
            spec=m.SpecView.of(spec),
            opened_at=self.now(),
            deadline_at=None,
            ended_at=None,
            target=self.target,
            quorum=1,
            accepted=0,
            rejected=0,
            model_hash=spec.model_hash,
        )

    # What it is asked.

    def take(self, message: bytes, number: int) -> m.Acknowledgement:
        head, payload = split(message)
        update = head.update(payload)
        before = self.accepted.get((number, head.client_id))
        if before is not None and before[0].payload_sha256 == head.payload_sha256:
            return self._acknowledged(head, duplicate=True)
        if number != self.number or self.status != "running":
            raise refusal(Code.CONFLICT, f"round {number} is over", reason="round")
        spec = self.spec(number)
        verifier = SignatureVerifier(self.roster.identities.get, self.replays, self.now)
        if (rejection := verifier.check(update, spec)) is not None:
            raise refusal(Code.UNAUTHENTICATED, rejection.reason, reason=rejection.code)
        hashes = {number: spec.model_hash}
        rejection = screen_envelope(update, spec, model_hashes=hashes, seen=set())
        row = rejection or screen_values(update, spec, self.layout)
        if not isinstance(row, np.ndarray):
            raise refusal(Code.INVALID, row.reason, reason=row.code)
        self.accepted[number, head.client_id] = (head, row)
        rows = [row for (where, _), (_, row) in self.accepted.items() if where == number]
        if len(rows) >= self.target:
            self.vector = self.vector + np.mean(rows, axis=0, dtype=np.float32)
            self.number += 1
            self._keep()
            if self.number == self.count:
                self.status = "finished"
        return self._acknowledged(head)

    def update_view(self, number: int, client: str) -> m.UpdateView:
        if (number, client) not in self.accepted:
            raise refusal(Code.NOT_FOUND, f"{client} sent nothing for round {number}", reason="update")
        judged = number < self.number
        return m.UpdateView(
            run=self.run_id,
            round=number,
            client_id=client,
            status="judged" if judged else "received",
            received_at=self.now(),
            payload_sha256=self.accepted[number, client][0].payload_sha256,
            verdict="accepted" if judged else None,
        )

    def receipt(self, number: int, client: str) -> bytes:
        head = self.accepted[number, client][0]
        receipt = Receipt(
            run=self.run_id,
            round=number,
            client_id=client,
            model_hash=head.model_hash,
            update_hash=head.payload_sha256,
            status=Status.ACCEPTED,
            score=None,
            weight=1.0,
            policy_hash="ef" * 32,
            hardware_root=False,
            signer=self.key.public.fingerprint,
            timestamp_unix_ms=1_700_000_000_000,
        )
        return sign_receipt(receipt, self.key)

    def session(self, client: str) -> m.SessionView:
        token = f"matl_cl_{client}.{secrets.token_hex(8)}"
        self.tokens[token] = client
        return m.SessionView(token=token, expires_at=self.now() + timedelta(hours=1))

    def _acknowledged(self, head: Head, *, duplicate: bool = False) -> m.Acknowledgement:
        return m.Acknowledgement(
            run=self.run_id,
            round=head.round,
            client_id=head.client_id,
            payload_sha256=head.payload_sha256,
            duplicate=duplicate,
        )

    def _keep(self) -> None:
        payload, _ = encode_payload(self.layout.unflatten(self.vector, carried=self.arrays))
        self.models[values_hash(self.vector)] = payload


def application(host: Coordinator) -> Starlette:
    """What a coordinator's doors look like from outside."""

    def known(request: Request) -> str:
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        if token not in host.tokens:
            raise refusal(Code.UNAUTHENTICATED, "no such token", reason="token")
        return host.tokens[token]

    def told(view: Any, status: int = 200) -> Response:
        return Response(view.model_dump_json(), status, media_type="application/json")

    async def health(_: Request) -> Response:
        return told(m.Health(version="test", protocol=host.protocol, time=host.now()))

    async def challenge(_: Request) -> Response:
        return told(m.ChallengeView(challenge=host.challenger.issue(now=host.now())))

    async def enrol(request: Request) -> Response:
        asked = m.EnrolRequest.model_validate_json(await request.body())
        host.roster, identity = host.roster.enrol(
            EnrolmentRequest(
                client_id=asked.client_id,
                key=base64.b64decode(asked.key),
                token=asked.token,
                challenge=asked.challenge,
                signature=base64.b64decode(asked.signature),
            ),
            host.challenger,
            now=host.now(),
        )
        session = host.session(asked.client_id)
        return told(m.Enrolled(client_id=asked.client_id, fingerprint=identity.key.fingerprint, session=session))

    async def session(request: Request) -> Response:
        asked = m.SessionRequest.model_validate_json(await request.body())
        identity = host.roster.identities.get(asked.client_id)
        if identity is None:
            raise refusal(Code.UNAUTHENTICATED, "nobody is enrolled under that id", reason="unknown_client")
        host.challenger.check(asked.challenge, now=host.now())
        text = SessionText(client_id=asked.client_id, challenge=asked.challenge).to_bytes()
        if not identity.key.verify(base64.b64decode(asked.signature), text):
            raise refusal(Code.UNAUTHENTICATED, "the signature is not the client's", reason="signature")
        return told(host.session(asked.client_id))

    async def runs(request: Request) -> Response:
        known(request)
        shown = host.runs_shown if host.runs_shown is not None else [host.view()]
        return JSONResponse([each.model_dump(mode="json") for each in shown])

    async def run(request: Request) -> Response:
        known(request)
        return told(host.view())

    async def current(request: Request) -> Response:
        known(request)
        return told(host.round_view())

    async def round_(request: Request) -> Response:
        known(request)
        number = int(request.path_params["number"])
        view = host.round_view()
        return told(
            view if number == host.number else view.model_copy(update={"number": number, "status": "committed"})
        )

    async def model(request: Request) -> Response:
        known(request)
        content = host.models[request.path_params["hash"]]
        asked = request.headers.get("range", "")
        host.ranges.append(asked)
        start = int(asked.removeprefix("bytes=").removesuffix("-") or 0)
        if start >= len(content):
            raise refusal(Code.INVALID, "the range begins behind the end", reason="range")
        return Response(content[start:], 206 if asked else 200, media_type="application/octet-stream")

    async def submit(request: Request) -> Response:
        return told(host.take(await request.body(), int(request.path_params["number"])), 202)

    async def update(request: Request) -> Response:
        known(request)
        return told(host.update_view(int(request.path_params["number"]), request.path_params["client"]))

    async def receipt(request: Request) -> Response:
        known(request)
        return Response(host.receipt(int(request.path_params["number"]), request.path_params["client"]))

    async def begin(request: Request) -> Response:
        body = await request.body()
        head = read_head(body)
        known = host.accepted.get((head.round, head.client_id))
        if known is not None:
            ends, ack = host.now(), host._acknowledged(head, duplicate=True)
            size = head.payload_bytes
            return told(m.UploadView(id="x", offset=size, size=size, expires_at=ends, acknowledgement=ack), 201)
        upload = {"head": body, "size": head.payload_bytes, "data": b"", "ack": None}
        upload["number"] = int(request.path_params["number"])
        name = secrets.token_hex(8)
        host.uploads[name] = upload
        return told(upload_view(name), 201)

    def upload_view(name: str) -> m.UploadView:
        upload = host.uploads[name]
        ends = host.now() + timedelta(hours=1)
        return m.UploadView(
            id=name, offset=len(upload["data"]), size=upload["size"], expires_at=ends, acknowledgement=upload["ack"]
        )

    async def upload(request: Request) -> Response:
        if request.path_params["id"] not in host.uploads:
            raise refusal(Code.NOT_FOUND, "no such upload", reason="upload")
        return told(upload_view(request.path_params["id"]))

    async def append(request: Request) -> Response:
        state = host.uploads[request.path_params["id"]]
        piece = await request.body()
        if int(request.headers["upload-offset"]) != len(state["data"]):
            raise refusal(Code.CONFLICT, "not there", reason="offset")
        cut = request.scope.get("cut", len(piece))
        state["data"] += piece[:cut]
        if cut < len(piece):
            raise refusal(Code.BUSY, "the line broke", reason="unreachable")
        if len(state["data"]) == state["size"] and not host.silent:
            if host.busy:
                host.busy -= 1
                raise refusal(Code.BUSY, "between rounds", reason="between_rounds")
            message = len(state["head"]).to_bytes(4, "big") + state["head"] + state["data"]
            state["ack"] = host.take(message, state["number"])
            answer = told(upload_view(request.path_params["id"]))
            if host.forgets:
                del host.uploads[request.path_params["id"]]
            return answer
        return told(upload_view(request.path_params["id"]))

    async def events(request: Request) -> Response:
        after = int(request.query_params["after"])
        page = [event(after + 1), event(after + 2)]
        return told(m.EventPage(events=page, next=after + 2))

    def event(seq: int) -> m.EventView:
        return m.EventView(seq=seq, time=host.now(), kind="round_opened", run=host.run_id, round=0, data={})

    async def socket(websocket: WebSocket) -> None:
        await websocket.accept()
        hello = await websocket.receive_json()
        number = 0
        try:
            if hello["after"] is not None:
                for seq in (1, 2):
                    frame = event(hello["after"] + seq).model_dump(mode="json")
                    await websocket.send_json({"type": "event", **frame})
            while True:
                frame = await websocket.receive_bytes()
                host.seen["frame"] += 1
                if host.stumbles and host.stumbles[0][0] == "frame":
                    host.stumbles.pop(0)
                    await websocket.close()
                    return
                try:
                    head, _ = split(frame)
                    answer = {"type": "ack", **host.take(frame, head.round).model_dump(mode="json")}
                except ServiceError as error:
                    answer = {"type": "problem", "code": error.code, "message": str(error), "reason": error.reason}
                await websocket.send_json({**answer, "answers": number})
                number += 1
        except WebSocketDisconnect:
            return

    async def problem(_: Request, error: Exception) -> Response:
        if isinstance(error, ProtocolError):
            error = refusal(Code.INVALID, str(error), reason=error.code)
        assert isinstance(error, ServiceError)
        view = m.Problem(code=error.code, message=str(error), reason=error.reason, retry_after=error.retry_after)
        return told(view, CODES[Code(error.code)].http)

    base = "/v1/runs/{run}/rounds"
    app = Starlette(
        routes=[
            Route("/v1/health", health),
            Route("/v1/challenge", challenge, methods=["POST"]),
            Route("/v1/clients", enrol, methods=["POST"]),
            Route("/v1/sessions", session, methods=["POST"]),
            Route("/v1/runs", runs),
            Route("/v1/runs/{run}", run),
            Route(f"{base}/current", current),
            Route(base + "/{number}", round_),
            Route("/v1/models/{hash}", model),
            Route(base + "/{number}/updates", submit, methods=["POST"]),
            Route(base + "/{number}/updates/{client}", update),
            Route(base + "/{number}/updates/{client}/receipt", receipt),
            Route(base + "/{number}/uploads", begin, methods=["POST"]),
            Route("/v1/uploads/{id}", upload),
            Route("/v1/uploads/{id}", append, methods=["PATCH"]),
            Route("/v1/events", events),
            WebSocketRoute("/v1/ws", socket),
        ],
        exception_handlers={MatlError: problem},
    )

    async def stumbling(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        name = f"{scope['method']} {scope['path']}"
        host.seen[name] += 1
        for index, (where, answer) in enumerate(host.stumbles):
            if where in name:
                del host.stumbles[index]
                if answer is PASS:
                    break
                if isinstance(answer, int):  # only so many bytes of the body arrive
                    scope["cut"] = answer
                elif isinstance(answer, Response):
                    await answer(scope, receive, send)
                    return
                else:  # it is done, and the answer is lost
                    await app(scope, receive, lost)
                    await JSONResponse({"code": "busy", "message": "lost", "reason": "x"}, 503)(scope, receive, send)
                    return
                break
        await app(scope, receive, send)

    async def lost(_: Any) -> None:
        return

    return stumbling


PASS = object()
"""No stumble."""
LOST = object()
"""A stumble: the request is served, and the answer does not arrive."""


def refused(code: str, *, status: int = 503, retry_after: float | None = None, reason: str = "") -> Response:
    """A stumble: the request is refused."""
    content = {"code": code, "message": f"{code}!", "reason": reason, "retry_after": retry_after}
    return JSONResponse(content, status)


@contextmanager
def serving(app: Any, *, port: int = 0, **options: Any):
    """The address at which an application answers, on a thread of its own."""
    config = uvicorn.Config(
        app, host="127.0.0.1", port=port, log_level="error", lifespan="off", ws="websockets-sansio", **options
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    ends = time.monotonic() + 10
    while not server.started:
        assert time.monotonic() < ends
        assert thread.is_alive()
        time.sleep(0.005)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(10)
        assert not thread.is_alive()
