"""Models and updates as users hold them, on one side; named arrays as a run has them, on the other.

torch, JAX, Keras and TensorFlow are told by what their objects can do, and are never imported here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from matl.errors import InvalidValueError, LayoutError, ProtocolError, nearest
from matl.params import ParamEntry, ParamLayout, Role, as_numpy

__all__ = ["difference", "fit", "layout_of", "scaled"]

_JOINS = (".", "/")  # how names of nested arrays are written, by torch and by most of JAX
_NUMBERS = "fiu"
_SHOWN = 4  # names in a message


def layout_of(entries: Sequence[Mapping[str, Any]]) -> ParamLayout:
    """The layout of a run, from `matl.protocol.messages.RunView.layout`.

    Raises
    ------
    ProtocolError
        ``"malformed"``: the coordinator sent something else.

    Examples
    --------
    >>> layout_of([{"name": "w", "shape": [2, 3], "dtype": "float32", "role": "trainable"}]).size
    6
    """
    try:
        return ParamLayout(
            tuple(
                ParamEntry(
                    str(each["name"]),
                    tuple(int(length) for length in each["shape"]),
                    np.dtype(each["dtype"]).name,
                    Role(each["role"]),
                )
                for each in entries
            )
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ProtocolError("malformed", f"the coordinator's layout of the model cannot be read: {error!r}") from error


def fit(layout: ParamLayout, arrays: Any, *, what: str = "update", finite: bool = True) -> dict[str, NDArray[Any]]:
    """Arrays in any of the usual forms, as the named arrays of a layout.

    Parameters
    ----------
    layout : ParamLayout
        The run's, of d parameters.
    arrays : mapping, sequence, array or model
        One of

        - named arrays or tensors: a dict of NumPy arrays, a torch state dict;
        - nested ones, as JAX has them: names are joined by ``.`` or by ``/``, whichever the layout has;
        - a list in the layout's order: Keras's ``get_weights()``, Flower's lists;
        - one flat vector of shape (d,);
        - a torch module or a Keras model, whose state or weights are taken.

        Floating point is turned into the layout's type. Frozen arrays are left out, and buffers of integers, which the
        vector has no place for, become zeros whatever they hold.
    what : str
        What the arrays are, for messages.
    finite : bool
        Whether to refuse NaN and infinite values.

    Returns
    -------
    dict of str to array
        In the layout's order, with its names, shapes and dtypes.

    Raises
    ------
    LayoutError
        Names, numbers, shapes or dtypes are others; ``code`` says which.
    InvalidValueError
        There are NaN or infinite values, which are refused.

    Examples
    --------
    >>> layout = ParamLayout.of({"a.w": np.zeros((2, 1), np.float32), "a.b": np.zeros(1, np.float32)})
    >>> fit(layout, {"a": {"b": np.ones(1), "w": np.ones((2, 1))}})["a.b"]
    array([1.], dtype=float32)
    >>> fit(layout, [np.ones((1, 2)), np.ones(1)])
    Traceback (most recent call last):
        ...
    matl.errors.LayoutError: update: array 'a.w' has shape (1, 2), the model's has (2, 1): is it transposed?
    """
    named = _named(layout, _plain(arrays), what)
    result = {}
    for entry in layout.entries:
        if entry.role is Role.FROZEN:
            continue
        if not entry.in_vector:
            result[entry.name] = np.zeros(entry.shape, entry.dtype)
            continue
        result[entry.name] = _cast(entry, as_numpy(named[entry.name]), what, finite)
    return result


def difference(
    layout: ParamLayout, new: Any, old: Mapping[str, NDArray[Any]], *, finite: bool = True
) -> dict[str, NDArray[Any]]:
    """New minus old parameters: the update of a client that trained from ``old`` to ``new``.

    Parameters
    ----------
    layout : ParamLayout
        The run's.
    new : mapping, sequence, array or model
        In any form that `fit` takes.
    old : mapping of str to array
        As the round began, in the layout's form.
    finite : bool
        As in `fit`.

    Raises
    ------
    LayoutError, InvalidValueError
        As `fit`.

    Examples
    --------
    >>> layout = ParamLayout.of({"w": np.zeros(2, np.float32)})
    >>> difference(layout, {"w": np.array([1.5, 2.0])}, {"w": np.ones(2, np.float32)})
    {'w': array([0.5, 1. ], dtype=float32)}
    """
    fitting = fit(layout, new, what="new parameters", finite=finite)
    with np.errstate(over="ignore", invalid="ignore"):  # of what is not finite nothing comes out that is
        return {
            name: np.asarray(value - old[name]) if name in layout.slices else value for name, value in fitting.items()
        }


def scaled(layout: ParamLayout, arrays: Mapping[str, NDArray[Any]], factor: float) -> dict[str, NDArray[Any]]:
    """Arrays of a layout, those of its vector multiplied by a number; the dtypes stay."""
    return {
        name: np.asarray(value * np.asarray(factor, value.dtype)) if name in layout.slices else value
        for name, value in arrays.items()
    }


def _plain(arrays: Any) -> Any:
    """A model's arrays, where a model was given."""
    for method in ("state_dict", "get_weights"):
        if callable(getattr(arrays, method, None)):
            return getattr(arrays, method)()
    return arrays


