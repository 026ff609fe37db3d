"""The exception tree: messages, and errors that survive the way out of a worker process."""

import pickle

import pytest

from matl import errors

ONE_OF_EACH = [
    errors.MatlError("plain"),
    errors.InvalidValueError("bad value"),
    errors.UnknownNameError("attack", "sing_flip", ["sign_flip"]),
    errors.BoundError("too many"),
    errors.LayoutError("shape", "wrong shape"),
    errors.ConfigError("run.yaml", ["one", "two"]),
    errors.DataError("data"),
    errors.DataNotFoundError("not here"),
    errors.CorruptDataError("damaged"),
    errors.MissingExtraError("scikit-learn", extra="sim"),
    errors.ContractError("wrong gradient"),
    errors.StateError("state"),
    errors.StorageError("disk"),
    errors.WorkerLostError("lost twice"),
    errors.CellsFailedError("2 of 4 cells failed"),
    errors.UndecidedError("no yardstick"),
    errors.ProtocolError("signature", "forged"),
    errors.AggregationAborted("too few"),
    errors.AttestationError("nonce", "another nonce"),
    errors.RunInterrupted("stopped", directory="runs/a"),
    errors.ServiceError("rate", "too many", retry_after=2.0),
]


def test_the_list_above_is_complete():
    classes = {v for v in vars(errors).values() if isinstance(v, type) and issubclass(v, errors.MatlError)}
    assert {type(error) for error in ONE_OF_EACH} == classes
    assert {kind.__name__ for kind in classes} | {"nearest"} == set(errors.__all__)


@pytest.mark.parametrize("error", ONE_OF_EACH, ids=lambda e: type(e).__name__)
def test_an_error_crosses_a_process_boundary(error):
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert vars(again) == vars(error)


def test_standard_bases_let_callers_catch_what_they_know():
    assert issubclass(errors.InvalidValueError, ValueError)
    assert issubclass(errors.MissingExtraError, ImportError)
    assert issubclass(errors.StorageError, OSError)


def test_unknown_name_lists_everything_and_the_nearest():
    error = errors.UnknownNameError("attack", "sing_flip", ["sign_flip", "alie"])
    assert str(error) == "unknown attack 'sing_flip' (did you mean 'sign_flip'?); known: alie, sign_flip"
    assert str(errors.UnknownNameError("attack", "x", [])) == "unknown attack 'x'; known: none"


@pytest.mark.parametrize(("problems", "count"), [([], "0 problems"), (["a"], "1 problem"), (["a", "b"], "2 problems")])
def test_config_error_lists_every_problem(problems, count):
    lines = str(errors.ConfigError("run.yaml", problems)).rstrip("\n").split("\n")
    assert lines == [f"run.yaml: {count}", *(f"  - {problem}" for problem in problems)]
