"""An operator's line: what it says where nobody answers, or somebody else does."""

import http.server
import socket
import ssl
import threading

import pytest
from tests.coordinator.grpc_door.certificates import Authority

from matl.errors import InvalidValueError, ServiceError, StateError
from matl.network.operating import Operator, read_token


class Silent(http.server.SimpleHTTPRequestHandler):
    """Answers nothing that a coordinator would."""

    def log_message(self, *_):
        pass


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path, "authority")


@pytest.fixture
def port(authority):
    """A port where somebody speaks TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.issue("server"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Silent) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        serving.start()
        yield server.server_port
        server.shutdown()
        serving.join()


def said(url, **options):
    with Operator(url, "matl_op_x", **options) as line, pytest.raises(ServiceError) as error:
        line.tokens()
    return error.value.reason, str(error.value)


def test_a_certificate_that_is_not_trusted_is_told_from_a_coordinator_that_is_not_there(port, authority, tmp_path):
    reason, words = said(f"https://127.0.0.1:{port}")
    assert reason == "certificate"
    assert (
        "unable to get local issuer certificate; give the certificate of the authority that signed it as --ca" in words
    )
    _, words = said(f"https://127.0.0.1:{port}", ca=authority.file)
    assert "answers 404 in words no coordinator uses" in words
    other = Authority(tmp_path, "other")
    assert said(f"https://127.0.0.1:{port}", ca=other.file)[0] == "certificate"
    with socket.create_server(("127.0.0.1", 0)) as closing:
        free = closing.getsockname()[1]
    assert said(f"https://127.0.0.1:{free}")[1].endswith("start it, or give its --url")


def test_the_wrong_scheme_is_named(port):
    reason, words = said(f"http://127.0.0.1:{port}")
    assert reason == "unreachable"
    assert words.endswith(f"if it is served with TLS, its --url is https://127.0.0.1:{port}")


def test_a_token_does_not_cross_a_network_in_the_clear_unless_that_is_meant():
    with pytest.raises(InvalidValueError, match=r"expected https:// .* got 'http://192\.0\.2\.1:8470'.* --insecure"):
        Operator("http://192.0.2.1:8470", "matl_op_x")
    Operator("http://192.0.2.1:8470", "matl_op_x", insecure=True).close()
    for url in ("http://127.0.0.1:8470", "http://[::1]:8470", "http://localhost:8470", "https://192.0.2.1:8470"):
        Operator(url, "matl_op_x").close()


@pytest.mark.parametrize("url", ["127.0.0.1:8470", "coordinator", "ftp://coordinator", "https://", "http://x:port", ""])
def test_what_is_no_address_is_refused(url):
    with pytest.raises(InvalidValueError, match=r"expected --url as https://host:port \(or http://\), got"):
        Operator(url, "matl_op_x")


@pytest.fixture
def token_file(tmp_path):
    path = tmp_path / "token"
    path.touch(0o600)
    path.write_text(" matl_op_x\n")
    return path


def test_a_token_that_others_can_read_is_refused_whosever_it_is(token_file, monkeypatch):
    assert read_token(token_file) == "matl_op_x"
    token_file.chmod(0o640)
    monkeypatch.setattr("os.geteuid", lambda: token_file.stat().st_uid + 1)
    assert read_token(token_file) == "matl_op_x"  # of another user, who lets a group read it
    token_file.chmod(0o644)
    with pytest.raises(StateError, match="can be read by others: it has mode 0644"):
        read_token(token_file)


def test_what_is_no_token_is_said(token_file):
    for content in (b"", b" \n", b"two\nlines", "größe".encode(), b"\xff"):
        token_file.write_bytes(content)
        with pytest.raises(StateError, match="holds no token; expected one line that begins with matl_op_"):
            read_token(token_file)
    token_file.write_bytes(b"x" * 513)
    with pytest.raises(StateError, match="is longer than 512 bytes"):
        read_token(token_file)
    token_file.unlink()
    with pytest.raises(StateError, match=r"cannot be read from .*: No such file or directory; give its --token-file"):
        read_token(token_file)