def _named(layout: ParamLayout, arrays: Any, what: str) -> dict[str, Any]:
    """Arrays by the layout's names."""
    if isinstance(arrays, Mapping):
        leaves = list(_leaves(arrays))
        by_join = [{join.join(path): leaf for path, leaf in leaves} for join in _JOINS]
        wanted = {entry.name for entry in layout.entries}
        named = max(by_join, key=lambda each: len(wanted & each.keys()))
        _check_names(layout, named, what)
        return named
    if isinstance(arrays, list | tuple):
        leaves = list(_leaves(arrays))
        entries = [entry for entry in layout.entries if entry.role is not Role.FROZEN]
        if len(leaves) != len(entries):
            raise LayoutError(
                "names",
                f"{what}: got a list of {len(leaves)} arrays, the model has {len(entries)}, in this order: "
                f"{_listed([entry.name for entry in entries])}",
            )
        return {entry.name: leaf for entry, (_, leaf) in zip(entries, leaves, strict=True)}
    vector = as_numpy(arrays)
    if vector.shape == (layout.size,) and vector.dtype.kind in _NUMBERS:
        return dict(layout.unflatten(vector))
    got = f"an array of shape {vector.shape}" if vector.dtype.kind in _NUMBERS else f"a {type(arrays).__name__}"
    raise LayoutError(
        "size",
        f"{what}: expected named arrays, a list of arrays or a vector of shape ({layout.size},), got {got}",
    )


def _leaves(tree: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Arrays of a nested structure, each with where it stands."""
    if isinstance(tree, Mapping):
        for key, value in tree.items():
            yield from _leaves(value, (*path, str(key)))
    elif isinstance(tree, list | tuple):
        for index, value in enumerate(tree):
            yield from _leaves(value, (*path, str(index)))
    else:
        yield path, tree


def _check_names(layout: ParamLayout, named: Mapping[str, Any], what: str) -> None:
    entries = {entry.name: entry for entry in layout.entries}
    needed = [entry.name for entry in layout.entries if entry.in_vector]
    missing = [name for name in needed if name not in named]
    unknown = [name for name in named if name not in entries]
    if not missing and not unknown:
        return
    parts = []
    if missing:
        parts.append(f"missing {_listed(missing)}")
    if unknown:
        parts.append(f"unknown {unknown[0]!r}{nearest(unknown[0], entries)}" + _more(len(unknown) - 1))
    raise LayoutError("names", f"{what}: {'; '.join(parts)}; the model's arrays are {_listed(list(entries))}")


def _cast(entry: ParamEntry, value: NDArray[Any], what: str, finite: bool) -> NDArray[Any]:
    """An array as its entry wants it."""
    if value.shape != entry.shape:
        hint = ": is it transposed?" if value.shape == entry.shape[::-1] else ""
        raise LayoutError(
            "shape", f"{what}: array {entry.name!r} has shape {value.shape}, the model's has {entry.shape}{hint}"
        )
    # JAX's bfloat16 is none of NumPy's own kinds.
    if value.dtype.kind not in _NUMBERS and value.dtype.name != "bfloat16":
        raise LayoutError("dtype", f"{what}: array {entry.name!r} has dtype {value.dtype}, expected {entry.dtype}")
    with np.errstate(over="ignore"):  # what is too large becomes infinite, and is told here
        result = value.astype(entry.dtype)
    if finite and (bad := int(result.size - np.isfinite(result).sum())):
        raise InvalidValueError(
            f"{what}: {bad} of {result.size} values of {entry.name!r} are NaN or infinite (as {entry.dtype}): training "
            "diverged; lower the learning rate, or clip gradients"
        )
    return result


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:_SHOWN])) + _more(len(names) - _SHOWN)


def _more(count: int) -> str:
    return f" and {count} more" if count > 0 else ""
