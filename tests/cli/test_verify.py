"""``matl verify privacy``: what it prints, and what it refuses."""

import json
from fractions import Fraction

import pytest

from matl.cli.exit_codes import ExitCode
from matl.privacy.certificate import Instance
from matl.privacy.manifest import Manifest
from matl.privacy.table import skellam_table

INSTANCE = Instance(
    3, skellam_table("1/4").counts, 40, 8, Fraction(1, 16), Fraction(1, 4), 4, Fraction(1, 1000), ((1, 12),), 1
)
MANIFEST = Manifest(INSTANCE, block=64, kept=24, clip_norm=Fraction(1))


@pytest.fixture
def written(tmp_path):
    (tmp_path / "manifest.json").write_bytes(MANIFEST.document())
    return tmp_path / "manifest.json"


def test_what_is_certified_is_said_in_words(run, written):
    done = run("verify", "privacy", "manifest.json", "--sha256", MANIFEST.sha256)
    assert (done.code, done.err) == (0, "")
    figures = MANIFEST.certificate
    for words in (
        f"manifest {MANIFEST.sha256}: its content has this hash",
        "CERTIFIED for one client: all its data, its at most 4 transmissions, delta = 1/1000",
        f"epsilon <= {figures.zero_out}  against sending zeros instead",
        f"epsilon <= {figures.replace_one}  against any other data in its place",
        "with the noise of 8 honest clients or more, itself included",
        "NOT PROTECTED: that the client takes part",
        "IF FEWER HONEST CLIENTS SURVIVE",
        "certificate.py manifest.json",
    ):
        assert words in done.out


def test_json(run, written):
    done = run("verify", "privacy", "manifest.json", "--json")
    assert done.json["zero_out"] == {
        "epsilon": str(MANIFEST.certificate.zero_out),
        "order": done.json["zero_out"]["order"],
    }
    assert done.json["sha256"] == MANIFEST.sha256
    assert list(done.json["fewer_survivors"]) == ["7", "6", "4", "2"]
    assert done.json.keys() >= {"delta", "transmissions", "survivors", "replace_one", "seconds"}


def test_a_manifest_that_does_not_hold_is_refused(run, written):
    content = json.loads(written.read_bytes())
    content["manifest"]["survivors"] = 4
    written.write_text(json.dumps(content))
    run("verify", "privacy", "manifest.json").refused(ExitCode.USAGE, "manifest.json is refused", "of its content")
    run("verify", "privacy", "none.json").refused(ExitCode.USAGE, "none.json cannot be read: No such file")


def test_another_manifest_than_the_pinned_one_is_refused(run, written):
    done = run("verify", "privacy", "manifest.json", "--sha256", "0" * 64)
    done.refused(ExitCode.USAGE, f"expected the manifest with SHA-256 {'0' * 64}, got {MANIFEST.sha256}")


def test_there_is_nothing_else_to_verify_yet(run):
    assert run("verify", "honesty").code == ExitCode.USAGE
